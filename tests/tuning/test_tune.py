"""Searches for real: tiny nets on digits, through the ordinary engine, stopped, killed and gone on with."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras_tuner.src import protos
from PIL import Image

import reszoo
from reszoo.cli.main import main
from reszoo.config.load import load_recipe
from reszoo.errors import ReszooError
from reszoo.trainer import Trainer
from reszoo.training import checkpoint
from reszoo.training.run import Run
from reszoo.tuning import trial as trial_module
from reszoo.tuning import tune as tune_module
from reszoo.tuning import workers as workers_module
from reszoo.tuning.environment import part, shares
from reszoo.tuning.oracles import make_oracle
from reszoo.tuning.plan import Plan, read_plan
from reszoo.tuning.results import read_results
from reszoo.tuning.space import load_space
from reszoo.tuning.trial import ATTEMPTS, Taken, folder_of, prune, read_record, run_trial
from reszoo.tuning.tune import tune
from reszoo.tuning.winner import best_recipe, export_recipe
from reszoo.tuning.workers import Chief
from tests.tuning.conftest import Lines

Plans = Callable[..., Plan]


@pytest.fixture
def plans(tiny: Path, tmp_path: Path) -> Plans:
    """Makes the plan of the tiny space, written into a folder `search`."""

    def make(**search: Any) -> Plan:
        data = {
            "name": "digits",
            "input_shape": (8, 8, 1),
            "classes": 10,
            "examples": {"train": 60, "validation": 60},
        }
        (tmp_path / "search").mkdir(exist_ok=True)
        plan = Plan(load_space(tiny, **search), data, 9.0)
        plan.write(tmp_path / "search", environment={}, command="")
        return plan

    return make


def scores(results: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What decides whether two searches were the same: every trial's values, outcome and scores, in order."""
    return [
        (
            trial["trial"],
            trial["values"],
            trial["status"],
            trial.get("scores"),
            trial["continues"],
            trial["share"],
        )
        for trial in results["trials"]
    ]


QUICK = ["train.epochs=3"]
VALUES = {"model.shortcut": "A", "model.zero_gamma": "true", "schedule.rate": 0.08, "width": "4"}


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """The newest checkpoint of a run: weights, averages and slots."""
    return checkpoint.load(checkpoint.steps(folder / "checkpoints")[-1]).arrays


