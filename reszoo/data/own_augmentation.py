"""A user's own changes to training images, each a pure function of an image and a key."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from reszoo.config.data import AugmentConfig
from reszoo.data.random_keys import fold_in
from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.references import invalid_reference
from reszoo.types import Tensor

Change = Callable[[Tensor, Tensor], Tensor]


def load_changes(augment: AugmentConfig, shape: tuple[int, int, int]) -> list[Change]:
    """Return the functions of `augment.extra`, from (image, key) to an image, checked on zeros.

    Args:
        augment: The table [augment].
        shape: Of an image, [h, w, c].

    Raises:
        ReszooError: If one does not return an image of the same shape, or draws random numbers
            that do not follow from the key, so that a run could not resume exactly.
    """
    given = augment.load_object("extra")
    changes = []
    for reference, found in zip(augment.extra, given, strict=True):
        change, key = _wrap(found, reference), tf.constant([1, 2], tf.int64)
        image = tf.reshape(tf.linspace(0.0, 255.0, int(np.prod(shape))), shape)
        try:
            first, second = (np.asarray(change(image, key)) for _ in range(2))
        except ReszooError:
            raise
        except Exception as error:
            line = str(error).strip().partition("\n")[0]
            why = f"called with an image and a seed, it raised {type(error).__name__}: {line}"
            raise invalid_reference("augment.extra", reference, why) from error
        if first.shape != shape:
            why = f"it returned {list(first.shape)} from an image {list(shape)}; expected the same"
            raise invalid_reference("augment.extra", reference, why)
        if not np.array_equal(first, second, equal_nan=True):
            why = (
                "it returned two results with one seed; expected random numbers that follow from "
                "the seed alone. Example: tf.random.stateless_uniform([], seed)"
            )
            raise invalid_reference("augment.extra", reference, why)
        changes.append(change)
    return changes


def change_images(images: Tensor, keys: Tensor, changes: list[Change]) -> Tensor:
    """Apply the changes to each image, uint8 [k, h, w, c], with its key, int64 [k, 2]: float32."""

    def change(given: tuple[Tensor, Tensor]) -> Tensor:
        image, key = given
        for number, function in enumerate(changes):
            image = function(image, fold_in(key, number))
        return tf.ensure_shape(tf.cast(image, tf.float32), images.shape[1:])

    elements = (tf.cast(images, tf.float32), keys)
    return tf.map_fn(change, elements, fn_output_signature=tf.float32)


def _wrap(found: Any, reference: str) -> Change:
    if isinstance(found, type):
        found = found()
    if hasattr(found, "get_random_transformation"):
        return _of_layer(found)
    if isinstance(found, keras.layers.Layer):
        return lambda image, key: found(image[tf.newaxis], training=True)[0]
    if not callable(found):
        why = f"expected a function of an image and a seed, not {type(found).__name__}"
        raise invalid_reference("augment.extra", reference, why)
    try:
        inspect.signature(found).bind(0, 0)
    except TypeError:
        return lambda image, key: found(image)
    return lambda image, key: found(image, key)


def _of_layer(layer: Any) -> Change:
    """Return the change by a random layer of Keras, whose random numbers follow from the key."""

    def change(image: Tensor, key: Tensor) -> Tensor:
        images, seed = image[tf.newaxis], _Seeds(key)
        transformation = layer.get_random_transformation(images, training=True, seed=seed)
        return layer.transform_images(images, transformation, training=True)[0]

    return change


class _Seeds(keras.random.SeedGenerator):  # type: ignore[misc]
    """Gives Keras' random operations seeds that follow from a key, int64 [2]."""

    def __init__(self, key: Tensor) -> None:  # without the state of the class above
        self._key, self._count = key, 0

    def next(self, ordered: bool = True) -> Tensor:
        """Return the next seed, int64 [2]."""
        self._count += 1
        return fold_in(self._key, self._count)
