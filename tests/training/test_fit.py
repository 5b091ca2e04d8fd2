"""Training by Keras' own `fit` on its JAX backend, beside the TensorFlow engine and beside itself on two devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import reszoo
from reszoo.evaluation.scores import evaluate_model
from reszoo.training import checkpoint

pytest.importorskip("jax")

TRAIN = """
import json, os, signal, sys
import keras
import reszoo

class Watch(keras.callbacks.Callback):
    seen = 0
    def on_train_batch_end(self, batch, logs=None):
        Watch.seen += 1
        if Watch.seen == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
    def on_train_end(self, logs=None):  # Keras itself looks for TensorFlow when it saves a model
        assert "tensorflow" not in sys.modules, "TensorFlow was imported"

assert keras.config.backend() == "jax", keras.config.backend()
arguments = {"quiet": True, "callbacks": [Watch()], **json.loads(sys.argv[1])}
if stop_after := arguments.pop("stop_after", 0):
    assert not reszoo.train(**arguments).finished
    arguments["resume"] = True
assert reszoo.train(**arguments).finished
"""
# An update an epoch, so that each row of the history is one step's loss.
RECIPE = """
description = "twenty steps"

[model]
name = "resnet8"
weights = "{weights}"

[data]
name = "synthetic"
image_size = [16, 16]
examples = 96

[augment]
crop = "pad"
flip = true

[train]
steps = 20
batch_size = 96
label_smoothing = 0.1
export = false
{train}

[optimizer]
{optimizer}

[schedule]
kind = "cosine"
rate = {rate}
warmup = 5
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "start.weights.h5"
    reszoo.build("resnet8", input_shape=(16, 16, 3), classes=10).save_weights(path)
    return path


def write_recipe(
    folder: Path, weights: Path | str = "", train: str = "", optimizer: str = "weight_decay = 0.02", rate: float = 0.005
) -> Path:
    """At higher rates rounding alone takes two backends apart within 20 steps: a ReLU's kink is passed or not."""
    text = RECIPE.format(weights=weights, train=train, optimizer=optimizer, rate=rate)
    path = folder / "twenty.toml"
    path.write_text(text if weights else text.replace('weights = ""\n', ""))
    return path


def train_on_jax(recipe: Path | str, run_dir: Path, **arguments: Any) -> list[dict[str, Any]]:
    """Train in another process, in which TensorFlow must not turn up; return the history."""
    told = json.dumps({"recipe": str(recipe), "run_dir": str(run_dir), **arguments})
    done = run_python("-c", TRAIN, told)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((run_dir / "history.json").read_text())


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"} | variables
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


def test_losses_are_those_of_the_tensorflow_engine(weights: Path, tmp_path: Path) -> None:
    """To 1e-4 over 20 steps, from the same weights: order, crops, loss, decay, rates, momentum and statistics are alike."""
    recipe = write_recipe(tmp_path, weights)
    theirs = reszoo.train(recipe, run_dir=tmp_path / "tensorflow", quiet=True)
    ours = train_on_jax(recipe, tmp_path / "jax")
    losses = [[row["loss"] for row in history] for history in (theirs.run.history, ours)]
    assert len(losses[0]) == 20
    assert losses[0][-1] < losses[0][0] - 0.1  # it learns, or equal losses would say little
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-4)
    np.testing.assert_allclose(*([row["rate"] for row in h] for h in (theirs.run.history, ours)), rtol=1e-6)
    assert [row["accuracy"] for row in theirs.run.history] == [row["accuracy"] for row in ours]
    scores = [json.loads((tmp_path / side / "test.json").read_text()) for side in ("tensorflow", "jax")]
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], abs=1e-3)
    held = [
        checkpoint.load(tmp_path / side / "checkpoints" / "step-00000020.npz").arrays for side in ("tensorflow", "jax")
    ]
    assert set(held[1]) <= set(held[0])
    for name in held[1]:
        np.testing.assert_allclose(held[0][name], held[1][name], rtol=0, atol=2e-3, err_msg=name)
    # What JAX trained, TensorFlow loads, with its slots.
    model = reszoo.Run(tmp_path / "jax").load_model()
    np.testing.assert_array_equal(model.get_weights()[0], held[1][f"model/0/{model.variables[0].path}"])


