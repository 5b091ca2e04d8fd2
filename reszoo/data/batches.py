"""What training and evaluation read: batches of images and labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeAlias

from reszoo.lazy import tf
from reszoo.types import Array, Tensor

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Images, float32 [b, h, w, c], and labels: int32 [b], or soft targets, float32 [b, classes]."""


class Batches(Protocol):
    """A sequence of batches, such as a tf.data.Dataset."""

    def take(self, count: int) -> Batches:
        """Return the first `count` batches."""

    def __iter__(self) -> Iterator[Batch]: ...

    def as_numpy_iterator(self) -> Iterator[tuple[Array, Array]]:
        """Iterate over the batches as NumPy arrays."""


def keep_order(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Keep the order of parallel maps whatever the global setting."""
    options = tf.data.Options()
    options.deterministic = True
    return batches.with_options(options)
