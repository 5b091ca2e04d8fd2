"""The report of `reszoo lab inference`, from its record alone."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from reszoo.lab.lesion_page import model_lines
from reszoo.reporting.page import Page, Section, Table
from reszoo.reporting.plots import Plot, Theme
from reszoo.types import JsonObject

STEPS = (
    "Left: mean cosine of a block's branch and the gradient of the loss with respect to the "
    "block's input; below 0 the step decreases the loss. Right: norm of the branch divided by that "
    "of the shortcut. Hollow: blocks that change the shape."
)
READ = (
    "Left: test accuracy of the model's own head on the output of each unit of the last stage. "
    "Right: that of a linear probe on each block (the stem is first)."
)
ESTIMATES = (
    "Difference of each block's output from that of the last block of its stage, in standard "
    "deviations of the latter. Left: standard deviation. Right: mean."
)
HEADERS = {
    "negative_share": "blocks with cosine < 0",
    "last_cosine": "cosine, last block",
    "late_minus_early": "cosine, last - first third",
    "ratio_fall": "ratio, second / first half of stages",
    "estimate_rank": "rank correlation, block and spread",
    "exit_first": "first exit, %",
    "exit_last": "last exit, %",
    "borderline_gain": "borderline gain, points",
    "unrolled_norm": "norm, last unit 21 times",
    "effective_depth": "effective depth",
}


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `inference` wrote."""
    models = record["results"]["models"]
    shown = [
        f"{100 * model['measures']['negative_share']:.0f} % in {key}"
        for key, model in models.items()
        if "negative_share" in model["measures"]
    ]
    finding = f"Blocks whose branch points along the negative gradient: {', '.join(shown)}."
    rows = [
        [key, *(_cell(model["measures"].get(name)) for name in HEADERS)]
        for key, model in models.items()
    ]
    note = (
        "Batch norm uses the statistics of training. Effective depth: share of the blocks at which "
        "a linear probe reaches 95 % of the best probe's accuracy. Borderline: images whose right "
        "class and best other class differ by less than 10 % of probability."
    )
    table = Table(["model", *HEADERS.values()], rows, note)
    reading = [
        Section("Reading", [Plot("read", READ, lambda f, t: _draw_read(f, t, models))]),
        Section("Measures", [table]),
    ]
    if not shown:
        return Page("Iterative inference", "The models have no residual blocks.", reading)
    steps = Plot("steps", STEPS, lambda f, t: _draw_units(f, t, models, ("cosine", "ratio")))
    estimates = Plot(
        "estimates", ESTIMATES, lambda f, t: _draw_units(f, t, models, ("spread", "bias"))
    )
    sections = [Section("Steps", [steps]), Section("Estimates", [estimates]), *reading]
    return Page("Iterative inference", finding, sections)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _draw_units(figure: Figure, theme: Theme, models: JsonObject, keys: tuple[str, str]) -> None:
    panels = figure.subplots(1, 2)
    for _, model, style in model_lines(theme, models):
        units = model["units"]
        if "ratio" not in units[0]:
            continue
        place = np.linspace(0, 1, len(units))
        faces = [style["color"] if unit["keeps_shape"] else theme.background for unit in units]
        for axes, key in zip(panels, keys, strict=True):
            values = [np.nan if unit[key] is None else unit[key] for unit in units]
            axes.plot(place, values, **style)
            axes.scatter(place, values, c=faces, edgecolors=style["color"], s=16, zorder=3)
    for axes, key in zip(panels, keys, strict=True):
        axes.set(xlabel="place of the block (0: first, 1: last)", ylabel=LABELS[key])
        axes.axhline(0, color=theme.ink, linewidth=0.8)
    panels[0].legend()


LABELS = {
    "cosine": "cosine of F and the gradient",
    "ratio": "|F| / |x|",
    "spread": "standard deviation of the difference",
    "bias": "mean difference",
}


def _draw_read(figure: Figure, theme: Theme, models: JsonObject) -> None:
    left, right = figure.subplots(1, 2)
    for _, model, style in model_lines(theme, models):
        exits = [100 * row["accuracy"] for row in model["exits"]]
        left.plot(np.linspace(0, 1, len(exits)), exits, "o-", markersize=4, **style)
        probes = [100 * value for value in model["probes"]]
        right.plot(np.linspace(0, 1, len(probes)), probes, "o-", markersize=3, **style)
    left.set(xlabel="place of the unit in the last stage", ylabel="test accuracy (%)")
    right.set(xlabel="place of the block (0: stem, 1: last)")
    left.legend()
