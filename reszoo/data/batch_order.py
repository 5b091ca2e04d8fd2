"""Which training examples each batch holds."""

from __future__ import annotations

from dataclasses import dataclass

from reszoo.data.random_keys import ORDER, make_key, shuffle_indices
from reszoo.lazy import tf
from reszoo.types import Tensor


@dataclass(frozen=True)
class BatchOrder:
    """The order of the training examples: a permutation of each epoch, cut into batches.

    Attributes:
        count: Training examples.
        size: Rows of a batch. The last batch of an epoch is short if `size` does not divide
            `count`.
        seed: Of the order.
        repeats: How often an example stands in a row. An epoch keeps its length.
    """

    count: int
    size: int
    seed: int
    repeats: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches of an epoch."""
        return -(-self.count // self.size)

    def rows(self, step: Tensor) -> Tensor:
        """Return how many rows the batch of a step (int64) has: int32 []."""
        left = self.count - step % self.steps_per_epoch * self.size
        return tf.cast(tf.minimum(left, self.size), tf.int32)

    def indices(self, step: Tensor, rows: Tensor) -> Tensor:
        """Return which training examples stand in `rows` (int32 [k]) of a batch: int64 [k]."""
        first = step % self.steps_per_epoch * self.size
        key = make_key(self.seed, ORDER, step // self.steps_per_epoch)
        places = (first + tf.cast(rows, tf.int64)) // self.repeats
        return shuffle_indices(places, self.count, key)
