"""From a recipe to a finished run, as a person does it."""

from __future__ import annotations

import csv
import itertools
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import reszoo
import reszoo.models
from reszoo.cli.main import main
from reszoo.config.resolve import resolve_recipe
from reszoo.data.pipeline import Pipeline
from reszoo.errors import ReszooError
from reszoo.models.batchnorm import synchronize_batch_norm
from reszoo.trainer import Trainer, train


def recipe(**tables: dict[str, Any]) -> reszoo.Recipe:
    base: dict[str, dict[str, Any]] = {
        "model": {"name": "resnet8"},
        "data": {"name": "digits", "validation": 100, "examples": 400},
        "train": {"epochs": 1, "batch_size": 64, "export": False},
        "optimizer": {"name": "sgd"},
        "schedule": {"kind": "step", "rate": 0.1, "boundaries": [35]},
        "published": {"metric": "test error", "value": 12.5, "source": "nowhere"},
    }
    return reszoo.Recipe(name="small", **{key: base[key] | tables.get(key, {}) for key in base})


WHOLE = recipe(train={"epochs": 6, "ema": 0.8, "select": "best", "export": True})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert train(WHOLE, run_dir=folder, quiet=True).finished
    return folder


def test_run_folder_explains_itself(finished: Path) -> None:
    run = reszoo.Run.open(finished)
    assert run.recipe == resolve_recipe(WHOLE)
    meta = run.meta
    assert meta["status"] == "finished" and meta["seed"] == 0 and meta["devices"] == ["CPU:0"]
    assert reszoo.Spec(**meta["spec"]) == reszoo.spec("resnet8")
    weights = run.load_model().trainable_weights
    assert meta["parameters"] == sum(int(np.prod(weight.shape)) for weight in weights)
    assert meta["versions"]["tensorflow"] == tf.__version__
    history = run.history
    assert [row["epoch"] for row in history] == list(range(1, 7))
    assert [row["step"] for row in history] == list(range(7, 49, 7))  # 400 images, 64 at a time
    assert [row["rate"] for row in history] == pytest.approx([0.1] * 5 + [0.01])
    with open(finished / "history.csv", newline="") as file:
        assert [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)] == history
    files = ("curves.png", "curves.svg", "confusion.png", "model.keras", "test.json")
    for name in (*files, "confusion.json", "train.log", "export/card.json"):
        assert (finished / name).stat().st_size > 0, name
    assert "12.5 % (test error; nowhere)" in (finished / "train.log").read_text()
    assert not list(finished.rglob(".*"))
    assert history[-1]["loss"] < 0.5 * history[0]["loss"] and history[-1]["val_accuracy"] > 0.6


