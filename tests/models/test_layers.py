"""The zoo's own layers against NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo import build
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


def test_a_fixup_model_starts_as_its_shortcuts() -> None:
    """arXiv 1901.09321, section 3.2: logits 0, branches 0, first kernels at L^(-1/(2m-2)) of He's."""
    model = build("resnet20", norm="none", initialization="fixup", widths=(64, 64, 64))
    both = keras.Model(model.input, [model.output, model.get_layer("stage3_block3_bias4").output])
    logits, branch = both(np.random.default_rng(0).normal(size=(2, 32, 32, 3)))
    assert not np.any(logits) and not np.any(branch)
    kernel = np.asarray(model.get_layer("stage2_block2_conv1").kernel)
    assert kernel.std() * np.sqrt(9 * 64 / 2) == pytest.approx(9**-0.5, rel=0.01)
    assert model.get_layer("stage2_block2_multiplier").alpha.numpy() == 1


@pytest.mark.parametrize(("activation", "gain"), [("relu", 2**0.5), ("tanh", 1.0)])
def test_delta_orthogonal_kernels_are_orthogonal_at_their_center(
    activation: str, gain: float
) -> None:
    """arXiv 1806.05393, section 3: a kernel keeps the norm of every input, up to its gain."""
    model = build("plain8", norm="none", initialization="delta_orthogonal", activation=activation)
    for name, channels in (("stem_conv1", 3), ("stage2_block1_conv1", 16)):
        kernel = np.asarray(model.get_layer(name).kernel)
        center = kernel[1, 1]
        assert np.count_nonzero(kernel) == np.count_nonzero(center) == center.size
        np.testing.assert_allclose(center @ center.T, gain**2 * np.eye(channels), atol=1e-5)
    first, second = (model.get_layer(f"stage1_block1_conv{n}").kernel for n in (1, 2))
    assert not np.allclose(first, second)
    same = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(model.get_layer("stem_conv1").kernel_initializer)
    )
    assert same.get_config() == {"gain": pytest.approx(gain)}


def test_scaled_weights_keep_the_predicted_variance() -> None:
    """arXiv 2101.08692, section 3: the variance grows by alpha squared per block, and projections start again."""
    fields: Any = {"norm": "scaled_weight", "order": "pre", "shortcut": "B", "branch_scale": 0.5}
    keras.utils.set_random_seed(0)
    wide: Any = {"widths": (64, 96, 128), "stem_width": 64, "stem": "bare"}
    model = build("resnet26", input_shape=(256, 256, 3), **wide, **fields)
    ends = [model.get_layer(f"stage{stage}_block4_add").output for stage in (1, 2, 3)]
    maps = keras.Model(model.get_layer("stem_pool").output, ends)
    outputs = maps(np.random.default_rng(0).normal(size=(1, 64, 64, 64)).astype("float32"))
    found = [np.var(output, axis=(0, 1, 2)).mean() for output in outputs]
    # 4 blocks after the input, or after a projection, each add 0.5 ** 2. The zeros around a map
    # take a few percent away.
    np.testing.assert_allclose(found, 1 + 4 * 0.25, rtol=0.15)
    assert model.get_layer("stage2_block1_input_scale").scale == pytest.approx(2**-0.5)
