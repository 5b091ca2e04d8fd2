"""The figures of a search's report, drawn from the results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reszoo.reporting.plots import Theme, legend_below, log_ticks
from reszoo.tuning.formatting import short_names
from reszoo.tuning.records import Trial
from reszoo.tuning.results import SHORTCUT, completed, is_plain, longest
from reszoo.types import JsonObject

COLUMNS = 3  # panels side by side
COST_LABELS = {"parameters": "parameters", "macs": "MACs per image"}


def accuracy_floor(trials: Sequence[Trial]) -> float:
    """Return the accuracy in percent below which trials are drawn at the axis' end, 0 for none.

    One model at chance would flatten the differences between all others.
    """
    scores = [100 * trial["score"] for trial in trials]
    if len(scores) < 4:
        return 0.0
    quarter, top = float(np.quantile(scores, 0.25)), max(scores)
    floor = quarter - 2 * max(top - quarter, 0.5)
    return floor if min(scores) < floor else 0.0


def draw_cost(figure: Figure, theme: Theme, results: JsonObject) -> None:
    """Draw accuracy against parameters and against MACs, with the Pareto fronts."""
    panels = figure.subplots(1, 2, sharey=True)
    own = longest(results["trials"])
    floor, scores = accuracy_floor(own), {trial["trial"]: 100 * trial["score"] for trial in own}
    for axes, (cost, front) in zip(panels, results["front"].items(), strict=True):
        costs = {t["trial"]: max(t[cost], 1) for t in own}  # type: ignore[literal-required]
        low, high = min(costs.values()) / 1.3, max(costs.values()) * 1.3
        x, y = [costs[name] for name in front], [scores[name] for name in front]
        path = ([x[0], *x, high], [0, *y, y[-1]])
        axes.step(*path, where="post", color=theme.ink, linewidth=1.1, label="Pareto front")
        _scatter(axes, theme, results, costs, floor)
        best = results["best"]
        ring = {"facecolors": "none", "edgecolors": theme.ink, "linewidths": 1.4, "zorder": 4}
        axes.scatter(costs[best], scores[best], s=130, label=f"best, {best}", **ring)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        log_ticks(axes.xaxis, low * 1.1, high / 1.1)  # a label at the edge touches the next panel's
        axes.set_xlabel(COST_LABELS[cost])
    _set_accuracy_axis(panels[0], own)
    panels[0].set_ylabel("validation accuracy (%)")
    legend_below(figure, panels[0].get_legend_handles_labels()[0])


def draw_effects(
    figure: Figure, theme: Theme, results: JsonObject, hyperparameters: Sequence[str]
) -> None:
    """Draw one panel per hyperparameter, with one dot per trial."""
    rows = -(-len(hyperparameters) // COLUMNS)
    panels = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False)
    names, own = short_names(results["space"]), longest(results["trials"])
    for axes, name in zip(panels.flat, hyperparameters, strict=False):
        entry = results["space"][name]
        draw = _draw_options if "options" in entry else _draw_range
        draw(axes, theme, results, name)
        axes.set_title(_shorten(names[name], 24), fontsize=10)
        axes.tick_params(labelsize=9)
    for axes in panels.flat[len(hyperparameters) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("validation (%)")
    _set_accuracy_axis(panels[0, 0], own)
    handles = panels[0, 0].get_legend_handles_labels()[0]
    if len(handles) > 1:
        legend_below(figure, handles)


def _draw_range(axes: Axes, theme: Theme, results: JsonObject, name: str) -> None:
    own, entry = longest(results["trials"]), results["space"][name]
    values = {trial["trial"]: trial["values"].get(name) for trial in own}
    active = {trial: float(value) for trial, value in values.items() if value is not None}
    _scatter(axes, theme, results, active, accuracy_floor(own))
    low, high = entry["low"], entry["high"]
    if entry.get("log") and low > 0:
        axes.set_xscale("log")
        log_ticks(axes.xaxis, low, high)
        axes.set_xlim(low / 1.15, high * 1.15)
    else:
        room = 0.06 * (high - low)
        axes.set_xlim(low - room, high + room)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_options(axes: Axes, theme: Theme, results: JsonObject, name: str) -> None:
    own, options = longest(results["trials"]), results["effects"][name]["options"]
    floor, places = accuracy_floor(own), dict[str, float]()
    for place, (label, effect) in enumerate(options.items()):
        rows = [trial["trial"] for trial in own if trial["values"].get(name) == label]
        # The golden ratio spreads any number of dots, and always in the same way.
        aside = [0.5 * ((index * 0.618034 + 0.5) % 1 - 0.5) for index, _ in enumerate(rows)]
        places |= {trial: place + each for trial, each in zip(rows, aside, strict=True)}
        if rows:
            mean, ends = max(100 * effect["mean"], floor), [place - 0.36, place + 0.36]
            axes.plot(ends, [mean, mean], color=theme.ink, linewidth=1.8, zorder=4)
    _scatter(axes, theme, results, places, floor, s=20, alpha=0.7)
    width = 34 // len(options)
    labels = [f"{_shorten(label, width)}\n({each['count']})" for label, each in options.items()]
    axes.set_xticks(range(len(options)), labels)
    axes.set_xlim(-0.6, len(options) - 0.4)
    axes.grid(False, axis="x")


def draw_grid(figure: Figure, theme: Theme, grid: JsonObject) -> None:
    """Draw depth by shortcut as a colored table of mean accuracies."""
    axes = figure.subplots()
    depths, labels = grid["depths"], grid["shortcuts"]
    cells = [[grid["cells"][label].get(str(depth)) for label in labels] for depth in depths]
    means = np.array([[cell["mean"] if cell else np.nan for cell in row] for row in cells])
    high, middle = np.nanmax(means), np.nanmedian(means)
    low = max(np.nanmin(means), middle - 3 * max(high - middle, 0.005))  # as with the dots
    colors = LinearSegmentedColormap.from_list("", [theme.grid, theme.residual])
    shades = (means - low) / (high - low) if high > low else 0.5 + 0 * means
    style: JsonObject = {"edgecolors": theme.background, "linewidth": 3}
    axes.pcolormesh(np.ma.masked_invalid(shades), cmap=colors, vmin=0, vmax=1, **style)
    style = {"ha": "center", "va": "center", "fontsize": 9}
    for (row, column), shade in np.ndenumerate(shades):
        cell, text = cells[row][column], "-"
        if cell is not None:
            trials = f"{cell['count']} trial{'' if cell['count'] == 1 else 's'}"
            text = f"{100 * cell['mean']:.2f}\n{trials}"
        ink = theme.background if shade > 0.5 else theme.ink
        axes.text(column + 0.5, row + 0.5, text, color=ink, **style)
    plain = [" (plain)" if label in grid["plain"] else "" for label in labels]
    names = [f"{_shorten(label, 16)}{note}" for label, note in zip(labels, plain, strict=True)]
    axes.set_xticks(np.arange(len(labels)) + 0.5, names)
    axes.set_yticks(np.arange(len(depths)) + 0.5, [str(depth) for depth in depths])
    axes.invert_yaxis()
    axes.set_xlabel("shortcut")
    axes.set_ylabel("depth")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw_progress(figure: Figure, theme: Theme, results: JsonObject) -> None:
    """Draw the best accuracy so far against the steps trained."""
    axes = figure.subplots()
    done = completed(results["trials"])
    whole = {trial["trial"] for trial in longest(done)}
    steps = np.cumsum([trial.get("trained_steps", 0) for trial in results["trials"]])
    at = {trial["trial"]: float(step) for trial, step in zip(results["trials"], steps, strict=True)}
    spent = [at[trial["trial"]] for trial in done if trial["trial"] in whole]
    best = np.maximum.accumulate([100 * t["score"] for t in done if t["trial"] in whole])
    line = ([*spent, steps[-1]], [*best, best[-1]])
    axes.step(*line, where="post", color=theme.ink, linewidth=1.4, label="best so far")
    floor = accuracy_floor(done)
    part = {trial["trial"]: at[trial["trial"]] for trial in done if trial["trial"] not in whole}
    _scatter(axes, theme, results, part, floor, alpha=0.35, s=12, label=None)
    _scatter(axes, theme, results, {trial: at[trial] for trial in whole}, floor, alpha=0.9)
    axes.set_xlim(0, 1.03 * max(steps[-1], 1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("steps trained so far, all trials")
    axes.set_ylabel("validation accuracy (%)")
    _set_accuracy_axis(axes, done)
    legend_below(figure, axes.get_legend_handles_labels()[0])


def _scatter(
    axes: Axes,
    theme: Theme,
    results: JsonObject,
    x: Mapping[str, float],
    floor: float,
    **style: Any,
) -> None:
    """Draw trials at `x` by id, plain and residual models apart, none below `floor`."""
    space = results["space"]
    groups: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in results["trials"]:
        group = ("trials", theme.others[0], "o")
        if SHORTCUT in space:
            plain = is_plain(space, trial["values"].get(SHORTCUT))
            group = ("plain", theme.plain, "s") if plain else ("residual", theme.residual, "o")
        if trial["status"] == "completed":
            groups.setdefault(group, [])
            groups[group] += [trial] if trial["trial"] in x else []
    for (name, color, marker), trials in sorted(groups.items()):
        scores = np.maximum([100 * trial["score"] for trial in trials], floor)
        look = {"s": 26, "alpha": 0.8, "linewidths": 0, "zorder": 3, "label": name, **style}
        places = [x[trial["trial"]] for trial in trials]
        axes.scatter(places, scores, c=color, marker=marker, **look)


def _set_accuracy_axis(axes: Axes, trials: Sequence[Trial]) -> None:
    scores, floor = [100 * trial["score"] for trial in trials], accuracy_floor(trials)
    low, high = max(min(scores), floor), max(scores)
    room = 0.06 * (high - low) or 0.5
    axes.set_ylim(low - room, high + room)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _shorten(text: str, length: int) -> str:
    length = max(length, 3)
    return text if len(text) <= length else f"{text[: length - 1]}…"
