"""Search folders written by hand, without training."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

SPACE: dict[str, Any] = {
    "n": {"options": {str(n): {"model.depths": [n] * 3} for n in (1, 3, 5)}, "when": {}},
    "model.shortcut": {
        "options": {label: {"model.shortcut": label} for label in ("none", "A", "B")},
        "when": {},
    },
    "model.zero_gamma": {
        "options": {"false": {"model.zero_gamma": False}, "true": {"model.zero_gamma": True}},
        "when": {"model.shortcut": ["A", "B"]},
    },
    "schedule.rate": {"low": 0.01, "high": 0.2, "log": True, "step": 0, "when": {}},
}
SEARCH: dict[str, Any] = {
    "name": "depth_shortcut",
    "description": "Depth and shortcuts.",
    "search": {
        "tuner": "random",
        "trials": 30,
        "executions": 1,
        "seed": 7,
        "max_params": 1_000_000,
    },
    "recipe": {"name": "quickstart", "model": {"name": "resnet20"}},
    "space": SPACE,
    "data": {
        "name": "digits",
        "input_shape": [8, 8, 1],
        "classes": 10,
        "examples": {"train": 1287, "validation": 150, "test": 360},
    },
    "environment": {"versions": {"reszoo": "0.1.0"}, "git": "abc1234", "started": "2026-01-02"},
    "command": "reszoo tune depth_shortcut",
}


def values(n: int, shortcut: str, rate: float = 0.05) -> dict[str, Any]:
    gamma = {} if shortcut == "none" else {"model.zero_gamma": "true"}
    return {"n": str(n), "model.shortcut": shortcut, **gamma, "schedule.rate": rate}


def trial(number: int, score: float | None = None, **changes: Any) -> dict[str, Any]:
    """A record: completed if it has a score, with those of two executions about it."""
    record: dict[str, Any] = {
        "trial": f"{number:04d}",
        "values": values(3, "A"),
        "continues": None,
        "share": 1.0,
        "status": "failed" if score is None else "completed",
        "reason": "it broke" if score is None else "",
        "seeds": [0, 1],
        "depth": 20,
        "parameters": 1000,
        "macs": 50_000,
        "worker": "tuner0",
        "attempts": [[0, 0]],
    }
    if score is not None:
        record |= {"score": score, "scores": [score - 0.01, score + 0.01]}
        record |= {"training": [score, score], "steps": 80, "trained_steps": 160, "seconds": 1.5}
    return {**record, **changes}


def write(folder: Path, trials: list[dict[str, Any]], rejected: Any = None, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "search.json").write_text(json.dumps({**SEARCH, **changes}))
    for record in trials:
        path = folder / "trials" / record["trial"]
        path.mkdir(parents=True)
        (path / "trial.json").write_text(json.dumps(record))
    if rejected is not None:
        (folder / "oracle.json").write_text(json.dumps({"rejected": rejected}))
    return folder


def varied(count: int = 24, shares: tuple[float, ...] = (1.0,)) -> list[dict[str, Any]]:
    """Trials of every depth and shortcut, at different rates; two failed, one running."""
    random = np.random.default_rng(0)
    found = []
    every = itertools.cycle(itertools.product((1, 3, 5), ("none", "A", "B")))
    for number, (n, shortcut) in enumerate(itertools.islice(every, count)):
        mean = 0.95 - (0.03 * n if shortcut == "none" else 0)
        score = None if number in (4, 9) else round(mean + float(random.normal(0, 0.01)), 4)
        rate = float(f"{random.uniform(0.01, 0.2):.4g}")
        cost = {"parameters": 1000 * n + number // 9, "macs": 50_000 * n + number}
        more = {"values": values(n, shortcut, rate), "depth": 6 * n + 2, **cost}
        found.append(trial(number, score, share=shares[number % len(shares)], **more))
    return [*found, trial(count, status="running", reason="")]


def comparable(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The completed trials of the largest share."""
    done = [record for record in trials if record["status"] == "completed"]
    return [record for record in done if all(record["share"] >= other["share"] for other in done)]
