"""A trained model from its run's folder or its file, by reszoo.load_model or by Keras itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import reszoo
from reszoo import ReszooError, Spec, build

# Every registered layer: option A's padding in one model, ReZero in another.
PADDED = Spec(
    name="padded",
    block="basic",
    depths=(1, 1),
    widths=(4, 8),
    stem="cifar",
    stem_width=4,
    shortcut="A",
)
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
    for source in (
        run,
        run.path,
        str(run.path),
        run.path / "model.keras",
        str(run.path / "model.keras"),
        other,
    ):
        model = reszoo.load_model(source)
        assert isinstance(model, keras.Model) and not model.compiled
        np.testing.assert_array_equal(np.asarray(model(images)), expected)


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
@pytest.mark.parametrize("spec", [PADDED, SCALED], ids=lambda spec: spec.name)
def test_a_saved_model_is_loaded_with_its_optimizer_on_request(
    spec: Spec, name: str, tmp_path: Path
) -> None:
    model = build(spec, input_shape=(8, 8, 3), classes=2)
    model.compile(
        keras.optimizers.SGD(0.25, momentum=0.5),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(np.ones((4, 8, 8, 3)), np.array([0, 1, 0, 1]), verbose=0)
    model.save(tmp_path / name)
    assert not reszoo.load_model(tmp_path / name).compiled
    again = reszoo.load_model(tmp_path / name, compile=True)
    assert (
        float(again.optimizer.learning_rate) == 0.25
        and int(again.optimizer.iterations.numpy()) == 1
    )
    for one, other in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_what_is_not_a_whole_model_is_refused_in_one_line(run: reszoo.Run, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("imports", ["import reszoo, keras", "import keras, reszoo"])
def test_keras_opens_a_saved_model_after_import_reszoo_alone(imports: str, tmp_path: Path) -> None:
    build(PADDED, input_shape=(8, 8, 3), classes=2).save(tmp_path / "a.keras")
    script = (
        f"{imports}, sys\n"
        "import importlib.util; importlib.util.find_spec('keras')\n"
        "assert keras.models.load_model(sys.argv[1]).name == 'padded'\n"
        "from reszoo.registration import _KerasFinder\n"
        "assert not any(isinstance(finder, _KerasFinder) for finder in sys.meta_path)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(reszoo.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.keras")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_search_for_keras_does_not_use_the_hook_up() -> None:
    """A program that asks whether Keras is installed, before it is imported, must not lose the registration."""
    script = (
        "import sys, types, importlib.util, reszoo\n"
        "assert 'keras' not in sys.modules\n"
        "assert importlib.util.find_spec('keras').name == 'keras' and importlib.util.find_spec('nothing_there') is None\n"
        "from reszoo.registration import _KerasFinder, register_with_keras\n"
        "register_with_keras()\n"
        "print(sum(isinstance(finder, _KerasFinder) for finder in sys.meta_path))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(reszoo.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "1\n", done.stderr[-2000:]
