"""The two figures of a run: its curves, like figures 1, 4 and 6 of arXiv 1512.03385, and its confusion matrix."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from reszoo.errors import ReszooError
from reszoo.files import atomic_path
from reszoo.reporting.plots import log_ticks

CELL_TEXT = 20
"""Up to this many classes each cell of the matrix holds its number."""
NAMED_CLASSES = 60
"""Up to this many classes the matrix's rows and columns carry names; beyond it, indices."""
DRAWN_CELLS = 250
"""At most this many cells a side are drawn."""

TRAIN, VALIDATION, PUBLISHED, RATE = "#7a9cc6", "#1f4e8c", "#b5402a", "#6b6b6b"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "text.parse_math": False,  # a class may be called "$x"
    "svg.fonttype": "none",
    "svg.hashsalt": "reszoo",
}


def curves(
    history: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    rates: Sequence[tuple[int, float]] = (),
    title: str = "",
    published: float | None = None,
    source: str = "",
) -> None:
    """Draw a run's top-1 error, loss (log axis) and learning rate against steps into a PNG file, and into an SVG file of the same name.

    Training is drawn thin, validation bold. Light vertical lines mark the drops of a stepped learning rate.

    Args:
        history: One row per evaluated epoch: `step` and any of `accuracy`, `val_accuracy` (0..1), `loss`, `val_loss` and
            `rate`. A value that is absent, None or not finite leaves a gap.
        path: The PNG file.
        rates: The learning rate after each step, as (step, rate); by default `rate` of the rows.
        title: A line above.
        published: A test error in percent, drawn as a dashed line.
        source: Where `published` is from.

    Raises:
        ReszooError: The history is empty.
    """
    if not history:
        raise ReszooError("no curves to draw: the history has no evaluated epoch")
    steps = np.array([float(row["step"]) for row in history])
    unit, unit_name = (1000, "thousands of steps") if steps.max() >= 2000 else (1, "steps")
    steps /= unit
    columns = {
        name: np.array([_number(row.get(name)) for row in history])
        for name in ("accuracy", "val_accuracy", "loss", "val_loss", "rate")
    }
    rate_steps, rate_values = steps, columns["rate"]
    if rates:
        rate_steps, rate_values = np.array(rates, float).T / [[unit], [1]]
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(3, 2), height_ratios=(3, 1))
        error = figure.add_subplot(grid[:, 0])
        loss = figure.add_subplot(grid[0, 1], sharex=error)
        rate = figure.add_subplot(grid[1, 1], sharex=error)

        errors = {name: 100 * (1 - columns[name]) for name in ("accuracy", "val_accuracy")}
        _line(error, steps, errors["accuracy"], "training", bold=False)
        _line(error, steps, errors["val_accuracy"], "validation", bold=True)
        if published is not None:
            label = (
                f"published, {source}: {published:g} %" if source else f"published: {published:g} %"
            )
            error.axhline(
                published, color=PUBLISHED, linewidth=1.2, linestyle=(0, (5, 3)), label=label
            )
        error.set_ylim(*_error_limits(list(errors.values()), published))
        error.set_ylabel("top-1 error (%)")
        error.set_xlabel(unit_name)

        _line(loss, steps, columns["loss"], "training", bold=False)
        _line(loss, steps, columns["val_loss"], "validation", bold=True)
        losses = np.concatenate([columns["loss"], columns["val_loss"]])
        losses = losses[np.isfinite(losses) & (losses > 0)]
        if losses.size:
            loss.set_yscale("log")
            low, high = losses.min() / 1.1, losses.max() * 1.1
            loss.set_ylim(low, high)
            log_ticks(loss.yaxis, low, high)
        loss.set_ylabel("loss (nats)")
        loss.tick_params(labelbottom=False)

        _line(rate, rate_steps, rate_values, "", bold=False, color=RATE)
        rate.set_ylim(bottom=0)
        rate.set_ylabel("learning rate")
        rate.set_xlabel(unit_name)
        for fall in _falls(rate_steps, rate_values):
            for axes in (error, loss):
                axes.axvline(fall, color=RATE, linewidth=0.8, alpha=0.35, zorder=0)
        for axes in (error, loss):
            axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
            axes.set_axisbelow(True)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="best", edgecolor="none", framealpha=0.9)
        error.set_xlim(0, 1.015 * max(steps.max(), 1 / unit))
        if title:
            figure.suptitle(title, fontsize=12)
        _save(figure, path)


