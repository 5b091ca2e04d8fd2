"""Which training examples each batch holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from reszoo.data.random_keys import ORDER, SAMPLER, make_key, shuffle_indices
from reszoo.lazy import tf
from reszoo.types import Array, Tensor


@dataclass(frozen=True)
class BatchOrder:
    """The order of the training examples: a permutation of each epoch, cut into batches.

    Attributes:
        count: Training examples.
        size: Rows of a batch. The last batch of an epoch is short if `size` does not divide
            `count`.
        seed: Of the order.
        repeats: How often an example stands in a row. An epoch keeps its length.
        labels: The examples' labels, int [count], to show as many of each class; None shows each
            example once per epoch.
    """

    count: int
    size: int
    seed: int
    repeats: int = 1
    labels: Array | None = field(default=None, compare=False, repr=False)

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
        first, epoch = step % self.steps_per_epoch * self.size, step // self.steps_per_epoch
        key = make_key(self.seed, ORDER, epoch)
        places = (first + tf.cast(rows, tf.int64)) // self.repeats
        indices = shuffle_indices(places, self.count, key)
        return indices if self.labels is None else self._balance(indices, epoch)

    def _balance(self, numbers: Tensor, epoch: Tensor) -> Tensor:
        """Return the examples at an epoch's numbers 0 ... count - 1, the classes in turn.

        The turns of a class go through its examples in one permutation after another, across
        epochs. So each is shown before one is shown again; at most one turn per epoch is omitted.
        """
        examples, starts, sizes = self._classes
        classes = len(sizes)
        label = (numbers + epoch) % classes
        turn = numbers // classes + epoch * -(-self.count // classes)
        size = tf.gather(sizes, label)
        permutation = label + classes * (turn // size)
        key = make_key(self.seed, SAMPLER)
        places = shuffle_indices(turn % size, size, key, permutation)
        return tf.gather(examples, tf.gather(starts, label) + places)

    @cached_property
    def _classes(self) -> tuple[Tensor, Tensor, Tensor]:
        """The examples by class, and where each class begins and how many it has."""
        assert self.labels is not None
        _, sizes = np.unique(self.labels, return_counts=True)
        examples = np.argsort(self.labels, kind="stable")
        with tf.init_scope(), tf.device("CPU:0"):
            return tuple(map(tf.constant, (examples, np.cumsum(sizes) - sizes, sizes)))
