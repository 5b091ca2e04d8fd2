"""A user's own augmentation: applied once to each image, the same at every start and on each host."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.config.data import AugmentConfig, DataConfig, InceptionCrop, NoCrop
from reszoo.data.micro_batches import Part
from reszoo.data.pipeline import open_dataset
from reszoo.errors import ReszooError

DIGITS = DataConfig(name="digits", normalize="unit", image_size=(8, 8), examples=40)


def batches(augment: AugmentConfig, start: int = 0, count: int = 3, part: Any = None) -> list[Any]:
    pipeline = open_dataset(DIGITS, augment, batch_size=16, seed=5)
    return list(pipeline.train(start, part).take(count).as_numpy_iterator())


def own(augment: AugmentConfig, *functions: Any) -> AugmentConfig:
    names = tuple(f"given:f{number}" for number in range(len(functions)))
    return augment.replace(extra=names).give_objects(extra=list(functions))


@pytest.mark.parametrize("augment", [NoCrop(flip=True), InceptionCrop()], ids=["memory", "stream"])
def test_each_image_is_changed_exactly_once_in_the_order_of_the_functions(
    augment: AugmentConfig,
) -> None:
    changed = own(augment, lambda image: image / 2, lambda image, seed: image + 51)
    for (images, labels), (expected, same) in zip(batches(changed), batches(augment), strict=True):
        np.testing.assert_array_equal(labels, same)
        np.testing.assert_allclose(images, expected / 2 + 51 / 255, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda image, seed: image + tf.random.stateless_uniform([], seed, 1, 50),
        lambda: keras.layers.RandomBrightness(0.5, value_range=(-999, 999)),
    ],
    ids=["function", "layer"],
)
def test_random_numbers_follow_from_seed_step_and_row_alone(make: Any) -> None:
    augment = own(NoCrop(), make())
    whole, again = batches(augment), batches(augment, start=1, count=2)
    for (images, _), (later, _) in zip(whole[1:], again, strict=True):
        np.testing.assert_array_equal(images, later)
    part = batches(augment, part=Part(1, 2, 1), count=1)[0][0]  # the second of two hosts
    np.testing.assert_array_equal(part, whole[0][0][8:])
    plain = batches(NoCrop())
    changes = [images - before for (images, _), (before, _) in zip(whole, plain, strict=True)]
    per_image = np.concatenate(changes).reshape(40, -1)
    assert len(np.unique(per_image.sum(axis=1))) == 40  # each image its own


def test_a_layer_that_draws_from_a_state_is_rejected() -> None:
    class Stateful(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.seeds = keras.random.SeedGenerator(0)

        def call(self, images: Any, training: bool = False) -> Any:
            return images + keras.random.uniform((), seed=self.seeds)

    with pytest.raises(ReszooError, match="two results with one seed; expected random numbers"):
        batches(own(NoCrop(), Stateful()), count=1)
