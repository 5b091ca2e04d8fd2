"""The results of a search: the best trial, the Pareto fronts, the effect of each hyperparameter."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from reszoo.errors import ReszooError
from reszoo.tuning.plan import NAME
from reszoo.tuning.records import SEARCH, STATE, Trial, read_file, read_trial
from reszoo.types import JsonMapping, JsonObject

SHORTCUT = "model.shortcut"
STATUSES = ("completed", "failed", "running")

Cost: TypeAlias = Literal["parameters", "macs"]
SpaceTable: TypeAlias = JsonMapping
"""The table `space` of search.json."""


def read_results(folder: str | os.PathLike[str]) -> JsonObject:
    """Return what a search folder holds and what follows from it, as plain values for JSON.

    A search that still runs can be read too.

    Returns:
        As written: name, description, search, recipe, space, data, environment, command; trials, by
        id; `rejected`, the values with reasons. Computed: best (an id or None), front (ids by
        cost), effects, grid, totals. Accuracies are from 0 to 1.

    Raises:
        ReszooError: If the folder is not a search folder, or a file is damaged.
    """
    folder = Path(folder)
    if not (folder / NAME).is_file():
        raise ReszooError(f"{folder}: not a search folder; it has no {NAME}")
    search, state = read_file(folder / NAME, SEARCH), folder / "oracle.json"
    space = search["space"]
    trials = [_read_trial(path, space) for path in folder.glob("trials/*/trial.json")]
    trials.sort(key=_order)
    rejected = read_file(state, STATE).get("rejected", []) if state.is_file() else []
    best = best_trial(trials)
    return {
        "name": search["name"],
        "description": search.get("description", ""),
        "search": search["search"],
        "recipe": search["recipe"],
        "space": space,
        "data": search["data"],
        "environment": search.get("environment", {}),
        "command": search.get("command", ""),
        "best": best["trial"] if best else None,
        "front": {
            "parameters": pareto(trials, "parameters"),
            "macs": pareto(trials, "macs"),
        },
        "effects": effects(trials, space),
        "grid": grid(trials, space),
        "totals": {
            "trials": len(trials),
            **{status: sum(trial["status"] == status for trial in trials) for status in STATUSES},
            "rejected": len(rejected),
            "trained_steps": sum(trial.get("trained_steps", 0) for trial in trials),
            "seconds": math.fsum(trial.get("seconds", 0) for trial in trials),
        },
        "trials": trials,
        "rejected": rejected,
    }


def completed(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that have a score."""
    return [trial for trial in trials if trial["status"] == "completed"]


def longest(trials: Sequence[Trial]) -> list[Trial]:
    """Return the completed trials with the largest share, the only ones that are compared."""
    done = completed(trials)
    top = max((trial["share"] for trial in done), default=0.0)
    return [trial for trial in done if math.isclose(trial["share"], top)]


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the highest score among the longest, None without any.

    Of equal scores the one with fewer parameters is better, then the earlier one.
    """
    return min(
        longest(trials),
        key=lambda trial: (-trial["score"], trial["parameters"], _order(trial)),
        default=None,
    )


def pareto(trials: Sequence[Trial], cost: Cost) -> list[str]:
    """Return the ids on the Pareto front of score and cost, the cheapest first.

    Only the longest trials count; of equal ones the earliest stays.
    """
    front: list[Trial] = []
    for trial in sorted(
        longest(trials), key=lambda each: (each[cost], -each["score"], _order(each))
    ):
        if not front or trial["score"] > front[-1]["score"]:
            front.append(trial)
    return [trial["trial"] for trial in front]


def effects(trials: Sequence[Trial], space: SpaceTable) -> JsonObject:
    """Return how the scores of the longest trials depend on each hyperparameter.

    Returns:
        For a choice {"options": {label: {count, mean, deviation, best, scores}}}, with the sample
        deviation; for a range {count, correlation, values, scores}, with that of `spearman`.
    """
    found: JsonObject = {}
    for name, entry in space.items():
        own = [trial for trial in longest(trials) if name in trial["values"]]
        if "options" in entry:
            by_label: dict[str, list[float]] = {label: [] for label in entry["options"]}
            for trial in own:
                by_label.setdefault(str(trial["values"][name]), []).append(trial["score"])
            found[name] = {"options": {key: _summarize(row) for key, row in by_label.items()}}
        else:
            values = [float(trial["values"][name]) for trial in own]
            scores = [trial["score"] for trial in own]
            found[name] = {
                "count": len(own),
                "correlation": spearman(values, scores),
                "values": values,
                "scores": scores,
            }
    return found


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the rank correlation of two lists, None if fewer than three pairs differ."""
    if len(one) < 3 or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    from scipy.stats import spearmanr  # takes a second to import

    return float(spearmanr(one, other).statistic)


def grid(trials: Sequence[Trial], space: SpaceTable) -> JsonObject | None:
    """Return depth by shortcut for the longest trials; None if the shortcut is not searched.

    Returns:
        depths: rising. shortcuts: labels. plain: those of plain models. cells: {label: {depth as
        text: {count, mean, best, training}}}, with the mean training accuracy or None. differences:
        {label: {shallow, deep, mean, best, training}}, from the shallowest to the deepest depth, in
        points of accuracy; None for one depth.
    """
    options = space.get(SHORTCUT, {}).get("options")
    if not options:
        return None
    own = [trial for trial in longest(trials) if trial["values"].get(SHORTCUT) in options]
    cells: dict[str, dict[str, JsonObject]] = {}
    differences: dict[str, JsonObject | None] = {}
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


def is_plain(space: SpaceTable, label: object) -> bool:
    """Return whether an option of model.shortcut gives plain models."""
    sets = space.get(SHORTCUT, {}).get("options", {}).get(label, {})
    return bool(sets.get(SHORTCUT) == "none")


def training_mean(trial: Trial) -> float | None:
    """Return the mean training accuracy of a trial's executions, None if unknown."""
    return _mean([value for value in trial.get("training", []) if value is not None])


def _summarize(scores: list[float]) -> JsonObject:
    return {
        "count": len(scores),
        "mean": _mean(scores),
        "deviation": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "best": max(scores, default=None),
        "scores": scores,
    }


def _cell(trials: list[Trial]) -> JsonObject:
    summary = _summarize([trial["score"] for trial in trials])
    training = [mean for trial in trials if (mean := training_mean(trial)) is not None]
    cell = {key: summary[key] for key in ("count", "mean", "best")}
    return {**cell, "training": _mean(training)}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _points(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else 100 * (after - before)


def _order(trial: Trial) -> tuple[int, str]:
    # Ids are numbers filled up with zeros, but the ten-thousandth one is longer.
    return len(trial["trial"]), trial["trial"]


def _read_trial(path: Path, space: SpaceTable) -> Trial:
    trial = read_trial(path)
    for name, value in trial["values"].items():
        if name in space and isinstance(value, str) != ("options" in space[name]):
            raise ReszooError(f"{path} is damaged: values.{name}: {value!r}")
    return trial
