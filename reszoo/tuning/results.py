"""What a search found, from the files in its folder: the best trial, the fronts, the effect of each knob. No TensorFlow."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reszoo.errors import ReszooError

Trial = dict[str, Any]

SHORTCUT = "model.shortcut"
COSTS = ("parameters", "multiply_adds")
STATUSES = ("completed", "failed", "running")


def read_results(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a search's folder holds and what follows from it, as plain values for JSON.

    As written: name, description, search, recipe, space, data, environment, command; trials, by id; refused, the proposals that
    arithmetic refused. Computed: best (an id or None), front (ids by cost), effects, grid, totals. Accuracies are from 0 to 1.
    Trials still running are in it, so that a search can be looked at while it goes on.
    Raises ReszooError for a folder without search.json, or a file that was changed or damaged.
    """
    folder = Path(folder)
    path = folder / "search.json"
    if not path.is_file():
        raise ReszooError(
            f"{folder} holds no search.json: give the folder of a `reszoo tune` search"
        )
    told = _read(path)
    for key in ("search", "recipe", "space", "data"):
        if not isinstance(told.get(key), dict):
            raise ReszooError(f"{path} is damaged: it has no table {key}")
    for name, knob in told["space"].items():
        if not _is_knob(knob):
            raise ReszooError(f"{path} is damaged: {name} is no knob")
    if not isinstance(told.get("name"), str):
        raise ReszooError(f"{path} is damaged: it has no name")
    trials = [_checked(path, told["space"]) for path in folder.glob("trials/*/trial.json")]
    trials.sort(key=_order)
    refused = _refused(folder / "oracle.json")
    best = best_trial(trials)
    count = {status: sum(trial["status"] == status for trial in trials) for status in STATUSES}
    return {
        "name": told["name"],
        "description": str(told.get("description") or ""),
        **{key: told[key] for key in ("search", "recipe", "space", "data")},
        "environment": told.get("environment") or {},
        "command": str(told.get("command") or ""),
        "best": best["trial"] if best else None,
        "front": {cost: pareto(trials, cost) for cost in COSTS},
        "effects": effects(trials, told["space"]),
        "grid": grid(trials, told["space"]),
        "totals": {
            "trials": len(trials),
            **count,
            "refused": len(refused),
            "trained_steps": sum(trial.get("trained_steps") or 0 for trial in trials),
            "seconds": math.fsum(trial.get("seconds") or 0 for trial in trials),
        },
        "trials": trials,
        "refused": refused,
    }


def longest(trials: Sequence[Trial]) -> list[Trial]:
    """Return the completed trials of the largest share, in the order given: the only ones whose scores can be compared."""
    done = [
        trial
        for trial in trials
        if trial["status"] == "completed" and trial.get("score") is not None
    ]
    top = max((trial["share"] for trial in done), default=0.0)
    return [trial for trial in done if math.isclose(trial["share"], top)]


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the completed trial of the largest share with the highest score, or None without any.

    Of equal scores that with fewer parameters is better, then the earlier one.
    """
    return min(
        longest(trials),
        key=lambda trial: (-trial["score"], trial["parameters"], _order(trial)),
        default=None,
    )


def pareto(trials: Sequence[Trial], cost: str) -> list[str]:
    """Return the ids of the trials that no other one beats in score and cost at once, the cheapest first.

    cost: "parameters" or "multiply_adds". Only completed trials of the largest share count. One is beaten by another with no
    higher cost and no lower score that is better in either; of equal ones the earliest stays.
    """
    front: list[Trial] = []
    for trial in sorted(
        longest(trials), key=lambda trial: (trial[cost], -trial["score"], _order(trial))
    ):
        if not front or trial["score"] > front[-1]["score"]:
            front.append(trial)
    return [trial["trial"] for trial in front]


def effects(trials: Sequence[Trial], space: Mapping[str, Any]) -> dict[str, Any]:
    """Return for each knob of a space how the scores of the completed trials of the largest share go with it.

    A knob with options has {"options": {label: {count, mean, deviation, best, scores}}}, the sample deviation None for fewer
    than two; a range {"count", "correlation", "values", "scores"}, the correlation as of `spearman`. Trials in which a knob
    does not act are left out.
    """
    found: dict[str, Any] = {}
    for name, knob in space.items():
        own = [trial for trial in longest(trials) if name in trial["values"]]
        if "options" in knob:
            scores = {
                label: [trial["score"] for trial in own if trial["values"][name] == label]
                for label in knob["options"]
            }
            found[name] = {"options": {label: _summary(values) for label, values in scores.items()}}
        else:
            values, answers = (
                [trial["values"][name] for trial in own],
                [trial["score"] for trial in own],
            )
            correlation = spearman(values, answers)
            found[name] = {
                "count": len(own),
                "correlation": correlation,
                "values": values,
                "scores": answers,
            }
    return found


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the rank correlation of two equally long lists, ties at their mean rank.

    None for fewer than three pairs, or where all values of a list are the same.
    """
    if len(one) < 3 or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    from scipy.stats import spearmanr  # takes a second to import

    return float(spearmanr(one, other).statistic)