def logged(folder: Path) -> dict[str, Any]:
    """What TensorBoard's HParams page reads from a trial's log."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import plugin_data_pb2

    (path,) = folder.glob("events*")
    found = {}
    for record in tf.data.TFRecordDataset(str(path)):
        for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                content = plugin_data_pb2.HParamsPluginData.FromString(
                    value.metadata.plugin_data.content
                )
                for name, held in content.session_start_info.hparams.items():
                    found[name] = getattr(held, held.WhichOneof("kind"))
    return found


# A whole search


def test_a_search_leaves_what_it_found(tiny: Path, tmp_path: Path, reporter: Lines) -> None:
    folder = tmp_path / "found"
    results = tune(tiny, run_dir=folder, trials=2, executions=2, seed=5, reporter=reporter)
    assert [(trial["status"], trial["share"]) for trial in results["trials"]] == [
        ("completed", 1)
    ] * 2
    for trial in results["trials"]:
        runs = [
            reszoo.Run.open(folder / "trials" / trial["trial"] / f"seed{seed}") for seed in (5, 6)
        ]
        assert trial["scores"] == [run.history[-1]["val_accuracy"] for run in runs]
        assert trial["score"] == pytest.approx(sum(trial["scores"]) / 2)
        assert [run.recipe.train.seed for run in runs] == trial["seeds"] == [5, 6]
        assert trial["steps"] == runs[0].history[-1]["step"] == 18 and trial["trained_steps"] == 36
        spec = runs[0].recipe.model.spec
        assert spec.shortcut == trial["values"]["model.shortcut"]
        made_of = reszoo.count(spec, (8, 8, 1), 10)
        assert (trial["parameters"], trial["multiply_adds"]) == (
            made_of.parameters,
            made_of.multiply_adds,
        )
        assert runs[0].recipe.schedule.rate == trial["values"]["schedule.rate"]
        # The test images choose nothing, and no search reads them.
        assert not [
            path.name
            for run in runs
            for path in run.path.iterdir()
            if "test" in path.name or path.suffix == ".keras"
        ]
        assert logged(folder / "trials" / trial["trial"] / "tensorboard") == trial["values"]
    best = max(results["trials"], key=lambda trial: trial["score"])
    assert results["best"] == best["trial"]
    assert (folder / "report.html").is_file() and json.loads((folder / "report.json").read_text())[
        "best"
    ] == best["trial"]
    kept = {path.parents[2].name for path in folder.glob("trials/*/seed*/checkpoints/*.npz")}
    assert kept == {best["trial"]}
    assert reporter.lines[0].startswith(
        "tiny: random search over shortcut, zero_gamma, rate, width; quickstart on digits (8x8x1); 2 trials of 2 runs"
    )
    assert (
        reporter.lines[1].startswith("1/2 trial 0000: shortcut ")
        and "% " in reporter.lines[1]
        and " left" in reporter.lines[1]
    )
    assert (
        reporter.lines[2].startswith("2/2 trial 0001: ")
        and f"best {100 * best['score']:.2f} % ({best['trial']})" in reporter.lines[2]
    )
    assert reporter.lines[3] == f"report: {folder / 'report.html'}" and len(reporter.lines) == 4

    # More trials may be asked for later; those that are there stay as they are.
    before = scores(results)
    more = tune(run_dir=folder, resume=True, trials=3, reporter=reporter)
    assert scores(more)[:2] == before and len(more["trials"]) == 3
    assert "resuming after 2 trials" in reporter.lines[5]
    assert more["search"]["trials"] == 3


def test_the_exported_recipe_reproduces_the_score(
    tiny: Path, tmp_path: Path, reporter: Lines
) -> None:
    folder = tmp_path / "found"
    results = tune(tiny, run_dir=folder, trials=2, seed=1, reporter=reporter)
    best = next(trial for trial in results["trials"] if trial["trial"] == results["best"])
    path = tmp_path / "best.toml"
    assert main(["tune", "--run-dir", str(folder), "--export", str(path)]) == 0
    recipe = load_recipe(path)
    assert recipe == best_recipe(folder)[0] and recipe.name == "best" and recipe.train.seed == 1
    text = path.read_text()
    assert f"# Trial {best['trial']}, the best of a search of tiny." in text
    assert f"{100 * best['score']:.2f} % validation accuracy" in text and "reszoo train " in text
    done = reszoo.train(path, run_dir=tmp_path / "again", quiet=True)
    assert done.finished and done.run.history[-1]["val_accuracy"] == best["score"]
    # And the trial itself is a run that can be finished: there the test images are read for the first time.
    finished = reszoo.train(
        folder_of(folder, best["trial"]) / "seed1" / "recipe.toml",
        run_dir=folder_of(folder, best["trial"]) / "seed1",
        resume=True,
        quiet=True,
    )
    assert (
        finished.test is not None and done.test is not None and finished.test.loss == done.test.loss
    )


@pytest.mark.slow
@pytest.mark.parametrize(("tuner", "trials"), [("bayesian", 9), ("hyperband", 0)])
def test_a_seed_decides_every_score(
    tuner: str, trials: int, tiny: Path, tmp_path: Path, reporter: Lines
) -> None:
    found = [
        tune(
            tiny,
            tuner=tuner,
            trials=trials,
            run_dir=tmp_path / name,
            overrides=QUICK,
            reporter=reporter,
        )
        for name in ("one", "two")
    ]
    assert scores(found[0]) == scores(found[1])
    assert all(trial["status"] == "completed" for trial in found[0]["trials"])
    assert len(found[0]["trials"]) == (trials or 6)
    if tuner == "hyperband":
        shares_of = [trial["share"] for trial in found[0]["trials"]]
        assert max(shares_of) == 1 and min(shares_of) == pytest.approx(1 / 3)
        assert found[0]["totals"]["trained_steps"] == (3 * 1 + 1 * 2 + 2 * 3) * 2


# One trial


def test_a_promoted_trial_is_the_unbroken_training(plans: Plans, tmp_path: Path) -> None:
    plan, search = plans(), tmp_path / "search"
    short = run_trial(plan, search, "0000", VALUES, share=1 / 9)
    longer = run_trial(plan, search, "0001", VALUES, share=1 / 3, continues="0000")
    whole = run_trial(plan, search, "0002", VALUES, share=1.0, continues="0001")
    straight = run_trial(plan, search, "0003", VALUES)
    assert [record["steps"] for record in (short, longer, whole, straight)] == [2, 6, 18, 18]
    assert [record["trained_steps"] for record in (short, longer, whole, straight)] == [
        2,
        4,
        12,
        18,
    ]
    assert whole["scores"] == straight["scores"]
    went_on, at_once = (arrays(folder_of(search, name) / "seed0") for name in ("0002", "0003"))
    assert went_on.keys() == at_once.keys() and all(
        np.array_equal(went_on[key], at_once[key]) for key in at_once
    )
    histories = [
        reszoo.Run.open(folder_of(search, name) / "seed0").history for name in ("0002", "0003")
    ]
    assert histories[0] == histories[1]
    # The short one stays what it was.
    assert reszoo.Run.open(folder_of(search, "0000") / "seed0").history[-1]["step"] == 2


def test_a_finished_trial_is_not_run_again(
    plans: Plans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plans()
    record = run_trial(plan, tmp_path / "search", "0000", VALUES, share=1 / 9)
    monkeypatch.setattr(trial_module.Trainer, "prepare", None)
    assert run_trial(plan, tmp_path / "search", "0000", VALUES, share=1 / 9) == record


def test_a_trial_runs_under_a_mirrored_strategy(
    plans: Plans, tmp_path: Path, strategy: object
) -> None:
    plan = plans()
    run_trial(plan, tmp_path / "search", "0000", VALUES, share=1 / 9, devices="cpu:2")
    run = reszoo.Run.open(folder_of(tmp_path / "search", "0000") / "seed0")
    assert run.meta["devices"] == ["CPU:0", "CPU:1"]


def test_a_trial_handed_to_another_process_stops_here(
    plans: Plans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, search = plans(), tmp_path / "search"
    monkeypatch.setattr(trial_module, "LOOK_EVERY", 3)
    look = trial_module._Fence.on_train_batch_end

    def taken_at_the_fourth_step(self: Any, batch: int, logs: Any = None) -> None:
        if self._steps == 3:
            (folder_of(search, "0000") / "owner").write_text("another")
        look(self, batch, logs)

    monkeypatch.setattr(trial_module._Fence, "on_train_batch_end", taken_at_the_fourth_step)
    with pytest.raises(Taken):
        run_trial(plan, search, "0000", VALUES)
    assert read_record(folder_of(search, "0000"))["status"] == "running"


def test_a_trial_that_keeps_killing_its_process_fails_with_that_reason(
    plans: Plans, tmp_path: Path
) -> None:
    plan, search = plans(), tmp_path / "search"
    folder = folder_of(search, "0000")
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text(
        json.dumps({"status": "running", "attempts": [[7], *([[0]] * (ATTEMPTS - 1))]})
    )
    record = run_trial(plan, search, "0000", VALUES)
    assert (
        record["status"] == "failed"
        and f"its process died {ATTEMPTS - 1} times at step 0, perhaps out of memory"
        in record["reason"]
    )


def test_what_a_kill_left_of_a_run_is_cleared_away(plans: Plans, tmp_path: Path) -> None:
    plan, search = plans(), tmp_path / "search"
    folder = folder_of(search, "0000") / "seed0"
    folder.mkdir(parents=True)
    (folder / ".recipe-x.toml").write_text("half")
    assert run_trial(plan, search, "0000", VALUES, share=1 / 9)["status"] == "completed"


def test_checkpoints_of_the_best_alone_are_kept(tmp_path: Path) -> None:
    for name, status in (
        ("0000", "completed"),
        ("0001", "failed"),
        ("0002", "running"),
        ("0003", "completed"),
    ):
        held = tmp_path / "trials" / name / "seed0" / "checkpoints"
        held.mkdir(parents=True)
        (held / "step-00000001.npz").write_text("x")
        record = {
            "status": status,
            "score": 0.5,
            "share": 1.0,
            "scores": [0.5],
            "seeds": [0],
            "values": {},
        }
        (held.parents[1] / "trial.json").write_text(json.dumps(record))
    prune(tmp_path, ["0003"])
    left = {path.parents[2].name for path in tmp_path.rglob("*.npz")}
    assert left == {"0002", "0003"}


# Failures


def test_a_failed_trial_is_told_with_its_reason_and_the_search_goes_on(
    tiny: Path, tmp_path: Path, reporter: Lines
) -> None:
    text = tiny.read_text().partition("[space]")[0] + "[space]\nschedule.rate = [1e12, 0.05]\n"
    tiny.write_text(text)
    results = tune(tiny, tuner="grid", trials=0, run_dir=tmp_path / "found", reporter=reporter)
    assert [trial["status"] for trial in results["trials"]] == ["failed", "completed"]
    assert (
        "the loss is not a number" in results["trials"][0]["reason"]
        or "no numbers" in results["trials"][0]["reason"]
    )
    assert "failed: at step" in reporter.lines[1] and results["best"] == "0001"


def test_too_many_failures_in_a_row_stop_a_search_with_the_reason(
    tiny: Path, tmp_path: Path, reporter: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_order(*args: Any, **kwargs: Any) -> None:
        raise ValueError("the machine is out of order\nTraceback ...")

    monkeypatch.setattr(trial_module.Trainer, "prepare", out_of_order)
    with pytest.raises(
        ReszooError,
        match=r"3 trials in a row failed, the last because ValueError: the machine is out of order;",
    ):
        tune(tiny, trials=10, run_dir=tmp_path / "found", reporter=reporter)
    results = read_results(tmp_path / "found")
    assert results["totals"]["failed"] == 3 and results["best"] is None
    assert (tmp_path / "found" / "report.html").is_file()
    with pytest.raises(ReszooError, match="holds no finished trial yet"):
        export_recipe(tmp_path / "found", tmp_path / "best.toml")


# What cannot be gone on with


def begun(tiny: Path, tmp_path: Path, plans: Plans) -> Path:
    """A search folder as it stands before its first trial."""
    plans()
    return tmp_path / "search"


def test_a_changed_space_in_an_old_folder_is_refused(
    tiny: Path, tmp_path: Path, plans: Plans
) -> None:
    folder = begun(tiny, tmp_path, plans)
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: tune(tiny, run_dir=folder), "exists; add --resume to resume it"),
        (lambda: tune(tiny, run_dir=folder, resume=True, seed=7), "search settings (seed)"),
        (
            lambda: tune(run_dir=folder, resume=True, executions=7),
            "was begun with executions = 1, not 7",
        ),
        (
            lambda: tune(tiny, run_dir=folder, resume=True, overrides=["train.epochs=8"]),
            "another base recipe (train)",
        ),
        (
            lambda: tune(run_dir=folder, resume=True, overrides=["train.epochs=8"]),
            "a search resumes with its own",
        ),
        (lambda: tune(run_dir=tmp_path / "nowhere", resume=True), "holds no search"),
        (lambda: tune(), "which space?"),
        (
            lambda: tune(tiny, run_dir=tmp_path / "new", workers=0),
            "workers is 0, but must be at least 1",
        ),
    ]
    changed = (
        tiny.read_text()
        .replace('["none", "A", "B"]', '["none", "A", "C"]')
        .replace('["A", "B"]', '["A", "C"]')
    )
    for call, line in cases:
        with pytest.raises(ReszooError) as caught:
            call()
        assert line in str(caught.value)
    tiny.write_text(changed)
    with pytest.raises(
        ReszooError, match=r"began with another space \(model.shortcut\); give another --run-dir"
    ):
        tune(tiny, run_dir=folder, resume=True)
    assert not (tmp_path / "new").exists() and not (folder / "trials").exists()


def write_images(root: Path) -> Path:
    for number, name in enumerate("abc"):
        (root / name).mkdir(parents=True)
        for index in range(20):
            image = np.full((8, 8, 3), 60 * number + index, np.uint8)
            Image.fromarray(image).save(root / name / f"{index:02d}.png", compress_level=0)
    return root


def on_folder(space: Path, photos: Path) -> Path:
    """Let a space's trials train on a folder of images."""
    text = (
        space.read_text()
        .replace("data.examples=60", f"data.name=folder:{photos}")
        .replace("=60", "=12")
    )
    space.write_text(text.replace("epochs=9", "epochs=2").replace("batch_size=30", "batch_size=12"))
    return space


