"""The report of a search, made from the files in its folder alone."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.reporting.page import Page, Section, Table, mean_and_deviation, provenance, write_page
from reszoo.reporting.plots import Plot, Theme
from reszoo.tuning import figures
from reszoo.tuning.formatting import format_share, format_value, format_values, short_names
from reszoo.tuning.plan import NAME
from reszoo.tuning.records import Trial
from reszoo.tuning.results import STATUSES, completed, longest, read_results, training_mean
from reszoo.types import JsonObject

ROWS = 20  # of a table
WIDTH = 90  # characters of a reason


def report(folder: str | os.PathLike[str]) -> Path:
    """Write report.json, report.html and the figures of a search; return the page's path.

    Equal results give equal files.

    Raises:
        ReszooError: If the folder is not a search folder, or a file is damaged.
    """
    results = read_results(folder)
    try:
        page = present(results)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ReszooError(f"{Path(folder) / NAME} is damaged: {error!r}") from error
    write_json(Path(folder) / "report.json", results)
    return write_page(Path(folder), page)


def finding(results: JsonObject) -> str:
    """Return the best trial in one sentence; without one, the main reason of failure."""
    if results["best"] is None:
        return _finding_without_best(results)
    best = next(trial for trial in results["trials"] if trial["trial"] == results["best"])
    count = len(longest(results["trials"]))
    among = f"{count} trials" if count > 1 else "one trial"
    if count < results["totals"]["completed"]:
        among += " trained longest"
    values = format_values(best["values"], results["space"])
    runs = f" over {len(best['scores'])} executions" if len(best["scores"]) > 1 else ""
    return (
        f"Best of {among} is {best['trial']}{f' ({values})' if values else ''}: "
        f"{_accuracy(best)} % validation accuracy{runs}{format_share(best['share'])}, "
        f"{best['parameters']:,} parameters."
    )


def present(results: JsonObject) -> Page:
    """Return the page of a search."""
    sections = [_leaderboard(results)]
    if results["best"] is not None:
        sections += [_cost(results), _effects(results)]
        if results["grid"] and results["grid"]["depths"]:
            sections.append(_depth(results))
        sections.append(_progress(results))
    if results["totals"]["failed"] or results["rejected"]:
        sections.append(_failures(results))
    sections.append(_setup(results))
    foot = provenance(results["command"], results["environment"], f"{NAME} and trials/")
    return Page(f"Search {results['name']}", finding(results), sections, foot)


def _finding_without_best(results: JsonObject) -> str:
    totals = results["totals"]
    text = "No trial has completed yet" if totals["running"] else "No trial completed"
    counts = [f"{totals[status]} {status}" for status in ("failed", "running") if totals[status]]
    reasons = [reason for _, reason, _ in _reasons(results)]
    parts = [*counts, *(f"most frequent reason: {reason}" for reason in reasons[:1])]
    return f"{text}: {'; '.join(parts)}." if parts else f"{text}."


def _leaderboard(results: JsonObject) -> Section:
    totals, space, names = results["totals"], results["space"], short_names(results["space"])
    counts = [f"{totals[key]:,} {key}" for key in (*STATUSES, "rejected") if totals[key]]
    text = f"{totals['trials']:,} trial{'' if totals['trials'] == 1 else 's'}"
    text += f": {', '.join(counts)}." if counts else "."
    # The sort is stable, and trials are in the order of their ids.
    done = sorted(
        completed(results["trials"]),
        key=lambda trial: (-trial["share"], -trial["score"], trial["parameters"]),
    )
    shares = len({trial["share"] for trial in done}) > 1
    headers = ["trial", *(["share", "continues"] if shares else []), "validation, %", "training, %"]
    headers += [*names.values(), "parameters", "MACs", "seconds"]
    rows = [
        [
            trial["trial"],
            *([f"{100 * trial['share']:.0f} %", trial.get("continues") or "-"] if shares else []),
            _accuracy(trial),
            _percent(training_mean(trial)),
            *(format_value(trial["values"].get(name, "-")) for name in space),
            f"{trial['parameters']:,}",
            f"{trial['macs']:,}",
            f"{trial.get('seconds', 0):,.1f}",
        ]
        for trial in done
    ]
    note = (
        "Validation accuracy: mean ± sample deviation of executions. It selects the best trial, "
        "whose own is therefore biased upward. Training accuracy: last epoch, augmented images."
    )
    if shares:
        note += " Share: of the whole training. Continues: the trial whose training it resumed."
    return Section("Leaderboard", [_table(headers, rows, note)] if done else [], text)


def _cost(results: JsonObject) -> Section:
    trials = {trial["trial"]: trial for trial in results["trials"]}
    headers = ["trial", "parameters", "MACs", "validation, %", "values"]
    rows = [
        [
            name,
            f"{trials[name]['parameters']:,}",
            f"{trials[name]['macs']:,}",
            _accuracy(trials[name]),
            format_values(trials[name]["values"], results["space"]),
        ]
        for name in reversed(results["front"]["parameters"])
    ]
    caption = "Validation accuracy against parameters and MACs per image, with the Pareto fronts."
    plot = _plot(
        "accuracy-cost", caption, figures.draw_cost, results, longest(results["trials"]), 4.4
    )
    note = "The Pareto front in parameters."
    return Section("Accuracy against cost", [plot, _table(headers, rows, note)])


def _effects(results: JsonObject) -> Section:
    names, rows, tried = short_names(results["space"]), list[list[str]](), list[str]()
    for name, effect in results["effects"].items():
        entry = results["space"][name]
        groups = effect.get("options")
        if groups is None:
            groups = {f"{entry['low']:g} to {entry['high']:g}": effect}
        for label, group in groups.items():
            scores = [100 * score for score in group["scores"]]
            best = f"{max(scores):.2f}" if scores else "-"
            correlation = _signed(effect["correlation"]) if "correlation" in effect else ""
            mean = mean_and_deviation(scores)
            rows.append([names[name], label, str(len(scores)), mean, best, correlation])
        tried += [name] if any(group["scores"] for group in groups.values()) else []
    headers = [
        "hyperparameter",
        "value",
        "trials",
        "mean validation, %",
        "best, %",
        "rank correlation",
    ]
    note = "Mean ± sample deviation over trials, which differ in other values too. "
    note += "Rank correlation: Spearman's."
    table = Table(headers, rows, note)
    if not tried:
        return Section("Effect of each hyperparameter", [table])
    caption = "One dot per trial; bars are means, with the number of trials in parentheses."
    height = 0.5 + 2.7 * -(-len(tried) // figures.COLUMNS)
    draw = partial(figures.draw_effects, hyperparameters=tried)
    plot = _plot("effects", caption, draw, results, longest(results["trials"]), height)
    return Section("Effect of each hyperparameter", [plot, table])


def _depth(results: JsonObject) -> Section:
    grid = results["grid"]
    headers = ["shortcut", "shallowest", "deepest"]
    headers += ["mean validation", "best validation", "mean training"]
    rows = []
    for label, gap in grid["differences"].items():
        ends = [str(gap[key]) for key in ("shallow", "deep")] if gap else ["-"] * 2
        points = [_signed(gap[key] if gap else None) for key in ("mean", "best", "training")]
        rows.append([f"{label} (plain)" if label in grid["plain"] else label, *ends, *points])
    table = Table(
        headers, rows, "Deepest minus shallowest depth of a shortcut, in points of accuracy."
    )
    width = min(9.0, 2.4 + 1.5 * len(grid["shortcuts"]))
    plot = Plot(
        "depth-shortcut",
        "Mean validation accuracy in percent by depth and shortcut, with the number of trials.",
        lambda figure, theme: figures.draw_grid(figure, theme, grid),
        (width, 1.3 + 0.62 * len(grid["depths"])),
    )
    return Section("Depth by shortcut", [plot, table], _depth_finding(grid))


def _depth_finding(grid: JsonObject) -> str:
    """Return what depth did to plain and residual models; "" without several depths of both."""
    found = {label: gap for label, gap in grid["differences"].items() if gap}
    if len({label in grid["plain"] for label in found}) < 2:
        return ""
    parts = [
        f"{_signed(gap['mean'])} points "
        f"{'in plain models' if label in grid['plain'] else f'with shortcut {label}'}"
        for label, gap in found.items()
    ]
    change = "From the shallowest to the deepest models mean validation accuracy changes by"
    return f"{change} {', '.join(parts)}."


def _progress(results: JsonObject) -> Section:
    caption = "Validation accuracy against steps trained; faint: smaller shares of the training."
    done = completed(results["trials"])
    plot = _plot("progress", caption, figures.draw_progress, results, done, 3.6)
    return Section("Progress", [plot])


def _failures(results: JsonObject) -> Section:
    rows = [[status, reason, f"{count:,}"] for status, reason, count in _reasons(results)]
    note = "Failed: an error in training. Rejected: before the model was built."
    return Section("Failures and rejections", [_table(["status", "reason", "trials"], rows, note)])


def _setup(results: JsonObject) -> Section:
    search, totals, data = results["search"], results["totals"], results["data"]
    limits = (("max_params", "parameters"), ("max_macs", "MACs"))
    images = ", ".join(f"{count:,} {split}" for split, count in data.get("examples", {}).items())
    shape = " x ".join(map(str, data.get("input_shape", [])))
    hours, seconds = divmod(totals["seconds"], 3600)
    rows = {
        "description": results["description"],
        "tuner": search.get("tuner"),
        "seed": search.get("seed"),
        "trials requested": search.get("trials") or "no limit",
        "executions per trial": search.get("executions"),
        "limits of a model": ", ".join(
            f"{search[k]:,} {what}" for k, what in limits if search.get(k)
        ),
        "base recipe": results["recipe"].get("name"),
        "data": f"{data.get('name')} ({images} images)",
        "images": f"{shape}, {data.get('classes')} classes",
        "steps trained": f"{totals['trained_steps']:,}",
        "time in training": f"{hours:.0f} h {seconds / 60:.0f} min",
    }
    return Section(
        "Setup", [Table([], [[key, str(value or "none")] for key, value in rows.items()])]
    )


def _reasons(results: JsonObject) -> list[tuple[str, str, int]]:
    """Return (failed or rejected, reason without its number, count), frequent ones first."""
    failed = [trial["reason"] for trial in results["trials"] if trial["status"] == "failed"]
    rejected = [row["reason"] for row in results["rejected"]]
    return [
        (status, reason, count)
        for status, reasons in (("failed", failed), ("rejected", rejected))
        for reason, count in Counter(map(_shorten_reason, reasons)).most_common()
    ]


def _shorten_reason(reason: str) -> str:
    line = re.sub(r"^[\d,.]*\d ", "", next(iter(reason.strip().splitlines()), "unknown"))
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> Table:
    """Return a table of at most ROWS rows."""
    more = f" The first {ROWS} of {len(rows)} rows." if len(rows) > ROWS else ""
    return Table(headers, rows[:ROWS], note + more)


def _plot(
    name: str,
    caption: str,
    draw: Callable[[Figure, Theme, JsonObject], None],
    results: JsonObject,
    trials: Sequence[Trial],
    height: float,
) -> Plot:
    """Return a figure of trials as wide as the page."""
    floor = figures.accuracy_floor(trials)
    note = f" Accuracies below {floor:.1f} % are drawn at the edge." if floor else ""
    return Plot(
        name, caption + note, lambda figure, theme: draw(figure, theme, results), (9.0, height)
    )


def _accuracy(trial: Trial) -> str:
    return mean_and_deviation([100 * score for score in trial["scores"]])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 2) + 0.0:+.2f}"  # never -0.00