def confusion(
    matrix: Sequence[Sequence[int]],
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str = "",
) -> None:
    """Draw a confusion matrix into a PNG file, and into an SVG file of the same name.

    There is one row per true class and one column per predicted class.

    A cell's color is its share of its row; with up to 20 classes the cell holds the count as well.

    Args:
        matrix: `matrix[true][predicted]` counts examples.
        class_names: Of rows and columns.
        path: The PNG file.
        title: A line above.

    Raises:
        ReszooError: The matrix does not have one row and column per class.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    if counts.shape != (len(class_names), len(class_names)):
        raise ReszooError(
            f"a confusion matrix of shape {counts.shape} does not fit {len(class_names)} class names"
        )
    classes = len(counts)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.4, 6.4), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[:].set_visible(False)
        # More classes than pixels: a drawn cell shows the largest share of a block, lest a confusion fall between two.
        block = -(-classes // DRAWN_CELLS)
        image = axes.imshow(
            _largest(shares, block),
            cmap="Blues",
            vmin=0,
            vmax=100,
            interpolation="nearest",
            extent=(
                -0.5,
                block * -(-classes // block) - 0.5,
                block * -(-classes // block) - 0.5,
                -0.5,
            ),
        )
        bar = figure.colorbar(image, ax=axes, shrink=0.8)
        bar.set_label(
            "share of the true class (%)"
            + (f", largest of {block} by {block} cells" if block > 1 else "")
        )
        bar.outline.set_visible(False)
        if classes <= NAMED_CLASSES:
            size = 9 if classes <= CELL_TEXT else 5.5
            names = [
                name if len(name) <= 20 else name[:19] + "\N{HORIZONTAL ELLIPSIS}"
                for name in class_names
            ]
            slanted = max(map(len, names)) > 2
            axes.set_xticks(
                range(classes),
                names,
                fontsize=size,
                rotation=45 if slanted else 0,
                ha="right" if slanted else "center",
                rotation_mode="anchor",
            )
            axes.set_yticks(range(classes), names, fontsize=size)
            axes.tick_params(length=0)
        axes.set_xlabel(
            "predicted class" if classes <= NAMED_CLASSES else "predicted class (index)"
        )
        axes.set_ylabel("true class" if classes <= NAMED_CLASSES else "true class (index)")
        if classes <= CELL_TEXT:
            size = min(9.0, 500 / classes / len(str(counts.max())))
            for row, column in zip(*np.nonzero(counts), strict=True):
                dark = shares[row, column] > 50
                axes.text(
                    column,
                    row,
                    str(counts[row, column]),
                    ha="center",
                    va="center",
                    fontsize=size,
                    color="white" if dark else "#222222",
                )
        if title:
            axes.set_title(title, fontsize=12)
        _save(figure, path)


def _line(
    axes: Axes, steps: np.ndarray, values: np.ndarray, label: str, *, bold: bool, color: str = ""
) -> None:
    shown = np.isfinite(values)
    if shown.any():
        axes.plot(
            steps,
            values,
            label=label,
            color=color or (VALIDATION if bold else TRAIN),
            linewidth=2.2 if bold else 1.1,
            marker="o" if np.count_nonzero(shown) < 3 else "",
            markersize=4,
        )


def _error_limits(errors: list[np.ndarray], published: float | None) -> tuple[float, float]:
    """Leave out the first tenth of training, which would flatten the rest, and start from 0 unless all is far above."""
    late = np.concatenate([values[len(values) // 10 :] for values in errors])
    late = np.append(late[np.isfinite(late)], [] if published is None else [published])
    if not late.size:
        return 0, 100
    bottom = 10 * math.floor((late.min() - 2) / 10) if late.min() > 20 else 0
    return bottom, max(min(late.max() + 0.06 * (late.max() - bottom), 100), 0.5)


def _falls(steps: np.ndarray, rates: np.ndarray) -> list[float]:
    """Return where a level rate fell by more than a third at once; a smooth schedule has no such place."""
    level = np.append(True, np.isclose(rates[1:], rates[:-1], rtol=1e-6, atol=0))
    return [float(steps[i]) for i in np.flatnonzero((rates[1:] < rates[:-1] / 1.5) & level[:-1])]


def _largest(matrix: np.ndarray, block: int) -> np.ndarray:
    """Return the largest value of each `block` by `block` square of a square matrix."""
    cells = -(-len(matrix) // block)
    padding = cells * block - len(matrix)
    padded = np.pad(matrix, ((0, padding), (0, padding)))
    pooled: np.ndarray[Any, np.dtype[Any]] = padded.reshape(cells, block, cells, block).max(
        axis=(1, 3)
    )
    return pooled


def _number(value: Any) -> float:
    return float(value) if value is not None and math.isfinite(float(value)) else math.nan


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG to `path`, and as SVG under the same name; equal figures give equal files."""
    look = {"bbox_inches": "tight", "pad_inches": 0.12}
    with (
        warnings.catch_warnings(),
        atomic_path(path) as png,
        atomic_path(Path(path).with_suffix(".svg")) as svg,
    ):
        # A name in a script that the font lacks is drawn as boxes; that is worth no warning for each letter.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        FigureCanvasAgg(figure).print_figure(png, dpi=150, format="png", **look)
        FigureCanvasSVG(figure).print_figure(svg, format="svg", metadata={"Date": None}, **look)
