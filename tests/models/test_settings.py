"""No global Keras setting changes a model, a run, a prediction or an export; a dtype policy is followed by `build` alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import reszoo
from reszoo.errors import ReszooError
from reszoo.models.layers import PadChannels
from reszoo.models.settings import fixed_settings

from .helpers import mostly_slow

SHAPE = (32, 36, 3)
MODELS: dict[str, dict[str, Any]] = {
    "resnet8": {},
    "resnet18": {"widths": (4, 8, 8, 16), "stem_width": 4},
    "resnet50_d": {"widths": (4, 4, 4, 4), "stem_width": 8, "depths": (1, 1, 1, 1)},
    "resnet8_v2": {"se_ratio": 0.25, "shortcut": "A"},
    "plain8": {},
    "wrn10_1": {"dropout": 0.1, "drop_path": 0.1},
    "seresnext": {"name": "resnext29_8x64d", "widths": (8, 8, 8), "depths": (1, 1, 1), "se_ratio": 0.25, "rezero": True},
    "gated": {"name": "resnet8", "gate": "exclusive", "shortcut_scale": 0.5, "shortcut": "B", "shrink": "avgpool"},
}  # fmt: skip
TRAIN = [
    "model.name=resnet8",
    "model.shortcut=A",
    "train.epochs=1",
    "schedule.warmup=0",
    "train.export=false",
    "train.deterministic=true",  # equal to the bit also on a busy machine
]

EVERYTHING = {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.1}
HOSTILE: dict[str, dict[str, Any]] = {
    "channels_first": {"image_data_format": "channels_first"},
    "floatx float16": {"floatx": "float16"},
    "floatx float64": {"floatx": "float64"},
    "epsilon": {"epsilon": 0.1},
    "max_epochs": {"max_epochs": 1},
    "everything": EVERYTHING,
}
POLICIES = ("mixed_bfloat16", "mixed_float16", "float16", "bfloat16", "float64")


@contextlib.contextmanager
def globally(policy: str | None = None, **settings: Any) -> Iterator[None]:
    """Set Keras' global settings inside the block."""
    before = {name: getattr(keras.config, name)() for name in settings}
    outer = keras.config.dtype_policy()
    try:
        for name, value in settings.items():
            getattr(keras.config, f"set_{name}")(value)
        if policy:
            keras.config.set_dtype_policy(policy)
        yield
    finally:
        for name, value in before.items():
            getattr(keras.config, f"set_{name}")(value)
        keras.config.set_dtype_policy(outer)


def made(name: str) -> keras.Model:
    fields = dict(MODELS[name])
    return reszoo.build(fields.pop("name", name), input_shape=SHAPE, classes=5, **fields)


