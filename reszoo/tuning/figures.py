"""The figures of a search's page, each drawn into an empty figure from the results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reszoo.reporting.plots import Theme, legend_below, log_ticks
from reszoo.tuning.results import SHORTCUT, Trial, is_plain, longest
from reszoo.tuning.words import short_names

COLUMNS = 3  # panels side by side in the figure of the choices

Results = Mapping[str, Any]


def _floor(trials: Sequence[Trial]) -> float | None:
    """Return the accuracy beneath which dots are drawn at the axis' end, or None: a net at chance would flatten the rest."""
    scores = [trial["score"] for trial in trials]
    if len(scores) < 4:
        return None
    quarter, top = float(np.quantile(scores, 0.25)), max(scores)
    floor = quarter - 2 * max(top - quarter, 0.005)
    return 100 * floor if min(scores) < floor else None


def clipped_note(trials: Sequence[Trial]) -> str:
    """Return the words of a caption on dots drawn at the edge, "" where there are none."""
    floor = _floor(trials)
    return "" if floor is None else f" Triangles: below {floor:.1f} %."


def completed(results: Results) -> list[Trial]:
    """Return the trials that have a score, whatever their share."""
    return [
        trial
        for trial in results["trials"]
        if trial["status"] == "completed" and trial.get("score") is not None
    ]


def _kinds(results: Results, theme: Theme) -> list[tuple[str, str, str, Callable[[Trial], bool]]]:
    """Return (name, colour, marker, whether a trial is of it): plain and residual where the search chooses the shortcut."""
    space = results["space"]
    if SHORTCUT not in space:
        return [("trials", theme.others[0], "o", lambda trial: True)]

    def plain(trial: Trial) -> bool:
        return is_plain(space, trial["values"].get(SHORTCUT))

    def other(trial: Trial) -> bool:
        return not plain(trial)

    kinds: list[tuple[str, str, str, Callable[[Trial], bool]]] = [
        ("plain", theme.plain, "s", plain),
        ("residual", theme.residual, "o", other),
    ]
    return [kind for kind in kinds if any(kind[3](trial) for trial in longest(results["trials"]))]


def _dots(
    axes: Any,
    x: Sequence[float],
    scores: Sequence[float],
    floor: float | None,
    color: str,
    marker: str,
    **look: Any,
) -> None:
    """Draw accuracies as dots, those below `floor` as triangles at it."""
    values = 100 * np.asarray(scores, float)
    low = np.zeros(len(values), bool) if floor is None else values < floor
    style = {"s": 26, "alpha": 0.8, "linewidths": 0, **look}
    axes.scatter(np.asarray(x)[~low], values[~low], c=color, marker=marker, **style)
    if low.any():
        axes.scatter(np.asarray(x)[low], np.full(low.sum(), floor), c=color, marker="v", **style)


def _accuracy_axis(axes: Any, trials: Sequence[Trial]) -> None:
    scores, floor = [100 * trial["score"] for trial in trials], _floor(trials)
    low, high = min(scores) if floor is None else floor, max(scores)
    room = 0.06 * (high - low) or 0.5
    axes.set_ylim(low - room, high + room)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _handles(axes: Any, results: Results, theme: Theme) -> list[Any]:
    return [
        axes.scatter([], [], c=color, marker=marker, s=26, label=name)
        for name, color, marker, _ in _kinds(results, theme)
    ]