@pytest.mark.parametrize(
    ("train", "optimizer", "rate"),
    [
        ("clip_norm = 0.5\nema = 0.9", "weight_decay = 0.02\ndecay_norms = false", 0.01),
        ("", 'name = "adamw"\nweight_decay = 1.0\ndecay = "decoupled"', 0.0002),
    ],
    ids=["clip-ema", "adamw"],
)
@pytest.mark.slow
def test_other_updates_are_those_of_the_tensorflow_engine(
    weights: Path, tmp_path: Path, train: str, optimizer: str, rate: float
) -> None:
    """Clipping, averages and decoupled decay too."""
    recipe = write_recipe(tmp_path, weights, train, optimizer, rate)
    theirs = reszoo.train(recipe, run_dir=tmp_path / "tensorflow", quiet=True)
    ours = train_on_jax(recipe, tmp_path / "jax")
    losses = [[row["loss"] for row in history] for history in (theirs.run.history, ours)]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-4)
    held = [
        checkpoint.load(tmp_path / side / "checkpoints" / "step-00000020.npz").arrays for side in ("tensorflow", "jax")
    ]
    averages = [name for name in held[0] if name.startswith("average/")]
    assert bool(averages) == bool(train)
    assert set(held[0]) - set(held[1]) == {"loss_scale", "calm_steps"}
    for name in averages:
        np.testing.assert_allclose(held[0][name], held[1][name], rtol=0, atol=1e-3, err_msg=name)


def test_two_devices_give_the_numbers_of_one(weights: Path, tmp_path: Path) -> None:
    """Statistics are of the whole batch; and a batch that two cannot share alike is refused."""
    recipe = write_recipe(tmp_path, weights)
    one, two = (train_on_jax(recipe, tmp_path / word, devices=word) for word in ("cpu", "cpu:2"))
    np.testing.assert_allclose(*([row["loss"] for row in rows] for rows in (one, two)), rtol=0, atol=1e-4)
    assert json.loads((tmp_path / "cpu:2" / "run.json").read_text())["devices"] == ["CPU:0", "CPU:1"]
    done = run_python(
        *("-m", "reszoo", "train", str(recipe), "--devices", "cpu:2", "--set", "train.batch_size=95"),
        *("--run-dir", str(tmp_path / "odd")),
    )
    assert done.returncode == 2 and not (tmp_path / "odd").exists()
    assert done.stderr.strip().splitlines()[-1].startswith("reszoo: 2 devices cannot share a batch of 95 images alike")


def test_a_stopped_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    """Stopped by a signal inside an epoch of four steps, with a short last batch, averages and evaluation."""
    more = ["train.batch_size=40", "train.steps=11", "data.examples=150", "data.validation=60", "train.ema=0.9"]
    recipe = write_recipe(tmp_path)
    whole = train_on_jax(recipe, tmp_path / "whole", overrides=more)
    parts = train_on_jax(recipe, tmp_path / "parts", overrides=more, stop_after=6)
    assert whole == parts and len(whole) == 3 and "val_loss" in whole[0]
    held = [
        checkpoint.load(tmp_path / name / "checkpoints" / "step-00000011.npz").arrays for name in ("whole", "parts")
    ]
    for name, array in held[0].items():
        np.testing.assert_array_equal(array, held[1][name], err_msg=name)
    with pytest.raises(
        reszoo.ReszooError,
        match="parts was trained on jax; resume with: KERAS_BACKEND=jax reszoo train --resume",
    ):
        reszoo.train(tmp_path / "parts" / "recipe.toml", run_dir=tmp_path / "parts", resume=True)