def randomized(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables + [
        v for v in model.variables if v.name.startswith("moving_")
    ]:
        variable.assign(rng.uniform(0.1, 0.3, variable.shape).astype("float32"))
    return model


def seen(model: keras.Model) -> dict[str, Any]:
    """All that a user can see of a model: layers with shapes and settings, weights, outputs and gradients' side effects."""
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    return {
        "layers": json.dumps(
            [layer.get_config() for layer in model.layers], default=str, sort_keys=True
        ),
        "shapes": [tuple(layer.output.shape) for layer in model.layers],
        "weights": [(w.path, tuple(w.shape), w.dtype) for w in model.weights],
        "outputs": bytes_of(model(images)),
        "dtype": keras.backend.standardize_dtype(model(images).dtype),
    }


def h5(path: Path) -> list[np.ndarray]:
    """The arrays of a weights file, in the order of their names."""
    found: list[np.ndarray] = []
    with h5py.File(path) as file:
        file.visititems(
            lambda _, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None
        )
    return found


def bytes_of(value: Any) -> bytes:
    return np.ascontiguousarray(keras.ops.convert_to_numpy(value)).tobytes()


CASES = [("everything", name) for name in ("resnet8", "gated", "seresnext", "resnet8_v2")]
CASES += [("everything", name) for name in MODELS if ("everything", name) not in CASES]
CASES += [(each, "gated") for each in HOSTILE if each != "everything"]


@pytest.mark.parametrize(("hostile", "name"), mostly_slow(CASES, 4))
def test_a_model_is_the_same_under_every_global_setting(hostile: str, name: str) -> None:
    wanted = seen(randomized(made(name)))
    with globally(**HOSTILE[hostile]):
        model = randomized(made(name))
        assert seen(model) == wanted, "built and called under the setting"
        assert {name: getattr(keras.config, name)() for name in HOSTILE[hostile]} == HOSTILE[
            hostile
        ], "restored"
    assert seen(model) == wanted, "called later"


@pytest.mark.parametrize("policy", POLICIES)
def test_build_follows_a_dtype_policy_with_a_head_of_at_least_float32(policy: str) -> None:
    plain = made("resnet8")
    with globally(policy):
        model = made("resnet8")
    conv = model.get_layer("stage1_block1_conv1")
    asked = keras.DTypePolicy(policy)
    assert (conv.compute_dtype, conv.variable_dtype) == (asked.compute_dtype, asked.variable_dtype)
    head = "float64" if policy == "float64" else "float32"
    assert model.output.dtype == head and model.get_layer("head_dense").kernel.dtype == head
    model.set_weights(plain.get_weights())
    images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    for training in (False, True):  # in training too: the fused kernel takes float32 scales only
        own, wanted = (
            keras.ops.convert_to_numpy(net(images, training=training)) for net in (model, plain)
        )
        assert (
            np.abs(own - wanted).max()
            < (1e-5 if policy == "float64" else 0.1) * np.abs(wanted).max()
        )


def test_a_policy_that_only_repeats_floatx_is_not_followed() -> None:
    with globally("float64", floatx="float64"):
        assert made("resnet8").get_layer("stem_conv1").kernel.dtype == "float32"
    with globally("mixed_bfloat16", floatx="float64"):
        assert made("resnet8").get_layer("stem_conv1").compute_dtype == "bfloat16"


def test_padded_channels_stay_last_in_training() -> None:
    """The layer computes by a strided convolution there, which reads Keras' data format where none is stated."""
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    layer = PadChannels(10, stride=2)
    wanted = layer(images, training=True)
    with globally(image_data_format="channels_first"):
        np.testing.assert_array_equal(layer(images, training=True), wanted)
    np.testing.assert_array_equal(layer(images, training=False), wanted)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("change", ["grow", "stack", "stack behind an operation"])
def test_a_model_is_deepened_in_its_own_precision_and_format(policy: str, change: str) -> None:
    with globally(policy):
        model = made("resnet8")
    if change.endswith("operation"):
        images = keras.Input(SHAPE, dtype="float32")
        with globally(policy):
            x = keras.ops.relu(keras.layers.Conv2D(4, 3, data_format="channels_last")(images))
            x = keras.layers.GlobalAveragePooling2D(data_format="channels_last")(x)
            model = keras.Model(images, keras.layers.Dense(5)(x))
    deepen: Callable[[], keras.Model] = (lambda: reszoo.grow(model, "resnet14")) if change == "grow" else (
        lambda: reszoo.stack(model)
    )  # fmt: skip
    wanted = [layer.get_config() for layer in deepen().layers if "conv" in layer.name]
    other = "float32" if policy != "float32" else "mixed_bfloat16"
    with globally(other, **EVERYTHING):
        deeper = deepen()
    assert deeper.growth.exact
    assert {layer.compute_dtype for layer in deeper.layers if "block" in layer.name} == {
        policy.removeprefix("mixed_")
    }
    if change == "grow":
        assert [layer.get_config() for layer in deeper.layers if "conv" in layer.name] == wanted


def test_channels_first_layers_of_a_users_model_are_rejected_by_stack() -> None:
    inner = keras.Sequential(
        [keras.Input((3, 8, 8)), keras.layers.Conv2D(4, 3, data_format="channels_first")]
    )
    images = keras.Input((3, 8, 8))
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(inner(images))))
    with pytest.raises(ReszooError, match="its layer 'conv2d.*' puts channels first"):
        reszoo.stack(model)


