"""The numbers of `reszoo lab identity` by form, depth and target, and its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reszoo.lab.stacks import FORMS, HELD, PLAIN, RESIDUAL, SMALL, ZERO, Form
from reszoo.reporting.plots import Draw, Theme, band, legend_below

FLOOR, TOP = 1e-4, 1e2
"""Relative errors beyond these are drawn at them."""
LINE_FLOOR, LINE_TOP = 1e-6, 1e1
"""The same for the line; a polynomial's error beyond is said, not drawn."""
MAIN = (PLAIN, RESIDUAL, SMALL, ZERO, HELD)


class Found:
    """A record's numbers by form, depth and target."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.results, self.settings = record["results"], record["settings"]
        self.depths: list[int] = self.settings["depths"]
        self.targets = list(self.results["targets"])
        self.pieces = {(piece["form"], piece["depth"]): piece for piece in self.results["stacks"]}

    def seeds(self, form: Form, depth: int, target: str, what: str = "error") -> list[float | None]:
        """Return the figure of each seed, such as the error, for a form at a depth."""
        values: list[float | None] = self.pieces[form.name, depth]["targets"][target][what]
        return values

    def error(self, form: Form, depth: int, target: str) -> float:
        """Return the median of the seeds' relative errors."""
        return median(self.seeds(form, depth, target))

    def steps(self, form: Form, depth: int, target: str, tolerance: str) -> list[float | None]:
        """Return the steps to a tolerance of each seed; None for a seed that did not reach it."""
        values: list[float | None] = self.pieces[form.name, depth]["targets"][target]["reached"][
            tolerance
        ]
        return values

    def over_depths(self, form: Form, target: str, what: str = "error") -> np.ndarray:
        """Return [seeds, depths], NaN where a stack diverged."""
        return np.array([self.seeds(form, depth, target, what) for depth in self.depths], float).T

    def over_targets(self, form: Form, depth: int, what: str = "error") -> np.ndarray:
        """Return [seeds, targets], NaN where a stack diverged."""
        return np.array([self.seeds(form, depth, target, what) for target in self.targets], float).T


