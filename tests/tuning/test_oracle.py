"""The oracle: KerasTuner's types at the edge, and a state that survives kills, lost workers and deleted trials."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from keras_tuner.src.engine.trial import Trial

from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.tuning.hyperparameters import Choice
from reszoo.tuning.oracle import Oracle, make_oracle
from reszoo.tuning.records import folder_of
from tests.tuning.helpers import plan_of, play, score, values_of


def end(oracle: Oracle, trial: Any, status: str = "COMPLETED") -> None:
    values = trial.hyperparameters.values
    result = score(values, values.get("tuner/epochs", 27) / 27)
    if status == "COMPLETED":
        oracle.update_trial(trial.trial_id, {"val_accuracy": result})
    record = {"trial": trial.trial_id, "values": {}, "status": status.lower(), "seeds": [0]}
    record |= {"score": result, "scores": [result], "share": 1.0}
    record |= {"depth": 8, "parameters": 1, "macs": 1}
    write_json(folder_of(oracle.folder, trial.trial_id) / "trial.json", record)
    trial.status = status
    oracle.end_trial(trial)


def play_oracle(oracle: Oracle, most: int = 10**6) -> list[dict[str, Any]]:
    found = []
    while len(found) < most and (trial := oracle.create_trial("tuner0")).status != "STOPPED":
        assert trial.status == "RUNNING"
        found.append(dict(trial.hyperparameters.values))
        end(oracle, trial)
    return found


@pytest.mark.parametrize("tuner", ["random", "hyperband", "grid"])
@pytest.mark.parametrize("version", ["0.1", "now"])
def test_a_state_read_before_every_trial_gives_the_unbroken_search(
    tuner: str, version: str, tiny: Path, tmp_path: Path
) -> None:
    """As after kills: the state is that of the file, and a trial that ran is handed out again."""
    plan = plan_of(tiny, 3.0, tuner=tuner, trials=8, max_params=4000)
    found: list[dict[str, Any]] = []
    for number in itertools.count():
        trial = make_oracle(plan, tmp_path).create_trial("tuner0")
        if trial.status == "STOPPED":
            break
        oracle = make_oracle(plan, tmp_path)
        if number % 3 == 0:  # killed while it ran
            again = oracle.create_trial("tuner0")
            assert again.hyperparameters.values == trial.hyperparameters.values
            trial = again
        found.append(dict(trial.hyperparameters.values))
        end(oracle, trial)
        if version == "0.1":  # other keys; KerasTuner's seed instead of the number of draws
            path = tmp_path / "oracle.json"
            state = json.loads(path.read_text())
            drawn = state.pop("drawn") if tuner != "grid" else state.pop("drawn") * 0
            state["seed_state"] = state["seed"] + drawn
            state["refused"] = state.pop("rejected")
            path.write_text(json.dumps(state))
            assert make_oracle(plan, tmp_path).drawn == drawn
    names = [each.name for each in plan.space.hyperparameters]
    expected = play(plan)
    assert [{name: row[name] for name in names} for row in found] == values_of(expected)
    stages = [each.stage for each in expected.trials if each.stage]
    assert [row["tuner/epochs"] for row in found if "tuner/epochs" in row] == [
        s.end for s in stages
    ]
    assert [row.get("tuner/trial_id") for row in found if stages] == [s.source for s in stages]


def test_a_trial_whose_folder_is_gone_is_run_again(tiny: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny, trials=4)
    found = play_oracle(make_oracle(plan, tmp_path))
    shutil.rmtree(folder_of(tmp_path, "0002"))
    oracle = make_oracle(plan, tmp_path)
    assert oracle.end_order == ["0000", "0001", "0003"]
    assert play_oracle(oracle) == [found[2]] and len(oracle.end_order) == 4


def test_failures_in_a_row_end_a_search_and_a_resumed_one_counts_again(
    tiny: Path, tmp_path: Path
) -> None:
    plan = plan_of(tiny, trials=20)
    oracle = make_oracle(plan, tmp_path)
    for status in ("FAILED", "FAILED", "COMPLETED", "FAILED", "FAILED", "FAILED"):
        assert not oracle.given_up
        end(oracle, oracle.create_trial("tuner0"), status)
    assert oracle.given_up and oracle.create_trial("tuner0").status == "STOPPED"
    again = make_oracle(plan, tmp_path)
    assert not again.given_up and again.create_trial("tuner0").status == "RUNNING"


def test_a_lost_workers_trial_is_the_next_ones(tiny: Path, tmp_path: Path) -> None:
    oracle = make_oracle(plan_of(tiny, trials=2), tmp_path)
    first, second = oracle.create_trial("tuner0"), oracle.create_trial("tuner1")
    end(oracle, second)
    assert oracle.create_trial("tuner1").status == "IDLE"  # the first may yet be lost
    assert oracle.release_worker("tuner0") == first.trial_id and "tuner0" not in oracle.tuner_ids
    again = oracle.create_trial("tuner1")
    assert again.trial_id == first.trial_id
    assert again.hyperparameters.values == first.hyperparameters.values
    end(oracle, again)
    assert oracle.create_trial("tuner1").status == "STOPPED"
    assert oracle.release_worker("tuner1") is None


def test_a_trial_that_two_workers_end_counts_once(tiny: Path, tmp_path: Path) -> None:
    """The first was thought dead, and was not."""
    ended: list[str] = []
    oracle = make_oracle(plan_of(tiny, trials=3), tmp_path, ended.append)
    first = oracle.create_trial("tuner0")
    late = Trial.from_state(first.get_state())
    oracle.release_worker("tuner0")
    end(oracle, oracle.create_trial("tuner1"))
    kept = oracle.trials[first.trial_id].score
    late.status = "FAILED"
    oracle.end_trial(late)
    after = oracle.trials[first.trial_id]
    assert (after.score, after.status) == (kept, "COMPLETED")
    assert ended == oracle.end_order == [first.trial_id]


def test_a_worker_that_outlives_its_chief_keeps_its_trial(tiny: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny, trials=2)
    trial = make_oracle(plan, tmp_path).create_trial("tuner0")
    chief = make_oracle(plan, tmp_path)  # started again: the trial waits to be handed out
    end(chief, trial)
    assert chief.end_order == [trial.trial_id]
    assert chief.create_trial("tuner1").trial_id != trial.trial_id


def test_values_keep_every_digit_between_chief_and_worker(tmp_path: Path) -> None:
    plan = plan_of("depth_shortcut")
    oracle = make_oracle(plan, tmp_path)
    for number in range(10):
        trial = oracle.create_trial(f"tuner{number}")
        sent = Trial.from_proto(trial.to_proto()).hyperparameters.values
        assert sent == trial.hyperparameters.values
        for each in plan.space.hyperparameters:
            assert isinstance(sent[each.name], str if isinstance(each, Choice) else float)


DAMAGE: list[Any] = ["", "{", '{"trials": {}}', "[]", '{"trials": null}', "null"]
DAMAGE += [{"end_order": ["0007"]}, {"start_order": []}, {"drawn": "x"}, {"trials": {"0000": 3}}]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_reported(damage: Any, tiny: Path, tmp_path: Path) -> None:
    plan, path = plan_of(tiny, trials=2), tmp_path / "oracle.json"
    make_oracle(plan, tmp_path).create_trial("tuner0")
    if isinstance(damage, dict):
        damage = json.dumps(json.loads(path.read_text()) | damage)
    path.write_text(damage)
    with pytest.raises(ReszooError, match=r"oracle.json is damaged"):
        make_oracle(plan, tmp_path)