@pytest.fixture(scope="module")
def finished(two_devices: None, tmp_path_factory: pytest.TempPathFactory) -> reszoo.Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return reszoo.train(
        "quickstart", overrides=TRAIN, run_dir=folder, devices="cpu", quiet=True
    ).run


def digest(run: reszoo.Run) -> str:
    found = hashlib.sha256()
    for weight in run.load_model().get_weights():
        found.update(weight.dtype.name.encode() + weight.tobytes())
    return found.hexdigest()


HOSTILE_RUNS: list[Any] = [
    ("mixed_bfloat16", EVERYTHING),
    *(pytest.param(None, HOSTILE[name], marks=pytest.mark.slow) for name in HOSTILE),
    *(pytest.param(policy, {}, marks=pytest.mark.slow) for policy in POLICIES),
]


@pytest.mark.parametrize(("policy", "settings"), HOSTILE_RUNS)
def test_a_run_depends_on_its_recipe_alone(
    policy: str | None, settings: dict[str, Any], finished: reszoo.Run, tmp_path: Path
) -> None:
    with globally(policy, **settings):
        result = reszoo.train(
            "quickstart", overrides=TRAIN, run_dir=tmp_path / "run", devices="cpu", quiet=True
        )
        assert digest(result.run) == digest(finished)
        again = reszoo.evaluate(finished, devices="cpu", out=tmp_path)
        assert keras.config.dtype_policy().name == (policy or "float32")
    assert json.loads((result.run.path / "test.json").read_text()) == json.loads(
        (finished.path / "test.json").read_text()
    )
    assert again.to_dict() == result.test.to_dict()  # type: ignore[union-attr]
    kept = result.run.load_model()
    assert {layer.compute_dtype for layer in kept.layers} == {"float32"}
    assert {w.dtype for w in kept.weights} <= {"float32", "uint32"}


def test_predictions_exports_and_conversions_are_the_same(
    finished: reszoo.Run, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    image = np.random.default_rng(0).integers(0, 256, (30, 20, 1), np.uint8)
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(image).numpy())

    def results(where: Path) -> tuple[Any, ...]:
        reszoo.export(finished, where / "export", format="onnx")
        reszoo.convert(finished.path, where / "trained.weights.h5")
        # From a file: the model in between is built anew.
        reszoo.convert(
            where / "trained.weights.h5", where / "run.weights.h5", model="resnet8", shortcut="A"
        )
        predicted = reszoo.predict(finished, [tmp_path / "a.png"])
        session = onnxruntime.InferenceSession(
            where / "export" / "model.onnx", providers=["CPUExecutionProvider"]
        )
        (logits,) = session.run(
            ["logits"], {"images": np.resize(image, (1, 8, 8, 1)).astype(np.float32)}
        )
        again = reszoo.load_model(finished, compile=True)
        stored = [
            *h5(where / "run.weights.h5"),
            *again.get_weights(),
            *(v.numpy() for v in again.optimizer.variables),
        ]
        return (
            predicted,
            logits.tobytes(),
            [(array.dtype.name, array.tobytes()) for array in stored],
        )

    wanted = results(tmp_path / "plain")
    with globally("float64", **EVERYTHING):
        predicted, exported, weights = results(tmp_path / "hostile")
    assert predicted == wanted[0] and exported == wanted[1] and weights == wanted[2]


