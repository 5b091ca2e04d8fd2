"""The next trial of a search: a pure function of its plan and its history."""

from __future__ import annotations

import itertools
import warnings

import numpy as np

from reszoo.tuning.history import History, Proposal
from reszoo.tuning.hyperband import propose_stage, sweep, sweep_cost, sweeps
from reszoo.tuning.plan import Plan
from reszoo.tuning.sampling import (
    draw_pool,
    first_seed,
    key_of,
    propose_random,
    tried_values,
)
from reszoo.tuning.space import Values
from reszoo.types import Array

DEFAULT_TRIALS = 30
EXPLORATION = 2.6  # deviations in the confidence bound, as in KerasTuner
NOISE = 1e-4  # variance of a score in the Gaussian process, as in KerasTuner


def propose(plan: Plan, history: History) -> Proposal:
    """Return the next trial of a search."""
    most = largest_number(plan)
    if most and len(history.trials) >= most:
        return Proposal(None, drawn=history.drawn)
    if plan.space.search.tuner == "grid":
        return _propose_combination(plan, history)
    if plan.space.search.tuner == "hyperband":
        return propose_stage(plan, history)
    if plan.space.search.tuner == "bayesian":
        return _propose_likely(plan, history)
    return propose_random(plan, history)


def largest_number(plan: Plan) -> int:
    """Return the largest number of trials; 0 for no limit."""
    search = plan.space.search
    if search.tuner == "hyperband":
        return 0
    return search.trials or (0 if search.tuner == "grid" else DEFAULT_TRIALS)


def expected_trials(plan: Plan) -> int:
    """Return the number of trials if none is rejected later."""
    if plan.space.search.tuner == "hyperband":
        return sweeps(plan) * sum(n for bracket in sweep(plan.units) for n, _ in bracket)
    if plan.space.search.tuner != "grid":
        return largest_number(plan)
    allowed = (values for values in plan.space.product() if not plan.reason_against(values))
    return sum(1 for _ in itertools.islice(allowed, largest_number(plan) or None))


def expected_trainings(plan: Plan) -> float:
    """Return the training of all trials, in whole trainings."""
    if plan.space.search.tuner == "hyperband":
        return sweeps(plan) * sweep_cost(plan.units) / plan.units
    return expected_trials(plan)


def _propose_combination(plan: Plan, history: History) -> Proposal:
    """Return the next combination of the grid."""
    tried, drawn = tried_values(plan, history), history.drawn
    rejected: list[tuple[Values, str]] = []
    for values in itertools.islice(plan.space.product(), drawn, None):
        drawn += 1
        if key_of(values) in tried:
            continue
        if not (reason := plan.reason_against(values)):
            return Proposal(values, None, tuple(rejected), drawn)
        rejected.append((values, reason))
    return Proposal(None, None, tuple(rejected), drawn)


def _propose_likely(plan: Plan, history: History) -> Proposal:
    """Return the random values with the best confidence bound of a Gaussian process.

    KerasTuner minimizes the bound over a box, which knows neither budgets nor conditions.
    """
    done = [past for past in history.trials if past.status == "completed"]
    if len(done) < max(3, 2 * len(plan.space.hyperparameters)):
        return propose_random(plan, history)
    pool, drawn = draw_pool(plan, history)
    if not pool:
        return Proposal(None, drawn=drawn)
    scores = np.array([past.score for past in done])
    running = [past.values for past in history.trials if past.status == "running"]
    known = _vectors(plan, [past.values for past in done])
    bound = _bounds(plan, known, scores, _vectors(plan, running), _vectors(plan, pool))
    return Proposal(pool[int(np.argmin(bound))], drawn=drawn)


def _bounds(plan: Plan, known: Array, scores: Array, running: Array, pool: Array) -> Array:
    """Return lower confidence bounds of the negative score for a pool [n, hyperparameters].

    A running trial counts as completed with a pessimistic score, so that its neighbors are not
    tried at the same time.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern

    process = GaussianProcessRegressor(
        Matern(nu=2.5),
        alpha=NOISE,
        n_restarts_optimizer=20,
        normalize_y=True,
        random_state=first_seed(plan),
    )
    costs = -scores
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's notes on length scales at their bounds
        process.fit(known, costs)
        if len(running):
            mean, deviation = process.predict(running, return_std=True)
            process.fit(np.concatenate([known, running]), np.concatenate([costs, mean + deviation]))
        mean, deviation = process.predict(pool, return_std=True)
    return np.asarray(mean - EXPLORATION * deviation)


def _vectors(plan: Plan, rows: list[Values]) -> Array:
    return np.array(
        [[each.fraction_of(row[each.name]) for each in plan.space.hyperparameters] for row in rows]
    )
