"""The logits of images of another size are those of a model that was built for it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.errors import ReszooError
from reszoo.models.build import build
from reszoo.training.forward import Forward

# Every layer that could depend on the size: pooled, padded and strided, gated, dropped.
FIELDS = {
    "depths": (1, 1),
    "widths": (8, 16),
    "se_ratio": 0.5,
    "stem": "imagenet",
    "stem_width": 8,
    "dropout": 0.5,
}


def make(side: int, shortcut: str) -> keras.Model:
    keras.utils.set_random_seed(1)
    return build("resnet8", input_shape=(side, side, 3), shortcut=shortcut, **FIELDS)  # type: ignore[arg-type]


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_another_size_gives_the_logits_of_a_model_of_that_size(shortcut: str) -> None:
    images = tf.random.stateless_normal((3, 24, 24, 3), (1, 2))
    small, large = make(24, shortcut), make(32, shortcut)
    forward = Forward(large, shared=False)
    for training in (False, True, False):  # the second changes statistics, which the third shows
        np.testing.assert_array_equal(
            forward(images, training=training), small(images, training=training)
        )
    assert not forward.values(training=True)


@pytest.mark.parametrize("shared", [False, True])
def test_a_model_of_one_size_is_rejected_in_one_line(shared: bool) -> None:
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(inputs))
    forward = Forward(keras.Model(inputs, outputs, name="flat"), shared=shared)
    assert forward(tf.zeros((2, 8, 8, 3)), training=True).shape == (2, 10)
    message = r"data.train_sizes: \(4, 4\) is invalid for flat, which takes images of \(8, 8\) only"
    with pytest.raises(ReszooError, match=message):
        forward(tf.zeros((2, 4, 4, 3)), training=True)
