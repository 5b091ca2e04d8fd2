"""The learning rates of a run so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from reszoo.types import JsonObject

MAX_RATES = 10_000  # learning rates that a figure shows


def learning_rates(
    history: Sequence[JsonObject], scheduled: Callable[[int], float], steps: int
) -> list[tuple[int, float]]:
    """Return (step, learning rate) of at most about 10,000 updates, evenly spaced.

    If a callback set another learning rate than the schedule, only those in the history are known.

    Args:
        history: The rows of the history.
        scheduled: Returns the schedule's learning rate of an update, numbered from 0.
        steps: Updates so far.
    """
    known = [(row["step"], row["rate"]) for row in history]
    if any(not math.isclose(rate, scheduled(step - 1), rel_tol=1e-6) for step, rate in known):
        return known
    chosen = range(1, steps + 1, max(1, steps // MAX_RATES))
    return [(step, scheduled(step - 1)) for step in chosen]