def test_tensorboard_log_is_the_history(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    read = [
        (e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors("val_accuracy")
    ]
    assert read == [
        (row["step"], pytest.approx(row["val_accuracy"]))
        for row in reszoo.Run.open(finished).history
    ]


def test_test_scores_are_those_of_the_saved_model(finished: Path, tmp_path: Path) -> None:
    """Against arithmetic on the loaded Keras model's own predictions."""
    run = reszoo.Run.open(finished)
    model, pipeline = run.load_model(), run.open_pipeline()
    right = total = 0
    for images, labels in pipeline.evaluation("test"):
        right += int((model.predict_on_batch(images).argmax(-1) == labels.numpy()).sum())
        total += len(labels)
    test = json.loads((finished / "test.json").read_text())
    assert test["examples"] == total == 360
    assert test["top1"] == pytest.approx(right / total, abs=1e-9)
    assert reszoo.evaluate(finished, out=tmp_path).top1 == test["top1"]


def test_averaged_weights_of_the_best_epoch_are_what_is_saved(
    finished: Path, tmp_path: Path
) -> None:
    best = max(reszoo.Run.open(finished).history, key=lambda row: row["val_accuracy"])
    scores = reszoo.evaluate(finished, split="validation", out=tmp_path)
    assert scores.top1 == pytest.approx(best["val_accuracy"])
    assert scores.loss == pytest.approx(best["val_loss"], rel=1e-4)


def test_a_run_reports_what_it_does_after_its_last_epoch(finished: Path) -> None:
    """In this order, each line before the work it names."""
    log = (finished / "train.log").read_text()
    after = log[log.index("epoch    6  step 42/42") :]
    lines = ("saving the model", "drawing the curves", "evaluating the test split: 360 images")
    places = [after.index(each) for each in (*lines, "exporting a SavedModel", "test error")]
    assert places == sorted(places)


def test_same_seed_same_run_other_seed_other_run(tmp_path: Path) -> None:
    losses = []
    for index, seed in enumerate((3, 3, 4)):
        trainer = Trainer.prepare(
            recipe(train={"seed": seed}), run_dir=tmp_path / str(index), quiet=True
        )
        trainer.fit(until=2)
        losses.append(trainer.run.history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and abs(losses[0] - losses[2]) > 1e-3


def test_a_stopped_run_with_callbacks_reports_how_to_resume_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Signal(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    folder = tmp_path / "it's mine"
    assert not train(recipe(), run_dir=folder, callbacks=[Signal()]).finished
    resume = (
        f"reszoo.train({str(folder / 'recipe.toml')!r}, run_dir={str(folder)!r}, resume=True, "
        "callbacks=[Signal(...)])"
    )
    line = f"stopped at step 1 of 7; resume with the same callbacks: {resume}"
    assert line in capsys.readouterr().out


def test_paths_of_a_run_hold_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for place in itertools.product(("train", "test"), ("a", "b"), range(8)):
        path = (tmp_path / "photos").joinpath(*map(str, place)).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)
    data = {"name": "folder:photos", "validation": 0, "examples": 0}
    train(recipe(data=data, train={"batch_size": 8}), run_dir="run", quiet=True)
    monkeypatch.chdir("/")
    assert reszoo.evaluate(tmp_path / "run").examples == 16


def test_synchronized_statistics_are_a_recipe_key() -> None:
    model = reszoo.build("resnet8")
    synchronize_batch_norm(model)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 7 and all(layer.synchronized for layer in norms)


def write_recipe(tmp_path: Path, **tables: Any) -> list[str]:
    """Write a recipe; return the arguments that train it."""
    path = tmp_path / "small.toml"
    path.write_text(recipe(**tables).to_toml())
    return ["train", str(path), "--run-dir", str(tmp_path / "run")]


def test_a_run_on_two_replicas_is_evaluated_as_it_is_saved(
    strategy: tf.distribute.Strategy, tmp_path: Path
) -> None:
    """With statistics per replica, two models are trained, but one is evaluated and saved."""
    arguments = write_recipe(tmp_path, train={"batch_norm": "local"})
    assert main([*arguments, "--devices", "cpu:2"]) == 0
    run = reszoo.Run.open(tmp_path / "run")
    assert run.meta["devices"] == ["CPU:0", "CPU:1"]
    before = json.loads((run.path / "test.json").read_text())
    again = reszoo.evaluate(run, out=tmp_path)
    assert again.top1 == before["top1"] and again.loss == pytest.approx(before["loss"], abs=1e-6)


def test_a_full_disk_is_reported_in_one_line_and_leaves_no_half_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_recipe(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))  # a checkpoint takes 600 kB
    try:
        assert main(arguments) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.startswith("reszoo: ")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "tpu"], "devices: tpu is invalid; expected auto, cpu"),
        (["--devices", "gpu"], "no GPU"),
        (["--set", "model.name=resnet21"], "6n"),
        (["--set", "model.shortcut=none", "model.zero_gamma=true"], "zero_gamma"),
        (["--set", "data.name=folder:/nowhere/at/all", "data.examples=0"], "/nowhere/at/all"),
    ],
)
def test_bad_input_is_reported_in_one_line_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*write_recipe(tmp_path), *arguments]) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_exhausted_memory_reports_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr("reszoo.training.step.Stepper.__call__", exhausted)
    line = r"out of memory with batches of 64 images; lower train\.batch_size"
    with pytest.raises(ReszooError, match=line):
        train(recipe(), run_dir=tmp_path / "run", quiet=True)
    assert reszoo.Run.open(tmp_path / "run").meta["status"] == "failed"


