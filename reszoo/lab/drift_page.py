"""The page of `reszoo lab drift`, from its record alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from reszoo.reporting.page import Page, Section, Table, base_name
from reszoo.reporting.plots import Draw, Plot, Theme


def present(record: dict[str, Any]) -> Page:
    """Return the page of a record that `drift` wrote."""
    settings, results = record["settings"], record["results"]
    stacked, control = results["stacked"], results["control"]
    rows, added, split = stacked["rows"], stacked["added"], settings["split"]
    name = base_name(settings["backbone"])
    ratios = [block["ratio"] for block in rows[-1]["blocks"] if block["block"] in added]
    ends = [arm["rows"][-1]["val_accuracy"] for arm in (stacked, control)]
    gain, chance = 100 * (ends[0] - ends[1]), _chance(ends, rows[-1]["examples"])
    verdict = f"{abs(gain):.1f} points {'more' if gain > 0 else 'less'}"
    if abs(gain) <= chance:
        verdict += f", within two standard errors for {rows[-1]['examples']:,} images"
    finding = (
        f"After {rows[-1]['step']:,} steps the branches of {len(added)} {settings['block']} blocks on {name} are {_range(ratios)} "
        f"as large as their inputs, and {split} accuracy is {100 * ends[0]:.1f} % with the blocks and {100 * ends[1]:.1f} % "
        f"without: {verdict}."
    )
    sections = [
        _start(settings, stacked),
        _drift(rows, added),
        _accuracies(settings, results, chance),
    ]
    return Page(
        f"Drift from the identity: {name} on {base_name(settings['data'])}", finding, sections
    )


def _start(settings: dict[str, Any], stacked: dict[str, Any]) -> Section:
    found, recipe = stacked["difference"], settings["recipe"]
    agreement = "agree bit for bit" if found == 0 else f"differ by at most {found:.3g}"
    setup = [
        ["largest difference on random inputs", f"{stacked['random_difference']:.3g}"],
        [
            "training",
            f"{settings['steps']:,} steps of {recipe['train']['batch_size']} images, the same with and without blocks",
        ],
        ["optimizer", f"{recipe['optimizer']['name']}, learning rate {settings['rate']:g}"],
    ]
    return Section(
        "The same function at first",
        [Table([], setup)],
        f"Before fine-tuning, the outputs with and without the blocks {agreement} on {settings['images']:,} {settings['split']} "
        "images.",
    )


def _drift(rows: Sequence[dict[str, Any]], added: Sequence[str]) -> Section:
    table = Table(
        ["block", "|F|/|x|", "cosine of output to input", "shortcut"],
        [
            [
                block["block"],
                _number(block["ratio"], 4),
                _number(block["cosine"], 5),
                "identity" if block["identity"] else "not identity",
            ]
            for block in rows[-1]["blocks"]
        ],
        note=f"After {rows[-1]['step']:,} steps, means over images. Of the identity, |F|/|x| is 0 and the cosine 1.",
    )
    own = "" if len(added) == len(rows[-1]["blocks"]) else " Thin lines: the backbone's own blocks."
    return Section(
        "Drift of each block",
        [
            Plot(
                "drift_ratio",
                "Norm of the branch over the norm of its input." + own,
                _lines(rows, added, "ratio"),
            ),
            Plot(
                "drift_cosine",
                "Cosine of a block's output to its input." + own,
                _lines(rows, added, "cosine"),
            ),
            table,
        ],
    )


def _accuracies(settings: dict[str, Any], results: dict[str, Any], chance: float) -> Section:
    split, stacked, control = settings["split"], results["stacked"], results["control"]
    arms = {
        "backbone": (results["backbone"], stacked["rows"][0]),
        "without the blocks": (control, control["rows"][-1]),
        "with the blocks": (stacked, stacked["rows"][-1]),
    }
    cells = [
        [
            label,
            f"{row['step']:,}",
            f"{100 * row['val_accuracy']:.2f} %",
            f"{100 * arm['test_accuracy']:.2f} %",
            f"{arm['parameters']:,}",
        ]
        for label, (arm, row) in arms.items()
    ]
    note = (
        f"{stacked['rows'][0]['examples']:,} {split} and {stacked['test_examples']:,} test images, one seed. Two standard errors "
        f"of a difference of {split} accuracies: {chance:.1f} points."
    )
    return Section(
        "Accuracy",
        [
            Plot(
                "drift_accuracy",
                f"Accuracy on the {split} images.",
                _accuracy(stacked, control, split),
            ),
            Table(
                ["model", "steps", f"{split} accuracy", "test accuracy", "parameters"], cells, note
            ),
        ],
    )


def _lines(rows: Sequence[dict[str, Any]], added: Sequence[str], key: str) -> Draw:
    labels = {
        "ratio": "|F| / |x| (mean over images)",
        "cosine": "cosine of output to input (mean over images)",
    }
    blocks = [block["block"] for block in rows[0]["blocks"]]
    steps = [row["step"] for row in rows]

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        colors = [
            theme.residual,
            *[color for color in theme.series if color not in (theme.residual, theme.plain)],
        ]
        for index, name in sorted(enumerate(blocks), key=lambda pair: pair[1] in added):
            values = [
                math.nan if (value := row["blocks"][index][key]) is None else value for row in rows
            ]
            if name in added:
                number = list(added).index(name)
                style = {
                    "color": colors[number % len(colors)],
                    "linewidth": 1.8,
                    "label": name,
                    "marker": "o",
                    "markersize": 3,
                }
                axes.plot(
                    steps, values, linestyle=("-", "--", ":")[number // len(colors) % 3], **style
                )
            else:
                axes.plot(steps, values, color=theme.ink, alpha=0.25, linewidth=0.8)
        axes.set_xlabel("steps of fine-tuning")
        axes.set_ylabel(labels[key])
        axes.set_xlim(0, steps[-1])
        axes.ticklabel_format(axis="y", useOffset=False)
        if key == "ratio":
            axes.set_ylim(bottom=0)
        axes.legend()

    return draw


def _accuracy(stacked: dict[str, Any], control: dict[str, Any], split: str) -> Draw:
    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        for arm, color, label in (
            (control, theme.plain, "without the blocks"),
            (stacked, theme.residual, "with the blocks"),
        ):
            rows = arm["rows"]
            values = [100 * row["val_accuracy"] for row in rows]
            axes.plot(
                [row["step"] for row in rows],
                values,
                color=color,
                label=label,
                linewidth=1.8,
                marker="o",
                markersize=3,
            )
        axes.set_xlabel("steps of fine-tuning")
        axes.set_ylabel(f"{split} accuracy (%)")
        axes.set_xlim(0, stacked["rows"][-1]["step"])
        axes.legend(loc="lower right")

    return draw


def _chance(accuracies: Sequence[float], examples: int) -> float:
    """Return two standard errors of the difference of two accuracies, in points, as if on different images."""
    return 100 * 2 * math.sqrt(sum(p * (1 - p) for p in accuracies) / examples)


def _range(values: Sequence[float | None]) -> str:
    kept = [value for value in values if value is not None]
    if not kept:
        return "not measurably"
    low, high = f"{100 * min(kept):.1f}", f"{100 * max(kept):.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