def by_target(
    found: Found,
    draw: Callable[[Any, Theme, str], None],
    forms: Sequence[Form],
    label: str,
    columns: int,
) -> Draw:
    """Return what draws a panel for each target, three in a row, and one legend of `forms` beneath."""

    def whole(figure: Figure, theme: Theme) -> None:
        grid = figure.subplots(
            -(-len(found.targets) // 3), 3, sharex=True, sharey=True, squeeze=False
        )
        for axes, target in zip(grid.flat, found.targets, strict=False):
            draw(axes, theme, target)
            axes.set_title(_title(target), fontsize=10)
        for axes in grid[:, 0]:
            axes.set_ylabel(label)
        _legend(figure, theme, forms, columns)

    return whole


def over_depths(found: Found, axes: Any, theme: Theme, target: str) -> None:
    """Plot the error of every form over depth."""
    for form in FORMS:
        color, style = _look(form, theme)
        band(
            axes,
            np.log2(found.depths),
            _log(found.over_depths(form, target)),
            color,
            "",
            linestyle=style,
            marker="o",
            markersize=3,
        )
    _depth_axis(axes, found.depths)
    _log_axis(axes)


def over_steps(found: Found, axes: Any, theme: Theme, target: str) -> None:
    """Plot the error of the main forms over steps."""
    for form in MAIN:
        curve = next(curve for curve in found.results["curves"] if curve["form"] == form.name)
        color, style = _look(form, theme)
        band(axes, curve["steps"], _log(curve["targets"][target]), color, "", linestyle=style)
    axes.set_xlabel("steps")
    axes.label_outer()
    _log_axis(axes)


def steps_to(found: Found, axes: Any, theme: Theme, target: str, tolerance: str) -> None:
    """Plot the steps to a tolerance over depth."""
    never = 1.12 * found.settings["steps"]
    for form in MAIN:
        color, _ = _look(form, theme)
        seeds = np.array(
            [found.steps(form, depth, target, tolerance) for depth in found.depths], float
        )
        middle = np.median(np.where(np.isnan(seeds), np.inf, seeds), axis=1)
        # Forms stand side by side, lest the crosses of one hide the other's.
        x = np.log2(found.depths) + 0.09 * (MAIN.index(form) - (len(MAIN) - 1) / 2)
        axes.plot(x, np.where(np.isfinite(middle), middle, np.nan), color=color, linewidth=1.5)
        axes.plot(np.repeat(x, seeds.shape[1]), seeds.ravel(), "o", color=color, markersize=3)
        lost = ~np.isfinite(middle)
        axes.plot(x[lost], np.full(lost.sum(), never), "x", color=color, markersize=5)
    ticks = np.linspace(0, found.settings["steps"], 5)
    axes.set_yticks([*ticks, never], [*(f"{tick:,.0f}" for tick in ticks), "never"])
    _depth_axis(axes, found.depths)


def against_targets(figure: Figure, theme: Theme, found: Found, depths: Sequence[int]) -> None:
    """Plot the error against the distance of the target from the identity, one panel per depth."""
    panels = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for axes, depth in zip(panels, depths, strict=True):
        for form in MAIN:
            color, style = _look(form, theme)
            _distance_lines(axes, found, _log(found.over_targets(form, depth)), color, style)
        axes.set_title(f"depth {depth}", fontsize=10)
        _distance_axis(axes, found)
        _log_axis(axes)
    panels[0].set_ylabel("relative error")
    _legend(figure, theme, MAIN, 5)


def moves(figure: Figure, theme: Theme, found: Found) -> None:
    """Plot how far weights move from their initial values."""
    panels = figure.subplots(1, 3, sharey=True)
    middle = found.depths[len(found.depths) // 2]
    for form in MAIN:
        color, style = _look(form, theme)
        for axes, target in zip(panels, ("identity", "G"), strict=False):
            band(
                axes,
                np.log2(found.depths),
                found.over_depths(form, target, "move"),
                color,
                "",
                linestyle=style,
                marker="o",
                markersize=3,
            )
            axes.set_title(_title(target), fontsize=10)
            _depth_axis(axes, found.depths)
        _distance_lines(panels[2], found, found.over_targets(form, middle, "move"), color, style)
    panels[2].set_title(f"depth {middle}", fontsize=10)
    _distance_axis(panels[2], found)
    panels[0].set_ylabel("norm(H(x) - x) / norm(x)")
    panels[0].set_ylim(bottom=0)
    _legend(figure, theme, MAIN, 5)


def line_errors(
    figure: Figure, theme: Theme, fits: Sequence[Any], curves: Sequence[Any], forms: Sequence[Form]
) -> None:
    """Plot the errors of fitted curves."""
    noises, counts = (sorted({fit[key] for fit in fits}) for key in ("noise", "points"))
    grid = figure.subplots(len(noises), len(counts), sharex=True, sharey="row", squeeze=False)
    for row, noise in zip(grid, noises, strict=True):
        for axes, count in zip(row, counts, strict=True):
            for form in forms:
                own = [
                    fit
                    for fit in fits
                    if (fit["form"], fit["points"], fit["noise"]) == (form.name, count, noise)
                ]
                x = np.log2([fit["depth"] for fit in own])
                color, _ = _look(form, theme)
                fresh, training = (
                    _log(np.array([fit[what] for fit in own], float).T, LINE_FLOOR, LINE_TOP)
                    for what in ("fresh", "training")
                )
                band(axes, x, fresh, color, "", marker="o", markersize=3)
                # One row has no spread, and so no band: two of them on each other cannot be read.
                middle = np.ma.masked_invalid(training).mean(axis=0, keepdims=True).filled(np.nan)
                band(axes, x, middle, color, "", linestyle=":", marker="o", markersize=3)
            for curve in (
                curve for curve in curves if (curve["points"], curve["noise"]) == (count, noise)
            ):
                error = median(curve["fresh"])
                high = curve["degree"] > 1
                if error > LINE_TOP:
                    axes.text(
                        0.03,
                        0.96,
                        f"polynomial: {say(error)}, above",
                        color=theme.series[5],
                        transform=axes.transAxes,
                        va="top",
                        fontsize=9,
                    )
                else:
                    axes.axhline(
                        _log(error, LINE_FLOOR, LINE_TOP),
                        color=theme.series[5] if high else theme.ink,
                        linestyle="--" if high else "-.",
                        linewidth=1.3,
                    )
            axes.set_title(f"{count} points, noise {noise:g}", fontsize=10)
            _depth_axis(axes, sorted({fit["depth"] for fit in fits}))
            _log_axis(axes, LINE_FLOOR, LINE_TOP)
        row[0].set_ylabel("mean squared error")
    extra = [
        Line2D([], [], color=theme.ink, label="fresh"),
        Line2D([], [], color=theme.ink, linestyle=":", label="training"),
        Line2D([], [], color=theme.series[5], linestyle="--", label="polynomial, fresh"),
        Line2D([], [], color=theme.ink, linestyle="-.", label="straight line, fresh"),
    ]
    _legend(figure, theme, forms, 4, extra)


def _legend(
    figure: Figure, theme: Theme, forms: Sequence[Form], columns: int, extra: Sequence[Line2D] = ()
) -> None:
    handles = [
        Line2D(
            [], [], color=_look(form, theme)[0], linestyle=_look(form, theme)[1], label=form.name
        )
        for form in forms
    ]
    legend_below(figure, [*handles, *extra], columns)


def _look(form: Form, theme: Theme) -> tuple[str, str]:
    """Return a form's colour, by block and start, and line: dotted without ReLU."""
    start = {"small": theme.series[2], "zero": theme.series[3], "identity": theme.series[4]}
    color = start.get(form.start, theme.residual if form.residual else theme.plain)
    return color, ":" if form.linear else "-"


def _distance_lines(axes: Any, found: Found, values: np.ndarray, color: str, style: str) -> None:
    # -x is not on the way from x to G: no line leads there.
    way = [index for index, target in enumerate(found.targets) if target != "negation"]
    away = [index for index, target in enumerate(found.targets) if target == "negation"]
    for own in (way, away):
        band(
            axes,
            [_place(found, index) for index in own],
            values[:, own],
            color,
            "",
            linestyle=style,
            marker="o",
            markersize=3,
        )
    low, high = (
        (np.nanmin(values[:, away], axis=0), np.nanmax(values[:, away], axis=0))
        if away and np.isfinite(values[:, away]).any()
        else ([], [])
    )
    axes.vlines(
        [_place(found, index) for index in away][: len(low)],
        low,
        high,
        color=color,
        linewidth=1.5,
        alpha=0.5,
    )


def _distance_axis(axes: Any, found: Found) -> None:
    shown = [
        index
        for index, target in enumerate(found.targets)
        if target in ("identity", "t = 0.5", "G", "negation")
    ]
    names = {"identity": "0", "t = 0.5": "0.5", "G": "1", "negation": "-x"}
    axes.set_xticks(
        [_place(found, index) for index in shown], [names[found.targets[index]] for index in shown]
    )
    axes.set_xlabel("t")


def _place(found: Found, index: int) -> float:
    name = found.targets[index]
    return 1.35 if name == "negation" else float(found.results["targets"][name]["G"])


def _depth_axis(axes: Any, depths: Sequence[int]) -> None:
    axes.set_xticks(np.log2(depths), [str(depth) for depth in depths])
    axes.set_xlabel("depth (blocks)")
    axes.label_outer()


def _log_axis(axes: Any, floor: float = FLOOR, top: float = TOP) -> None:
    """Name powers of ten on an axis that holds logarithms, cut off at `floor` and `top`."""
    low, high = round(np.log10(floor)), round(np.log10(top))
    names = [f"{10.0**power:g}" for power in range(low, high + 1)]
    axes.set_yticks(range(low, high + 1), [f"≤ {names[0]}", *names[1:-1], f"≥ {names[-1]}"])
    axes.set_ylim(low - 0.2, high + 0.2)


def _title(target: str) -> str:
    return {"identity": "identity, t = 0", "G": "G, t = 1", "negation": "negation, -x"}.get(
        target, target
    )


def _log(values: Any, floor: float = FLOOR, top: float = TOP) -> Any:
    return np.log10(np.clip(np.asarray(values, float), floor, top))


def median(values: Sequence[float | None]) -> float:
    """Return the median of some seeds' values, None counting as worse than all."""
    return float(np.median([np.inf if value is None else value for value in values]))


def say(value: float) -> str:
    """Return a number to two digits, or "not finite"."""
    if not np.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if 100 <= value < 1e5 else f"{value:.2g}"
