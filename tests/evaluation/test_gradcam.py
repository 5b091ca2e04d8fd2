"""Grad-CAM maps, compared with finite differences, and with arithmetic where the head is linear."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import reszoo
from reszoo.errors import ReszooError
from reszoo.evaluation.gradcam import GradCam, find_layer
from reszoo.types import Array

L = keras.layers
RANDOM = np.random.default_rng(2)


def test_maps_are_those_of_finite_differences() -> None:
    keras.config.set_dtype_policy("float64")
    inputs = keras.Input((5, 4, 2))
    x = L.Conv2D(3, 1, activation="relu", name="first", data_format="channels_last")(inputs)
    x = L.Conv2D(2, 2, activation="relu", name="second", data_format="channels_last")(x)
    model = keras.Model(inputs, L.Dense(4)(L.Flatten()(x)))
    model.set_weights([RANDOM.normal(size=each.shape) for each in model.get_weights()])
    kernel, bias, second, offset, dense, last = model.get_weights()

    def head(maps: Array) -> Array:
        """Compute the logits of maps [5, 4, 3] in NumPy."""
        windows = np.lib.stride_tricks.sliding_window_view(maps, (2, 2), axis=(0, 1))
        found = np.einsum("hwcij,ijck->hwk", windows, second) + offset
        logits: Array = np.maximum(found, 0).ravel() @ dense + last
        return logits

    images = RANDOM.normal(size=(4, 5, 4, 2))
    found = GradCam(model, "first")(images, [0, 1, 2, 3])
    for label, image in enumerate(images):
        maps = np.maximum(image @ kernel[0, 0] + bias, 0)
        slopes = np.zeros_like(maps)
        for place in np.ndindex(maps.shape):
            step = np.zeros_like(maps)
            step[place] = 1e-6
            slopes[place] = (head(maps + step) - head(maps - step))[label] / 2e-6
        expected = np.maximum((maps * slopes.mean((0, 1))).sum(-1), 0)
        np.testing.assert_allclose(found[label], expected, atol=1e-7)
    assert (found.max((1, 2)) > 0.1).sum() >= 2


@pytest.mark.parametrize("name", ["resnet8", "plain8", "resnet8_v2"])
def test_the_last_maps_of_every_kind_of_model_are_explained(name: str) -> None:
    """Behind them are only a mean and a linear layer, so the gradient is the classifier's weight."""
    model = reszoo.build(name, classes=5, input_shape=(8, 12, 3))
    images = RANDOM.normal(size=(5, 8, 12, 3)).astype("float32")
    maps = np.asarray(reszoo.features(model)(images, training=False)["stage3"])
    kernel, _ = model.get_layer("head_dense").get_weights()
    places = np.einsum("nhwk,kn->nhw", maps, kernel) / (maps.shape[1] * maps.shape[2])
    found = GradCam(model)(images, range(5))
    np.testing.assert_allclose(found, np.maximum(places, 0), atol=1e-5 * np.abs(places).max())
    assert found.any() and find_layer(model).output.shape[1:3] == (2, 3)


def test_a_frozen_model_in_half_precision_is_explained() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = reszoo.build("resnet8", classes=5, input_shape=(8, 8, 3))
    model.trainable = False
    found = GradCam(model, "stage2")(RANDOM.normal(size=(3, 8, 8, 3)).astype("float32"), [0, 1, 2])
    assert found.shape == (3, 4, 4) and found.dtype == np.float64 and np.isfinite(found).all()


def test_layers_are_chosen_by_name_or_stage() -> None:
    model = reszoo.build("resnet8", input_shape=(32, 32, 3))
    assert find_layer(model, "stage2").name == "stage2_block1_relu2"
    assert find_layer(model, "stem_relu1").name == "stem_relu1"
    with pytest.raises(
        ReszooError, match=r"^layer: 'stage4' is invalid; .* stage1, stage2, stage3"
    ):
        find_layer(model, "stage4")
    with pytest.raises(ReszooError, match="layer: 'stage1_block1_conv1' is invalid"):
        find_layer(model, "stage1_block1_conv1")  # the shortcut passes it by
    inputs = keras.Input((8, 8, 1))
    linear = keras.Model(inputs, L.Dense(2)(L.Flatten()(inputs)), name="linear")
    with pytest.raises(ReszooError, match=r"^linear: no layer with maps \[n, height, width"):
        find_layer(linear)
