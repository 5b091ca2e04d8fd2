"""The zoo's own layers against NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.models.layers import PadChannels


@pytest.mark.parametrize("pad_at", ["both", "end"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_option_a_is_the_same_in_training_as_in_inference(
    size: tuple[int, int], stride: int, pad_at: str
) -> None:
    images = np.random.default_rng(0).normal(size=(2, *size, 5)).astype(np.float32)
    before = {"both": 3, "end": 0}[pad_at]
    wanted = np.pad(images[:, ::stride, ::stride], [(0, 0)] * 3 + [(before, 6 - before)])
    gradient = np.random.default_rng(1).normal(size=wanted.shape).astype(np.float32)
    layer, x = PadChannels(11, stride, pad_at), tf.constant(images)
    back = np.zeros_like(images)
    back[:, ::stride, ::stride] = gradient[..., before : before + 5]
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = layer(x, training=training)
        np.testing.assert_array_equal(out, wanted)
        np.testing.assert_array_equal(tape.gradient(out, x, tf.constant(gradient)), back)
    assert layer.compute_output_shape((None, *size, 5)) == (None, *wanted.shape[1:])
    assert layer(keras.Input((*size, 5))).shape == (None, *wanted.shape[1:])
