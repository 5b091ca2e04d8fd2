"""The report of `reszoo lab ablation`, from its record alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from reszoo.lab.ablation import IDENTITY, VARIANTS
from reszoo.reporting.page import Page, Section, Table, mean_and_deviation
from reszoo.reporting.plots import Plot, Theme, band, log_ticks
from reszoo.types import JsonObject

KINDS = {1: "shortcuts", 2: "orders of activations"}
FAILED = 20.0  # percent of test error from which the paper says "fail"


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `ablation` wrote."""
    results, settings, found = record["results"], record["settings"], record["results"]["measures"]
    rows = results["variants"]
    cells = [
        [
            VARIANTS[name].text,
            f"{row['parameters']:,}",
            mean_and_deviation(row["training_error"]),
            mean_and_deviation(row["test_error"]),
            f"{found[name]['test_gap']:+.2f}",
            VARIANTS[name].published,
            mean_and_deviation(row["seconds"], 0),
        ]
        for name, row in rows.items()
    ]
    headers = (
        "block",
        "parameters",
        "training error, %",
        "test error, %",
        "test error minus identity's",
        "published test error, %",
        "training, s",
    )
    note = (
        "At the end of training: mean ± sample deviation over seeds. Training error: all training "
        "images, not augmented. Batch norm uses the statistics of training. Published: arXiv "
        "1603.05027, tables 1 and 2, ResNet-110 on CIFAR-10; fail: above 20 %."
    )
    setup = [
        ["model", f"resnet{settings['depth']}, option A where the shape changes"],
        ["data", f"{settings['data']}, {results['data']['examples']['train']:,} training images"],
        [
            "training",
            f"{results['steps']:,} steps of {results['recipe']['train']['batch_size']} images, "
            f"{settings['seeds']} seeds",
        ],
    ]
    plots = [
        Plot(
            "errors",
            "Test error at the end of training; dots: seeds, lines: means. Diamonds: published for "
            "ResNet-110 on CIFAR-10; an arrow: fail, above 20 %.",
            lambda figure, theme: _draw_errors(figure, theme, rows),
            (8.0, 1.0 + 0.32 * len(rows)),
        ),
        Plot(
            "curves",
            "Training error against steps. Gray: the identity in the original order. Bands: sample "
            "deviation over seeds.",
            lambda figure, theme: _draw_curves(figure, theme, rows),
            (9.0, 0.8 + 1.6 * _panel_rows(rows)),
        ),
    ]
    sections = [
        Section("Errors", [*plots, Table(headers, cells, note)]),
        Section("Setup", [Table([], setup)]),
    ]
    return Page("Other shortcuts and orders of activations", _describe(record), sections)


def _describe(record: JsonObject) -> str:
    found, rows = record["results"]["measures"], record["results"]["variants"]
    parts = [f"the identity in the original order has {found[IDENTITY]['test_error']:.2f} %"]
    for table, kind in KINDS.items():
        errors = {
            VARIANTS[name].text: found[name]["test_error"]
            for name in rows
            if VARIANTS[name].table == table
        }
        if errors:
            best, worst = min(errors, key=errors.__getitem__), max(errors, key=errors.__getitem__)
            parts.append(
                f"of other {kind} the best is {best} with {errors[best]:.2f} % and the worst "
                f"{worst} with {errors[worst]:.2f} %"
            )
    depth = record["settings"]["depth"]
    return f"Test error of resnet{depth} on {record['settings']['data']}: {'; '.join(parts)}."


def _color(name: str, theme: Theme) -> str:
    return theme.residual if name == IDENTITY else theme.others[VARIANTS[name].table - 1]


def _draw_errors(figure: Figure, theme: Theme, rows: JsonObject) -> None:
    axes = figure.subplots()
    names = list(rows)[::-1]
    errors = [error for row in rows.values() for error in row["test_error"]]
    low, high = max(0.2, 0.8 * min(errors)), 100.0
    for place, name in enumerate(names):
        own, color = [max(low, error) for error in rows[name]["test_error"]], _color(name, theme)
        axes.plot(own, [place] * len(own), "o", color=color, markersize=5, alpha=0.7)
        axes.plot([np.mean(own)] * 2, [place - 0.3, place + 0.3], color=color, linewidth=2)
        published = VARIANTS[name].published
        mark = ">" if published == "fail" else "D"
        at = FAILED if published == "fail" else float(published)
        axes.plot(at, place, mark, markersize=5, markeredgecolor=theme.ink, markerfacecolor="none")
    axes.axvline(FAILED, color=theme.ink, linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlim=(low, high), xlabel="test error, top-1 (%)")
    axes.set_yticks(range(len(names)), [VARIANTS[name].text for name in names])
    log_ticks(axes.xaxis, low, high)


def _panel_rows(rows: Sequence[str] | JsonObject) -> int:
    return max(1, -(-(len(rows) - 1) // 4))


def _draw_curves(figure: Figure, theme: Theme, rows: JsonObject) -> None:
    grid = figure.subplots(_panel_rows(rows), 4, sharex=True, sharey=True, squeeze=False)
    others = [name for name in rows if name != IDENTITY]
    for axes in grid.flat[len(others) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, others, strict=False):
        for each in (IDENTITY, name):
            color = theme.ink if each == IDENTITY else _color(each, theme)
            style: JsonObject = {"alpha": 0.4} if each == IDENTITY else {}
            band(axes, rows[each]["steps"], rows[each]["training_curve"], color, **style)
        axes.set_title(VARIANTS[name].text, fontsize=8)
        axes.set(ylim=(0, 100))
    figure.supxlabel("steps", fontsize=10)
    figure.supylabel("training error, top-1 (%)", fontsize=10)
