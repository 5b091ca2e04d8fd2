"""The report of `reszoo lab identity`, from its record alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reszoo.lab.stacks import (
    FORMS,
    MAIN_FORMS,
    PLAIN,
    PLAIN_IDENTITY,
    RESIDUAL_SMALL,
    RESIDUAL_ZERO,
    Form,
)
from reszoo.lab.statistics import format_number, format_range, median
from reszoo.reporting.page import Page, Section, Table
from reszoo.reporting.plots import Plot, Theme, legend_below
from reszoo.types import JsonObject

ERRORS = (1e-4, 1e2)  # relative errors beyond these are drawn at them
LINE_ERRORS = (1e-6, 1e1)
SHOWN = ("identity", "G", "negation")
TICKS = {"identity": "0", "t = 0.5": "0.5", "G": "1", "negation": "-x"}
AT_NEGATION = 1.35  # where -x is drawn on the axis of t


class Results:
    """A record's numbers by form, depth and target."""

    def __init__(self, record: JsonObject) -> None:
        self.results, self.settings = record["results"], record["settings"]
        self.depths: list[int] = self.settings["depths"]
        self.targets: list[str] = list(self.results["targets"])
        self._stacks = {(row["form"], row["depth"]): row for row in self.results["stacks"]}

    def seeds(self, form: Form, depth: int, target: str, key: str = "error") -> Any:
        """Return what was measured, per seed."""
        return self._stacks[form.name, depth]["targets"][target][key]

    def error(self, form: Form, depth: int, target: str) -> float:
        """Return the median of the seeds' relative errors."""
        return median(self.seeds(form, depth, target))

    def place(self, target: str) -> float:
        """Return where a target is drawn on the axis of t."""
        return AT_NEGATION if target == "negation" else float(self.results["targets"][target]["G"])


