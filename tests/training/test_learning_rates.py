"""Learning rates for the curves: the schedule's, unless a callback set others."""

from __future__ import annotations

import pytest

from reszoo.training.learning_rates import MAX_RATES, learning_rates


def halving(step: int) -> float:
    return 0.1 if step < 3 else 0.05


def test_every_update_has_the_rate_of_the_schedule() -> None:
    history = [{"step": 2, "rate": 0.1}, {"step": 5, "rate": 0.05}]
    expected = [(1, 0.1), (2, 0.1), (3, 0.1), (4, 0.05), (5, 0.05)]
    assert learning_rates(history, halving, 5) == expected


def test_rates_that_a_callback_set_are_those_of_the_history() -> None:
    history = [{"step": 2, "rate": 0.1}, {"step": 5, "rate": 0.01}]
    assert learning_rates(history, halving, 5) == [(2, 0.1), (5, 0.01)]


@pytest.mark.parametrize("steps", [MAX_RATES, 10 * MAX_RATES + 7])
def test_long_runs_are_thinned_evenly(steps: int) -> None:
    chosen = [step for step, _ in learning_rates([], halving, steps)]
    assert chosen[0] == 1 and len(chosen) <= MAX_RATES * 1.01
    assert len({after - before for before, after in zip(chosen, chosen[1:], strict=False)}) == 1
