"""The oracles without a net: scores are a function of the values, so that thousands of trials take no time."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import pytest
from keras_tuner.src.engine.trial import Trial

from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.tuning.knobs import Choice
from reszoo.tuning.oracles import make_oracle, sweep, sweep_cost
from reszoo.tuning.plan import Plan
from reszoo.tuning.space import load_space
from reszoo.tuning.trial import folder_of

# The Gaussian process takes a tenth of a second a trial.
TUNERS = ("random", pytest.param("bayesian", marks=pytest.mark.slow), "hyperband", "grid")
DATA = {
    "name": "digits",
    "input_shape": (8, 8, 1),
    "classes": 10,
    "examples": {"train": 60, "validation": 60},
}


def plan_of(tiny: Path, epochs: float = 27.0, **search: Any) -> Plan:
    return Plan(load_space(tiny, **search), DATA, epochs)


def score(values: dict[str, Any], share: float = 1.0) -> float:
    """A score with one best place: shortcut A, rate 0.04, wide; less of it after less training."""
    bonus = {"none": 0.0, "A": 0.2, "B": 0.1}[values["model.shortcut"]]
    rate = abs(float(values["schedule.rate"]) - 0.04)
    return (0.5 + bonus - rate + 0.05 * (values["width"] == "8")) * (0.5 + 0.5 * share)


def end(oracle: Any, trial: Any, status: str = "COMPLETED") -> None:
    values = trial.hyperparameters.values
    if status == "COMPLETED":
        oracle.update_trial(
            trial.trial_id, {"val_accuracy": score(values, values.get("tuner/epochs", 1) / 27)}
        )
    result = score(values, values.get("tuner/epochs", 1) / 27) if status == "COMPLETED" else 0.0
    record = {
        "status": status.lower(),
        "score": result,
        "share": 1.0,
        "scores": [result],
        "seeds": [0],
        "values": {},
    }
    write_json(folder_of(oracle.folder, trial.trial_id) / "trial.json", record)
    trial.status = status
    oracle.end_trial(trial)


def play(oracle: Any, most: int = 10**6, worker: str = "tuner0") -> list[dict[str, Any]]:
    """Run a search to its end, or for so many trials; return the values of each, in order."""
    found = []
    while len(found) < most:
        trial = oracle.create_trial(worker)
        if trial.status == "STOPPED":
            break
        assert trial.status == "RUNNING"
        found.append(dict(trial.hyperparameters.values))
        end(oracle, trial)
    return found


def own(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.startswith("tuner/")}


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_seed_decides_a_search(tuner: str, tiny: Path, tmp_path: Path) -> None:
    seeds = (3, 3, 4)
    searches = []
    for number, seed in enumerate(seeds):
        folder = tmp_path / str(number)
        folder.mkdir()
        plan = plan_of(tiny, tuner=tuner, seed=seed, trials=12)
        searches.append(play(make_oracle(plan, folder)))
    assert searches[0] == searches[1]
    assert (searches[0] != searches[2]) == (tuner != "grid")


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_search_read_back_before_every_trial_is_the_unbroken_one(
    tuner: str, tiny: Path, tmp_path: Path
) -> None:
    """As after a kill: the state is what the file says, and a trial that ran is handed out again."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    plan = plan_of(tiny, tuner=tuner, trials=14)
    unbroken = play(make_oracle(plan, whole))
    again: list[dict[str, Any]] = []
    for number in itertools.count():
        oracle = make_oracle(plan, broken)
        trial = oracle.create_trial("tuner0")
        if trial.status == "STOPPED":
            break
        if number % 3 == 0:  # killed while it ran
            values = dict(trial.hyperparameters.values)
            oracle = make_oracle(plan, broken)
            trial = oracle.create_trial("tuner0")
            assert trial.hyperparameters.values == values
        again.append(dict(trial.hyperparameters.values))
        end(oracle, trial)
    assert again == unbroken
    states = [json.loads((folder / "oracle.json").read_text()) for folder in (whole, broken)]
    assert (
        states[0]["end_order"] == states[1]["end_order"]
        and states[0]["refused"] == states[1]["refused"]
    )


