"""The report of `reszoo lab landscape`, from its record alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from reszoo.reporting.page import Page, Section, Table
from reszoo.reporting.plots import Plot, Theme, log_ticks
from reszoo.types import Array, JsonObject

TITLES = {"trained": "batch norm as trained", "batch": "batch norm of the images"}
LARGEST = 1e4  # losses beyond this are drawn at it


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `landscape` wrote."""
    models = record["results"]["models"]
    shown = ", ".join(f"{m['name']} {100 * m['trained']['nonconvex']:.0f} %" for m in models)
    finding = f"Share of the plane around each model at which the loss is not convex: {shown}."
    rows = [
        [
            model["name"],
            TITLES[statistics],
            f"{model[statistics]['center']:.3g}",
            f"{100 * model[statistics]['nonconvex']:.0f} %",
            f"{model[statistics]['sharpness']:.3g}",
        ]
        for model in models
        for statistics in TITLES
    ]
    headers = ["model", "statistics", "loss", "not convex", "increase of the loss at 0.5"]
    note = (
        f"Mean cross-entropy over {record['settings']['images']} training images. Directions are "
        "random and filter-normalized, and 0 in biases and batch norms. Not convex: the smallest "
        "curvature on the plane is negative and more than a tenth of the largest."
    )
    planes = [
        Plot(
            f"plane_{statistics}",
            f"Loss on a plane through each model, {title}; at most {LARGEST:,.0f} is drawn.",
            partial(_draw_planes, models=models, statistics=statistics),
            (2.6 * len(models) + 0.8, 2.9),
        )
        for statistics, title in TITLES.items()
    ]
    lines = Plot(
        "lines",
        "Loss along two directions from each model.",
        lambda figure, theme: _draw_lines(figure, theme, models),
        (9.0, 3.8),
    )
    sections = [Section("Loss around trained models", [*planes, lines, Table(headers, rows, note)])]
    return Page("Loss landscape", finding, sections)


def _draw_planes(
    figure: Figure, theme: Theme, models: Sequence[JsonObject], statistics: str
) -> None:
    panels = figure.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
    colors = LinearSegmentedColormap.from_list("loss", [theme.background, theme.series[1]])
    planes = [_limit(model[statistics]["plane"]) for model in models]
    least = max(1e-3, min(plane.min() for plane in planes))
    norm = LogNorm(least, LARGEST)
    for axes, model, plane in zip(panels, models, planes, strict=True):
        side = np.linspace(-1, 1, len(plane))
        axes.pcolormesh(side, side, plane, cmap=colors, norm=norm, shading="nearest")
        levels = np.geomspace(max(plane.min(), least) * 1.3, LARGEST / 1.1, 14)
        axes.contour(side, side, plane, levels=levels, colors=theme.ink, linewidths=0.5)
        axes.set_title(f"{model['name']}\n{100 * model[statistics]['nonconvex']:.0f} % not convex")
        axes.title.set_fontsize(9)
        axes.set_xticks([-1, 0, 1])
        axes.set_yticks([-1, 0, 1])
        axes.grid(False)
    bar = figure.colorbar(panels[0].collections[0], ax=list(panels), label="loss")
    log_ticks(bar.ax.yaxis, least, LARGEST)


def _draw_lines(figure: Figure, theme: Theme, models: Sequence[JsonObject]) -> None:
    panels = figure.subplots(1, len(TITLES), sharey=True)
    depths = sorted({model["depth"] for model in models})
    for axes, (statistics, title) in zip(panels, TITLES.items(), strict=True):
        for model in models:
            color = theme.plain if model["kind"] == "plain" else theme.residual
            style = "--" if model["depth"] == depths[0] else "-"
            for number, line in enumerate(model[statistics]["lines"]):
                at = np.linspace(-1, 1, len(line))
                label = "" if number else model["name"]
                axes.plot(at, _limit(line), style, color=color, label=label)
        axes.set_title(title, fontsize=11)
        axes.set(xlabel="distance in norms of the filters", yscale="log")
    panels[0].set_ylabel("loss")
    lines = [line for model in models for key in TITLES for line in model[key]["lines"]]
    log_ticks(panels[0].yaxis, min(_limit(line).min() for line in lines), LARGEST)
    panels[-1].legend(fontsize=8)


def _limit(values: Sequence[float | None] | Sequence[Sequence[float | None]]) -> Array:
    """Return values as an array, with those that are not finite or too large at the limit."""
    array = np.array(values, np.float64)
    limited: Array = np.clip(np.nan_to_num(array, nan=LARGEST, posinf=LARGEST), 1e-4, LARGEST)
    return limited
