"""The figures of a run: curves, as figures 1, 4 and 6 of arXiv 1512.03385, and confusion matrix."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reszoo.errors import ReszooError
from reszoo.files import atomic_path
from reszoo.reporting.plots import LIGHT, Plot, Theme, legend_below, log_ticks, render
from reszoo.types import Array

CELL_TEXT = 20
"""With at most this many classes, each cell of the matrix shows its number."""
NAMED_CLASSES = 60
"""With at most this many classes, the axes of the matrix show their names; else indices."""
DRAWN_CELLS = 250
"""At most this many rows and columns of the matrix are drawn."""
LONGEST_NAME = 20  # characters of a class name

TRAIN, VALIDATION, PUBLISHED, RATE = "#7a9cc6", "#1f4e8c", "#b5402a", "#6b6b6b"


def draw_curves(
    history: Sequence[Mapping[str, float | None]],
    path: str | os.PathLike[str],
    *,
    rates: Sequence[tuple[int, float]] = (),
    title: str = "",
    published: float | None = None,
    source: str = "",
) -> None:
    """Draw error, loss (log axis) and learning rate against steps, as PNG and SVG files.

    Training is a thin line, validation a bold one. Light vertical lines mark drops of a stepped
    learning rate.

    Args:
        history: One row per evaluated epoch: `step`, and any of `accuracy`, `val_accuracy` (0..1),
            `loss`, `val_loss` and `rate`. A value that is absent, None or not finite is a gap.
        path: The PNG file; the SVG file has the same name.
        rates: The learning rate after each step, as (step, rate); by default `rate` of the rows.
        title: Title of the figure.
        published: A test error in percent, drawn as a dashed line.
        source: Where `published` is from.

    Raises:
        ReszooError: The history is empty.
    """
    if not history:
        raise ReszooError("no curves to draw: the history has no evaluated epoch")
    steps = np.array([row["step"] for row in history], float)
    unit, unit_name = (1000, "thousands of steps") if steps.max() >= 2000 else (1, "steps")
    steps /= unit
    columns = {
        name: _finite([row.get(name) for row in history])
        for name in ("accuracy", "val_accuracy", "loss", "val_loss", "rate")
    }
    errors = [100 * (1 - columns[name]) for name in ("accuracy", "val_accuracy")]
    rate_steps, rate_values = steps, columns["rate"]
    if rates:
        rate_steps, rate_values = np.array(rates, float).T / [[unit], [1]]

    def draw(figure: Figure, theme: Theme) -> None:
        grid = figure.add_gridspec(2, 2, width_ratios=(3, 2), height_ratios=(3, 1))
        error = figure.add_subplot(grid[:, 0])
        loss = figure.add_subplot(grid[0, 1], sharex=error)
        rate = figure.add_subplot(grid[1, 1], sharex=error)

        _plot_both(error, steps, *errors)
        if published is not None:
            label = f"published{source and f', {source}'}: {published:g} %"
            dashes = (0, (5, 3))
            error.axhline(published, color=PUBLISHED, linewidth=1.2, linestyle=dashes, label=label)
        error.set_ylim(*_error_limits(errors, published))
        error.set(ylabel="error (%)", xlabel=unit_name)

        _plot_both(loss, steps, columns["loss"], columns["val_loss"])
        losses = np.concatenate([columns["loss"], columns["val_loss"]])
        losses = losses[losses > 0]
        if losses.size:
            loss.set_yscale("log")
            low, high = losses.min() / 1.1, losses.max() * 1.1
            loss.set_ylim(low, high)
            log_ticks(loss.yaxis, low, high)
        loss.set_ylabel("loss (nats)")
        loss.tick_params(labelbottom=False)

        _plot(rate, rate_steps, rate_values, color=RATE)
        rate.set_ylim(bottom=0)
        rate.set(ylabel="learning rate", xlabel=unit_name)
        rate.grid(visible=False)
        for axes in (error, loss):
            for drop in _find_drops(rate_steps, rate_values):
                axes.axvline(drop, color=RATE, linewidth=0.8, alpha=0.35, zorder=0)
            axes.grid(visible=False, axis="x")
        # A published error with its source is too long for a legend inside a panel.
        named = {
            label: line
            for axes in (loss, error)
            for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if named:
            legend_below(figure, list(named.values()))
        error.set_xlim(0, 1.015 * max(steps.max(), 1 / unit))
        figure.suptitle(title, fontsize=12)

    _save(Plot("curves", title, draw, size=(10, 4.6)), path)


def draw_confusion(
    matrix: Sequence[Sequence[int]],
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str = "",
) -> None:
    """Draw a confusion matrix, one row per true class, as PNG and SVG files.

    The color of a cell is its share of its row. With at most `CELL_TEXT` classes the cell shows its
    count too.

    Args:
        matrix: `matrix[true][predicted]` counts examples.
        class_names: Of rows and columns.
        path: The PNG file; the SVG file has the same name.
        title: Title of the figure.

    Raises:
        ReszooError: The matrix does not have one row and column per class.
    """
    counts, classes = np.asarray(matrix, np.int64), len(class_names)
    if counts.shape != (classes, classes):
        raise ReszooError(
            f"a confusion matrix of shape {counts.shape} does not fit {classes} class names"
        )
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # With more classes than pixels, a drawn cell shows the largest share of a block of cells, so
    # that every confusion is visible.
    block = -(-classes // DRAWN_CELLS)
    drawn = _largest(shares, block)
    end = block * len(drawn) - 0.5
    named = classes <= NAMED_CLASSES

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        extent = (-0.5, end, end, -0.5)
        image = axes.imshow(
            drawn, cmap="Blues", vmin=0, vmax=100, interpolation="nearest", extent=extent
        )
        bar = figure.colorbar(image, ax=axes, shrink=0.8)
        bar.outline.set_visible(False)
        blocks = f", largest of {block} by {block} cells" if block > 1 else ""
        bar.set_label(f"share of the true class (%){blocks}")
        suffix = "" if named else " (index)"
        axes.set(xlabel=f"predicted class{suffix}", ylabel=f"true class{suffix}", title=title)
        if named:
            _name_classes(axes, class_names)
        if classes <= CELL_TEXT:
            size = min(9.0, 500 / classes / len(str(counts.max())))
            for row, column in np.argwhere(counts):
                color = "white" if shares[row, column] > 50 else theme.ink
                text = str(counts[row, column])
                axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)

    _save(Plot("confusion", title, draw, size=(7.4, 6.4)), path)


def _name_classes(axes: Axes, class_names: Sequence[str]) -> None:
    names = [
        name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
        for name in class_names
    ]
    size = 9 if len(names) <= CELL_TEXT else 5.5
    axes.set_xticks(range(len(names)), names, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    if max(map(len, names)) > 2:
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)


def _plot_both(axes: Axes, steps: Array, training: Array, validation: Array) -> None:
    _plot(axes, steps, training, label="training", color=TRAIN)
    _plot(axes, steps, validation, label="validation", color=VALIDATION, linewidth=2.2)


def _plot(
    axes: Axes, steps: Array, values: Array, *, color: str, label: str = "", linewidth: float = 1.1
) -> None:
    points = np.count_nonzero(np.isfinite(values))
    if points:
        (line,) = axes.plot(steps, values, color=color, label=label, linewidth=linewidth)
        if points < 3:
            line.set(marker="o", markersize=4)


def _error_limits(errors: Sequence[Array], published: float | None) -> tuple[float, float]:
    """Return the limits of the error axis.

    The first tenth of training is excluded, because it would flatten the rest. The axis starts at 0
    unless all values are far above.
    """
    late = np.concatenate([values[len(values) // 10 :] for values in errors])
    late = np.append(late[np.isfinite(late)], [] if published is None else [published])
    if not late.size:
        return 0, 100
    bottom = 10 * math.floor((late.min() - 2) / 10) if late.min() > 20 else 0
    return bottom, max(min(late.max() + 0.06 * (late.max() - bottom), 100), 0.5)


def _find_drops(steps: Array, rates: Array) -> list[float]:
    """Return the steps where a constant learning rate fell by more than a third at once."""
    constant = np.append(True, np.isclose(rates[1:], rates[:-1], rtol=1e-6, atol=0))
    drops = np.flatnonzero((rates[1:] < rates[:-1] / 1.5) & constant[:-1])
    return [float(step) for step in steps[drops]]


def _largest(matrix: Array, block: int) -> Array:
    """Return the largest value of each `block` by `block` square of a square matrix."""
    starts = np.arange(0, len(matrix), block)
    return np.maximum.reduceat(np.maximum.reduceat(matrix, starts, axis=0), starts, axis=1)


def _finite(values: Sequence[float | None]) -> Array:
    """Return the values as float64; NaN for those that are None or not finite."""
    array = np.array(values, float)
    return np.where(np.isfinite(array), array, math.nan)


def _save(plot: Plot, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG to `path`, and as SVG under the same name; equal plots, equal files."""
    svg = Path(path).with_suffix(".svg")
    with atomic_path(path) as png_part, atomic_path(svg) as svg_part:
        png_part.write_bytes(render(plot, LIGHT, "png", dpi=150))
        svg_part.write_bytes(render(plot, LIGHT, "svg"))
