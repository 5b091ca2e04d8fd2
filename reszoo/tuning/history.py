"""The history of a search and its next trial: what passes between the tuner's parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from reszoo.tuning.space import Values

Status: TypeAlias = Literal["running", "completed", "failed"]


@dataclass(frozen=True)
class Stage:
    """The part of a training that a trial of hyperband covers; it continues trial `source`."""

    bracket: int
    round: int
    end: int
    start: int = 0
    source: str | None = None


@dataclass(frozen=True)
class Past:
    """A trial that has started."""

    trial: str
    values: Values
    status: Status
    score: float = 0.0
    stage: Stage | None = None


@dataclass(frozen=True)
class History:
    """What a search has done, in the order of the trials' start.

    Attributes:
        trials: The trials.
        rejected: Values that were over a budget or contradictory.
        drawn: Random numbers used; for a grid, combinations.
    """

    trials: tuple[Past, ...] = ()
    rejected: tuple[Values, ...] = ()
    drawn: int = 0


@dataclass(frozen=True)
class Proposal:
    """The next trial, and what finding it added to the history.

    Attributes:
        values: Canonical values; None if nothing can be tried now.
        stage: With hyperband, its stage.
        rejected: Values that were rejected on the way, with the reasons.
        drawn: Random numbers used from the first trial on.
    """

    values: Values | None
    stage: Stage | None = None
    rejected: tuple[tuple[Values, str], ...] = ()
    drawn: int = 0
