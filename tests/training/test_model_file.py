"""A trained model from its run's folder or its file, by reszoo.load_model or by Keras itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import reszoo
from reszoo import ReszooError, Spec, build

# Every registered layer: option A's padding in one model, ReZero in another.
SHAPE: Any = {"depths": (1, 1), "widths": (4, 8), "stem": "cifar", "stem_width": 4}
PADDED = Spec(name="padded", block="basic", shortcut="A", **SHAPE)
SCALED = PADDED.replace(name="scaled", rezero=True)


@pytest.fixture(scope="module")
def run(two_devices: None, tmp_path_factory: pytest.TempPathFactory) -> reszoo.Run:
    settings = ["model.name=resnet8", "train.steps=1", "data.examples=64", "train.export=false"]
    folder = tmp_path_factory.mktemp("runs") / "run"
    return reszoo.train(
        "quickstart", overrides=settings, run_dir=folder, devices="cpu", quiet=True
    ).run


def test_a_run_and_its_file_give_the_same_model(run: reszoo.Run, tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    expected = np.asarray(run.load_model()(images))
    other = Path(shutil.copy(run.path / "model.keras", tmp_path / "without-suffix"))
    for source in (run, run.path, str(run.path), run.path / "model.keras", other):
        model = reszoo.load_model(source)
        assert isinstance(model, keras.Model) and not model.compiled
        np.testing.assert_array_equal(np.asarray(model(images)), expected)


@pytest.mark.parametrize(("spec", "name"), [(PADDED, "model.h5"), (SCALED, "model.keras")])
def test_a_saved_model_is_loaded_with_its_optimizer_on_request(
    spec: Spec, name: str, tmp_path: Path
) -> None:
    model = build(spec, input_shape=(8, 8, 3), classes=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.25, momentum=0.5), loss)
    model.fit(np.ones((4, 8, 8, 3)), np.array([0, 1, 0, 1]), verbose=0)
    model.save(tmp_path / name)
    assert not reszoo.load_model(tmp_path / name).compiled
    again = reszoo.load_model(tmp_path / name, compile=True)
    assert float(again.optimizer.learning_rate) == 0.25
    assert int(again.optimizer.iterations.numpy()) == 1
    for one, other in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_an_incomplete_model_is_rejected_in_one_line(run: reszoo.Run, tmp_path: Path) -> None:
    model = build(PADDED, input_shape=(8, 8, 3), classes=2)
    model.save_weights(tmp_path / "a.weights.h5")
    model.save(tmp_path / "b.keras")
    whole = (tmp_path / "b.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.keras").write_text("hello")
    (tmp_path / "export" / "1").mkdir(parents=True)
    (tmp_path / "export" / "1" / "saved_model.pb").write_bytes(b"\x08\x01")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(run.path / "recipe.toml", unfinished)
    for name, says in (
        ("none", r"no run folder or model file .*none. Example: reszoo.load_model\('runs/first'\)"),
        (
            "a.weights.h5",
            r"holds weights without their model. Example: reszoo.build\(NAME, weights='",
        ),
        ("cut.keras", "cannot be read as weights: it is damaged"),
        ("text.keras", "it is not a weights file"),
        ("export", "it is a SavedModel"),
        ("unfinished", "holds no trained model yet; resume with: reszoo train --resume"),
        (".", "is a folder without weights"),
    ):
        with pytest.raises(ReszooError, match=says) as caught:
            reszoo.load_model(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_class_of_the_users_own_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @keras.saving.register_keras_serializable(package="mine")
    class Special(keras.layers.Layer):
        def call(self, x: object) -> object:
            return x

    inputs = keras.Input((4,))
    keras.Model(inputs, Special()(inputs)).save(tmp_path / "a.keras")
    del keras.saving.get_custom_objects()["mine>Special"]
    with pytest.raises(
        ReszooError, match="'Special' is not registered; import the module that defines it first"
    ):
        reszoo.load_model(tmp_path / "a.keras")


def run_python(script: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(reszoo.__file__).parents[1])}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(
    "imports",
    ["import reszoo, keras", pytest.param("import keras, reszoo", marks=pytest.mark.slow)],
)
def test_keras_opens_a_saved_model_after_import_reszoo_alone(imports: str, tmp_path: Path) -> None:
    """Also after a program asked whether Keras is installed."""
    build(PADDED, input_shape=(8, 8, 3), classes=2).save(tmp_path / "a.keras")
    first, second = imports.split(", ")
    script = (
        f"import sys, importlib.util\n{first}\n"
        "assert importlib.util.find_spec('keras').name == 'keras'\n"
        "assert importlib.util.find_spec('nothing_there') is None\n"
        "import reszoo.registration as registration\n"
        "def finders():\n"
        "    return sum(isinstance(f, registration._KerasFinder) for f in sys.meta_path)\n"
        "if 'keras' not in sys.modules:\n"
        "    registration.register_with_keras()\n"
        "    assert finders() == 1\n"
        f"import {second}, keras\n"
        "assert keras.models.load_model(sys.argv[1]).name == 'padded' and finders() == 0\n"
    )
    run_python(script, str(tmp_path / "a.keras"))
