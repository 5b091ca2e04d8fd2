"""build() and features(): names, heads, shapes, files, and that the result is a plain Keras model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from reszoo import ReszooError, Spec, build, features, spec

from .helpers import BASIC, BOTTLENECK, by_name, images, randomize
from .oracle import forward
from .write_goldens import FOLDER, NETS, describe

EVERYTHING = NETS["resnet8_everything"]


@pytest.mark.parametrize("name", NETS)
def test_names_and_shapes_are_those_that_saved_weights_have(name: str) -> None:
    """To change them on purpose: python -m tests.models.write_goldens, and a line in the changelog."""
    golden = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    described = describe(NETS[name])
    assert described["name"] == golden["name"]
    assert described["layers"] == golden["layers"]
    assert list(described["weights"].items()) == list(golden["weights"].items())


def test_every_golden_has_a_model() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(NETS)


@pytest.mark.smoke
def test_classes_and_logits() -> None:
    model = build(BASIC, classes=7, input_shape=(8, 8, 3))
    assert model.output_shape == (None, 7) and model.input_shape == (None, 8, 8, 3)
    randomize(model, 0)
    logits = np.asarray(model(images((4, 8, 8, 3))))
    assert logits.min() < 0 and not np.allclose(logits.sum(axis=1), 1)
    assert build("resnet8").output_shape == (None, 10) and build("resnet8").input_shape == (
        None,
        32,
        32,
        3,
    )


def test_imagenet_defaults() -> None:
    model = build("resnet18", depths=(1, 1, 1, 1), widths=(2, 2, 2, 2), shortcut="B", stem_width=2)
    assert model.input_shape == (None, 224, 224, 3) and model.output_shape == (None, 1000)


def test_without_top_a_model_returns_pooled_features() -> None:
    whole, cut = build(BASIC, input_shape=(8, 8, 3)), build(BASIC, input_shape=(8, 8, 3), top=False)
    assert cut.output_shape == (None, BASIC.out_channels(1))
    assert [layer.name for layer in cut.layers] == [layer.name for layer in whole.layers][:-1]
    for model in (whole, cut):
        randomize(model, 0)
    batch = images((4, 8, 8, 3))
    weights = by_name(whole)
    logits = np.asarray(cut(batch)) @ weights["head_dense/kernel"] + weights["head_dense/bias"]
    np.testing.assert_allclose(logits, np.asarray(whole(batch)), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels(channels: int) -> None:
    model = build("resnet8", input_shape=(16, 16, channels))
    assert tuple(model.get_layer("stem_conv1").kernel.shape) == (3, 3, channels, 16)
    assert np.asarray(model(images((2, 16, 16, channels)))).shape == (2, 10)


@pytest.mark.parametrize(
    "net",
    [
        BASIC,
        BOTTLENECK.replace(shortcut="B", shrink="avgpool", stem="deep", order="pre"),
        EVERYTHING,
    ],
    ids=["A", "D", "everything"],
)
def test_an_open_size_takes_any(net: Spec) -> None:
    model = build(net, input_shape=(None, None, 3), classes=5)
    randomize(model, 0)
    weights = by_name(model)
    for size in ((16, 16), (19, 33)):
        batch = images((2, *size, 3))
        expected = forward(net, weights, batch)
        np.testing.assert_allclose(
            np.asarray(model(batch)), expected, rtol=0, atol=1e-4 * max(1.0, np.abs(expected).max())
        )


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"input_shape": (3, 8, 3)}, r"input_shape: \(3, 8, 3\) is invalid; expected at least 4x4"),
        ({"input_shape": (None, 3, 3)}, "expected at least 4x4"),
        ({"input_shape": (8, 8)}, r"resnet8: input_shape: \(8, 8\) is invalid; expected \(height"),
        ({"input_shape": (8, 8, None)}, r"Example: input_shape=\(32, 32, 3\)"),
        ({"classes": 0}, "resnet8: classes: 0 is invalid"),
        ({"top": False, "classes": 10}, "resnet8: classes: 10 is invalid with top=False"),
        ({"shortcut": "D"}, 'resnet8: shortcut: "D" is invalid'),
        ({"shortcutt": "B"}, "resnet8: no field 'shortcutt'; did you mean 'shortcut'"),
    ],
)
def test_impossible_models_are_rejected(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ReszooError, match=says):
        build("resnet8", **arguments)
    with pytest.raises(ReszooError, match="did you mean 'resnet8'"):
        build("resnt8")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("base", [BASIC, EVERYTHING], ids=["A", "everything"])
def test_the_head_is_in_full_precision(policy: str, base: Spec) -> None:
    keras.config.set_dtype_policy(policy)
    model = build(base, input_shape=(8, 8, 3))
    logits = model(images((2, 8, 8, 3)))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert (
        model.get_layer("head_pool").compute_dtype
        == model.get_layer("head_dense").compute_dtype
        == "float32"
    )
    lower = policy.removeprefix("mixed_")
    assert {layer.compute_dtype for layer in model.layers if "block" in layer.name} == {lower}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    randomize(model, 0)
    keras.config.set_dtype_policy("float32")
    full = build(base, input_shape=(8, 8, 3))
    randomize(full, 0)
    batch = images((8, 8, 8, 3))
    mixed, exact = np.asarray(model(batch)), np.asarray(full(batch))
    assert (
        np.abs(mixed - exact).max() < (0.02 if lower == "float16" else 0.15) * np.abs(exact).max()
    )
    assert np.abs(mixed - exact).max() > 0, "16 bits should show"


@pytest.mark.parametrize("order", ["post", "pre", "relu_pre"])
def test_features_are_the_stages_maps(order: str) -> None:
    model = build("resnet8", order=order, input_shape=(17, 16, 3))
    randomize(model, 0)
    maps = features(model)
    assert maps.name == "resnet8_features"
    batch = images((2, 17, 16, 3))
    out = maps(batch)
    assert {key: tuple(value.shape) for key, value in out.items()} == {
        "stage1": (2, 17, 16, 16),
        "stage2": (2, 9, 8, 32),
        "stage3": (2, 5, 4, 64),
    }
    # The last stage's map, pooled, is what the classifier sees.
    weights = by_name(model)
    logits = (
        np.asarray(out["stage3"]).mean(axis=(1, 2)) @ weights["head_dense/kernel"]
        + weights["head_dense/bias"]
    )
    np.testing.assert_allclose(
        logits, np.asarray(model(batch)), rtol=0, atol=1e-4 * np.abs(logits).max()
    )
    assert maps.get_layer("stage1_block1_conv1") is model.get_layer("stage1_block1_conv1")


def test_features_of_an_imagenet_model_have_the_usual_strides() -> None:
    maps = features(
        build(
            "resnet50",
            depths=(1, 2, 1, 1),
            widths=(16, 16, 16, 16),
            input_shape=(64, 96, 3),
            top=False,
        )
    )
    assert {key: tuple(value.shape[1:]) for key, value in maps.output.items()} == {
        f"stage{stage + 1}": (64 // stride, 96 // stride, 64)
        for stage, stride in enumerate((4, 8, 16, 32))
    }


def test_features_of_another_model_are_rejected() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="other")
    with pytest.raises(
        ReszooError, match="other is invalid; features expects a model that reszoo built"
    ):
        features(model)


@pytest.mark.parametrize("field", ["dropout", "drop_path", "shortcut_dropout"])
def test_noise_acts_in_training_only(field: str) -> None:
    model = build(BASIC.replace(**{field: 0.5}), input_shape=(8, 8, 3))
    quiet = build(BASIC, input_shape=(8, 8, 3))
    for net in (model, quiet):
        randomize(net, 0)
    batch = images((8, 8, 8, 3))
    np.testing.assert_array_equal(
        np.asarray(model(batch)), np.asarray(model(batch, training=False))
    )
    np.testing.assert_allclose(
        np.asarray(model(batch)), np.asarray(quiet(batch)), rtol=1e-5, atol=1e-4
    )
    first, second = (np.asarray(model(batch, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


def test_weights_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "resnet8.weights.h5"
    model = build("resnet8")
    randomize(model, 0)
    model.save_weights(path)
    batch = images((2, 32, 32, 3))
    for given in (path, str(path)):
        np.testing.assert_array_equal(
            np.asarray(build("resnet8", weights=given)(batch)), np.asarray(model(batch))
        )
    # A net that differs in nothing that is stored, and one without the classifier, take the file too.
    np.testing.assert_array_equal(
        np.asarray(
            build("resnet8", weights=path, drop_path=0.5, input_shape=(None, None, 3))(batch)
        ),
        np.asarray(model(batch)),
    )
    pooled = build("resnet8", weights=path, top=False)
    dense = by_name(model)
    np.testing.assert_allclose(
        np.asarray(pooled(batch)) @ dense["head_dense/kernel"] + dense["head_dense/bias"],
        np.asarray(model(batch)),
        rtol=1e-4,
        atol=1e-3,
    )


@pytest.mark.parametrize(
    ("net", "arguments", "says"),
    [
        # The same number of layers with the same shapes in the same order: only the names tell them apart.
        ("resnet8_v2", {}, r"'stage2_block1_bn1/gamma' has shape \[16\] here and \[32\] there"),
        ("resnet14", {}, "'stage1_block2_conv1/kernel' is only in the model"),
        (
            "resnet8",
            {"stem_width": 8},
            r"'stem_conv1/kernel' has shape \[3, 3, 3, 8\] here and \[3, 3, 3, 16\] there",
        ),
        ("resnet8", {"shortcut": "B"}, "'stage2_block1_shortcut_conv/kernel' is only in the model"),
    ],
)
def test_the_weights_of_another_model_are_rejected(
    net: str, arguments: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "resnet8.weights.h5"
    build("resnet8").save_weights(path)
    with pytest.raises(ReszooError, match=says) as caught:
        build(net, weights=path, **arguments)
    assert str(path) in str(caught.value) and f"the weights of {net}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_without_a_layer_in_the_model_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "b.weights.h5"
    build("resnet8", shortcut="B").save_weights(path)
    with pytest.raises(
        ReszooError, match="'stage2_block1_shortcut_(bn|conv)/.*' is in the file only"
    ):
        build("resnet8", weights=path)


def test_other_files_than_weights_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "net.weights.h5"
    with pytest.raises(ReszooError, match=f"no weights file {path}"):
        build("resnet8", weights=path)
    path.mkdir()
    with pytest.raises(
        ReszooError, match=f"{path} is a folder without weights; expected a file, or a folder with"
    ):
        build("resnet8", weights=path)
    path.rmdir()
    path.write_bytes(b"not HDF5")
    with pytest.raises(
        ReszooError, match=f"{path} cannot be read as weights: it is not a weights file"
    ):
        build("resnet8", weights=path)
    for other in (tmp_path / "net.keras", tmp_path / "net.h5"):
        with pytest.raises(ReszooError, match=f"no weights file {other}"):
            build("resnet8", weights=other)
    with pytest.raises(ReszooError, match="resnet8 has no published weights"):
        build("resnet8", weights="imagenet")


LOAD = """
import sys
import numpy as np
import reszoo.models
import keras
model = keras.models.load_model(sys.argv[1])
assert not any(name in sys.modules for name in ("reszoo.models.build", "reszoo.zoo.catalog")), "the layers alone should do"
batch = np.load(sys.argv[2])
np.save(sys.argv[3], np.asarray(model(batch, training=False)))
model.fit(batch, np.zeros(len(batch), int), verbose=0)  # compiled as it was saved
"""


def test_keras_trains_saves_and_reopens_it(tmp_path: Path) -> None:
    """compile, fit, save; then load_model in a process that knows the registered layers only."""
    keras.utils.set_random_seed(0)
    net = spec("resnet8", rezero=True, gate="shortcut_only", drop_path=0.1, se_ratio=0.5)
    model = build(net, input_shape=(8, 8, 3), classes=3)
    batch, labels = images((32, 8, 8, 3)), np.arange(32) % 3
    model.compile(
        optimizer=keras.optimizers.SGD(0.02, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    losses = model.fit(batch, labels, batch_size=16, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    path, given, got = tmp_path / "net.keras", tmp_path / "in.npy", tmp_path / "out.npy"
    model.save(path)
    np.save(given, batch)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, path, given, got], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        np.load(got), np.asarray(model(batch, training=False)), rtol=1e-6, atol=1e-6
    )


DEEPEST = """
import sys
import numpy as np
import reszoo
import keras
model = reszoo.build("resnet1202", input_shape=(8, 8, 3))
assert sum(int(np.prod(weight.shape)) for weight in model.trainable_variables) == 19_421_274
model.save(sys.argv[1])
opened = keras.models.load_model(sys.argv[1])
batch = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
np.testing.assert_array_equal(np.asarray(opened(batch)), np.asarray(model(batch)))
"""


@pytest.mark.slow
def test_the_deepest_model_is_built_saved_and_reopened_from_a_plain_script(tmp_path: Path) -> None:
    """In a process of its own, because Keras recurses through the net and pytest has used some of the stack already."""
    done = subprocess.run(
        [sys.executable, "-c", DEEPEST, tmp_path / "net.keras"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