CALLBACKS = """
import sys
import keras
import reszoo

class Worse(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        assert self.params["epochs"] == 5 and self.params["steps"] == 1, self.params
        if epoch >= 1:
            logs["val_loss"] = 99.0

recipe, folder = sys.argv[1:]
overrides = ["data.validation=32", "train.ema=0.9", "train.steps=5"]
callbacks = [
    Worse(),
    keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True),
    keras.callbacks.ModelCheckpoint(folder + "/{epoch}.keras", monitor="val_accuracy"),
]
assert reszoo.train(recipe, overrides=overrides, run_dir=folder, callbacks=callbacks, quiet=True).finished
try:
    reszoo.train(recipe, run_dir=folder + "/two", callbacks=[keras.callbacks.ReduceLROnPlateau("loss")], quiet=True)
except reszoo.ReszooError as error:
    print(error)
"""


def test_callbacks_restore_and_save_the_averaged_weights(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    done = run_python("-c", CALLBACKS, str(recipe), str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("callbacks: ReduceLROnPlateau sets the learning rate, which needs Keras' TensorFlow")
    run = reszoo.Run.open(tmp_path / "run")
    losses = [row["val_loss"] for row in run.history]
    assert len(losses) == 3 and abs(losses[0] - losses[2]) > 1e-3
    assert reszoo.evaluate(run, split="validation", out=tmp_path).loss == pytest.approx(losses[0], abs=1e-4)
    pipeline = run.open_pipeline()
    pipeline.preprocessing = run.preprocessing
    for number, loss in enumerate(losses, 1):
        model = keras.models.load_model(tmp_path / "run" / f"{number}.keras", compile=False)
        scores = evaluate_model(model, pipeline.evaluation("validation"), classes=10)
        assert scores.loss == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.accumulate=2", "train.accumulate = 2 needs Keras' TensorFlow backend"),
        ('train.precision="mixed_float16"', "(mixed_bfloat16 works) needs Keras' TensorFlow backend"),
        ("train.jit=true", "train.jit (JAX compiles every step) needs Keras' TensorFlow backend"),
        ("data.on_device=true", "under JAX the images always stay on the device) needs Keras' TensorFlow backend"),
        ('augment.color="pca"', "augment.color = 'pca' needs Keras' TensorFlow backend"),
    ],
)
@pytest.mark.slow
def test_what_fit_cannot_do_is_refused_in_a_line(tmp_path: Path, override: str, line: str) -> None:
    recipe = write_recipe(tmp_path)
    done = run_python("-m", "reszoo", "train", str(recipe), "--set", override, "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert line in done.stderr.strip().splitlines()[-1] and "Traceback" not in done.stderr


def test_other_verbs_need_tensorflow(tmp_path: Path) -> None:
    done = run_python("-m", "reszoo", "lab", "identity", "--out", str(tmp_path / "lab"))
    assert done.returncode == 2 and done.stderr.startswith("reszoo: KERAS_BACKEND is jax, and this needs tensorflow")


@pytest.mark.parametrize(
    ("backend", "missing", "data", "line"),
    [
        ("jax", "jax", "digits", "jax is not installed: pip install jax"),
        ("tensorflow", "tensorflow", "digits", "tensorflow is not installed: pip install tensorflow"),
        ("torch", "", "digits", "KERAS_BACKEND is torch, and this needs tensorflow or jax"),
        ("jax", "tensorflow", "cifar10", "data.name = 'cifar10' is read with tensorflow, which is not installed"),
    ],
)
def test_what_is_not_installed_is_said_in_a_line(
    tmp_path: Path, backend: str, missing: str, data: str, line: str
) -> None:
    """In a process in which no module of that name can be found."""
    script = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(name, name=name)
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == {missing!r} else find(name, package)
sys.meta_path.insert(0, Missing())
from reszoo.cli.main import main
sys.exit(main(["train", "quickstart", "--set", "data.name={data}", "--run-dir", {str(tmp_path / "run")!r}]))
"""
    done = run_python("-c", script, KERAS_BACKEND=backend)
    assert done.returncode == 2 and not (tmp_path / "run").exists(), done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(f"reszoo: {line}") and "Traceback" not in done.stderr
