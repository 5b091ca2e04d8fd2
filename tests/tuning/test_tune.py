"""Searches: one real search that several tests read, and searches whose trials are not trained."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import reszoo
from reszoo.cli.main import main
from reszoo.config.load import load_recipe
from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.training import checkpoint
from reszoo.tuning import trial as trial_module
from reszoo.tuning import tune as tune_module
from reszoo.tuning import tuner as tuner_module
from reszoo.tuning.best_recipe import best_recipe, export_recipe
from reszoo.tuning.plan import Plan, read_plan
from reszoo.tuning.records import Trial, folder_of
from reszoo.tuning.results import read_results
from reszoo.tuning.space import load_space
from reszoo.tuning.start import new_plan, resolve_space, resumed_plan
from reszoo.tuning.trial import Stopped, run_trial
from reszoo.tuning.tune import tune
from reszoo.types import JsonObject
from tests.tuning.helpers import SPACE, Lines, plan_of, score


def outcome(results: JsonObject) -> list[tuple[Any, ...]]:
    """What decides whether two searches were the same: every trial's values, outcome and scores, in order."""
    keys = ("trial", "values", "status", "scores", "continues", "share")
    return [tuple(trial.get(key) for key in keys) for trial in results["trials"]]


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, JsonObject, Lines]:
    """A finished search of two trials: its folder, results and lines."""
    folder, lines = tmp_path_factory.mktemp("real"), Lines()
    (folder / "tiny.toml").write_text(SPACE)
    options: Any = {"trials": 2, "seed": 5, "reporter": lines}
    return folder / "found", tune(folder / "tiny.toml", run_dir=folder / "found", **options), lines


