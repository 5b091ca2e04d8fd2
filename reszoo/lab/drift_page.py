"""The report of `reszoo lab drift`, from its record alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from reszoo.reporting.page import Page, Section, Table, base_name
from reszoo.reporting.plots import Draw, Plot, Theme
from reszoo.types import JsonObject

LABELS = {
    "ratio": "|F| / |x|, mean over images",
    "cosine": "cosine of output to input, mean over images",
}
LINE: JsonObject = {"linewidth": 1.8, "marker": "o", "markersize": 3}


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `drift` wrote."""
    settings, results = record["settings"], record["results"]
    stacked, control = results["stacked"], results["control"]
    rows, added, split = stacked["rows"], stacked["added"], settings["split"]
    last, name = rows[-1], base_name(settings["backbone"])
    ratios = [block["ratio"] for block in last["blocks"] if block["block"] in added]
    ends = [arm["rows"][-1]["val_accuracy"] for arm in (stacked, control)]
    gain, errors = 100 * (ends[0] - ends[1]), _two_errors(ends, last["examples"])
    verdict = f"{abs(gain):.1f} points {'more' if gain > 0 else 'less'}"
    if abs(gain) <= errors:
        verdict += f", within two standard errors for {last['examples']:,} images"
    finding = (
        f"After {last['step']:,} steps the branches of {len(added)} {settings['block']} blocks on "
        f"{name} are {_percent_range(ratios)} as large as their inputs, and {split} accuracy is "
        f"{100 * ends[0]:.1f} % with the blocks and {100 * ends[1]:.1f} % without: {verdict}."
    )
    blocks = [
        [
            block["block"],
            _number(block["ratio"], 4),
            _number(block["cosine"], 5),
            "identity" if block["identity"] else "not identity",
        ]
        for block in last["blocks"]
    ]
    models = {
        "backbone": (results["backbone"], rows[0]),
        "without the blocks": (control, control["rows"][-1]),
        "with the blocks": (stacked, last),
    }
    accuracies = [
        [
            label,
            f"{row['step']:,}",
            f"{100 * row['val_accuracy']:.2f} %",
            f"{100 * arm['test_accuracy']:.2f} %",
            f"{arm['parameters']:,}",
        ]
        for label, (arm, row) in models.items()
    ]
    recipe = settings["recipe"]
    setup = [
        ["largest difference of an output before fine-tuning", f"{stacked['difference']:.3g}"],
        ["the same on random inputs", f"{stacked['random_difference']:.3g}"],
        ["training", f"{settings['steps']:,} steps of {recipe['train']['batch_size']} images"],
        ["optimizer", f"{recipe['optimizer']['name']}, learning rate {settings['rate']:g}"],
    ]
    own = "" if len(added) == len(blocks) else " Thin lines: the backbone's own blocks."
    sections = [
        Section(
            "Drift of each block",
            [
                *(
                    Plot(f"drift_{key}", f"{label}.{own}", _draw_blocks(rows, added, key))
                    for key, label in LABELS.items()
                ),
                Table(
                    ["block", "|F|/|x|", "cosine of output to input", "shortcut"],
                    blocks,
                    f"After {last['step']:,} steps, means over images. Of the identity, |F|/|x| is "
                    "0 and the cosine 1.",
                ),
            ],
        ),
        Section(
            "Accuracy",
            [
                Plot(
                    "drift_accuracy",
                    f"Accuracy on the {split} images.",
                    _draw_accuracy(stacked, control, split),
                ),
                Table(
                    ["model", "steps", f"{split} accuracy", "test accuracy", "parameters"],
                    accuracies,
                    f"{last['examples']:,} {split} and {stacked['test_examples']:,} test images, "
                    f"one seed. Two standard errors of a difference of {split} accuracies: "
                    f"{errors:.1f} points.",
                ),
            ],
        ),
        Section("Setup", [Table([], setup)]),
    ]
    title = f"Drift from the identity: {name} on {base_name(settings['data'])}"
    return Page(title, finding, sections)


def _draw_blocks(rows: Sequence[JsonObject], added: Sequence[str], key: str) -> Draw:
    names = [block["block"] for block in rows[0]["blocks"]]
    steps = [row["step"] for row in rows]

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        colors = [theme.residual, *theme.others]
        for index, name in sorted(enumerate(names), key=lambda pair: pair[1] in added):
            found = [row["blocks"][index][key] for row in rows]
            values = [math.nan if value is None else value for value in found]
            if name in added:
                cycle, color = divmod(list(added).index(name), len(colors))
                style = ("-", "--", ":")[cycle % 3]
                axes.plot(steps, values, style, color=colors[color], label=name, **LINE)
            else:
                axes.plot(steps, values, color=theme.ink, alpha=0.25, linewidth=0.8)
        axes.set(xlabel="steps of fine-tuning", ylabel=LABELS[key], xlim=(0, steps[-1]))
        axes.ticklabel_format(axis="y", useOffset=False)
        if key == "ratio":
            axes.set_ylim(bottom=0)
        axes.legend()

    return draw


def _draw_accuracy(stacked: JsonObject, control: JsonObject, split: str) -> Draw:
    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        for arm, color, label in (
            (control, theme.plain, "without the blocks"),
            (stacked, theme.residual, "with the blocks"),
        ):
            steps = [row["step"] for row in arm["rows"]]
            values = [100 * row["val_accuracy"] for row in arm["rows"]]
            axes.plot(steps, values, color=color, label=label, **LINE)
        axes.set(xlabel="steps of fine-tuning", ylabel=f"{split} accuracy (%)", xlim=(0, steps[-1]))
        axes.legend(loc="lower right")

    return draw


def _two_errors(accuracies: Sequence[float], examples: int) -> float:
    """Return two standard errors of a difference of accuracies on independent images, in points."""
    return 100 * 2 * math.sqrt(sum(p * (1 - p) for p in accuracies) / examples)


def _percent_range(values: Sequence[float | None]) -> str:
    kept = [value for value in values if value is not None]
    if not kept:
        return "not measurably"
    low, high = f"{100 * min(kept):.1f}", f"{100 * max(kept):.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
