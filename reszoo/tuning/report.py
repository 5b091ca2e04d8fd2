"""The page of a search: what was found, and how each choice did; all of it from the files in the search's folder."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.lab.page import Plot, Section, Table, Theme, spread, write_page
from reszoo.tuning.results import SHORTCUT, STATUSES, Trial, is_plain, longest, read_results, training_mean

ROWS = 20  # of the tables that could be endless
COLUMNS = 3  # panels side by side in the figure of the choices
WIDTH = 90  # characters of a reason or a description of a failure

Results = Mapping[str, Any]


def report(folder: str | os.PathLike[str]) -> Path:
    """Write report.json, report.html and the figures of the search in `folder`, finished or not; return the page.

    The same results give the same files. Raises ReszooError for a folder without a search, or with damaged files.
    """
    results = read_results(folder)
    try:
        title, lead, sections = present(results)
        foot = _foot(results)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ReszooError(
            f"{folder}: search.json lacks what a page needs ({error!r}); it was changed or damaged"
        ) from error
    write_json(Path(folder) / "report.json", results)
    return write_page(Path(folder), title, lead, sections, foot)


def finding(results: Results) -> str:
    """Return in a sentence or two which trial is best and, where both were tried, what depth did to plain and residual nets.

    results: as `read_results` gives them. Without a completed trial it says so, and the commonest reason of failure.
    """
    if results["best"] is None:
        return _nothing(results)
    best = next(trial for trial in results["trials"] if trial["trial"] == results["best"])
    own = longest(results["trials"])
    among = f"{len(own)} trials" if len(own) > 1 else "one trial"
    if len(own) < results["totals"]["completed"]:
        among += " trained longest"
    values = in_words(best["values"], results["space"])
    text = (
        f"Best of {among} is {best['trial']}{f' ({values})' if values else ''}: {_accuracy(best)} % validation accuracy"
    )
    if len(best.get("scores") or []) > 1:
        text += f" over {len(best['scores'])} executions"
    if best["share"] < 1:
        text += f" after {100 * best['share']:.0f} % of the training"
    return f"{text}, {best['parameters']:,} parameters.{_depth_words(results)}"


def in_words(values: Mapping[str, Any], space: Mapping[str, Any]) -> str:
    """Return a trial's values such as "n 5, shortcut A, rate 0.05"."""
    names = short_names([*space, *values])
    return ", ".join(f"{names[key]} {_value(value)}" for key, value in values.items())


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return recipe keys by themselves without their table, where that leaves them different."""
    unique = list(dict.fromkeys(keys))
    count = Counter(key.rpartition(".")[2] for key in unique)
    return {key: short if count[short := key.rpartition(".")[2]] == 1 else key for key in unique}


def present(results: Results) -> tuple[str, str, list[Section]]:
    """Return title, finding and sections of the page."""
    sections = [_leaders(results)]
    if results["best"] is not None:
        sections += [_cost(results), _choices(results)]
        if results["grid"]:
            sections.append(_depth(results))
        sections.append(_progress(results))
    if results["totals"]["failed"] or results["refused"]:
        sections.append(_failures(results))
    return f"Search {results['name']}", finding(results), [*sections, _how(results)]


# Words


def _nothing(results: Results) -> str:
    totals = results["totals"]
    text = "No trial has completed yet" if totals["running"] else "No trial completed"
    parts = [f"{totals[status]} {status}" for status in ("failed", "running") if totals[status]]
    text += f": {', '.join(parts)}." if parts else "."
    for what, reasons in (("failure", _failed(results)), ("refusal", [row["reason"] for row in results["refused"]])):
        if reasons:
            reason, count = _collapsed(reasons)[0]
            text += f" The commonest reason of {what}: {reason} ({count} of {len(reasons)})."
            break
    return text


def _depth_words(results: Results) -> str:
    grid = results["grid"]
    found = {label: gap for label, gap in grid["differences"].items() if gap} if grid else {}
    kinds = {label in grid["plain"] for label in found} if grid else set()
    if len(kinds) < 2:
        return ""
    ends = {(gap["shallow"], gap["deep"]) for gap in found.values()}
    parts = []
    for label, gap in found.items():
        text = f"{_signed(gap['mean'])} ({_signed(gap['best'])}) {'in plain nets' if label in grid['plain'] else f'with shortcut {label}'}"
        parts.append(text if len(ends) == 1 else f"{text} from {gap['shallow']} to {gap['deep']}")
    shallow, deep = next(iter(ends))
    way = f"from depth {shallow} to {deep}" if len(ends) == 1 else "from the shallowest depth tried to the deepest"
    changes = f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f" Change of the mean (best) validation accuracy {way}, in points: {changes}."


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _accuracy(trial: Trial) -> str:
    return spread([100 * score for score in trial.get("scores") or [trial["score"]] if score is not None])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 2) + 0.0:+.2f}"  # never -0.00


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _failed(results: Results) -> list[str]:
    rows = [trial for trial in results["trials"] if trial["status"] == "failed"]
    return [str(trial.get("reason") or "no reason was recorded") for trial in rows]


def _collapsed(reasons: Sequence[str]) -> list[tuple[str, int]]:
    """Return reasons and how often each was given, the commonest first; those that differ in their first number are one."""
    groups: dict[str, list[str]] = {}
    for reason in reasons:
        line = next(iter(reason.strip().splitlines()), "")
        amount = re.match(r"[\d,.]*\d(?= )", line)
        groups.setdefault(line[amount.end() :] if amount else line, []).append(amount[0] if amount else "")
    rows = []
    for rest, amounts in groups.items():
        known = sorted(set(amounts), key=lambda amount: float(amount.replace(",", "") or 0))
        text = (f"{known[0]} to {known[-1]}" if len(known) > 1 else known[0]) + rest
        rows.append((text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}...", len(amounts)))
    return sorted(rows, key=lambda row: -row[1])


def _foot(results: Results) -> list[str]:
    made = results["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in made.get("versions", {}).items())
    about = [
        made.get("started", ""),
        versions,
        made.get("platform", ""),
        f"commit {made['git']}" if made.get("git") else "",
    ]
    lines = [f"Made by: {results['command']}"] if results["command"] else []
    return [*lines, f"{'; '.join(str(part) for part in about if part)}. Rebuilt from search.json and trials/."]


# Sections


def _leaders(results: Results) -> Section:
    totals, space = results["totals"], results["space"]
    done = _done(results)
    # The sort is stable, and trials stand in the order of their ids.
    done.sort(key=lambda trial: (-trial["share"], -trial["score"], trial["parameters"]))
    shares = len({trial["share"] for trial in done}) > 1 or any(trial.get("continues") for trial in done)
    names = short_names(list(space))
    headers = ["trial", *(["share", "continues"] if shares else []), "validation, %", "training, %"]
    headers += [*names.values(), "parameters", "multiply-adds", "seconds"]
    rows = []
    for trial in done[:ROWS]:
        row = [trial["trial"]]
        row += [f"{100 * trial['share']:.0f} %", trial.get("continues") or "-"] if shares else []
        row += [_accuracy(trial), _percent(training_mean(trial))]
        row += [_value(trial["values"].get(knob, "-")) for knob in space]
        row += [f"{trial['parameters']:,}", f"{trial['multiply_adds']:,}"]
        row.append("-" if trial.get("seconds") is None else f"{trial['seconds']:,.1f}")
        rows.append(row)
    counts = ", ".join(f"{totals[key]:,} {key}" for key in STATUSES if totals[key])
    words = [results["description"]] if results["description"] else []
    words.append(
        f"{totals['trials']:,} {'trial' if totals['trials'] == 1 else 'trials'}{f': {counts}' if counts else ''}."
    )
    if refused := totals["refused"]:
        words[-1] += f" {refused:,} {'proposal was' if refused == 1 else 'proposals were'} refused."
    if not rows:
        return Section("Trials", words)
    words[-1] += " The best of many is chosen by its validation accuracy, which flatters it a little."
    note = "Validation accuracy: mean ± sample deviation over executions. Training accuracy: in the last epoch, on augmented images."
    if shares:
        note += (
            " Share: of the whole training, after which the trial was scored; scores of different shares are not compared. "
            "Continues: the trial whose checkpoint it went on from."
        )
    if len(done) > ROWS:
        note += f" The best {ROWS} of {len(done)}."
    return Section("Leaderboard", words, [Table(headers, rows, note)])


def _cost(results: Results) -> Section:
    caption = (
        "Validation accuracy against parameters and against multiply-adds of one image. Line: the Pareto front, the best "
        f"accuracy for at most that cost; ring: the best trial.{_clipped(longest(results['trials']))}"
    )
    rows, trials = [], {trial["trial"]: trial for trial in results["trials"]}
    for name in results["front"]["parameters"]:
        trial = trials[name]
        words = in_words(trial["values"], results["space"])
        rows.append([name, f"{trial['parameters']:,}", f"{trial['multiply_adds']:,}", _accuracy(trial), words])
    headers = ["trial", "parameters", "multiply-adds", "validation, %", "values"]
    return Section(
        "Accuracy against cost",
        [],
        [
            Plot("accuracy-cost", caption, lambda figure, theme: _draw_cost(figure, theme, results), (9.0, 4.4)),
            Table(
                headers,
                rows[-ROWS:],
                "The front in parameters: no other trial has both no more of them and no lower accuracy.",
            ),
        ],
    )


def _choices(results: Results) -> Section:
    names = short_names(list(results["space"]))
    rows = []
    for knob, effect in results["effects"].items():
        if "options" in effect:
            for label, own in effect["options"].items():
                mean = spread([100 * score for score in own["scores"]])
                rows.append([names[knob], label, str(own["count"]), mean, _percent(own["best"]), ""])
        else:
            told = results["space"][knob]
            best = _percent(max(effect["scores"], default=None))
            mean = spread([100 * score for score in effect["scores"]])
            between = f"{told['low']:g} to {told['high']:g}"
            rows.append([names[knob], between, str(effect["count"]), mean, best, _signed(effect["correlation"])])
    panels = [knob for knob, effect in results["effects"].items() if _tried(effect)]
    lines = -(-len(panels) // COLUMNS)
    clipped = _clipped(longest(results["trials"]))
    caption = f"Each dot is a trial, each bar the mean of a choice; beneath a choice its number of trials.{clipped}"
    if clipped:
        caption = f"{caption[:-1]}, hollow ones means."
    plot = Plot(
        "choices",
        caption,
        lambda figure, theme: _draw_choices(figure, theme, results, panels),
        (9.0, 0.5 + 2.7 * lines),
    )
    table = Table(
        ["knob", "choice", "trials", "mean validation, %", "best, %", "rank correlation"],
        rows,
        "Mean ± sample deviation over trials. Rank correlation: Spearman's, of a range's values with the accuracy.",
    )
    words = ["Trials that share a choice differ in all others: a difference here may come from what else was chosen."]
    return Section("The effect of each choice", words, [plot, table] if panels else [table])


def _depth(results: Results) -> Section:
    grid = results["grid"]
    rows = [
        [f"{label} (plain)" if label in grid["plain"] else label]
        + (["-"] * 5 if gap is None else [str(gap["shallow"]), str(gap["deep"]), *map(_signed, _gaps(gap))])
        for label, gap in grid["differences"].items()
    ]
    headers = ["shortcut", "shallowest", "deepest", "mean validation", "best validation", "mean training"]
    note = (
        "Deepest less shallowest depth tried with a shortcut, in points of accuracy; below 0 the deeper nets did worse."
    )
    words = [
        "Degradation is when deeper plain nets do worse than shallow ones, in training too, and deeper residual nets do not. "
        "Here trials of a cell, and of two cells, may differ in other choices too.",
    ]
    table = Table(headers, rows, note)
    if not grid["depths"]:
        return Section("Depth by shortcut", words, [table])
    size = (min(9.0, 2.4 + 1.5 * len(grid["shortcuts"])), 1.3 + 0.62 * len(grid["depths"]))
    plot = Plot(
        "depth-shortcut",
        "Mean validation accuracy in percent by depth and shortcut, with the number of trials; the stronger "
        "the colour, the more accurate; a dash where nothing was tried.",
        lambda figure, theme: _draw_grid(figure, theme, grid),
        size,
    )
    return Section("Depth by shortcut", words, [plot, table])


def _gaps(gap: Mapping[str, Any]) -> tuple[float | None, ...]:
    return gap["mean"], gap["best"], gap["training"]


def _progress(results: Results) -> Section:
    caption = (
        "Validation accuracy against the steps trained so far, trials in the order of their ids. Line: the best so far of those "
        f"with the largest share of the training; faint: trials scored after a smaller share.{_clipped(_done(results))}"
    )
    plot = Plot("progress", caption, lambda figure, theme: _draw_progress(figure, theme, results), (9.0, 3.6))
    return Section("How the search went", [], [plot])


def _failures(results: Results) -> Section:
    rows = []
    for what, reasons in (
        ("failed", _failed(results)),
        ("refused", [str(row["reason"]) for row in results["refused"]]),
    ):
        rows += [[what, reason, f"{count:,}"] for reason, count in _collapsed(reasons)]
    note = "Failed: broken off in training. Refused: by arithmetic, before anything was built."
    if len(rows) > ROWS:
        note += f" The first {ROWS} of {len(rows)} reasons."
    return Section("Failures and refusals", [], [Table(["what", "reason", "times"], rows[:ROWS], note)])


def _how(results: Results) -> Section:
    search, totals, data = results["search"], results["totals"], results["data"]
    limits = [f"{search[key]:,} {what}" for key, what in _LIMITS if search.get(key)]
    images = ", ".join(f"{count:,} {part}" for part, count in (data.get("examples") or {}).items())
    shape = " x ".join(str(side) for side in data.get("input_shape") or [])
    rows = [
        ["tuner", str(search.get("tuner", "-"))],
        ["seed", str(search.get("seed", "-"))],
        ["trials asked for", f"{search['trials']:,}" if search.get("trials") else "no limit of its own"],
        ["executions of a trial", str(search.get("executions", "-"))],
        ["limits of a net", ", ".join(limits) if limits else "none"],
        ["base recipe", str(results["recipe"].get("name", "-"))],
        ["data", f"{data.get('name', '-')}{f' ({images} images)' if images else ''}"],
        ["images", f"{shape}, {data.get('classes', '-')} classes"],
        ["steps trained", f"{totals['trained_steps']:,}"],
        ["time in training", _duration(totals["seconds"])],
    ]
    return Section("How", [], [Table(["", ""], rows)])


_LIMITS = (("max_params", "parameters"), ("max_macs", "multiply-adds"))


# Figures


def _floor(trials: Sequence[Trial]) -> float | None:
    """Return the accuracy beneath which dots are drawn at the axis' end, or None: a net at chance would flatten the rest."""
    scores = [trial["score"] for trial in trials]
    if len(scores) < 4:
        return None
    quarter, top = float(np.quantile(scores, 0.25)), max(scores)
    floor = quarter - 2 * max(top - quarter, 0.005)
    return 100 * floor if min(scores) < floor else None


