"""A space small enough to be searched for real, and searches without training: a score is a function of the values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reszoo.reporting.reporter import Reporter
from reszoo.tuning.history import History, Past, Proposal
from reszoo.tuning.plan import Plan
from reszoo.tuning.proposals import propose
from reszoo.tuning.space import Values, load_space

SPACE = """
description = "tiny"
recipe = "quickstart"
set = ["train.epochs=3", "train.export=false", "data.examples=60", "data.validation=60", "train.batch_size=30",
       "train.deterministic=true", "model.name=resnet8", "model.stem_width=4", "schedule.warmup=0"]

[search]
trials = 4

[space]
model.shortcut = ["none", "A", "B"]
model.zero_gamma = { choices = [false, true], when = { model.shortcut = ["A", "B"] } }
schedule.rate = { low = 0.01, high = 0.2, log = true, step = 2.0 }

[space.width.options]
4 = { model.widths = [4, 4, 8] }
8 = { model.widths = [8, 8, 16] }
"""
COMBINATIONS = 5 * 2 * 5  # 5 rates, 2 widths; plain, and two shortcuts with and without zero_gamma
DATA: dict[str, Any] = {
    "name": "digits",
    "input_shape": (8, 8, 1),
    "classes": 10,
    "examples": {"train": 60, "validation": 60},
}


class Lines(Reporter):
    """A reporter that keeps its lines."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def line(self, text: str = "") -> None:
        self.lines.append(text)


def plan_of(space: str | Path, epochs: float = 27.0, **search: Any) -> Plan:
    return Plan(load_space(space, **search), DATA, epochs)


def score(values: Mapping[str, Any], share: float = 1.0) -> float:
    """A score with one best place: shortcut A, rate 0.04, wide; less of it after less training."""
    bonus = {"none": 0.0, "A": 0.2, "B": 0.1, "C": 0.05}[values["model.shortcut"]]
    rate = abs(float(values["schedule.rate"]) - 0.04)
    return (0.5 + bonus - rate + 0.05 * (values["width"] == "8")) * (0.5 + 0.5 * share)


def extend(plan: Plan, history: History, proposal: Proposal, *, failed: bool = False) -> History:
    """The history after a proposal whose trial has ended."""
    rejected = (*history.rejected, *(values for values, _ in proposal.rejected))
    if proposal.values is None:
        return History(history.trials, rejected, proposal.drawn)
    number = len(history.trials)
    share = proposal.stage.end / plan.units if proposal.stage else 1.0
    value = 0.0 if failed else score(proposal.values, share)
    status: Any = "failed" if failed else "completed"
    past = Past(f"{number:04d}", proposal.values, status, value, proposal.stage)
    return History((*history.trials, past), rejected, proposal.drawn)


def play(
    plan: Plan, most: int = 10**6, fails: Callable[[int], bool] = lambda number: False
) -> History:
    """A search to its end, or of so many trials."""
    history = History()
    while len(history.trials) < most:
        proposal = propose(plan, history)
        failed = fails(len(history.trials))
        history = extend(plan, history, proposal, failed=failed)
        if proposal.values is None:
            break
    return history


def values_of(history: History) -> list[Values]:
    return [past.values for past in history.trials]