def test_an_active_strategy_scope_is_rejected_where_devices_are_chosen(
    finished: reszoo.Run, tmp_path: Path
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 20, 1), np.uint8)
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(image).numpy())
    wanted = reszoo.predict(finished, [tmp_path / "a.png"])
    line = "devices: 'auto' is invalid inside the scope of a OneDeviceStrategy; expected no active tf.distribute scope"
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        with pytest.raises(ReszooError, match=line):
            reszoo.train("quickstart", overrides=TRAIN, run_dir=tmp_path / "run", quiet=True)
        with pytest.raises(ReszooError, match=line):
            reszoo.evaluate(finished, out=tmp_path / "scores")
        assert reszoo.predict(finished, [tmp_path / "a.png"]) == wanted
    assert not (tmp_path / "run").exists() and not (tmp_path / "scores").exists()


# Settings that Keras reads when it is imported.


PROGRAM = """
import hashlib, json, sys
from pathlib import Path
import keras
import numpy as np
import reszoo
run = reszoo.Run.open(sys.argv[1])
settings = json.loads(sys.argv[2])
keras.config.disable_interactive_logging()
keras.config.disable_traceback_filtering()
keras.config.enable_unsafe_deserialization()
said = {name: getattr(keras.config, name)() for name in settings}
assert said == settings, said
trained = reszoo.train("quickstart", overrides=sys.argv[4:], run_dir=sys.argv[3], devices="cpu", quiet=True).run
found = hashlib.sha256()
for weight in trained.load_model().get_weights():
    found.update(weight.dtype.name.encode() + weight.tobytes())
print(json.dumps({"digest": found.hexdigest(), "parameters": reszoo.build("resnet18").count_params()}))
"""


def test_a_keras_json_changes_nothing(finished: reszoo.Run, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "keras.json").write_text(json.dumps({**EVERYTHING, "backend": "tensorflow"}))
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        str(finished.path),
        json.dumps(EVERYTHING),
        str(tmp_path / "run"),
        *TRAIN,
    ]
    done = subprocess.run(
        command,
        env=os.environ | {"KERAS_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "digest": digest(finished),
        "parameters": reszoo.build("resnet18").count_params(),
    }


@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.slow)])
def test_the_other_backends_build_the_same_layers(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    program = """
import json, sys
import keras
import reszoo
assert keras.config.image_data_format() == "channels_first"
model = reszoo.build("resnet8", se_ratio=0.25)
outputs = model.compute_output_spec(keras.KerasTensor((1, 32, 32, 3)))  # calls each layer
print(json.dumps([outputs.shape[1], model.count_params()]
    + [[layer.name, layer.output.shape[1:]] for layer in model.layers]))
"""
    (tmp_path / "keras.json").write_text(json.dumps({**EVERYTHING, "backend": "tensorflow"}))
    environment = os.environ | {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    model = reszoo.build("resnet8", se_ratio=0.25)
    layers = [[layer.name, list(layer.output.shape[1:])] for layer in model.layers]
    assert json.loads(done.stdout) == [10, model.count_params(), *layers]


# The block itself


def test_settings_are_restored_after_an_error_and_nest() -> None:
    with globally("mixed_bfloat16", **EVERYTHING):
        with pytest.raises(KeyError), fixed_settings():
            with fixed_settings("float64"):
                assert keras.config.dtype_policy().name == "float64"
            assert (keras.config.floatx(), keras.config.dtype_policy().name) == (
                "float32",
                "float32",
            )
            raise KeyError
        assert {name: getattr(keras.config, name)() for name in EVERYTHING} == EVERYTHING
        assert keras.config.dtype_policy().name == "mixed_bfloat16"


def test_the_settings_hold_until_the_last_thread_leaves() -> None:
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with fixed_settings():
            inside.set()
            leave.wait()

    with globally(image_data_format="channels_first"):
        other = threading.Thread(target=stay)
        with fixed_settings():
            other.start()
            inside.wait()
        during = keras.config.image_data_format()
        leave.set()
        other.join()
        assert (during, keras.config.image_data_format()) == ("channels_last", "channels_first")