Seeds: TypeAlias = Sequence[float | None]
Limits: TypeAlias = tuple[float, float]


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `identity` wrote."""
    found = Results(record)
    deep = found.depths[-1]

    def errors(form: Form) -> str:
        near, far, against = (format_number(found.error(form, deep, target)) for target in SHOWN)
        return f"{near} on the identity, {far} on a random model and {against} on -x"

    finding = (
        f"At depth {deep} residual stacks whose branches start small end with a relative error of "
        f"{errors(RESIDUAL_SMALL)}; plain ones with {errors(PLAIN)}; plain ones that start as the "
        f"identity with {errors(PLAIN_IDENTITY)}."
    )
    sections = [make(found) for make in (_by_depth, _by_target, _by_training, _line, _setup)]
    return Page("How hard is the identity?", finding, sections)


def _by_depth(found: Results) -> Section:
    deep = found.depths[-1]
    rows = [
        [form.name, *(format_range(found.seeds(form, deep, target)) for target in found.targets)]
        for form in FORMS
    ]
    plot = Plot(
        "error-depth",
        "Relative error at the end against depth, for each target: median and range of the seeds. "
        f"Values below {ERRORS[0]:g} or above {ERRORS[1]:g} are drawn there.",
        lambda figure, theme: _draw_depths(figure, theme, found),
        (9.0, 6.0),
    )
    note = f"Relative error at depth {deep}: median (lowest to highest) of the seeds."
    table = Table(["form", *found.targets], rows, note)
    return Section("Error against depth", [plot, table])


def _by_target(found: Results) -> Section:
    deep, depths = found.depths[-1], [f"depth {depth}" for depth in found.depths]
    gains, starts = [], []
    for target in found.targets:
        pairs = [
            [found.error(form, depth, target) for form in (PLAIN, RESIDUAL_SMALL)]
            for depth in found.depths
        ]
        gains.append(
            [
                target,
                *(
                    format_number(a / b) if np.isfinite([a, b]).all() and b else "-"
                    for a, b in pairs
                ),
            ]
        )
    for target in ("t = 0.5", "G"):
        forms = (PLAIN, PLAIN_IDENTITY, RESIDUAL_ZERO)
        plain, start, zero = values = [found.error(form, deep, target) for form in forms]
        share = "-"
        if np.isfinite(values).all() and plain > zero > 0 and start > 0:
            share = f"{100 * np.log(plain / start) / np.log(plain / zero):.0f} %"
        starts.append([target, *map(format_number, values), share])
    plot = Plot(
        "error-target",
        "Relative error at the end against the target's distance from the identity; at the right "
        "-x. Drawn as above.",
        lambda figure, theme: _draw_targets(figure, theme, found),
        (9.0, 4.2),
    )
    gain_note = (
        "Relative error of plain stacks divided by that of residual ones with a small start; above "
        "1 the residual form is better."
    )
    start_note = (
        f"Relative error at depth {deep}. Share: of the difference in orders of magnitude between "
        "plain and residual stacks, which starting plain stacks as the identity makes up."
    )
    headers = ["target", PLAIN.name, PLAIN_IDENTITY.name, RESIDUAL_ZERO.name, "share of the start"]
    tables = [Table(["target", *depths], gains, gain_note), Table(headers, starts, start_note)]
    return Section("Gain near the identity, cost far from it", [plot, *tables])


def _by_training(found: Results) -> Section:
    deep, tolerances = found.depths[-1], [f"{value:g}" for value in found.results["tolerances"]]
    total = found.settings["seeds"] * len(found.depths) * len(found.targets)
    rows = []
    for form in FORMS:
        steps = [
            found.seeds(form, depth, target, "reached")
            for depth in found.depths
            for target in found.targets
        ]
        reached = [sum(len(one[key]) - one[key].count(None) for one in steps) for key in tolerances]
        moves = [median(found.seeds(form, deep, target, "move")) for target in SHOWN]
        rows.append([form.name, *map(str, reached), *(f"{move:.2f}" for move in moves)])
    headers = ["form", *(f"error below {tolerance}" for tolerance in tolerances)]
    headers += [f"change of x, {target}" for target in SHOWN]
    note = (
        f"Number of {total} stacks that came below an error on new examples; and norm(H(x) - x) / "
        f"norm(x) of a block H at depth {deep} after training, mean over blocks, median of seeds."
    )
    return Section("Stacks that learned, and change of x", [Table(headers, rows, note)])


def _line(found: Results) -> Section:
    fits, curves = found.results["line"], found.results["polynomials"]
    deep = max(fit["depth"] for fit in fits)
    rows = []
    for fit in [*(fit for fit in fits if fit["depth"] == deep), *curves]:
        degree = fit.get("degree", 0)
        line = "straight line" if degree == 1 else f"polynomial of degree {degree}"
        errors = [format_number(median(fit[key])) for key in ("training", "fresh")]
        rows.append([str(fit["points"]), f"{fit['noise']:g}", fit.get("form", line), *errors])
    rows.sort(key=lambda row: (int(row[0]), float(row[1])))
    plot = Plot(
        "line",
        "Mean squared error on the line against depth: solid on new points, dotted on the training "
        "points, median and range of the seeds; dashed the polynomial through all points on new "
        f"points, dash-dotted the straight line. Values below {LINE_ERRORS[0]:g} or above "
        f"{LINE_ERRORS[1]:g} are drawn there.",
        lambda figure, theme: _draw_line(figure, theme, fits, curves),
        (9.0, 6.2),
    )
    headers = ["points", "noise", "model", "training error", "error on new points"]
    note = f"Medians over seeds; stacks of depth {deep}. New points have noise of the same size."
    return Section("Do stacks overfit a line?", [plot, Table(headers, rows, note)])


def _setup(found: Results) -> Section:
    settings, results = found.settings, found.results
    width = settings["width"]
    rows = [
        ["block", f"F(x) = relu(x W1 + b1) W2 + b2, width {width}, hidden width {2 * width}"],
        ["plain stack, residual stack", "passes on F(x), passes on x + F(x)"],
        ["target", "H(x) = (1 - t) x + t G(x), with G a random block; and -x"],
        ["training", f"{settings['steps']:,} steps of Adam on 32 new examples, x ~ N(0, I)"],
        ["seeds, learning rate", f"{settings['seeds']}, from {settings['rate']:g} to 0"],
        ["relative error", "mean squared error over the target's mean square, on 4,096 examples"],
        ["diverged", f"{results['diverged']:,} of {results['members']:,} stacks"],
        ["line", "width 1, hidden width 16, y = x from equally spaced points, all in each step"],
    ]
    return Section("Setup", [Table([], rows)])


def _draw_depths(figure: Figure, theme: Theme, found: Results) -> None:
    rows = -(-len(found.targets) // 3)
    grid = figure.subplots(rows, 3, sharex=True, sharey=True, squeeze=False)
    for axes, target in zip(grid.flat, found.targets, strict=False):
        for form in FORMS:
            seeds = [found.seeds(form, depth, target) for depth in found.depths]
            _draw_range(axes, found.depths, seeds, ERRORS, **_look(form, theme))
        axes.set_title(target, fontsize=10)
        _set_depths(axes, found.depths)
    figure.supylabel("relative error", fontsize=10)
    _draw_legend(figure, theme, FORMS)


def _draw_targets(figure: Figure, theme: Theme, found: Results) -> None:
    depths = sorted({found.depths[0], found.depths[len(found.depths) // 2], found.depths[-1]})
    panels = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    ticks = [target for target in found.targets if target in TICKS]
    # -x is not between x and G, so it gets a dot without a line.
    groups = [[name for name in found.targets if name != "negation"], ["negation"]]
    for axes, depth in zip(panels, depths, strict=True):
        for form in MAIN_FORMS:
            for targets in groups:
                seeds = [found.seeds(form, depth, target) for target in targets]
                places = [found.place(target) for target in targets]
                _draw_range(axes, places, seeds, ERRORS, **_look(form, theme))
        axes.set_title(f"depth {depth}", fontsize=10)
        axes.set_xticks([found.place(target) for target in ticks], [TICKS[name] for name in ticks])
        axes.set_xlabel("t")
    panels[0].set_ylabel("relative error")
    _draw_legend(figure, theme, MAIN_FORMS)


def _draw_line(
    figure: Figure, theme: Theme, fits: Sequence[JsonObject], curves: Sequence[JsonObject]
) -> None:
    noises, counts = (sorted({fit[key] for fit in fits}) for key in ("noise", "points"))
    forms = [form for form in FORMS if form.name in {fit["form"] for fit in fits}]
    depths = sorted({fit["depth"] for fit in fits})
    grid = figure.subplots(len(noises), len(counts), sharex=True, sharey="row", squeeze=False)
    panels = dict(zip(itertools.product(noises, counts), grid.flat, strict=True))
    for (noise, count), axes in panels.items():
        own = [fit for fit in fits if (fit["points"], fit["noise"]) == (count, noise)]
        for form in forms:
            for key, style in (("fresh", "-"), ("training", ":")):
                seeds = [fit[key] for fit in own if fit["form"] == form.name]
                look = {**_look(form, theme), "linestyle": style}
                _draw_range(axes, depths, seeds, LINE_ERRORS, **look)
        axes.set_title(f"{count} points, noise {noise:g}", fontsize=10)
        _set_depths(axes, depths)
    for curve in curves:
        color, style = (theme.ink, "-.") if curve["degree"] == 1 else (theme.series[5], "--")
        error = np.clip(median(curve["fresh"]), *LINE_ERRORS)
        panel = panels[curve["noise"], curve["points"]]
        panel.axhline(error, color=color, linestyle=style, linewidth=1.3)
    figure.supylabel("mean squared error", fontsize=10)
    others = {"new points": "-", "training points": ":", "polynomial": "--", "straight line": "-."}
    extra = [
        Line2D([], [], color=theme.series[5] if style == "--" else theme.ink, ls=style, label=label)
        for label, style in others.items()
    ]
    _draw_legend(figure, theme, forms, extra)


def _draw_range(
    axes: Axes, x: Sequence[float], points: Sequence[Seeds], limits: Limits, **look: Any
) -> None:
    """Draw the median and the range of each point's seeds, on a log axis within `limits`."""
    seeds = np.array([[np.inf if v is None else v for v in point] for point in points], float)
    seeds = np.clip(seeds.reshape(len(x), -1), *limits)
    middle = np.median(seeds, axis=1)
    axes.plot(x, middle, marker="o", markersize=3, linewidth=1.8, **look)
    axes.vlines(x, seeds.min(axis=1), seeds.max(axis=1), color=look["color"], alpha=0.4)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.minorticks_off()
    axes.set_ylim(limits[0] / 1.5, limits[1] * 1.5)


def _set_depths(axes: Axes, depths: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.set_xlabel("depth (blocks)")
    axes.label_outer()


def _draw_legend(
    figure: Figure, theme: Theme, forms: Sequence[Form], extra: Sequence[Line2D] = ()
) -> None:
    handles = [Line2D([], [], label=form.name, **_look(form, theme)) for form in forms]
    legend_below(figure, [*handles, *extra], 4)


def _look(form: Form, theme: Theme) -> JsonObject:
    starts = {"small": theme.series[2], "zero": theme.series[3], "identity": theme.series[4]}
    color = starts.get(form.start, theme.residual if form.residual else theme.plain)
    return {"color": color, "linestyle": ":" if form.linear else "-"}