@pytest.mark.parametrize(
    "tuner", ["random", pytest.param("bayesian", marks=pytest.mark.slow), "grid"]
)
def test_no_trial_is_run_twice_and_conditions_hold(tuner: str, tiny: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny, tuner=tuner, trials=0 if tuner == "grid" else 40)
    found = play(make_oracle(plan, tmp_path))
    assert len({json.dumps(values, sort_keys=True) for values in found}) == len(found)
    for values in found:
        assert set(values) == {knob.name for knob in plan.space.knobs}
        assert not (values["model.shortcut"] == "none" and values["model.zero_gamma"] == "true")
    # 5 rates (0.01 to 0.16), 2 widths; plain, and two shortcuts with and without zero_gamma.
    assert len(found) == {"random": 40, "bayesian": 40, "grid": 5 * 2 * 5}[tuner]


def test_the_grid_is_the_product_less_the_refused(tiny: Path, tmp_path: Path) -> None:
    space = load_space(tiny)
    counts = {
        repr(values): Plan(space, DATA, 27.0).measured(space.recipe(values)).parameters
        for values in space.product()
    }
    budget = sorted(counts.values())[len(counts) // 2 - 1]
    oracle = make_oracle(plan_of(tiny, tuner="grid", trials=0, max_params=budget), tmp_path)
    expected = oracle.expected
    found = play(oracle)
    assert [repr(values) for values in found] == [
        key for key, cost in counts.items() if cost <= budget
    ]
    assert len(oracle.refused) == sum(cost > budget for cost in counts.values()) > 0
    assert expected == len(found)
    assert all("parameters, more than" in entry["reason"] for entry in oracle.refused)


@pytest.mark.parametrize("tuner", TUNERS)
def test_no_trial_is_over_budget(tuner: str, tiny: Path, tmp_path: Path) -> None:
    space = load_space(tiny)
    costs = [Plan(space, DATA, 27.0).measured(space.recipe(values)) for values in space.product()]
    macs = sorted(cost.multiply_adds for cost in costs)[len(costs) // 2 - 1]
    plan = plan_of(tiny, tuner=tuner, trials=15, max_macs=macs)
    oracle = make_oracle(plan, tmp_path)
    found = play(oracle)
    assert found and all(
        plan.measured(plan.space.recipe(own(values))).multiply_adds <= macs for values in found
    )
    assert oracle.refused


def test_a_space_without_anything_left_ends_the_search(tiny: Path, tmp_path: Path) -> None:
    oracle = make_oracle(plan_of(tiny, tuner="random", max_params=1), tmp_path)
    assert play(oracle) == [] and len(oracle.refused) == 50
    (tmp_path / "all").mkdir()
    assert len(play(make_oracle(plan_of(tiny, tuner="random", trials=500), tmp_path / "all"))) == 50


def test_the_lowest_bound_is_proposed_and_running_trials_count_as_done(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against arithmetic, for a process whose answers are known."""
    oracle = make_oracle(plan_of(tiny, tuner="bayesian", trials=20), tmp_path)
    running = oracle.create_trial("tuner1").hyperparameters.values
    done = play(oracle, 2 * 4)
    fitted: list[tuple[Any, Any]] = []

    class Process:
        def fit(self, vectors: Any, costs: Any) -> None:
            fitted.append((vectors, costs))

        def predict(self, vectors: Any, return_std: bool) -> tuple[Any, Any]:
            mean, deviation = np.array([0.5, 0.4, 0.9]), np.array([0.05, 0.0, 0.3])
            return mean[: len(vectors)], deviation[: len(vectors)]

    pool = [values for values in oracle.plan.space.product() if values not in [running, *done]][:3]
    monkeypatch.setattr(oracle, "_pool", lambda: pool)
    monkeypatch.setattr(oracle, "_make_gpr", Process)
    bounds = [0.5 - oracle.beta * 0.05, 0.4, 0.9 - oracle.beta * 0.3]
    assert (
        oracle.create_trial("tuner2").hyperparameters.values == pool[2] and min(bounds) == bounds[2]
    )
    (first, costs), (both, more) = fitted
    np.testing.assert_allclose(costs, [-score(values, 1 / 27) for values in done])
    np.testing.assert_array_equal(both, [*first, oracle._vector(running)])
    np.testing.assert_allclose(more, [*costs, 0.5 + 0.05])


@pytest.mark.slow
def test_the_process_finds_the_best_place_sooner_than_chance(tiny: Path, tmp_path: Path) -> None:
    """Over ten seeds, of 50 combinations: mean best score after 20 trials."""
    best = {}
    for tuner in ("random", "bayesian"):
        tops = []
        for seed in range(10):
            folder = tmp_path / f"{tuner}{seed}"
            folder.mkdir()
            oracle = make_oracle(plan_of(tiny, tuner=tuner, trials=20, seed=seed), folder)
            tops.append(max(score(values) for values in play(oracle)))
        best[tuner] = sum(tops) / len(tops)
    assert best["bayesian"] > best["random"]


# Hyperband


@pytest.mark.parametrize("units", [3, 9, 27])
def test_a_sweep_is_sized_as_kerastuner_does(units: int) -> None:
    theirs = keras_tuner.oracles.HyperbandOracle(
        objective=keras_tuner.Objective("val_accuracy", "max"), max_epochs=units, factor=3
    )
    brackets = sweep(units)
    assert len(brackets) == theirs._get_num_brackets()
    for number, rounds in zip(range(len(brackets) - 1, -1, -1), brackets, strict=True):
        assert [
            (theirs._get_size(number, step), theirs._get_epochs(number, step))
            for step in range(number + 1)
        ] == rounds


def test_each_round_goes_on_with_its_best(tiny: Path, tmp_path: Path) -> None:
    oracle = make_oracle(plan_of(tiny, tuner="hyperband"), tmp_path)
    expected = oracle.expected
    found = play(oracle)
    assert len(found) == expected == sum(count for bracket in sweep(27) for count, _ in bracket)
    trained = sum(values["tuner/epochs"] - values["tuner/initial_epoch"] for values in found)
    assert trained == sweep_cost(27) == oracle.trainings * 27
    by_id = {f"{number:04d}": values for number, values in enumerate(found)}
    promoted = 0
    for rounds in _rounds(by_id):
        for before, after in itertools.pairwise(rounds):
            gone_on = {by_id[trial]["tuner/trial_id"] for trial in after}
            ranked = sorted(
                before, key=lambda trial: -score(by_id[trial], by_id[trial]["tuner/epochs"] / 27)
            )
            assert {score(own(by_id[key])) for key in gone_on} == {
                score(own(by_id[key])) for key in ranked[: len(after)]
            }
            for trial in after:
                source = by_id[by_id[trial]["tuner/trial_id"]]
                assert own(source) == own(by_id[trial])
                assert (
                    by_id[trial]["tuner/initial_epoch"]
                    == source["tuner/epochs"]
                    < by_id[trial]["tuner/epochs"]
                )
                promoted += 1
    assert promoted == sum(count for bracket in sweep(27) for count, _ in bracket[1:])


def _rounds(by_id: dict[str, dict[str, Any]]) -> Iterator[list[list[str]]]:
    """The trials of each bracket by round, told apart by where in the order brackets begin."""
    ids = iter(by_id)
    for bracket in sweep(27):
        members = list(itertools.islice(ids, sum(count for count, _ in bracket)))
        yield [
            [trial for trial in members if by_id[trial]["tuner/round"] == number]
            for number in range(len(bracket))
        ]


@pytest.mark.parametrize(("trials", "sweeps"), [(0, 1), (5, 1), (13, 1), (14, 1), (28, 2), (42, 3)])
def test_trials_of_hyperband_are_paid_in_whole_sweeps(
    trials: int, sweeps: int, tiny: Path, tmp_path: Path
) -> None:
    oracle = make_oracle(plan_of(tiny, tuner="hyperband", trials=trials), tmp_path)
    assert oracle.sweeps == sweeps
    assert sweeps == 1 or sweeps * sweep_cost(27) <= trials * 27


@pytest.mark.parametrize(
    ("epochs", "units"), [(1, 1), (2.9, 1), (3, 3), (8.99, 3), (9, 9), (26, 9), (27, 27), (500, 27)]
)
def test_a_training_is_cut_into_what_its_epochs_hold(epochs: float, units: int, tiny: Path) -> None:
    plan = plan_of(tiny, epochs=epochs, tuner="hyperband")
    assert plan.units == units
    with (
        contextlib.nullcontext()
        if units > 1
        else pytest.raises(ReszooError, match="at least 3 epochs")
    ):
        plan.check()


SMALL = """
recipe = "quickstart"
set = ["train.epochs=27", "model.stem_width=4"]
[search]
tuner = "hyperband"
[space]
model.shortcut = ["none", "A"]
schedule.rate = [0.02, 0.05, 0.08]
[space.width.options]
4 = { model.widths = [4, 4, 8] }
8 = { model.widths = [8, 8, 16] }
"""


def test_a_space_smaller_than_the_first_round_is_trained_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    oracle = make_oracle(plan_of(path), tmp_path)
    found = play(oracle)
    by_round = [
        [own(values) for values in found if values["tuner/round"] == number] for number in range(4)
    ]
    assert [len(values) for values in by_round] == [12, 4, 2, 1]  # a third each time, rounded up
    best = max(by_round[0], key=score)
    assert by_round[3] == [best] and score(best) == max(map(score, by_round[0]))


def test_what_failed_is_the_worst_of_its_round_and_holds_nobody_up(
    tiny: Path, tmp_path: Path
) -> None:
    oracle = make_oracle(plan_of(tiny, epochs=9.0, max_failures=100, tuner="hyperband"), tmp_path)
    rounds: dict[tuple[int, int], list[str]] = {}
    while (trial := oracle.create_trial("tuner0")).status == "RUNNING":
        values = trial.hyperparameters.values
        place = (values["tuner/bracket"], values["tuner/round"])
        rounds.setdefault(place, []).append(trial.trial_id)
        end(oracle, trial, "FAILED" if len(rounds[place]) % 2 else "COMPLETED")
    assert [len(rounds[0, number]) for number in range(3)] == [9, 3, 1]
    for after in rounds[0, 1]:
        source = oracle.trials[oracle.trials[after].hyperparameters.values["tuner/trial_id"]]
        assert source.status == "COMPLETED"
    # Where all have failed nobody goes on, and the next bracket has its turn.
    (tmp_path / "all").mkdir()
    oracle = make_oracle(
        plan_of(tiny, epochs=9.0, max_failures=100, tuner="hyperband"), tmp_path / "all"
    )
    count = 0
    while (trial := oracle.create_trial("tuner0")).status == "RUNNING":
        assert trial.hyperparameters.values["tuner/round"] == 0
        end(oracle, trial, "FAILED")
        count += 1
    assert count == sum(bracket[0][0] for bracket in sweep(9))


def test_more_sweeps_may_be_asked_for_later(tiny: Path, tmp_path: Path) -> None:
    first = play(make_oracle(plan_of(tiny, epochs=9.0, tuner="hyperband", trials=0), tmp_path))
    more = play(make_oracle(plan_of(tiny, epochs=9.0, tuner="hyperband", trials=17), tmp_path))
    assert len(first) == len(more) == sum(count for bracket in sweep(9) for count, _ in bracket)
    assert {values["tuner/bracket"] for values in more} == {3, 4, 5}


def test_workers_wait_for_a_round_to_end_and_go_on_meanwhile_with_the_next_bracket(
    tiny: Path, tmp_path: Path
) -> None:
    oracle = make_oracle(plan_of(tiny, epochs=3.0, tuner="hyperband"), tmp_path)  # 3 then 1, and 2
    held = [oracle.create_trial(f"w{number}") for number in range(5)]
    assert [trial.hyperparameters.values["tuner/bracket"] for trial in held] == [0, 0, 0, 1, 1]
    assert oracle.create_trial("w5").status == "IDLE"
    for trial in held[:2]:
        end(oracle, trial)
    assert oracle.create_trial("w0").status == "IDLE"  # the third may yet be the best
    end(oracle, held[2])
    assert oracle.create_trial("w0").hyperparameters.values["tuner/round"] == 1


# What is broken off, and what is gone


@pytest.mark.parametrize("tuner", ["random", "hyperband", "grid"])
def test_ctrl_c_while_values_are_chosen_changes_nothing(
    tuner: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "whole", tmp_path / "broken"]
    for folder in folders:
        folder.mkdir()
    plan = plan_of(tiny, epochs=3.0, tuner=tuner, trials=6)
    unbroken = play(make_oracle(plan, folders[0]))
    oracle = make_oracle(plan, folders[1])
    begun = play(oracle, 2)
    refusal = Plan.refusal
    monkeypatch.setattr(Plan, "refusal", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        oracle.create_trial("tuner0")
    monkeypatch.setattr(Plan, "refusal", refusal)
    assert begun + play(make_oracle(plan, folders[1])) == unbroken


def test_a_trial_whose_folder_is_gone_is_run_again(tiny: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny, trials=4)
    found = play(make_oracle(plan, tmp_path))
    shutil.rmtree(folder_of(tmp_path, "0002"))
    oracle = make_oracle(plan, tmp_path)
    assert oracle.end_order == ["0000", "0001", "0003"]
    again = play(oracle)
    assert again == [found[2]] and sorted(oracle.end_order) == ["0000", "0001", "0002", "0003"]


def test_a_grid_that_would_never_end_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    path.write_text(
        'recipe = "quickstart"\n[space]\ntrain.batch_size = { low = 1, high = 100000000 }\n'
    )
    with pytest.raises(
        ReszooError, match="the grid has 100,000,000 combinations, more than 10,000"
    ):
        plan_of(path, tuner="grid").check()


# Failures, and workers


def test_failures_in_a_row_end_a_search_and_a_resumed_one_starts_counting_anew(
    tiny: Path, tmp_path: Path
) -> None:
    plan = plan_of(tiny, trials=20)
    oracle = make_oracle(plan, tmp_path)
    for status in ("FAILED", "FAILED", "COMPLETED", "FAILED", "FAILED", "FAILED"):
        end(oracle, oracle.create_trial("tuner0"), status)
    assert oracle.given_up and oracle.create_trial("tuner0").status == "STOPPED"
    again = make_oracle(plan, tmp_path)
    assert not again.given_up and again.create_trial("tuner0").status == "RUNNING"


def test_a_lost_workers_trial_is_the_next_ones(tiny: Path, tmp_path: Path) -> None:
    oracle = make_oracle(plan_of(tiny, trials=2), tmp_path)
    first, second = oracle.create_trial("tuner0"), oracle.create_trial("tuner1")
    end(oracle, second)
    assert oracle.create_trial("tuner1").status == "IDLE"  # the first may yet be lost
    assert oracle.lose("tuner0") == first.trial_id and "tuner0" not in oracle.tuner_ids
    again = oracle.create_trial("tuner1")
    assert (again.trial_id, again.hyperparameters.values) == (
        first.trial_id,
        first.hyperparameters.values,
    )
    end(oracle, again)
    assert oracle.create_trial("tuner1").status == "STOPPED"
    assert oracle.lose("tuner1") is None


def test_a_trial_that_two_workers_end_counts_once(tiny: Path, tmp_path: Path) -> None:
    """The first was given up for dead, and was not."""
    told: list[str] = []
    oracle = make_oracle(plan_of(tiny, trials=3), tmp_path, told.append)
    first = oracle.create_trial("tuner0")
    late = Trial.from_state(first.get_state())
    oracle.lose("tuner0")
    end(oracle, oracle.create_trial("tuner1"))
    kept = oracle.trials[first.trial_id].score
    late.status = "FAILED"
    oracle.end_trial(late)
    assert (
        oracle.trials[first.trial_id].score == kept
        and oracle.trials[first.trial_id].status == "COMPLETED"
    )
    assert told == [first.trial_id] and oracle.end_order == [first.trial_id]


def test_a_worker_that_outlives_its_chief_has_its_trial_taken(tiny: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny, trials=2)
    trial = make_oracle(plan, tmp_path).create_trial("tuner0")
    chief = make_oracle(plan, tmp_path)  # started again: the trial waits to be handed out
    end(chief, trial)
    assert (
        chief.end_order == [trial.trial_id]
        and chief.create_trial("tuner1").trial_id != trial.trial_id
    )


def test_values_keep_every_digit_between_chief_and_worker(tmp_path: Path) -> None:
    plan = Plan(load_space("depth_shortcut"), DATA, 27.0)
    oracle = make_oracle(plan, tmp_path)
    for number in range(20):
        trial = oracle.create_trial(f"tuner{number}")
        sent = Trial.from_proto(trial.to_proto()).hyperparameters.values
        assert sent == trial.hyperparameters.values
        for knob in plan.space.knobs:
            assert isinstance(sent[knob.name], str if isinstance(knob, Choice) else float)


@pytest.mark.parametrize("content", ["", "{", '{"trials": {}}', "[]", '{"trials": null}', "null"])
def test_a_damaged_state_is_told(content: str, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "oracle.json").write_text(content)
    with pytest.raises(ReszooError, match=r"oracle.json cannot be read"):
        make_oracle(plan_of(tiny), tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"end_order": ["0007"]}, {"start_order": []}, {"seed_state": "x"}, {"trials": {"0000": 3}}],
)
def test_a_state_that_contradicts_itself_is_told(
    change: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    play(make_oracle(plan_of(tiny, trials=2), tmp_path))
    state = json.loads((tmp_path / "oracle.json").read_text())
    (tmp_path / "oracle.json").write_text(json.dumps(state | change))
    with pytest.raises(ReszooError, match=r"oracle.json cannot be read"):
        make_oracle(plan_of(tiny, trials=2), tmp_path)