def test_a_search_resumes_with_its_data_wherever_it_lies_and_with_no_other(
    tiny: Path, tmp_path: Path
) -> None:
    photos, folder = write_images(tmp_path / "photos"), tmp_path / "search"
    space = on_folder(tiny, photos)
    made = tune_module._new(folder, space, [], {})
    made.write(folder, environment={}, command="")
    assert made.data["class_names"] == ["a", "b", "c"] and set(
        made.data["fingerprint"]["splits"]
    ) == {"train", "test"}
    trial = folder_of(folder, "0")
    values = {**VALUES, "model.shortcut": "none"}
    run = Trainer.prepare(made.space.recipe(values), run_dir=trial / "seed0", quiet=True)
    run.fit(1)
    photos.rename(tmp_path / "moved")
    with pytest.raises(
        ReszooError,
        match="photos does not exist; if .*: reszoo tune --resume --run-dir .* --data folder:PATH",
    ):
        tune(run_dir=folder, resume=True)
    plan = tune_module._resumed(folder, None, [], {}, f"folder:{tmp_path / 'moved'}")
    plan.write(folder, environment={}, command="")
    assert read_plan(folder).space.base.data.name == f"folder:{tmp_path / 'moved'}"
    assert run_trial(plan, folder, "0", values)["status"] == "completed"
    assert Run(trial / "seed0").recipe.data.name == f"folder:{tmp_path / 'moved'}"
    assert "resuming from step 1" in (trial / "seed0" / "train.log").read_text().replace(
        "going on", "resuming"
    )
    changed = tmp_path / "moved" / "a" / "00.png"
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(changed, compress_level=0)
    with pytest.raises(
        ReszooError, match=r"is not the data that .* began with: the content of \w+ differs"
    ):
        tune(run_dir=folder, resume=True)