def logged(folder: Path) -> dict[str, Any]:
    """What TensorBoard's HParams page reads from a trial's log."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import plugin_data_pb2

    (path,) = folder.glob("events*")
    found = {}
    for record in tf.data.TFRecordDataset(str(path)):
        for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                content = value.metadata.plugin_data.content
                data = plugin_data_pb2.HParamsPluginData.FromString(content)
                for name, held in data.session_start_info.hparams.items():
                    found[name] = getattr(held, held.WhichOneof("kind"))
    return found


def test_a_search_leaves_what_it_found(search: tuple[Path, JsonObject, Lines]) -> None:
    folder, results, reporter = search
    for trial in results["trials"]:
        run = reszoo.Run.open(folder_of(folder, trial["trial"]) / "seed5")
        assert (trial["status"], trial["share"], trial["seeds"]) == ("completed", 1, [5])
        assert trial["scores"] == [run.history[-1]["val_accuracy"]] == [trial["score"]]
        assert trial["steps"] == trial["trained_steps"] == run.history[-1]["step"] == 6
        spec, cost = run.recipe.model.spec, reszoo.count(run.recipe.model.spec, (8, 8, 1), 10)
        assert spec.shortcut == trial["values"]["model.shortcut"] and run.recipe.train.seed == 5
        assert (trial["parameters"], trial["macs"]) == (
            cost.parameters,
            cost.macs,
        )
        assert run.recipe.schedule.rate == trial["values"]["schedule.rate"]
        # The test split chooses nothing, and no search reads it.
        assert not [p for p in run.path.iterdir() if "test" in p.name or p.suffix == ".keras"]
        assert logged(folder_of(folder, trial["trial"]) / "tensorboard") == trial["values"]
    best = max(results["trials"], key=lambda trial: trial["score"])
    assert results["best"] == best["trial"]
    assert json.loads((folder / "report.json").read_text()) == results == read_results(folder)
    kept = {path.parents[2].name for path in folder.glob("trials/*/seed*/checkpoints/*.npz")}
    assert kept == {best["trial"]}
    first, *lines, last = reporter.lines
    assert first.startswith(
        "tiny: random search over shortcut, zero_gamma, rate, width; quickstart"
    )
    assert first.endswith(" on digits (8x8x1); 2 trials")
    assert lines[0].startswith("1/2 trial 0000: shortcut ") and " left" in lines[0]
    assert lines[1].startswith("2/2 trial 0001: ") and len(lines) == 2
    assert f"best {100 * best['score']:.2f} % ({best['trial']})" in lines[1]
    assert last == f"report: {folder / 'report.html'}"


def test_the_exported_recipe_reproduces_the_score(
    search: tuple[Path, JsonObject, Lines], tmp_path: Path
) -> None:
    folder, results, _ = search
    best = next(trial for trial in results["trials"] if trial["trial"] == results["best"])
    path = tmp_path / "best.toml"
    assert main(["tune", "--run-dir", str(folder), "--export", str(path)]) == 0
    recipe, text = load_recipe(path), path.read_text()
    assert recipe == best_recipe(folder)[0] and recipe.name == "best" and recipe.train.seed == 5
    assert f"# Best trial of the search tiny: trial {best['trial']}." in text
    assert f"{100 * best['score']:.2f} %" in text and "reszoo train " in text
    done = reszoo.train(path, run_dir=tmp_path / "again", quiet=True)
    assert done.finished and done.run.history[-1]["val_accuracy"] == best["score"]
    for wrong in (tmp_path / "best.json", tmp_path):
        with pytest.raises(ReszooError, match=r"--export: .* expected a .toml file"):
            export_recipe(folder, wrong)


def test_a_promoted_trial_that_a_signal_stopped_is_the_unbroken_training(
    search: tuple[Path, JsonObject, Lines], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, results, _ = search
    plan = read_plan(folder)
    straight = next(trial for trial in results["trials"] if trial["trial"] == results["best"])
    values: Any = plan.space.canonical({each.name: each.default for each in plan.space.hyperparameters} | straight["values"])  # fmt: skip

    def signal_in_the_last_step(self: Any, batch: int, logs: Any = None) -> None:
        self._steps += 1
        if self._steps == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as once:
        once.setattr(trial_module._Owned, "on_train_batch_end", signal_in_the_last_step)
        with pytest.raises(Stopped):
            run_trial(plan, tmp_path, "0000", values, share=1 / 3)
    short = run_trial(plan, tmp_path, "0000", values, share=1 / 3)
    whole = run_trial(plan, tmp_path, "0001", values, continues="0000")
    assert [(each["steps"], each["trained_steps"]) for each in (short, whole)] == [(2, 2), (6, 4)]
    assert whole["scores"] == straight["scores"] and whole["training"] == straight["training"]
    paths = [folder_of(tmp_path, "0000"), folder_of(tmp_path, "0001"), folder_of(folder, results["best"])]  # fmt: skip
    runs = [reszoo.Run.open(path / "seed5") for path in paths]
    assert runs[1].history == runs[2].history and runs[0].history == runs[2].history[:1]
    one, other = (checkpoint.load(checkpoint.steps(run.path / "checkpoints")[-1]).arrays for run in runs[1:])  # fmt: skip
    assert one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)
    monkeypatch.setattr(trial_module.Trainer, "prepare", None)  # an ended trial is not run again
    assert run_trial(plan, tmp_path, "0001", values) == whole


# Searches whose trials are not trained


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials end at once, with a score that is a function of the values; plain models fail."""

    def end_at_once(plan: Plan, search: Path, trial_id: str, values: Any, **options: Any) -> Trial:
        cost = plan.count(plan.space.recipe(values))
        record: Any = {"trial": trial_id, "values": plan.space.active(values), "share": options["share"]}  # fmt: skip
        record |= {"continues": options["continues"], "seeds": [0], "seconds": 1.0, "steps": 6}
        record |= {"depth": cost.depth, "parameters": cost.parameters, "macs": 1}
        good = values["model.shortcut"] != "none"
        value = score(values, options["share"])
        record |= {"score": value, "scores": [value]} if good else {"reason": "it is plain"}
        record |= {"status": "completed" if good else "failed"}
        write_json(folder_of(search, trial_id) / "trial.json", record)
        return record  # type: ignore[no-any-return]

    monkeypatch.setattr(tuner_module, "run_trial", end_at_once)
    monkeypatch.setattr(tuner_module, "write_hparams", lambda folder, record: None)
    monkeypatch.setattr(tune_module, "report", lambda folder: folder / "report.html")


