"""The report of `reszoo lab lesion`, from its record alone."""

from __future__ import annotations

from math import comb

import numpy as np
from matplotlib.figure import Figure

from reszoo.reporting.page import Page, Section, Table
from reszoo.reporting.plots import Plot, Theme
from reszoo.types import JsonObject


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `lesion` wrote."""
    models = record["results"]["models"]
    finding = "Largest error after deleting one block or layer that keeps the shape: "
    finding += ", ".join(
        f"{key} {model['measures']['largest_error']:.1f} % (whole {model['error']:.1f} %)"
        for key, model in models.items()
    )
    rows = [
        [key, *(_cell(model["measures"].get(name)) for name in HEADERS)]
        for key, model in models.items()
    ]
    note = (
        "Batch norm uses the statistics of training; nothing is trained again. Units: blocks of "
        "residual models, layers of plain ones. Short paths: at most 17/54 of the blocks."
    )
    sections = [
        Section(
            "One unit deleted", [Plot("deleted", DELETED, lambda f, t: _draw_one(f, t, models))]
        ),
        Section("Several units", [Plot("several", SEVERAL, lambda f, t: _draw_two(f, t, models))]),
    ]
    if any("gradient" in model for model in models.values()):
        plot = Plot("gradient", GRADIENT, lambda f, t: _draw_gradient(f, t, models))
        sections.append(Section("Paths", [plot]))
    table = Table(["model", *HEADERS.values()], rows, note)
    return Page("Lesions", f"{finding}.", [*sections, Section("Measures", [table])])


DELETED = (
    "Test error after one block (residual) or layer (plain) is deleted, from the input to the "
    "output. Hollow: units that change the shape of their input; of a block the shortcut stays."
)
SEVERAL = (
    "Left: test error after random units are deleted. Right: test error after random pairs of "
    "equal shape are swapped, against Kendall's tau with the original order. Dots: means."
)
GRADIENT = (
    "Left: norm of the gradient at the image along a path through so many branches, relative to "
    "that of the path without branches. Right: the same times the number of such paths, as a "
    "share of the whole."
)
HEADERS = {
    "unnoticed_share": "deletions that cost < 5 points",
    "chance_share": "deletions to chance",
    "largest_error": "largest error, %",
    "downsampling_extra": "extra points at downsampling",
    "several_rank": "rank correlation, deletions and error",
    "reordered_rank": "rank correlation, tau and error",
    "gradient_per_block": "gradient per branch",
    "gradient_fit": "R² of the exponential",
    "gradient_short_share": "share of short paths",
}


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def model_lines(theme: Theme, models: JsonObject) -> list[tuple[str, JsonObject, JsonObject]]:
    """Return (name, model, style) of each model; the first of a kind has the color of the kind."""
    first, others = {"plain": theme.plain, "residual": theme.residual}, iter(theme.others * 9)
    return [
        (key, model, {"color": first.pop(model["kind"], None) or next(others), "label": key})
        for key, model in models.items()
    ]


def _draw_one(figure: Figure, theme: Theme, models: JsonObject) -> None:
    axes = figure.subplots()
    for _, model, style in model_lines(theme, models):
        units = model["units"]
        place = np.linspace(0, 1, len(units))
        errors = [np.nan if unit["error"] is None else unit["error"] for unit in units]
        faces = [style["color"] if unit["keeps_shape"] else theme.background for unit in units]
        axes.plot(place, errors, **style)
        axes.scatter(place, errors, c=faces, edgecolors=style["color"], s=26, zorder=3)
        axes.axhline(model["error"], color=style["color"], linestyle=":", linewidth=1)
    axes.set(xlabel="place of the unit (0: first, 1: last)", ylabel="test error (%)")
    axes.set_ylim(0, 100)
    axes.legend()


def _draw_two(figure: Figure, theme: Theme, models: JsonObject) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    for _, model, style in model_lines(theme, models):
        counts = [row["deleted"] for row in model["several"]]
        left.plot(counts, [np.mean(row["errors"]) for row in model["several"]], "o-", **style)
        taus = [np.mean(row["tau"]) for row in model["reordered"]]
        right.plot(taus, [np.mean(row["errors"]) for row in model["reordered"]], "o", **style)
    left.set(xlabel="deleted units", ylabel="test error (%)", ylim=(0, 100))
    right.set(xlabel="Kendall's tau")
    right.invert_xaxis()
    left.legend()


def _draw_gradient(figure: Figure, theme: Theme, models: JsonObject) -> None:
    left, right = figure.subplots(1, 2)
    for _, model, style in model_lines(theme, models):
        if norms := model.get("gradient"):
            share = np.arange(len(norms)) / (len(norms) - 1)
            total = np.array(norms) * [comb(len(norms) - 1, k) for k in range(len(norms))]
            left.plot(share, np.log10(np.array(norms) / norms[0]), **style)
            right.plot(share, total / total.sum(), **style)
    left.set(xlabel="branches on the path / blocks", ylabel="log10 of the gradient")
    right.set(xlabel="branches on the path / blocks", ylabel="share of the gradient")
    left.legend()