def draw_cost(figure: Figure, theme: Theme, results: Results) -> None:
    """Draw accuracy against parameters and against MACs, with the Pareto front."""
    panels = figure.subplots(1, 2, sharey=True)
    own = longest(results["trials"])
    floor = _floor(own)
    trials = {trial["trial"]: trial for trial in own}
    best = trials[results["best"]]
    handles: list[Any] = []
    for axes, (cost, front) in zip(panels, results["front"].items(), strict=True):
        low, high = (pick(trial[cost] for trial in own) for pick in (min, max))
        low, high = max(low, 1) / 1.3, max(high, 1) * 1.3
        x = [max(trials[name][cost], 1) for name in front]
        y = [100 * trials[name]["score"] for name in front]
        # From the edge up to the first trial, and from the last one on at its height.
        way = ([x[0], *x, high], [0, *y, y[-1]])
        (line,) = axes.step(
            *way, where="post", color=theme.ink, linewidth=1.1, alpha=0.7, label="Pareto front"
        )
        for _, color, marker, chosen in _kinds(results, theme):
            rows = [trial for trial in own if chosen(trial)]
            costs = [max(trial[cost], 1) for trial in rows]
            _dots(axes, costs, [trial["score"] for trial in rows], floor, color, marker, zorder=3)
        ring = axes.scatter(
            [max(best[cost], 1)],
            [100 * best["score"]],
            s=130,
            facecolors="none",
            edgecolors=theme.ink,
            linewidths=1.4,
            zorder=4,
            label=f"best, {best['trial']}",
        )
        handles = [*_handles(axes, results, theme), line, ring]
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        log_ticks(
            axes.xaxis, low * 1.1, high / 1.1
        )  # a label at the edge would touch the next panel's
        axes.set_xlabel({"parameters": "parameters", "multiply_adds": "MACs per image"}[cost])
    _accuracy_axis(panels[0], own)
    panels[0].set_ylabel("validation accuracy (%)")
    legend_below(figure, handles)


def was_tried(effect: Mapping[str, Any]) -> bool:
    """Return whether any trial that counts has a value of a knob."""
    return (
        any(own["count"] for own in effect["options"].values())
        if "options" in effect
        else effect["count"] > 0
    )