def _clipped(trials: Sequence[Trial]) -> str:
    floor = _floor(trials)
    return "" if floor is None else f" Triangles: below {floor:.1f} %."


def _done(results: Results) -> list[Trial]:
    return [trial for trial in results["trials"] if trial["status"] == "completed" and trial.get("score") is not None]


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
    axes: Any, x: Sequence[float], scores: Sequence[float], floor: float | None, color: str, marker: str, **look: Any
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


def _log_axis(axis: Any, low: float, high: float) -> None:
    """Name 1, 2 and 5 times powers of ten between `low` and `high`, or powers alone if those would be too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low / 1.0001 <= tick <= high * 1.0001]  # 10.0**-2 is not quite 0.01
        if len(ticks) <= 6:
            break
    axis.set_major_locator(FixedLocator(ticks or [low, high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _amount(value)))


def _amount(value: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)


def _handles(axes: Any, results: Results, theme: Theme) -> list[Any]:
    return [
        axes.scatter([], [], c=color, marker=marker, s=26, label=name)
        for name, color, marker, _ in _kinds(results, theme)
    ]


def _draw_cost(figure: Figure, theme: Theme, results: Results) -> None:
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
        (line,) = axes.step(*way, where="post", color=theme.ink, linewidth=1.1, alpha=0.7, label="Pareto front")
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
        _log_axis(axes.xaxis, low * 1.1, high / 1.1)  # a label at the edge would touch the next panel's
        axes.set_xlabel(cost.replace("_", "-"))
    _accuracy_axis(panels[0], own)
    panels[0].set_ylabel("validation accuracy (%)")
    _legend(figure, handles)


def _tried(effect: Mapping[str, Any]) -> bool:
    return any(own["count"] for own in effect["options"].values()) if "options" in effect else effect["count"] > 0


def _draw_choices(figure: Figure, theme: Theme, results: Results, panels: Sequence[str]) -> None:
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
                _log_axis(axes.xaxis, low, high)
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
        _legend(figure, handles)


def _draw_options(axes: Any, theme: Theme, results: Results, knob: str, floor: float | None) -> None:
    own = [trial for trial in longest(results["trials"]) if knob in trial["values"]]
    options = results["effects"][knob]["options"]
    for place, (label, effect) in enumerate(options.items()):
        rows = [trial for trial in own if trial["values"][knob] == label]
        # The golden ratio spreads any number of dots, and always the same way.
        aside = {trial["trial"]: place + 0.5 * ((index * 0.618034 + 0.5) % 1 - 0.5) for index, trial in enumerate(rows)}
        for _, color, marker, chosen in _kinds(results, theme):
            kind = [trial for trial in rows if chosen(trial)]
            x = [aside[trial["trial"]] for trial in kind]
            _dots(axes, x, [trial["score"] for trial in kind], floor, color, marker, s=20, alpha=0.7)
        if rows:
            mean = 100 * effect["mean"]
            if floor is None or mean >= floor:
                axes.plot([place - 0.36, place + 0.36], [mean, mean], color=theme.ink, linewidth=1.8, zorder=4)
            else:
                axes.plot([place], [floor], "v", color=theme.ink, fillstyle="none", markersize=8, zorder=4)
    room = 34 // len(options)
    labels = [f"{_short(label, room)}\n({effect['count']})" for label, effect in options.items()]
    axes.set_xticks(range(len(options)), labels)
    axes.set_xlim(-0.6, len(options) - 0.4)
    axes.grid(False, axis="x")


def _short(text: str, length: int) -> str:
    length = max(length, 3)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _draw_grid(figure: Figure, theme: Theme, grid: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    depths, labels = grid["depths"], grid["shortcuts"]
    means = [cell["mean"] for row in grid["cells"].values() for cell in row.values()]
    low, high = min(means), max(means)
    # As with the dots, a cell at chance must not take all colours for itself.
    middle = float(np.median(means))
    low = max(low, middle - 3 * max(high - middle, 0.005))
    start = [
        0.88 * paper + 0.12 * ink for paper, ink in zip(to_rgb(theme.background), to_rgb(theme.residual), strict=True)
    ]
    colors = LinearSegmentedColormap.from_list("accuracy", [start, to_rgb(theme.residual)])
    for column, label in enumerate(labels):
        for row, depth in enumerate(depths):
            cell = grid["cells"][label].get(str(depth))
            if cell is None:
                axes.text(column, row, "-", ha="center", va="center", alpha=0.6)
                continue
            color = colors((cell["mean"] - low) / (high - low) if high > low else 0.5)
            axes.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=color, linewidth=0))
            ink = _readable(color)
            trials = f"{cell['count']} trial{'' if cell['count'] == 1 else 's'}"
            axes.text(
                column, row - 0.15, f"{100 * cell['mean']:.2f}", ha="center", va="center", color=ink, fontsize=10.5
            )
            axes.text(column, row + 0.24, trials, ha="center", va="center", color=ink, fontsize=8)
    names = [f"{_short(label, 16)}{' (plain)' if label in grid['plain'] else ''}" for label in labels]
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
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color[:3]]
    return "#ffffff" if np.dot(linear, (0.2126, 0.7152, 0.0722)) < 0.179 else "#000000"


def _draw_progress(figure: Figure, theme: Theme, results: Results) -> None:
    axes = figure.subplots()
    done = _done(results)
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
    axes.step([*spent, total], [*best, best[-1]], where="post", color=theme.ink, linewidth=1.4, label="best so far")
    for _, color, marker, chosen in _kinds(results, theme):
        for rows, look in (
            ([trial for trial in done if trial["trial"] not in whole], {"alpha": 0.35, "s": 12}),
            ([trial for trial in done if trial["trial"] in whole], {"alpha": 0.9, "s": 26}),
        ):
            kind = [trial for trial in rows if chosen(trial)]
            x = [at[trial["trial"]] for trial in kind]
            _dots(axes, x, [trial["score"] for trial in kind], floor, color, marker, zorder=3, **look)
    axes.set_xlim(0, 1.03 * max(total, 1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("steps trained so far, all trials")
    axes.set_ylabel("validation accuracy (%)")
    _accuracy_axis(axes, done)
    lines, _ = axes.get_legend_handles_labels()
    _legend(figure, [*_handles(axes, results, theme), *lines])
