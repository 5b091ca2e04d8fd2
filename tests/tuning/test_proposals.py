"""Proposals as a pure function of the history: budgets, order, repetition and the Gaussian process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reszoo.errors import ReszooError
from reszoo.tuning import proposals
from reszoo.tuning.history import History, Past
from reszoo.tuning.plan import Plan
from reszoo.tuning.proposals import expected_trainings, expected_trials, propose
from reszoo.tuning.sampling import DRAWS, draw_pool
from reszoo.tuning.space import load_space
from tests.tuning.helpers import COMBINATIONS, DATA, extend, plan_of, play, score, values_of

RECORDED = json.loads((Path(__file__).parent / "proposals.json").read_text())


@pytest.mark.parametrize(
    "case", RECORDED, ids=lambda case: f"{case['search']['tuner']}-{case['space']}"
)
def test_the_same_seed_gives_the_trials_of_version_0_1(case: dict[str, Any], tiny: Path) -> None:
    """Recorded before proposals were a function of the history."""
    space = tiny if case["space"] == "tiny" else case["space"]
    plan = plan_of(space, case["epochs"], **case["search"])
    found = play(plan, fails=lambda number: case["failures"] == "odd" and bool(number % 2))
    rows = [
        [*past.values.values(), *((s.bracket, s.round, s.end, s.start, s.source) if s else ())]
        for past in found.trials
        for s in [past.stage]
    ]
    assert rows == case["trials"]
    assert len(found.rejected) == case["rejected"]


@pytest.mark.parametrize(
    ("tuner", "trials"), [("random", 20), ("bayesian", 9), ("hyperband", 0), ("grid", 0)]
)
def test_a_proposal_depends_on_the_history_alone(tuner: str, trials: int, tiny: Path) -> None:
    """As after a kill: from every beginning of a search the next trial is that of the unbroken search."""
    plan = plan_of(tiny, 3.0, tuner=tuner, trials=trials, max_params=4000)
    history, seen = History(), list[Any]()
    while (proposal := propose(plan, history)).values is not None:
        again = plan_of(tiny, 3.0, tuner=tuner, trials=trials, max_params=4000)
        assert propose(again, history) == proposal
        seen.append(history := extend(plan, history, proposal))
    assert len(seen) > 5
    if tuner in ("random", "hyperband"):
        other = plan_of(tiny, 3.0, tuner=tuner, trials=trials, max_params=4000, seed=1)
        assert values_of(play(other)) != values_of(history)


@pytest.mark.parametrize(("tuner", "trials"), [("random", 40), ("grid", 0)])
def test_no_trial_is_run_twice_or_over_budget_and_conditions_hold(
    tuner: str, trials: int, tiny: Path
) -> None:
    space = load_space(tiny)
    counts = [Plan(space, DATA, 27.0).count(space.recipe(v)) for v in space.product()]
    macs = sorted(cost.macs for cost in counts)[len(counts) // 2 - 1]
    allowed = [v for v, n in zip(space.product(), counts, strict=True) if n.macs <= macs]
    plan = plan_of(tiny, tuner=tuner, trials=trials, max_macs=macs)
    history = play(plan)
    found = values_of(history)
    if tuner == "grid":
        assert found == allowed and len(history.rejected) == len(counts) - len(allowed) > 0
        assert expected_trials(plan) == expected_trainings(plan) == len(allowed)
    for values in found:
        assert values in allowed and found.count(values) == 1
        assert values["model.shortcut"] != "none" or values["model.zero_gamma"] == "false"
    for values in history.rejected:
        assert "MACs, more than" in plan.reason_against(values)
    pool, drawn = draw_pool(plan, history)
    assert len(pool) == len(allowed) - len(found) and drawn == history.drawn + 4 * DRAWS
    assert all(values in allowed and values not in found for values in pool)


def test_an_exhausted_space_ends_the_search(tiny: Path) -> None:
    history = play(plan_of(tiny, tuner="random", max_params=1))
    assert not history.trials and len(history.rejected) == COMBINATIONS
    assert len(play(plan_of(tiny, tuner="random", trials=500)).trials) == COMBINATIONS


def test_a_grid_that_would_never_end_is_rejected_at_once(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    path.write_text(
        'recipe = "quickstart"\n[space]\ntrain.batch_size = { low = 1, high = 100000000 }\n'
    )
    with pytest.raises(
        ReszooError, match="the grid has 100,000,000 combinations; expected at most 10,000"
    ):
        plan_of(path, tuner="grid").check()


def test_the_lowest_bound_is_proposed_and_running_trials_count_as_done(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against arithmetic, for a process whose answers are known."""
    plan = plan_of(tiny, tuner="bayesian", trials=20)
    done = play(plan, 8)
    every = list(plan.space.product())
    rest = [values for values in every if values not in values_of(done)]
    running, *pool = rest[:4]
    history = History((*done.trials, Past("0008", running, "running")), (), done.drawn)
    fitted: list[tuple[Any, Any]] = []

    class Process:
        def __init__(self, *args: Any, **options: Any) -> None:
            assert options["random_state"] == 1

        def fit(self, vectors: Any, costs: Any) -> None:
            fitted.append((vectors, costs))

        def predict(self, vectors: Any, return_std: bool) -> tuple[Any, Any]:
            mean, deviation = np.array([0.5, 0.4, 0.9]), np.array([0.05, 0.0, 0.3])
            return mean[: len(vectors)], deviation[: len(vectors)]

    monkeypatch.setattr("sklearn.gaussian_process.GaussianProcessRegressor", Process)
    monkeypatch.setattr(proposals, "draw_pool", lambda plan, history: (pool, 99))
    proposal = propose(plan, history)
    bounds = [0.5 - 2.6 * 0.05, 0.4, 0.9 - 2.6 * 0.3]
    assert (proposal.values, proposal.drawn) == (pool[2], 99) and min(bounds) == bounds[2]
    (first, costs), (both, more) = fitted
    np.testing.assert_allclose(costs, [-past.score for past in done.trials])
    own = [each.fraction_of(running[each.name]) for each in plan.space.hyperparameters]
    np.testing.assert_array_equal(both, [*first, own])
    np.testing.assert_allclose(more, [*costs, 0.5 + 0.05])


def test_the_gaussian_process_proposes_better_values_than_chance(tiny: Path) -> None:
    gains = []
    for seed in range(3):
        plan = plan_of(tiny, tuner="bayesian", trials=40, seed=seed)
        history = play(plan_of(tiny, tuner="random", trials=40, seed=seed), 16)
        rest = [score(v) for v in plan.space.product() if v not in values_of(history)]
        values = propose(plan, history).values
        assert values is not None
        gains.append(score(values) - np.mean(rest))
    assert np.mean(gains) > 0.03