@pytest.mark.usefixtures("instant")
def test_a_failed_trial_is_reported_and_more_trials_may_be_requested_later(
    tiny: Path, tmp_path: Path, reporter: Lines
) -> None:
    first = tune(tiny, tuner="hyperband", run_dir=tmp_path / "s", reporter=reporter)
    assert first["totals"]["failed"] > 0
    assert any("failed: it is plain" in line for line in reporter.lines)
    assert any("after 33 % of the training" in line for line in reporter.lines)
    more = tune(run_dir=tmp_path / "s", resume=True, trials=8, reporter=reporter)
    assert outcome(more)[:6] == outcome(first) and len(first["trials"]) == 6
    assert len(more["trials"]) == 12 and more["search"]["trials"] == 8


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("tuner", ["random", "hyperband"])
def test_a_stopped_search_resumes_to_the_same_end(
    tuner: str, tiny: Path, tmp_path: Path, reporter: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: Any = {
        "tuner": tuner,
        "trials": 4,
        "reporter": reporter,
    }
    whole, folder, run = tune(tiny, run_dir=tmp_path / "whole", **options), tmp_path / "s", tuner_module.run_trial  # fmt: skip

    def stop_in_the_third(
        plan: Plan, search: Path, trial_id: str, *args: Any, **more: Any
    ) -> Trial:
        if trial_id == "0002":
            raise Stopped
        return run(plan, search, trial_id, *args, **more)

    with monkeypatch.context() as once:
        once.setattr(tuner_module, "run_trial", stop_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            tune(tiny, run_dir=folder, **options)
    assert reporter.lines[-1] == f"stopped; resume with: reszoo tune --resume --run-dir {folder}"
    assert outcome(tune(run_dir=folder, resume=True, reporter=reporter)) == outcome(whole)
    assert any(line.startswith("resuming after 2 trials; best") for line in reporter.lines)


@pytest.mark.usefixtures("instant")
def test_failures_end_a_search_with_the_reason(tiny: Path, tmp_path: Path, reporter: Lines) -> None:
    whole = tmp_path / "whole.toml"
    whole.write_text(SPACE)
    tiny.write_text(SPACE.replace('"none", "A", "B"', '"none"').replace('["A", "B"]', '["none"]'))
    options: Any = {"run_dir": tmp_path / "s", "reporter": reporter}
    with pytest.raises(
        ReszooError, match="3 trials in a row failed, the last one because it is plain;"
    ):
        tune(tiny, trials=10, **options)
    assert read_results(tmp_path / "s")["totals"]["failed"] == 3
    with pytest.raises(ReszooError, match="no trial has completed yet"):
        export_recipe(tmp_path / "s", tmp_path / "best.toml")
    with pytest.raises(ReszooError, match="no trial has a score; the last one failed because"):
        tune(tiny, trials=1, run_dir=tmp_path / "one", reporter=reporter)
    with pytest.raises(
        ReszooError, match=r"every trial is rejected; the first: [\d,]+ parameters, more"
    ):
        tune(whole, max_params=5, run_dir=tmp_path / "new", reporter=reporter)
    assert not (tmp_path / "new").exists()  # the corrected command finds nothing in its way


@pytest.mark.usefixtures("instant")
def test_an_error_of_the_machine_ends_the_search_and_does_not_count_as_a_failure(
    tiny: Path, tmp_path: Path, reporter: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    options: Any = {"trials": 2, "run_dir": tmp_path / "s", "reporter": reporter}
    with monkeypatch.context() as full_disk:
        full_disk.setattr(tuner_module, "run_trial", full)
        with pytest.raises(OSError, match="No space left"):
            tune(tiny, **options)
    assert not (tmp_path / "s").exists()  # no trial had started
    assert len(tune(tiny, **options)["trials"]) == 2


@pytest.mark.usefixtures("instant")
def test_a_search_whose_folder_is_gone_stops(tiny: Path, tmp_path: Path) -> None:
    class Removing(Lines):
        def line(self, text: str = "") -> None:
            super().line(text)
            if " trial 0000" in text:
                (tmp_path / "s" / "search.json").unlink()

    reporter = Removing()
    with pytest.raises(ReszooError, match=r"no longer a search folder: search.json was removed"):
        tune(tiny, trials=3, run_dir=tmp_path / "s", reporter=reporter)
    assert sum(" trial " in line for line in reporter.lines) == 1


# What is rejected before anything is written


def write_plan(tiny: Path, folder: Path) -> Path:
    folder.mkdir()
    plan_of(tiny, 3.0).write(folder, environment={}, command="")
    return folder


REJECTED: list[tuple[dict[str, Any], str]] = [
    ({"space": "tiny"}, "exists; add --resume to resume it"),
    ({"space": "tiny", "resume": True, "seed": 7}, "started with another search (seed)"),
    ({"resume": True, "executions": 7}, "search.executions: 7 is invalid; "),
    ({"space": "tiny", "resume": True, "overrides": {"train.epochs": 8}}, "another base recipe (train)"),
    ({"resume": True, "overrides": ["train.epochs=8"]}, "a search keeps its recipe"),
    ({"resume": True, "run_dir": "nowhere"}, "not a search folder"),
    ({"run_dir": None}, "space: missing"),
    ({"space": "tiny", "run_dir": "new", "workers": 0}, "workers: 0 is invalid"),
    ({"space": "tiny", "run_dir": "new", "data": "digits"}, "For a new search: --set data.name=digits"),
    ({"space": "tiny", "run_dir": "new", "devices": "bogus"}, "bogus"),
    ({"space": "tiny", "run_dir": "new", "overrides": ["data.validation=0"]}, "data.validation: digits has no"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "line"), REJECTED)
def test_a_search_that_cannot_start_or_resume_is_rejected(
    options: dict[str, Any], line: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_plan(tiny, tmp_path / "search")
    space = tiny if options.get("space") else None
    with pytest.raises(ReszooError) as caught:
        tune(**{"run_dir": folder, **options, "space": space})
    assert line in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists() and not (folder / "trials").exists()


def test_another_space_and_a_second_search_are_kept_out(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    new_plan(folder, tiny, [], {}).write(folder, environment={}, command="")
    with open(folder / "lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ReszooError, match="another search is running in it"):
            tune(run_dir=folder, resume=True)
    tiny.write_text(
        SPACE.replace('"none", "A", "B"', '"none", "A", "C"').replace('["A", "B"]', '["A"]')
    )
    with pytest.raises(ReszooError, match=r"started with another space \(model.shortcut\)"):
        tune(tiny, run_dir=folder, resume=True)


def test_a_search_resumes_with_its_data_wherever_it_lies_and_with_no_other(
    tiny: Path, tmp_path: Path
) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "search"
    for number, name in enumerate("abc"):
        (photos / name).mkdir(parents=True)
        for index in range(20):
            image = Image.fromarray(np.full((8, 8, 3), 60 * number + index, np.uint8))
            image.save(photos / name / f"{index:02d}.png", compress_level=0)
    text = SPACE.replace("data.examples=60", f"data.name=folder:{photos}").replace("=60", "=12")
    tiny.write_text(text.replace("batch_size=30", "batch_size=12"))
    with pytest.raises(ReszooError, match="search folder: .* expected a folder outside the data"):
        tune(tiny, run_dir=photos / "tune")
    new_plan(folder, tiny, [], {}).write(folder, environment={}, command="")
    photos.rename(tmp_path / "moved")
    advice = "photos does not exist; if .*: reszoo tune --resume --run-dir .* --data folder:PATH"
    with pytest.raises(ReszooError, match=advice):
        tune(run_dir=folder, resume=True)
    plan = resumed_plan(folder, None, [], {}, f"folder:{tmp_path / 'moved'}")
    plan.write(folder, environment={}, command="")
    assert read_plan(folder).space.base.data.name == f"folder:{tmp_path / 'moved'}"
    assert resumed_plan(folder, None, [], {}, None).data == plan.data
    changed = Image.fromarray(np.full((8, 8, 3), 255, np.uint8))
    changed.save(tmp_path / "moved" / "a" / "00.png", compress_level=0)
    with pytest.raises(ReszooError, match=r"is not the data that .* started with: the content of"):
        tune(run_dir=folder, resume=True)


def test_a_searched_weight_file_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.toml"
    path.write_text(
        SPACE.partition("[space]")[0] + '[space]\nmodel.weights = ["", "a.weights.h5"]\n'
    )
    (each,) = resolve_space(load_space(path), [], {}).hyperparameters
    assert each.overrides("a.weights.h5") == {"model.weights": str(tmp_path / "a.weights.h5")}
    assert each.overrides("") == {"model.weights": ""}


DAMAGE: list[Any] = ["", "{", '{"space": 3}', "[]", "null", '{"name": "x", "space": null}']
DAMAGE += [{"data": {"name": "digits"}}, {"recipe": []}, {"search": []}, {"space": []}, {"epochs": "x"}, {"space": {"n": 3}}]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_plan_is_reported(damage: Any, tiny: Path, tmp_path: Path) -> None:
    path = write_plan(tiny, tmp_path / "search") / "search.json"
    if isinstance(damage, dict):
        damage = json.dumps(json.loads(path.read_text()) | damage)
    path.write_text(damage)
    with pytest.raises(ReszooError, match=r"search.json is damaged") as caught:
        read_plan(path.parent)
    assert "\n" not in str(caught.value)