def test_a_search_inside_its_data_is_refused(tiny: Path, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos")
    with pytest.raises(ReszooError, match="search folder: .* expected a folder outside the data"):
        tune(on_folder(tiny, photos), run_dir=photos / "tune")
    with pytest.raises(ReszooError, match="For a new search: --set data.name=digits"):
        tune(tiny, run_dir=tmp_path / "search", data="digits")


def test_a_second_search_in_the_same_folder_is_kept_out(
    tiny: Path, tmp_path: Path, plans: Plans
) -> None:
    folder = begun(tiny, tmp_path, plans)
    with open(folder / "lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ReszooError, match="another search is at work in"):
            tune(run_dir=folder, resume=True)


@pytest.mark.parametrize(
    "content", ["", "{", '{"space": 3}', "[]", "null", '{"name": "x", "space": null}']
)
def test_a_damaged_plan_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text(content)
    with pytest.raises(ReszooError, match=r"search.json cannot be read"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"data": {"name": "digits"}}, {"recipe": []}, {"search": []}, {"space": []}, {"epochs": "x"}, {"space": {"n": 3}}],
)  # fmt: skip
def test_a_plan_with_a_broken_part_is_told_by_its_file(
    change: dict[str, Any], plans: Plans, tmp_path: Path
) -> None:
    plans()
    path = tmp_path / "search" / "search.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ReszooError, match=r"search.json cannot be read") as caught:
        read_plan(tmp_path / "search")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "record",
    ["", "3", "{}", '{"status": "completed"}', '{"status": "running", "continues": 5}',
     '{"status": "completed", "score": null, "share": 1.0, "scores": [1], "seeds": [0], "values": {}}'],
)  # fmt: skip
def test_a_damaged_record_is_told_by_its_file(record: str, tmp_path: Path) -> None:
    (tmp_path / "trial.json").write_text(record)
    with pytest.raises(ReszooError, match=r"trial.json cannot be read"):
        read_record(tmp_path)