def test_run_json_names_the_devices_of_every_process_that_trained(tmp_path: Path) -> None:
    for resume, devices, until in ((False, "cpu", 2), (True, "cpu:2", 4), (True, "cpu", 0)):
        where = {"run_dir": tmp_path / "run", "devices": devices, "quiet": True}
        Trainer.prepare(recipe(), resume=resume, **where).fit(until)
    meta = reszoo.Run.open(tmp_path / "run").meta
    assert meta["devices"] == ["CPU:0"]
    assert [each["devices"] for each in meta["resumed"]] == [["CPU:0", "CPU:1"], ["CPU:0"]]
    assert all(each["machine"] == meta["machine"] for each in meta["resumed"])
    assert meta["started"] <= meta["resumed"][0]["started"] <= meta["resumed"][1]["started"]


def test_resume_needs_a_folder() -> None:
    with pytest.raises(ReszooError, match="resume: no run is given; expected its folder"):
        train(recipe(), resume=True)


def own_model(pipeline: Pipeline) -> keras.Model:
    inputs = keras.Input(pipeline.info.input_shape)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(keras.layers.GlobalAveragePooling2D()(x))
    x = keras.layers.Dense(pipeline.info.classes, name="head")(x)
    model = keras.Model(inputs, x, name="own")
    model.get_layer("bn").trainable = False
    return model


def test_a_model_made_elsewhere_trains_and_resumes_as_the_recipes_does(tmp_path: Path) -> None:
    settings = recipe(train={"epochs": 2, "ema": 0.5})
    whole = Trainer.prepare(settings, run_dir=tmp_path / "whole", quiet=True, model=own_model)
    assert whole.fit()
    first = Trainer.prepare(settings, run_dir=tmp_path / "parts", quiet=True, model=own_model)
    assert not first.fit(until=4)
    shown = first.evaluator(first.pipeline.evaluation("validation"))  # of the averaged weights
    assert first.run.history[-1]["val_loss"] == shown.loss
    again = {"run_dir": tmp_path / "parts", "resume": True, "quiet": True}
    with pytest.raises(ReszooError, match="trains own, a model made elsewhere"):
        Trainer.prepare(settings, **again)
    second = Trainer.prepare(settings, model=own_model, **again)
    assert second.fit()
    for one, other in zip(whole.model.weights, second.model.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    kernel, bn = second.model.get_layer("conv").kernel, second.model.get_layer("bn")
    assert np.ptp(kernel) > 0 and not bn.trainable and not np.any(bn.moving_mean)
    assert second.finish().examples == 360
    meta = second.run.meta
    assert (meta["given_model"], meta["parameters"]) == ("own", 4 * 9 + 4 + 8 + 50)
    assert "spec" not in meta and second.run.load_model().get_layer("head").units == 10


def test_a_model_of_other_images_is_rejected(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(10)], name="flat")
    with pytest.raises(
        ReszooError, match=r"model: flat maps \(5,\) to \(10,\); expected \(8, 8, 1\)"
    ):
        Trainer.prepare(recipe(), run_dir=tmp_path / "run", model=model)
    assert not (tmp_path / "run").exists()


def test_a_sequential_model_trains(tmp_path: Path) -> None:
    layers = [keras.layers.Flatten(), keras.layers.Dense(10, kernel_initializer="zeros")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers], name="flat")
    trainer = Trainer.prepare(recipe(), run_dir=tmp_path / "run", quiet=True, model=model)
    trainer.fit(until=1)
    assert trainer.model.name == "flat" and np.ptp(model.layers[-1].kernel) > 0


@pytest.mark.parametrize("found", ["nothing", "an empty folder", "a folder", "a file"])
def test_resume_starts_a_run_that_does_not_exist(
    found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(recipe: Any, *, resume: bool, **options: Any) -> Trainer:
        raise ReszooError(f"resumes: {resume}")

    monkeypatch.setattr(Trainer, "prepare", prepare)
    path = tmp_path / "run"
    if "folder" in found:
        path.mkdir()
    if found.endswith("a folder"):
        (path / "run.json").touch()
    elif found == "a file":
        path.touch()
    resumes = found in ("a folder", "a file")  # or is rejected
    with pytest.raises(ReszooError, match=f"resumes: {resumes}"):
        train(recipe(), run_dir=path, resume=True)
