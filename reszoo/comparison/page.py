"""The report of a comparison: curves with bands, scores by recipe, paired differences, runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reszoo.comparison.groups import Group
from reszoo.comparison.seeds import PERCENT
from reszoo.comparison.statistics import CONFIDENCE, Difference
from reszoo.reporting.page import Page, Section, Table, mean_and_deviation, provenance
from reszoo.reporting.plots import Plot, Theme, band, legend_below
from reszoo.training.environment import command_line, environment

STYLES = ("-", "--", ":", "-.")
PANELS = {"accuracy": "training images", "val_accuracy": "validation images"}
LEVEL = f"{100 * CONFIDENCE:.0f} %"
ASSUMPTIONS = (
    "Second - first, of the seeds that both have. The interval of the mean is Student's t. It "
    "assumes that the differences of the seeds are independent and nearly normal. It does not "
    "cover the choice of the test images, and is not corrected for several comparisons. A single "
    "pair has no interval."
)


@dataclass(frozen=True)
class Pair:
    """Two groups with the same test images, and their difference in a score."""

    first: Group
    second: Group
    difference: Difference


def format_mean(values: Sequence[float | None], score: str) -> str:
    """Return mean and sample deviation of values of a score; "-" for none."""
    return mean_and_deviation(values, _digits(score))


def describe_difference(found: Difference, score: str) -> str:
    """Return a difference in a score with its interval and the number of seeds."""
    digits = _digits(score)
    interval = format_interval(found, digits)
    shown = f"{LEVEL} interval {interval}" if interval else "no interval"
    return f"{found.mean:+.{digits}f} ({shown}; seeds: {len(found.seeds)})"


def format_interval(found: Difference, digits: int) -> str:
    """Return the interval of a difference, "" if it has none."""
    if found.interval is None:
        return ""
    return " to ".join(f"{limit:+.{digits}f}" for limit in found.interval)


def list_cells(groups: Sequence[Group]) -> tuple[list[str], list[list[object]]]:
    """Return headers, and one row per run."""
    scores = _score_names(groups)
    headers = ["recipe", *groups[0].settings, "seed", "status", "epochs", *scores]
    rows: list[list[object]] = [
        [
            group.label,
            *group.settings.values(),
            run.seed,
            run.meta.get("status", ""),
            run.epochs,
            *(run.scores.get(name, "") for name in scores),
            run.meta.get("seconds", ""),
            str(run.run.path),
        ]
        for group in groups
        for run in group.runs
    ]
    return [*headers, "seconds", "folder"], rows


def make_page(groups: Sequence[Group], pairs: Sequence[Pair], score: str, finding: str) -> Page:
    """Return the report.

    Args:
        groups: The runs by recipe.
        pairs: The paired differences.
        score: The compared score.
        finding: The result in one sentence.
    """
    names = [score, *(name for name in _score_names(groups) if name != score)]
    scores = Table(
        ["recipe", "runs", *map(_title, names), "training, s"],
        [
            [
                group.label,
                str(len(group.runs)),
                *(format_mean(list(group.values(name).values()), name) for name in names),
                mean_and_deviation([run.meta.get("seconds") for run in group.runs], 0),
            ]
            for group in groups
        ],
        "Test scores of finished runs: mean ± sample standard deviation (n - 1) over seeds.",
    )
    settings = Table(
        ["key", *(group.label for group in groups)],
        [[key, *(group.settings[key] for group in groups)] for key in groups[0].settings],
    )
    differences = Table(
        ["second", "first", f"difference in {_title(score)}", f"{LEVEL} interval", "seeds"],
        [
            [
                pair.second.label,
                pair.first.label,
                f"{pair.difference.mean:+.{_digits(score)}f}",
                format_interval(pair.difference, _digits(score)) or "-",
                ", ".join(map(str, pair.difference.seeds)),
            ]
            for pair in pairs
        ],
        ASSUMPTIONS,
    )
    runs = Table(
        ["recipe", "seed", "status", "epochs", _title(score), "training, s", "folder"],
        [
            [
                group.label,
                str(run.seed),
                run.meta.get("status", ""),
                str(run.epochs),
                format_mean([run.scores.get(score)], score),
                mean_and_deviation([run.meta.get("seconds")], 0),
                str(run.run.path),
            ]
            for group in groups
            for run in group.runs
        ],
        "runs.csv has all scores of each run.",
    )
    plot = Plot(
        "curves",
        "Error (1 - accuracy) against epochs: mean of the runs, with their sample standard "
        "deviation as a band. Training images are augmented.",
        lambda figure, theme: _draw(figure, theme, groups),
        (9.0, 4.0 + 0.22 * len(groups)),
    )
    sections = [
        Section("Curves", [plot]),
        Section("Scores", [scores]),
        *([Section("Paired differences", [differences])] if pairs else []),
        *([Section("Keys in which the recipes differ", [settings])] if settings.rows else []),
        Section("Runs", [runs]),
    ]
    foot = provenance(command_line(), environment(), "the run folders by the same command")
    return Page("Comparison of runs", finding, sections, foot)


def _score_names(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(key for group in groups for run in group.runs for key in run.scores))


def _title(score: str) -> str:
    return score.replace("_", " ") + (", %" if score in PERCENT else "")


def _digits(score: str) -> int:
    return 2 if score in PERCENT else 4


def _draw(figure: Figure, theme: Theme, groups: Sequence[Group]) -> None:
    keys = [
        key
        for key in PANELS
        if any(key in row for group in groups for run in group.runs for row in run.history)
    ]
    panels = np.atleast_1d(figure.subplots(1, max(len(keys), 1), sharey=True))
    for panel, key in zip(panels, keys, strict=False):
        for number, group in enumerate(groups):
            epochs, errors = group.curve(key)
            turn, place = divmod(number, len(theme.series))
            style = {"linestyle": STYLES[turn % len(STYLES)], "linewidth": 1.8}
            marker = "o" if len(epochs) == 1 else ""
            band(panel, epochs, errors, theme.series[place], group.label, marker=marker, **style)
        panel.set_title(PANELS[key], fontsize=11)
        panel.set_xlabel("epochs")
        panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    panels[0].set_ylabel("error (%)")
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(max(low, -1), min(high, 101))  # a band may leave 0..100
    legend_below(figure, panels[-1].get_lines(), columns=1)
