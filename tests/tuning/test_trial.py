"""One trial without training: its runs, ownership, failures and cleaning up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reszoo.config.resolve import resolve_recipe
from reszoo.errors import ReszooError
from reszoo.training.run import Run
from reszoo.tuning import trial as trial_module
from reszoo.tuning.plan import Plan, read_plan
from reszoo.tuning.records import folder_of, read_record
from reszoo.tuning.trial import ATTEMPTS, Reassigned, prune_checkpoints, run_trial
from tests.tuning.helpers import DATA, plan_of

VALUES = {"model.shortcut": "A", "model.zero_gamma": "true", "schedule.rate": 0.08, "width": "4"}


@pytest.fixture
def plan(tiny: Path) -> Plan:
    return plan_of(tiny, 3.0)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments with which runs are prepared; each run then fails."""
    found: list[dict[str, Any]] = []

    def prepare(recipe: Any, **options: Any) -> None:
        found.append({"recipe": recipe, **options})
        raise ValueError("the machine is out of order\nTraceback ...")

    monkeypatch.setattr(trial_module.Trainer, "prepare", prepare)
    return found


def test_a_run_gets_its_devices_and_seed_and_what_a_kill_left_is_removed(
    plan: Plan, tmp_path: Path, prepared: list[dict[str, Any]]
) -> None:
    run = folder_of(tmp_path, "0000") / "seed0"
    run.mkdir(parents=True)
    (run / ".recipe-x.toml").write_text("half")
    record = run_trial(plan, tmp_path, "0000", VALUES, devices="cpu:2")
    (options,) = prepared
    assert (options["devices"], options["resume"], options["run_dir"]) == ("cpu:2", False, run)
    assert options["recipe"].train.seed == 0 and options["recipe"].schedule.rate == 0.08
    assert not run.exists()
    assert record["status"] == "failed"
    assert record["reason"] == "ValueError: the machine is out of order"


def test_moved_data_is_where_a_resumed_run_looks_for_it(
    plan: Plan, tmp_path: Path, prepared: list[dict[str, Any]]
) -> None:
    space = plan.space
    Run.create(folder_of(tmp_path, "0000") / "seed0", resolve_recipe(space.recipe(VALUES)))
    run_trial(plan, tmp_path, "0000", VALUES)
    base = space.base.replace(data=space.base.data.replace(name=f"folder:{tmp_path}"))
    plan.write(tmp_path, environment={}, command="")
    path = tmp_path / "search.json"
    tables = json.loads(path.read_text()) | {"recipe": base.to_dict(), "data": DATA}
    path.write_text(json.dumps(tables))
    (folder_of(tmp_path, "0000") / "trial.json").unlink()
    run_trial(read_plan(tmp_path), tmp_path, "0000", VALUES)
    assert [options["data"] for options in prepared] == [None, f"folder:{tmp_path}"]
    assert all(options["resume"] for options in prepared)


def test_a_trial_assigned_to_another_process_stops_here(tmp_path: Path) -> None:
    (tmp_path / "owner").write_text("mine")
    owned = trial_module._Owned(tmp_path, "mine")
    for step in range(trial_module.CHECK_EVERY):
        owned.on_train_batch_end(step)
    (tmp_path / "owner").write_text("another")
    for step in range(trial_module.CHECK_EVERY - 1):
        owned.on_train_batch_end(step)
    with pytest.raises(Reassigned):
        owned.on_train_batch_end(0)


def test_a_trial_that_keeps_killing_its_process_fails(plan: Plan, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "0000")
    folder.mkdir(parents=True)
    attempts = [[7], *([[0]] * (ATTEMPTS - 1))]
    before = {"trial": "0000", "values": {}, "status": "running", "attempts": attempts}
    (folder / "trial.json").write_text(json.dumps(before))
    record = run_trial(plan, tmp_path, "0000", VALUES)
    assert record["status"] == "failed" and read_record(folder) == record
    assert (
        f"its process died {ATTEMPTS - 1} times at step 0, perhaps out of memory"
        in record["reason"]
    )


def test_a_known_cause_is_the_reason_and_an_interruption_is_none(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    causes = iter([ReszooError("loss: NaN at step 3"), KeyboardInterrupt()])

    def prepare(*args: Any, **options: Any) -> None:
        raise next(causes)

    monkeypatch.setattr(trial_module.Trainer, "prepare", prepare)
    assert run_trial(plan, tmp_path, "0000", VALUES)["reason"] == "loss: NaN at step 3"
    with pytest.raises(KeyboardInterrupt):
        run_trial(plan, tmp_path, "0001", VALUES)
    record = read_record(folder_of(tmp_path, "0001"))
    assert record and record["status"] == "running"


def test_only_the_checkpoints_of_the_best_trial_are_kept(tmp_path: Path) -> None:
    scored = {"score": 0.5, "share": 1.0, "scores": [0.5], "seeds": [0]}
    cost = {"depth": 8, "parameters": 1, "macs": 1}
    for name, status in (("0", "completed"), ("1", "failed"), ("2", "running"), ("3", "completed")):
        path = folder_of(tmp_path, name) / "seed0" / "checkpoints" / "step-00000001.npz"
        path.parent.mkdir(parents=True)
        path.write_text("x")
        record = {"trial": name, "values": {}, "status": status, **scored, **cost}
        (folder_of(tmp_path, name) / "trial.json").write_text(json.dumps(record))
    prune_checkpoints(tmp_path, ["3"])
    assert {path.parents[2].name for path in tmp_path.rglob("*.npz")} == {"2", "3"}
