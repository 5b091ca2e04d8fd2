"""Distance of residual blocks from the identity, against NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import reszoo
from reszoo import ReszooError
from reszoo.lab.probe import DriftCallback, Probe, measure_drift
from reszoo.models.stack import stack
from tests.models.helpers import images

L = keras.layers


def model_by_hand() -> keras.Model:
    """An identity block in post-activation, and one whose shortcut is a projection."""
    inputs = keras.Input((2, 3, 4))
    x = inputs
    branch = L.Conv2D(4, 1, name="a_conv1")(x)
    x = L.ReLU(name="a_relu")(L.Add(name="a_add")([x, branch]))
    branch = L.Conv2D(5, 1, name="b_conv1")(x)
    # Both tensors are the block's own, so the first is taken for the shortcut.
    x = L.Add(name="b_add")([L.Conv2D(5, 1, name="b_shortcut")(x), branch])
    # The branch first, as in Keras' EfficientNets.
    x = L.Add(name="c_add")([L.Conv2D(5, 1, name="c_conv1")(x), x])
    return keras.Model(inputs, L.Add(name="three_add")([x, x, x]))


def expected(model: keras.Model, x: np.ndarray[Any, Any]) -> list[tuple[float, float]]:
    """Return (ratio, cosine) of the blocks of `model_by_hand` in NumPy."""

    def conv(name: str, x: Any) -> Any:
        kernel, bias = (np.asarray(v, np.float64) for v in model.get_layer(name).get_weights())
        return x @ kernel[0, 0] + bias

    def compare(x: Any, branch: Any, output: Any) -> tuple[float, float]:
        ratios = [np.sqrt((b**2).sum() / (a**2).sum()) for a, b in zip(x, branch, strict=True)]
        cosines = [
            (a * o).sum() / np.sqrt((a**2).sum() * (o**2).sum())
            for a, o in zip(x, output, strict=True)
        ]
        return float(np.mean(ratios)), float(np.mean(cosines))

    x = x.astype(np.float64)
    f = conv("a_conv1", x)
    out = np.maximum(x + f, 0)
    rows, x = [compare(x, f, out)], out
    s, f = conv("b_shortcut", x), conv("b_conv1", x)
    rows, x = [*rows, compare(s, f, s + f)], s + f
    f = conv("c_conv1", x)
    return [*rows, compare(x, f, x + f)]


def test_ratios_and_cosines_equal_numpys() -> None:
    keras.utils.set_random_seed(3)
    model, x = model_by_hand(), images((7, 2, 3, 4))
    found = measure_drift(model, x, batch_size=3)  # the last batch is short
    blocks = [(row["block"], row["identity"]) for row in found]
    assert blocks == [("a", True), ("b", False), ("c", True)]
    values = [(row["ratio"], row["cosine"]) for row in found]
    np.testing.assert_allclose(values, expected(model, x), rtol=1e-5)


def test_an_image_without_a_norm_is_excluded() -> None:
    model, x = model_by_hand(), images((4, 2, 3, 4))
    x[1] = 0
    found, without = measure_drift(model, x)[0], measure_drift(model, x[[0, 2, 3]])[0]
    assert found["ratio"] == pytest.approx(without["ratio"])
    assert np.isnan(measure_drift(model, np.zeros((2, 2, 3, 4), np.float32))[0]["ratio"])


@pytest.mark.parametrize("name", ["resnet8", "resnet8_v2", "wrn10_1"])
def test_every_block_of_a_model_is_found(name: str) -> None:
    found = measure_drift(reszoo.build(name, input_shape=(8, 8, 3)), images((2, 8, 8, 3)))
    assert [row["block"] for row in found] == [f"stage{n}_block1" for n in (1, 2, 3)]
    assert [row["identity"] for row in found].count(False) == 2
    assert all(row["ratio"] > 0 and -1 <= row["cosine"] <= 1 for row in found)


def test_the_output_is_what_leaves_the_block() -> None:
    """With normalization after the addition, that is the ReLU after it."""
    spec = reszoo.spec("resnet8", order="bn_after_add")
    blocks = Probe(reszoo.build(spec, input_shape=(8, 8, 3))).blocks
    names = [block.output._keras_history.operation.name for block in blocks]
    assert names == [f"stage{stage}_block1_relu2" for stage in (1, 2, 3)]


def test_stacked_blocks_start_as_the_identity() -> None:
    model = stack(reszoo.build("plain8", input_shape=(8, 8, 3)))
    found = measure_drift(model, images((4, 8, 8, 3)))
    assert [row["block"] for row in found] == ["stack_block1", "stack_block2"]
    for row in found:
        assert row["ratio"] == 0 and row["identity"]
        assert row["cosine"] == pytest.approx(1, abs=1e-12)


def test_models_without_blocks_and_bad_arguments_are_rejected() -> None:
    with pytest.raises(ReszooError, match="plain8 has no residual blocks"):
        measure_drift(reszoo.build("plain8", input_shape=(8, 8, 3)), images((1, 8, 8, 3)))
    with pytest.raises(ReszooError, match="no graph"):
        measure_drift(keras.Model(), images((1, 8, 8, 3)))
    with pytest.raises(ReszooError, match="no images"):
        measure_drift(model_by_hand(), images((0, 2, 3, 4)))
    for every in (0, 1.0, True, "1"):
        with pytest.raises(ReszooError, match="every: .* expected an integer >= 1"):
            DriftCallback(images((1, 8, 8, 3)), every=every)  # type: ignore[arg-type]


def test_the_callback_measures_before_and_after_epochs() -> None:
    inputs = keras.Input((4, 4, 2))
    x = L.Conv2D(3, 3, padding="same", activation="relu", name="conv")(inputs)
    model = keras.Model(inputs, L.Dense(5)(L.GlobalAveragePooling2D()(x)))
    model = stack(model, blocks=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    batch = images((16, 4, 4, 2))
    callback = DriftCallback(batch, every=2)
    labels = np.arange(16) % 5
    model.fit(batch, labels, epochs=4, batch_size=8, verbose=0, callbacks=[callback])
    assert [row["epoch"] for row in callback.history] == [0, 2, 4]
    ratios = [row["blocks"][0]["ratio"] for row in callback.history]
    assert ratios[0] == 0 < ratios[1] < ratios[2]
    assert callback.history[-1]["blocks"] == measure_drift(model, batch)
