"""From a recipe to a finished run, as a person does it."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

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

TABLES = {
    "name": "small",
    "model": {"name": "resnet8"},
    "data": {"name": "digits", "validation": 100, "examples": 400},
    "train": {"epochs": 3, "batch_size": 64, "export": False},
    "optimizer": {"name": "sgd"},
    "schedule": {"kind": "step", "rate": 0.05, "boundaries": [14]},
    "published": {"metric": "test error", "value": 12.5, "source": "nowhere"},
}


def recipe(**tables: object) -> reszoo.Recipe:
    merged = {
        key: {**value, **tables.get(key, {})} if isinstance(value, dict) else value
        for key, value in TABLES.items()
    }
    return reszoo.Recipe(**merged)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert train(recipe(train={"export": True}), run_dir=folder, quiet=True).finished
    return folder


def test_run_folder_explains_itself(finished: Path) -> None:
    run = reszoo.Run.open(finished)
    assert run.recipe == resolve_recipe(recipe(train={"export": True}))
    meta = run.meta
    assert meta["status"] == "finished" and meta["seed"] == 0 and meta["devices"] == ["CPU:0"]
    assert reszoo.Spec(**meta["spec"]) == reszoo.spec("resnet8")
    assert meta["parameters"] == sum(
        int(np.prod(w.shape)) for w in run.load_model().trainable_weights
    )
    assert meta["versions"]["tensorflow"] == tf.__version__
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    assert [row["step"] for row in run.history] == [7, 14, 21]  # 400 images, 64 at a time
    assert [row["rate"] for row in run.history] == pytest.approx([0.05, 0.05, 0.005])
    with open(finished / "history.csv", newline="") as file:
        assert [
            {k: float(v) for k, v in row.items()} for row in csv.DictReader(file)
        ] == run.history
    for name in (
        "curves.png",
        "curves.svg",
        "confusion.png",
        "model.keras",
        "test.json",
        "confusion.json",
        "train.log",
        "export/card.json",
    ):
        assert (finished / name).stat().st_size > 0, name
    assert "12.5 % (test error; nowhere)" in (finished / "train.log").read_text()
    assert not list(finished.rglob(".*"))


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


def test_learning_happens(tmp_path: Path) -> None:
    run = train(recipe(train={"epochs": 8}), run_dir=tmp_path / "run", quiet=True).run
    assert run.history[-1]["loss"] < 0.5 * run.history[0]["loss"]
    assert run.history[-1]["val_accuracy"] > 0.6


def test_same_seed_same_run_other_seed_other_run(tmp_path: Path) -> None:
    losses = []
    for index, seed in enumerate((3, 3, 4)):
        result = train(
            recipe(train={"epochs": 1, "seed": seed}), run_dir=tmp_path / str(index), quiet=True
        )
        losses.append(result.run.history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and abs(losses[0] - losses[2]) > 1e-3


def test_best_weights_are_the_best_epochs(tmp_path: Path) -> None:
    run = train(
        recipe(train={"epochs": 6, "select": "best"}, schedule={"rate": 0.3}),
        run_dir=tmp_path / "run",
        quiet=True,
    ).run
    scores = reszoo.evaluate(run, split="validation", out=tmp_path)
    assert scores.top1 == pytest.approx(max(row["val_accuracy"] for row in run.history))


def test_averaged_weights_are_what_is_validated_and_saved(tmp_path: Path) -> None:
    run = train(recipe(train={"epochs": 4, "ema": 0.8}), run_dir=tmp_path / "run", quiet=True).run
    scores = reszoo.evaluate(run, split="validation", out=tmp_path)
    assert scores.top1 == pytest.approx(run.history[-1]["val_accuracy"])
    assert scores.loss == pytest.approx(run.history[-1]["val_loss"], rel=1e-4)


def test_a_callback_may_stop_the_run(tmp_path: Path) -> None:
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.model.stop_training = epoch == 1

    result = train(
        recipe(train={"epochs": 5}), run_dir=tmp_path / "run", callbacks=[Stop()], quiet=True
    )
    assert result.finished and result.run.meta["status"] == "finished"
    assert len(result.run.history) == 2 and result.run.load_model().name == "resnet8"


def test_a_run_says_what_it_does_after_its_last_epoch(finished: Path) -> None:
    """In this order, each line before the work it names."""
    log = (finished / "train.log").read_text()
    after = log[log.index("epoch    3  step 21/21") :]
    words = [
        "saving the model",
        "drawing the curves",
        "evaluating the test split: 360 images",
        "exporting the SavedModel",
    ]
    places = [after.index(word) for word in [*words, "test error"]]
    assert places == sorted(places)


def test_a_stopped_run_with_callbacks_says_how_to_resume_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Signal(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    folder = tmp_path / "it's mine"
    assert not train(recipe(), run_dir=folder, callbacks=[Signal()]).finished
    said = capsys.readouterr().out
    resume = f"reszoo.train({str(folder / 'recipe.toml')!r}, run_dir={str(folder)!r}, resume=True, callbacks=[Signal(...)])"
    assert f"stopped at step 7 of 21; resume with the same callbacks: {resume}" in said


def test_paths_of_a_run_hold_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for split, label, index in [
        (s, c, i) for s in ("train", "test") for c in ("a", "b") for i in range(8)
    ]:
        folder = tmp_path / "pictures" / split / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
            folder / f"{index}.png"
        )
    monkeypatch.chdir(tmp_path)
    data = {"name": "folder:pictures", "validation": 0, "examples": 0}
    train(recipe(data=data, train={"epochs": 1, "batch_size": 8}), run_dir="run", quiet=True)
    monkeypatch.chdir("/")
    assert reszoo.evaluate(tmp_path / "run").examples == 16


def test_synchronised_statistics_are_a_recipe_field() -> None:
    model = reszoo.build("resnet8")
    synchronize_batch_norm(model)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 7 and all(layer.synchronized for layer in norms)


def test_a_run_on_two_replicas_is_scored_as_it_is_saved(
    strategy: tf.distribute.Strategy, tmp_path: Path
) -> None:
    """With statistics per replica there are two nets in training, but one that is scored, saved and gone on with."""
    settings = recipe(train={"batch_norm": "local", "epochs": 2})
    run = train(settings, run_dir=tmp_path / "run", devices="cpu:2", quiet=True).run
    before = json.loads((run.path / "test.json").read_text())
    again = reszoo.evaluate(run, out=tmp_path)
    assert again.top1 == before["top1"] and again.loss == pytest.approx(before["loss"], abs=1e-6)


def run_cli(*arguments: str, file_limit: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    environment = os.environ | {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "reszoo", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, preexec_fn=limit, check=False
    )


def test_two_replicas_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(recipe(train={"batch_norm": "sync", "epochs": 1}).to_toml())
    done = run_cli("train", str(path), "--run-dir", str(tmp_path / "run"), "--devices", "cpu:2")
    assert done.returncode == 0, done.stderr
    assert reszoo.Run.open(tmp_path / "run").meta["devices"] == ["CPU:0", "CPU:1"]


def test_disk_that_is_full_is_one_line_and_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(recipe(train={"epochs": 1}).to_toml())
    done = run_cli(
        "train", str(path), "--run-dir", str(tmp_path / "run"), file_limit=200_000
    )  # a checkpoint takes 600 kB
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("reszoo: ")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "tpu"], "devices is 'tpu', but must be auto, cpu"),
        (["--devices", "gpu"], "no GPU"),
        (["--set", "model.name=resnet21"], "6n"),
        (["--set", "model.shortcut=none", "model.zero_gamma=true"], "zero_gamma"),
        (["--set", "data.name=folder:/nowhere/at/all", "data.examples=0"], "/nowhere/at/all"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.toml"
    path.write_text(recipe().to_toml())
    assert main(["train", str(path), "--run-dir", str(tmp_path / "run"), *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_running_out_of_memory_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr("reszoo.training.step.Stepper.__call__", exhausted)
    with pytest.raises(
        ReszooError, match=r"out of memory with batches of 64; lower train\.batch_size"
    ):
        train(recipe(), run_dir=tmp_path / "run", quiet=True)
    assert reszoo.Run.open(tmp_path / "run").meta["status"] == "failed"


def test_resume_needs_a_folder() -> None:
    with pytest.raises(
        ReszooError, match="resume: no run is given; expected its folder as run_dir"
    ):
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


def test_a_model_of_other_images_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(10)], name="flat")
    with pytest.raises(
        ReszooError, match=r"model: flat maps \(5,\) to \(10,\); expected \(8, 8, 1\)"
    ):
        Trainer.prepare(recipe(), run_dir=tmp_path / "run", model=model)
    assert not (tmp_path / "run").exists()