def draw_choices(figure: Figure, theme: Theme, results: Results, panels: Sequence[str]) -> None:
    """Draw a panel a knob of `panels`: every trial a dot over what it chose."""
    lines = -(-len(panels) // COLUMNS)
    grid = figure.subplots(lines, COLUMNS, sharey=True, squeeze=False)
    names, own = short_names(list(results["space"])), longest(results["trials"])
    floor = _floor(own)
    for axes, knob in zip(grid.flat, panels, strict=False):
        told = results["space"][knob]
        if "options" in told:
            _draw_options(axes, theme, results, knob, floor)
        else:
            for _, color, marker, chosen in _kinds(results, theme):
                rows = [trial for trial in own if knob in trial["values"] and chosen(trial)]
                values = [trial["values"][knob] for trial in rows]
                _dots(axes, values, [trial["score"] for trial in rows], floor, color, marker)
            low, high = told["low"], told["high"]
            if told.get("log") and low > 0:
                axes.set_xscale("log")
                log_ticks(axes.xaxis, low, high)
                axes.set_xlim(low / 1.15, high * 1.15)
            else:
                axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
                axes.xaxis.set_major_locator(MaxNLocator(4))
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_title(_short(names[knob], 24), fontsize=10)
        axes.tick_params(labelsize=9)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("validation (%)")
    _accuracy_axis(grid[0, 0], own)
    handles = _handles(grid[0, 0], results, theme)
    if len(handles) > 1:
        legend_below(figure, handles)


def _draw_options(
    axes: Any, theme: Theme, results: Results, knob: str, floor: float | None
) -> None:
    own = [trial for trial in longest(results["trials"]) if knob in trial["values"]]
    options = results["effects"][knob]["options"]
    for place, (label, effect) in enumerate(options.items()):
        rows = [trial for trial in own if trial["values"][knob] == label]
        # The golden ratio spreads any number of dots, and always the same way.
        aside = {
            trial["trial"]: place + 0.5 * ((index * 0.618034 + 0.5) % 1 - 0.5)
            for index, trial in enumerate(rows)
        }
        for _, color, marker, chosen in _kinds(results, theme):
            kind = [trial for trial in rows if chosen(trial)]
            x = [aside[trial["trial"]] for trial in kind]
            _dots(
                axes, x, [trial["score"] for trial in kind], floor, color, marker, s=20, alpha=0.7
            )
        if rows:
            mean = 100 * effect["mean"]
            if floor is None or mean >= floor:
                axes.plot(
                    [place - 0.36, place + 0.36],
                    [mean, mean],
                    color=theme.ink,
                    linewidth=1.8,
                    zorder=4,
                )
            else:
                axes.plot(
                    [place], [floor], "v", color=theme.ink, fillstyle="none", markersize=8, zorder=4
                )
    room = 34 // len(options)
    labels = [f"{_short(label, room)}\n({effect['count']})" for label, effect in options.items()]
    axes.set_xticks(range(len(options)), labels)
    axes.set_xlim(-0.6, len(options) - 0.4)
    axes.grid(False, axis="x")


def _short(text: str, length: int) -> str:
    length = max(length, 3)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def draw_grid(figure: Figure, theme: Theme, grid: Mapping[str, Any]) -> None:
    """Draw depth by shortcut as a coloured table of mean accuracies."""
    axes = figure.subplots()
    depths, labels = grid["depths"], grid["shortcuts"]
    means = [cell["mean"] for row in grid["cells"].values() for cell in row.values()]
    low, high = min(means), max(means)
    # As with the dots, a cell at chance must not take all colours for itself.
    middle = float(np.median(means))
    low = max(low, middle - 3 * max(high - middle, 0.005))
    start = [
        0.88 * paper + 0.12 * ink
        for paper, ink in zip(to_rgb(theme.background), to_rgb(theme.residual), strict=True)
    ]
    colors = LinearSegmentedColormap.from_list("accuracy", [start, to_rgb(theme.residual)])
    for column, label in enumerate(labels):
        for row, depth in enumerate(depths):
            cell = grid["cells"][label].get(str(depth))
            if cell is None:
                axes.text(column, row, "-", ha="center", va="center", alpha=0.6)
                continue
            color = colors((cell["mean"] - low) / (high - low) if high > low else 0.5)
            axes.add_patch(
                Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=color, linewidth=0)
            )
            ink = _readable(color)
            trials = f"{cell['count']} trial{'' if cell['count'] == 1 else 's'}"
            axes.text(
                column,
                row - 0.15,
                f"{100 * cell['mean']:.2f}",
                ha="center",
                va="center",
                color=ink,
                fontsize=10.5,
            )
            axes.text(column, row + 0.24, trials, ha="center", va="center", color=ink, fontsize=8)
    names = [
        f"{_short(label, 16)}{' (plain)' if label in grid['plain'] else ''}" for label in labels
    ]
    axes.set_xticks(range(len(labels)), names)
    axes.set_yticks(range(len(depths)), [str(depth) for depth in depths])
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_ylim(len(depths) - 0.5, -0.5)
    axes.set_xlabel("shortcut")
    axes.set_ylabel("depth")
    axes.grid(False)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _readable(color: Sequence[float]) -> str:
    """Return white or black, whichever stands out more on a colour, by the luminance of WCAG 2."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color[:3]
    ]
    return "#ffffff" if np.dot(linear, (0.2126, 0.7152, 0.0722)) < 0.179 else "#000000"


def draw_progress(figure: Figure, theme: Theme, results: Results) -> None:
    """Draw the best accuracy so far against the steps trained."""
    axes = figure.subplots()
    done = completed(results)
    floor, whole = _floor(done), {trial["trial"] for trial in longest(done)}
    spent: list[int] = []
    best: list[float] = []
    total = 0
    at: dict[str, int] = {}
    for trial in results["trials"]:
        total += trial.get("trained_steps") or 0
        at[trial["trial"]] = total
        if trial["trial"] in whole:
            spent.append(total)
            best.append(max(100 * trial["score"], best[-1] if best else 0))
    axes.step(
        [*spent, total],
        [*best, best[-1]],
        where="post",
        color=theme.ink,
        linewidth=1.4,
        label="best so far",
    )
    for _, color, marker, chosen in _kinds(results, theme):
        for rows, look in (
            ([trial for trial in done if trial["trial"] not in whole], {"alpha": 0.35, "s": 12}),
            ([trial for trial in done if trial["trial"] in whole], {"alpha": 0.9, "s": 26}),
        ):
            kind = [trial for trial in rows if chosen(trial)]
            x = [at[trial["trial"]] for trial in kind]
            _dots(
                axes, x, [trial["score"] for trial in kind], floor, color, marker, zorder=3, **look
            )
    axes.set_xlim(0, 1.03 * max(total, 1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("steps trained so far, all trials")
    axes.set_ylabel("validation accuracy (%)")
    _accuracy_axis(axes, done)
    lines, _ = axes.get_legend_handles_labels()
    legend_below(figure, [*_handles(axes, results, theme), *lines])