def test_data_without_images_to_choose_by_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ReszooError, match="digits holds no images out to choose by; set data.validation"
    ):
        tune(tiny, overrides=["data.validation=0"], run_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("devices", ["bogus", "gpu:9"])
def test_devices_that_are_not_there_are_told_before_anything_is_tried(
    devices: str, tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(ReszooError, match="devices is 'bogus'|finds no GPU|there is no GPU"):
        tune(tiny, devices=devices, run_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_search_that_scored_nothing_says_why(
    tiny: Path,
    tmp_path: Path,
    reporter: Lines,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def out_of_order(*args: Any, **kwargs: Any) -> None:
        raise ValueError("out of order")

    monkeypatch.setattr(trial_module.Trainer, "prepare", out_of_order)
    with pytest.raises(
        ReszooError,
        match="no trial of .* could be scored, the last because ValueError: out of order",
    ):
        tune(tiny, trials=1, run_dir=tmp_path / "found", reporter=reporter)
    assert "Traceback" not in "".join(capsys.readouterr())


def test_an_error_of_the_machine_ends_the_search_and_is_no_trials_failure(
    tiny: Path, tmp_path: Path, reporter: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(trial_module, "write_json", full)
        with pytest.raises(OSError, match="No space left"):
            tune(tiny, trials=1, run_dir=tmp_path / "found", reporter=reporter)
    results = (
        tune(run_dir=tmp_path / "found", resume=True, reporter=reporter)
        if (tmp_path / "found").exists()
        else None
    )
    if results is None:  # nothing had begun, and nothing is left
        results = tune(tiny, trials=1, run_dir=tmp_path / "found", reporter=reporter)
    assert results["totals"]["completed"] == 1 and results["totals"]["failed"] == 0


def test_a_search_whose_folder_is_gone_does_not_train_on(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "found"

    class Removing(Lines):
        def line(self, text: str = "") -> None:
            super().line(text)
            if " trial 0000" in text:
                (folder / "search.json").unlink()

    reporter = Removing()

    with pytest.raises(ReszooError, match=r"its search.json is gone"):
        tune(tiny, trials=3, run_dir=folder, reporter=reporter)
    assert sum(" trial " in line for line in reporter.lines) == 1


def test_a_signal_in_the_last_step_of_a_trial_stops_the_search(
    plans: Plans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, search = plans(), tmp_path / "search"

    def signalled(self: Any, batch: int, logs: Any = None) -> None:
        self._steps += 1
        if self._steps == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as once:
        once.setattr(trial_module._Fence, "on_train_batch_end", signalled)
        with pytest.raises(trial_module.Stopped):
            run_trial(plan, search, "0000", VALUES, share=1 / 9)
    record = run_trial(plan, search, "0000", VALUES, share=1 / 9)
    straight = run_trial(plan, search, "0001", VALUES, share=1 / 9)
    assert (
        record["scores"] == straight["scores"]
        and record["trained_steps"] == straight["trained_steps"] == 2
    )


def test_a_file_of_weights_that_is_searched_is_found_from_anywhere(
    tiny: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from reszoo.tuning.tune import _loaded

    monkeypatch.chdir(tmp_path)
    tiny.write_text(
        tiny.read_text().partition("[space]")[0] + '[space]\nmodel.weights = ["", "a.weights.h5"]\n'
    )
    (knob,) = _loaded(tiny, [], {}).knobs
    assert knob.sets("a.weights.h5") == {"model.weights": str(tmp_path / "a.weights.h5")}
    assert knob.sets("") == {"model.weights": ""}


def test_a_space_that_is_all_over_budget_is_told(
    tiny: Path, tmp_path: Path, reporter: Lines
) -> None:
    with pytest.raises(
        ReszooError,
        match=r"nothing in tiny may be tried; the first refused: [\d,]+ parameters, more than 5",
    ):
        tune(tiny, max_params=5, run_dir=tmp_path / "new", reporter=reporter)
    assert not (tmp_path / "new").exists()  # the corrected command finds nothing in its way


# Several processes


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({}, "alone"),
        ({"KERASTUNER_TUNER_ID": "chief", "KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": "80"}, "chief"),
        ({"KERASTUNER_TUNER_ID": "w1", "KERASTUNER_ORACLE_IP": "10.0.0.1", "KERASTUNER_ORACLE_PORT": "8000"}, "worker"),
        ({"KERASTUNER_TUNER_ID": "w1"}, "KERASTUNER_ORACLE_IP is not"),
        ({"KERASTUNER_TUNER_ID": "w1", "KERASTUNER_ORACLE_IP": "10.0.0.1", "KERASTUNER_ORACLE_PORT": "x"}, "must be a port"),
        ({"KERASTUNER_TUNER_ID": "w1", "KERASTUNER_ORACLE_IP": "10.0.0.1", "KERASTUNER_ORACLE_PORT": "²"}, "must be a port"),
    ],
)  # fmt: skip
def test_the_environment_says_which_part_a_process_has(
    given_: dict[str, str], expected: str
) -> None:
    if expected in ("alone", "chief", "worker"):
        assert part(given_) == expected
    else:
        with pytest.raises(ReszooError, match=expected):
            part(given_)


@given(st.lists(st.integers(), max_size=20), st.integers(1, 8))
def test_a_machine_is_shared_out_evenly(items: list[int], count: int) -> None:
    found = shares(items, count)
    assert len(found) == count
    if len(items) >= count:
        assert [item for share in found for item in share] == items
        assert max(map(len, found)) - min(map(len, found)) <= 1
    else:
        assert all(len(share) == bool(items) for share in found) and {
            x for s in found for x in s
        } == set(items)


def start(tiny: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a search in a process of its own."""
    command = [sys.executable, "-m", "reszoo", "tune", *arguments, "--run-dir", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(
    condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 120
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, (
            process.stdout and process.stdout.read()
        )
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """Processes that `pid` started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in children.read_text().split()] if children.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize("tuner", ["random", "hyperband"])
def test_a_search_killed_again_and_again_ends_as_an_unbroken_one(
    tuner: str, tiny: Path, tmp_path: Path, reporter: Lines
) -> None:
    options: dict[str, Any] = {
        "tuner": tuner,
        "trials": 6 if tuner == "random" else 0,
        "overrides": QUICK,
    }
    unbroken = tune(tiny, run_dir=tmp_path / "whole", reporter=reporter, **options)
    folder, chance, kills = tmp_path / "broken", random.Random(2), 0
    flags = [str(tiny), "--set", *QUICK, "--tuner", tuner, "--trials", str(options["trials"])]
    while True:
        process = start(
            tiny, folder, *(["--resume"] if (folder / "search.json").is_file() else flags)
        )
        if kills < 4:
            wait_for((folder / "oracle.json").is_file, process)
            time.sleep(chance.uniform(0.0, 5.0))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
        told, _ = process.communicate(timeout=400)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, told
    assert kills >= 1
    assert scores(read_results(folder)) == scores(unbroken)


@pytest.mark.slow
def test_a_signal_stops_a_search_at_a_checkpoint_and_it_goes_on(
    tiny: Path, tmp_path: Path, reporter: Lines
) -> None:
    unbroken = tune(tiny, run_dir=tmp_path / "whole", trials=2, reporter=reporter)
    folder = tmp_path / "broken"
    process = start(tiny, folder, str(tiny), "--trials", "2")
    wait_for((folder / "trials" / "0000" / "seed0" / "run.json").is_file, process)
    process.terminate()
    told, _ = process.communicate(timeout=120)
    assert (
        process.returncode == 130
        and f"resume with: reszoo tune --resume --run-dir {folder}" in told
    )
    process = start(tiny, folder, "--resume")
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert scores(read_results(folder)) == scores(unbroken)


@pytest.mark.slow
def test_two_workers_one_of_them_killed_for_good_lose_nothing(
    tiny: Path, tmp_path: Path, reporter: Lines
) -> None:
    unbroken = tune(tiny, run_dir=tmp_path / "whole", trials=4, reporter=reporter)
    folder = tmp_path / "two"
    process = start(tiny, folder, str(tiny), "--trials", "4", "--workers", "2")
    running = folder / "trials" / "0001" / "trial.json"
    wait_for(running.is_file, process)
    workers = descendants(process.pid)
    assert len(workers) >= 2
    os.kill(workers[0], signal.SIGKILL)
    told, _ = process.communicate(timeout=400)
    assert process.returncode == 0, told
    assert "ended with status -9" in told
    found = read_results(folder)
    assert {(str(t["values"]), tuple(t["scores"])) for t in found["trials"]} == {
        (str(t["values"]), tuple(t["scores"])) for t in unbroken["trials"]
    }
    assert len({trial["worker"] for trial in found["trials"]}) >= 2


@pytest.mark.slow
def test_workers_end_with_their_chief_and_the_search_goes_on(
    tiny: Path, tmp_path: Path, reporter: Lines
) -> None:
    unbroken = tune(tiny, run_dir=tmp_path / "whole", trials=4, reporter=reporter)
    folder = tmp_path / "two"
    process = start(tiny, folder, str(tiny), "--trials", "4", "--workers", "2")
    wait_for((folder / "trials" / "0001" / "trial.json").is_file, process)
    workers = descendants(process.pid)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 300  # only where it hangs
    while any(
        Path(f"/proc/{worker}").exists()
        and "Z" not in Path(f"/proc/{worker}/stat").read_text().split()[2]
        for worker in workers
    ):
        assert time.monotonic() < deadline, "workers outlived their chief"
        time.sleep(0.2)
    process = start(tiny, folder, "--resume", "--workers", "2")
    told, _ = process.communicate(timeout=400)
    assert process.returncode == 0, told
    assert {(str(t["values"]), tuple(t["scores"])) for t in read_results(folder)["trials"]} == {
        (str(t["values"]), tuple(t["scores"])) for t in unbroken["trials"]
    }


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(port: int, name: str) -> Any:
    """Ask a chief for a trial, as a worker does."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = protos.get_service().CreateTrialRequest(tuner_id=name)
        return (
            protos.get_service_grpc()
            .OracleStub(channel)
            .CreateTrial(request, wait_for_ready=True, timeout=120)
        )


def test_a_full_disk_at_the_chief_ends_the_search_and_not_in_silence(
    plans: Plans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = make_oracle(plans(), tmp_path / "search")
    monkeypatch.setattr(
        oracle, "save", lambda: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    port = free_port()
    asking = threading.Thread(target=lambda: pytest.raises(grpc.RpcError, ask, port, "w0"))
    asking.start()
    with pytest.raises(OSError, match="No space left"):
        Chief(oracle, tmp_path / "search", address=f"127.0.0.1:{port}").run()
    asking.join()


class Clock:
    """The chief's clock, which stands still unless a test moves it: a stalled machine is not a silent worker."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def test_a_silent_worker_is_given_up_and_its_trial_handed_out_again(
    plans: Plans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reporter: Lines
) -> None:
    clock = Clock()
    monkeypatch.setattr(workers_module, "time", clock)
    oracle = make_oracle(plans(trials=1), tmp_path / "search")
    port, given_out, lost_at = free_port(), [], []
    lose = oracle.lose

    def noted(name: str) -> Any:
        lost_at.append((name, clock.now))
        return lose(name)

    monkeypatch.setattr(oracle, "lose", noted)

    def two_workers() -> None:
        given_out.append(ask(port, "w0").trial.trial_id)  # and is not heard of again
        for _ in range(3):
            clock.now += workers_module.DEAD_SECONDS / 3
            time.sleep(0.15)  # the chief looks every 0.1 s; it must not lose w0 yet
        clock.now += 1
        while not oracle._retry_queue:
            time.sleep(0.01)
        given_out.append(ask(port, "w1").trial.trial_id)
        oracle.update_trial("0000", {"val_accuracy": 0.5})
        trial = oracle.get_trial("0000")
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        ask(port, "w1")

    asking = threading.Thread(target=two_workers, daemon=True)
    asking.start()
    Chief(oracle, tmp_path / "search", address=f"127.0.0.1:{port}", reporter=reporter).run()
    asking.join()
    assert given_out == ["0000", "0000"]
    assert lost_at == [("w0", 1000 + workers_module.DEAD_SECONDS + 1)]
    assert reporter.lines == ["worker w0 was silent for 61 s; its trial 0000 is handed out again"]


def test_an_address_that_is_taken_is_told(plans: Plans, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ReszooError, match=f"cannot listen on {address}"):
            Chief(
                make_oracle(plans(), tmp_path / "search"), tmp_path / "search", address=address
            ).run()


@pytest.mark.slow
def test_chief_and_worker_by_kerastuners_variables(tiny: Path, tmp_path: Path) -> None:
    """As on several machines: each started by hand, told its part by the environment."""
    port, folder = free_port(), tmp_path / "shared"
    command = [
        sys.executable,
        "-m",
        "reszoo",
        "tune",
        str(tiny),
        "--trials",
        "2",
        "--run-dir",
        str(folder),
    ]
    variables = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | variables | {"KERASTUNER_TUNER_ID": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("chief", "elsewhere0")
    ]
    told = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    found = read_results(folder)
    assert [trial["status"] for trial in found["trials"]] == ["completed"] * 2
    assert {trial["worker"] for trial in found["trials"]} == {"elsewhere0"}
