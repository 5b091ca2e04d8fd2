"""The page of `reszoo lab drift`, from its record alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from reszoo.lab.page import Draw, Plot, Section, Table, Theme


def present(record: dict[str, Any]) -> tuple[str, str, list[Section]]:
    """Return (title, one sentence of what was found, sections) of a record that `drift` wrote."""
    settings, results = record["settings"], record["results"]
    stacked, control, before = results["stacked"], results["control"], results["backbone"]
    rows, added = stacked["rows"], stacked["added"]
    name = _name(settings["backbone"])
    last = [block for block in rows[-1]["blocks"] if block["block"] in added]
    ends = [arm["rows"][-1]["val_accuracy"] for arm in (stacked, control)]
    gain, chance = 100 * (ends[0] - ends[1]), _chance(ends, rows[-1]["examples"])
    start = rows[0]["val_accuracy"]
    verdict = f"{abs(gain):.1f} points {'more' if gain > 0 else 'less'}"
    if abs(gain) <= chance:
        verdict += f", which {rows[-1]['examples']:,} images do not tell from chance"
    lead = (
        f"{len(added)} {settings['block']} blocks on {name}, the identity at first, had branches "
        f"{_range([block['ratio'] for block in last])} as large as what enters them after {rows[-1]['step']:,} steps; "
        f"{settings['split']} accuracy went from {100 * start:.1f} % to {100 * ends[0]:.1f} %, and to {100 * ends[1]:.1f} % "
        f"without the blocks: {verdict}."
    )
    return (
        f"Drift from the identity: {name} on {_name(settings['data'])}",
        lead,
        [_start(settings, stacked), _drift(rows, added), _bought(settings, before, stacked, control, chance)],
    )


def _start(settings: dict[str, Any], stacked: dict[str, Any]) -> Section:
    found = stacked["difference"]
    told = "agreed bit for bit" if found == 0 else f"differed by at most {found:.3g}"
    return Section(
        "The same function at first",
        [
            f"Before fine-tuning, the outputs of the backbone and of the stacked net {told} on {settings['images']} images "
            f"of the {settings['split']} part; on random inputs the largest difference was {stacked['random_difference']:.3g}. "
            f"Both nets were then trained for {settings['steps']:,} steps on the same batches of "
            f"{settings['recipe']['train']['batch_size']}, by the same optimizer "
            f"({settings['recipe']['optimizer']['name']}) at a learning rate of {settings['rate']:g}."
        ],
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
        note=f"After {rows[-1]['step']:,} steps, means over images.",
    )
    own = "" if len(added) == len(rows[-1]["blocks"]) else " Thin lines: the backbone's own blocks."
    return Section(
        "How far each block drifted",
        ["A block whose branch F gives 0 is the identity: |F|/|x| is 0 and the cosine of its output to its input 1."],
        [
            Plot("drift_ratio", "Norm of the branch over the norm of its input." + own, _lines(rows, added, "ratio")),
            Plot("drift_cosine", "Cosine of a block's output to its input." + own, _lines(rows, added, "cosine")),
            table,
        ],
    )


def _bought(settings: dict[str, Any], before: Any, stacked: Any, control: Any, chance: float) -> Section:
    split = settings["split"]
    arms = {"backbone": (before, stacked["rows"][0]), "without the blocks": (control, control["rows"][-1])}
    arms |= {"with the blocks": (stacked, stacked["rows"][-1])}
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
    sizes = f"{stacked['rows'][0]['examples']:,} {split} and {stacked['test_examples']:,} test images."
    return Section(
        "What it bought",
        [f"Of {split} accuracy, a difference below {chance:.1f} points is within two standard errors, from one seed."],
        [
            Plot("drift_accuracy", f"Accuracy on the {split} images.", _accuracy(stacked, control, split)),
            Table(["net", "steps", f"{split} accuracy", "test accuracy", "parameters"], cells, note=sizes),
        ],
    )


def _lines(rows: Sequence[dict[str, Any]], added: Sequence[str], key: str) -> Draw:
    labels = {"ratio": "|F| / |x| (mean over images)", "cosine": "cosine of output to input (mean over images)"}
    blocks = [block["block"] for block in rows[0]["blocks"]]
    steps = [row["step"] for row in rows]

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        colors = [theme.residual, *[color for color in theme.series if color not in (theme.residual, theme.plain)]]
        for index, name in sorted(enumerate(blocks), key=lambda pair: pair[1] in added):
            values = [math.nan if (value := row["blocks"][index][key]) is None else value for row in rows]
            if name in added:
                number = list(added).index(name)
                style = {
                    "color": colors[number % len(colors)],
                    "linewidth": 1.8,
                    "label": name,
                    "marker": "o",
                    "markersize": 3,
                }
                axes.plot(steps, values, linestyle=("-", "--", ":")[number // len(colors) % 3], **style)
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
                [row["step"] for row in rows], values, color=color, label=label, linewidth=1.8, marker="o", markersize=3
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


def _name(text: str) -> str:
    """Return what a backbone or set is called, without the folders it lies in."""
    return Path(text.removeprefix("folder:")).name
