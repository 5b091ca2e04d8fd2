"""Random values of a space, from one stream of numbers that the seed decides."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from reszoo.tuning.history import History, Proposal
from reszoo.tuning.hyperparameters import Value
from reszoo.tuning.plan import Plan
from reszoo.tuning.space import Values

DRAWS = 2000  # combinations drawn without a new one after which a space is exhausted
POOL = 256  # combinations among which the Gaussian process chooses


def propose_random(plan: Plan, history: History) -> Proposal:
    """Return the next random values that are new and within the budgets."""
    tried, drawn = tried_values(plan, history), history.drawn
    rejected: list[tuple[Values, str]] = []
    for values in itertools.islice(_draws(plan, drawn), DRAWS):
        drawn += len(values)
        if (key := key_of(values)) in tried:
            continue
        if not (reason := plan.reason_against(values)):
            return Proposal(values, None, tuple(rejected), drawn)
        tried.add(key)
        rejected.append((values, reason))
    return Proposal(None, None, tuple(rejected), drawn)


def draw_pool(plan: Plan, history: History) -> tuple[list[Values], int]:
    """Return random values that may be tried, and the random numbers used by then."""
    found: dict[tuple[Value, ...], Values] = {}
    tried, drawn = tried_values(plan, history), history.drawn
    for values in itertools.islice(_draws(plan, drawn), DRAWS):
        drawn += len(values)
        key = key_of(values)
        if key not in found and key not in tried and not plan.reason_against(values):
            found[key] = values
            if len(found) == POOL:
                break
    return list(found.values()), drawn


def _draws(plan: Plan, drawn: int) -> Iterator[Values]:
    """Yield random values without end, after `drawn` numbers of the stream.

    Number i is the first of Python's generator with seed + 1 + i, as in KerasTuner.
    """
    for seed in itertools.count(first_seed(plan) + drawn, len(plan.space.hyperparameters)):
        yield plan.space.canonical(
            {
                each.name: each.value_at(random.Random(seed + index).random())
                for index, each in enumerate(plan.space.hyperparameters)
            }
        )


def first_seed(plan: Plan) -> int:
    """Return the seed of the first random number; KerasTuner takes 0 for any seed."""
    return plan.space.search.seed + 1


def tried_values(plan: Plan, history: History) -> set[tuple[Value, ...]]:
    """Return the keys of all values that were tried or rejected."""
    return {key_of(past.values) for past in history.trials} | set(map(key_of, history.rejected))


def key_of(values: Values) -> tuple[Value, ...]:
    """Return what makes canonical values different from others."""
    return tuple(values.values())