def grid(trials: Sequence[Trial], space: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return depth by shortcut: how the completed trials of the largest share did in each; None without a knob for shortcuts.

    depths: rising; shortcuts: labels in the knob's order; plain: those that set no shortcut at all. cells: {label: {depth
    as text: {count, mean, best, training}}}, only where there are trials, training the mean training accuracy or None.
    differences: {label: {shallow, deep, mean, best, training}} from the shallowest to the deepest depth tried with that
    shortcut, in points (hundredths of accuracy); None for one with fewer than two depths.
    """
    options = space.get(SHORTCUT, {}).get("options")
    if not options:
        return None
    own = [trial for trial in longest(trials) if trial["values"].get(SHORTCUT) in options]
    cells: dict[str, dict[str, Any]] = {}
    differences: dict[str, Any] = {}
    for label in options:
        rows = [trial for trial in own if trial["values"][SHORTCUT] == label]
        depths = sorted({trial["depth"] for trial in rows})
        cells[label] = {
            str(depth): _cell([trial for trial in rows if trial["depth"] == depth])
            for depth in depths
        }
        differences[label] = None
        if len(depths) > 1:
            shallow, deep = (cells[label][str(depth)] for depth in (depths[0], depths[-1]))
            differences[label] = {
                "shallow": depths[0],
                "deep": depths[-1],
                **{key: _points(shallow[key], deep[key]) for key in ("mean", "best", "training")},
            }
    return {
        "depths": sorted({trial["depth"] for trial in own}),
        "shortcuts": list(options),
        "plain": [label for label in options if is_plain(space, label)],
        "cells": cells,
        "differences": differences,
    }


def is_plain(space: Mapping[str, Any], label: str | None) -> bool:
    """Return whether an option of the knob model.shortcut makes plain nets."""
    options = space.get(SHORTCUT, {}).get("options", {})
    return label in options and options[label].get(SHORTCUT) == "none"


def training_mean(trial: Trial) -> float | None:
    """Return the mean training accuracy of a trial's executions, or None where it has none."""
    known = [value for value in trial.get("training") or [] if value is not None]
    return float(np.mean(known)) if known else None


def _summary(scores: Sequence[float]) -> dict[str, Any]:
    count = len(scores)
    return {
        "count": count,
        "mean": float(np.mean(scores)) if count else None,
        "deviation": float(np.std(scores, ddof=1)) if count > 1 else None,
        "best": max(scores, default=None),
        "scores": list(scores),
    }


def _cell(trials: Sequence[Trial]) -> dict[str, Any]:
    scores = [trial["score"] for trial in trials]
    training = [mean for trial in trials if (mean := training_mean(trial)) is not None]
    return {
        "count": len(trials),
        "mean": float(np.mean(scores)),
        "best": max(scores),
        "training": float(np.mean(training)) if training else None,
    }


def _points(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else 100 * (after - before)


def _order(trial: Trial) -> tuple[int, str]:
    # Ids are numbers filled up with zeros, but the ten-thousandth trial is longer than those before.
    return len(trial["trial"]), trial["trial"]


def _read(path: Path) -> dict[str, Any]:
    try:
        # NaN and infinity, which JSON has not, become None: no accuracy.
        told = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: None)
    except (ValueError, OSError, RecursionError) as error:
        raise ReszooError(f"{path} cannot be read: it was changed or damaged ({error})") from None
    if not isinstance(told, dict):
        raise ReszooError(f"{path} is damaged: it holds no table")
    return told


def _checked(path: Path, space: Mapping[str, Any]) -> Trial:
    """Return a trial's record, in which whatever is computed with is there and of its type."""
    trial = _read(path)
    status, values = trial.get("status"), trial.get("values")
    needed = ("share", "depth", *COSTS) if status == "completed" else ()
    wrong = [] if isinstance(trial.get("trial"), str) else ["trial"]
    wrong += [] if status in STATUSES else ["status"]
    wrong += [] if isinstance(values, dict) and _fit(values, space) else ["values"]
    for key in ("share", "depth", *COSTS, "score", "trained_steps", "seconds"):
        if not (_is_number(trial.get(key)) or (trial.get(key) is None and key not in needed)):
            wrong.append(key)
    for key in ("seeds", "scores", "training"):
        row = trial.get(key) or []
        if not isinstance(row, list) or not all(item is None or _is_number(item) for item in row):
            wrong.append(key)
    if wrong:
        raise ReszooError(f"{path} is damaged: {wrong[0]} is {trial.get(wrong[0])!r}")
    return trial


def _fit(values: Mapping[str, Any], space: Mapping[str, Any]) -> bool:
    return all(
        isinstance(value, str) if "options" in space[name] else _is_number(value)
        for name, value in values.items()
        if name in space
    )


def _refused(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    told = _read(path).get("refused") or []
    if not isinstance(told, list) or not all(
        isinstance(row, dict) and "reason" in row for row in told
    ):
        raise ReszooError(f"{path} is damaged: refused is no list of proposals with their reasons")
    return told


def _is_knob(told: Any) -> bool:
    if not isinstance(told, dict):
        return False
    if "options" not in told:
        return _is_number(told.get("low")) and _is_number(told.get("high"))
    options = told["options"]
    return isinstance(options, dict) and all(isinstance(sets, dict) for sets in options.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
