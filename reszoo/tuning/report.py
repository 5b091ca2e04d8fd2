"""The page of a search, from the files in its folder alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.reporting.page import Page, Section, Table, mean_and_deviation, provenance, write_page
from reszoo.reporting.plots import Plot
from reszoo.tuning.figures import (
    COLUMNS,
    Results,
    clipped_note,
    completed,
    draw_choices,
    draw_cost,
    draw_grid,
    draw_progress,
    was_tried,
)
from reszoo.tuning.results import STATUSES, Trial, longest, read_results, training_mean
from reszoo.tuning.words import in_words, short_names, value_in_words

ROWS = 20  # of the tables that could be endless
WIDTH = 90  # characters of a reason or a description of a failure


def report(folder: str | os.PathLike[str]) -> Path:
    """Write report.json, report.html and the figures of the search in `folder`, finished or not; return the page's path.

    The same results give the same files.

    Raises:
        ReszooError: the folder holds no search, or damaged files.
    """
    results = read_results(folder)
    try:
        page = present(results)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ReszooError(
            f"{folder}: search.json lacks what a page needs ({error!r}); it was changed or damaged"
        ) from error
    write_json(Path(folder) / "report.json", results)
    return write_page(Path(folder), page)


def finding(results: Results) -> str:
    """Return the best trial in one sentence; without a completed trial, the most frequent reason of failure.

    results: as `read_results` gives them.
    """
    if results["best"] is None:
        return _nothing(results)
    best = next(trial for trial in results["trials"] if trial["trial"] == results["best"])
    own = longest(results["trials"])
    among = f"{len(own)} trials" if len(own) > 1 else "one trial"
    if len(own) < results["totals"]["completed"]:
        among += " trained longest"
    values = in_words(best["values"], results["space"])
    text = f"Best of {among} is {best['trial']}{f' ({values})' if values else ''}: {_accuracy(best)} % validation accuracy"
    if len(best.get("scores") or []) > 1:
        text += f" over {len(best['scores'])} executions"
    if best["share"] < 1:
        text += f" after {100 * best['share']:.0f} % of the training"
    return f"{text}, {best['parameters']:,} parameters."


def present(results: Results) -> Page:
    """Return the page of a search."""
    sections = [_leaders(results)]
    if results["best"] is not None:
        sections += [_cost(results), _choices(results)]
        if results["grid"]:
            sections.append(_depth(results))
        sections.append(_progress(results))
    if results["totals"]["failed"] or results["refused"]:
        sections.append(_failures(results))
    sections.append(_setup(results))
    foot = provenance(results["command"], results["environment"], "search.json and trials/")
    return Page(f"Search {results['name']}", finding(results), sections, foot)


def _nothing(results: Results) -> str:
    totals = results["totals"]
    text = "No trial has completed yet" if totals["running"] else "No trial completed"
    parts = [f"{totals[status]} {status}" for status in ("failed", "running") if totals[status]]
    for status, reasons in (
        ("failed", _failed(results)),
        ("rejected", [row["reason"] for row in results["refused"]]),
    ):
        if reasons:
            reason, count = _collapsed(reasons)[0]
            parts.append(f"{count} of {len(reasons)} {status} with: {reason}")
            break
    return f"{text}: {'; '.join(parts)}." if parts else f"{text}."


def _depth_finding(results: Results) -> str:
    """Return what depth did to plain and to residual models; "" where only one of them was tried with several depths."""
    grid = results["grid"]
    found = {label: gap for label, gap in grid["differences"].items() if gap}
    if len({label in grid["plain"] for label in found}) < 2:
        return ""
    parts = [
        f"{_signed(gap['mean'])} ({_signed(gap['best'])}) {'in plain models' if label in grid['plain'] else f'with shortcut {label}'}"
        f" from depth {gap['shallow']} to {gap['deep']}"
        for label, gap in found.items()
    ]
    return f"Change of the mean (best) validation accuracy in points: {', '.join(parts[:-1])} and {parts[-1]}."


def _accuracy(trial: Trial) -> str:
    return mean_and_deviation(
        [100 * score for score in trial.get("scores") or [trial["score"]] if score is not None]
    )


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
        groups.setdefault(line[amount.end() :] if amount else line, []).append(
            amount[0] if amount else ""
        )
    rows = []
    for rest, amounts in groups.items():
        known = sorted(set(amounts), key=lambda amount: float(amount.replace(",", "") or 0))
        text = (f"{known[0]} to {known[-1]}" if len(known) > 1 else known[0]) + rest
        rows.append((text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}...", len(amounts)))
    return sorted(rows, key=lambda row: -row[1])


# Sections


def _leaders(results: Results) -> Section:
    totals, space = results["totals"], results["space"]
    counts = [f"{totals[key]:,} {key}" for key in STATUSES if totals[key]]
    told = f"{totals['trials']:,} trial{'' if totals['trials'] == 1 else 's'}{': ' if counts else ''}{', '.join(counts)}"
    told += f"; {totals['refused']:,} rejected." if totals["refused"] else "."
    # The sort is stable, and trials stand in the order of their ids.
    done = sorted(
        completed(results),
        key=lambda trial: (-trial["share"], -trial["score"], trial["parameters"]),
    )
    if not done:
        return Section("Trials", [], told)
    shares = len({trial["share"] for trial in done}) > 1 or any(
        trial.get("continues") for trial in done
    )
    names = short_names(list(space))
    headers = ["trial", *(["share", "continues"] if shares else []), "validation, %", "training, %"]
    headers += [*names.values(), "parameters", "MACs", "seconds"]
    rows = []
    for trial in done[:ROWS]:
        row = [trial["trial"]]
        row += [f"{100 * trial['share']:.0f} %", trial.get("continues") or "-"] if shares else []
        row += [_accuracy(trial), _percent(training_mean(trial))]
        row += [value_in_words(trial["values"].get(knob, "-")) for knob in space]
        row += [f"{trial['parameters']:,}", f"{trial['multiply_adds']:,}"]
        row.append("-" if trial.get("seconds") is None else f"{trial['seconds']:,.1f}")
        rows.append(row)
    note = (
        "Validation accuracy: mean ± sample deviation over executions; it selects the best trial, whose accuracy is therefore a "
        "little too high. Training accuracy: in the last epoch, on augmented images."
    )
    if shares:
        note += " Share: of the whole training, then scored; different shares are not compared. Continues: the trial it resumed."
    if len(done) > ROWS:
        note += f" The best {ROWS} of {len(done)}."
    return Section("Leaderboard", [Table(headers, rows, note)], told)


def _cost(results: Results) -> Section:
    caption = (
        "Validation accuracy against parameters and against MACs per image. Line: the Pareto front, the best accuracy for at "
        f"most that cost; ring: the best trial.{clipped_note(longest(results['trials']))}"
    )
    rows, trials = [], {trial["trial"]: trial for trial in results["trials"]}
    for name in results["front"]["parameters"]:
        trial = trials[name]
        words = in_words(trial["values"], results["space"])
        rows.append(
            [
                name,
                f"{trial['parameters']:,}",
                f"{trial['multiply_adds']:,}",
                _accuracy(trial),
                words,
            ]
        )
    headers = ["trial", "parameters", "MACs", "validation, %", "values"]
    return Section(
        "Accuracy against cost",
        [
            Plot(
                "accuracy-cost",
                caption,
                lambda figure, theme: draw_cost(figure, theme, results),
                (9.0, 4.4),
            ),
            Table(
                headers,
                rows[-ROWS:],
                "The Pareto front in parameters: no other trial has both at most as many and at least the same accuracy.",
            ),
        ],
    )


def _choices(results: Results) -> Section:
    names = short_names(list(results["space"]))
    rows = []
    for knob, effect in results["effects"].items():
        if "options" in effect:
            for label, own in effect["options"].items():
                mean = mean_and_deviation([100 * score for score in own["scores"]])
                rows.append(
                    [names[knob], label, str(own["count"]), mean, _percent(own["best"]), ""]
                )
        else:
            told = results["space"][knob]
            best = _percent(max(effect["scores"], default=None))
            mean = mean_and_deviation([100 * score for score in effect["scores"]])
            between = f"{told['low']:g} to {told['high']:g}"
            rows.append(
                [
                    names[knob],
                    between,
                    str(effect["count"]),
                    mean,
                    best,
                    _signed(effect["correlation"]),
                ]
            )
    panels = [knob for knob, effect in results["effects"].items() if was_tried(effect)]
    lines = -(-len(panels) // COLUMNS)
    clipped = clipped_note(longest(results["trials"]))
    caption = f"Each dot is a trial, each bar the mean of a value; in parentheses the number of trials.{clipped}"
    if clipped:
        caption = f"{caption[:-1]}, hollow ones means."
    plot = Plot(
        "choices",
        caption,
        lambda figure, theme: draw_choices(figure, theme, results, panels),
        (9.0, 0.5 + 2.7 * lines),
    )
    table = Table(
        ["hyperparameter", "value", "trials", "mean validation, %", "best, %", "rank correlation"],
        rows,
        "Mean ± sample deviation over trials, which differ in the other hyperparameters too. Rank correlation: Spearman's, of a "
        "range's values with the accuracy.",
    )
    return Section("Effect of each hyperparameter", [plot, table] if panels else [table])


def _depth(results: Results) -> Section:
    grid = results["grid"]
    rows = [
        [f"{label} (plain)" if label in grid["plain"] else label]
        + (
            ["-"] * 5
            if gap is None
            else [str(gap["shallow"]), str(gap["deep"]), *map(_signed, _gaps(gap))]
        )
        for label, gap in grid["differences"].items()
    ]
    headers = [
        "shortcut",
        "shallowest",
        "deepest",
        "mean validation",
        "best validation",
        "mean training",
    ]
    note = "Deepest minus shallowest depth tried with a shortcut, in points of accuracy. Trials differ in other values too."
    table = Table(headers, rows, note)
    if not grid["depths"]:
        return Section("Depth by shortcut", [table])
    size = (min(9.0, 2.4 + 1.5 * len(grid["shortcuts"])), 1.3 + 0.62 * len(grid["depths"]))
    plot = Plot(
        "depth-shortcut",
        "Mean validation accuracy in percent by depth and shortcut, with the number of trials; a dash where nothing was tried.",
        lambda figure, theme: draw_grid(figure, theme, grid),
        size,
    )
    return Section("Depth by shortcut", [plot, table], _depth_finding(results))


def _gaps(gap: Mapping[str, Any]) -> tuple[float | None, ...]:
    return gap["mean"], gap["best"], gap["training"]


def _progress(results: Results) -> Section:
    caption = (
        "Validation accuracy against steps trained, in the order of the trials. Line: the best so far of those with the largest "
        f"share of the training; faint: trials with a smaller share.{clipped_note(completed(results))}"
    )
    plot = Plot(
        "progress", caption, lambda figure, theme: draw_progress(figure, theme, results), (9.0, 3.6)
    )
    return Section("Progress", [plot])


def _failures(results: Results) -> Section:
    rows = []
    for what, reasons in (
        ("failed", _failed(results)),
        ("rejected", [str(row["reason"]) for row in results["refused"]]),
    ):
        rows += [[what, reason, f"{count:,}"] for reason, count in _collapsed(reasons)]
    note = "Failed: an error in training. Rejected: before the model was built."
    if len(rows) > ROWS:
        note += f" The first {ROWS} of {len(rows)} reasons."
    return Section(
        "Failures and rejections", [Table(["status", "reason", "trials"], rows[:ROWS], note)]
    )


def _setup(results: Results) -> Section:
    search, totals, data = results["search"], results["totals"], results["data"]
    limits = [f"{search[key]:,} {what}" for key, what in _LIMITS if search.get(key)]
    images = ", ".join(f"{count:,} {part}" for part, count in (data.get("examples") or {}).items())
    shape = " x ".join(str(side) for side in data.get("input_shape") or [])
    rows = [["description", results["description"]]] if results["description"] else []
    rows += [
        ["tuner", str(search.get("tuner", "-"))],
        ["seed", str(search.get("seed", "-"))],
        ["trials requested", f"{search['trials']:,}" if search.get("trials") else "no limit"],
        ["executions per trial", str(search.get("executions", "-"))],
        ["limits of a model", ", ".join(limits) if limits else "none"],
        ["base recipe", str(results["recipe"].get("name", "-"))],
        ["data", f"{data.get('name', '-')}{f' ({images} images)' if images else ''}"],
        ["images", f"{shape}, {data.get('classes', '-')} classes"],
        ["steps trained", f"{totals['trained_steps']:,}"],
        ["time in training", _duration(totals["seconds"])],
    ]
    return Section("Setup", [Table([], rows)])


_LIMITS = (("max_params", "parameters"), ("max_macs", "MACs"))
