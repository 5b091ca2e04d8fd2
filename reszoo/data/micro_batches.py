"""Which rows of a batch each replica takes in each micro-batch, and which rows a worker reads."""

from __future__ import annotations

from dataclasses import dataclass

from reszoo.lazy import tf
from reszoo.types import Tensor


def share_of_micro_batch(
    rows: Tensor | int,
    replica: Tensor | int,
    replicas: int,
    micro_batch: Tensor | int = 0,
    micro_batches: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (first row, one past the last row, weight) of a replica's share of a micro-batch.

    With fewer rows than replicas a share would be empty, and batch normalization of an empty batch
    is not a number. Such a replica repeats a row with weight 0.

    Args:
        rows: Rows of the whole batch, int32 [].
        replica: Number of the replica, from 0.
        replicas: Replicas in all.
        micro_batch: Number of the micro-batch, from 0.
        micro_batches: Micro-batches in all.
    """
    start = micro_batch * rows // micro_batches
    size = (micro_batch + 1) * rows // micro_batches - start
    first = start + replica * size // replicas
    last = start + (replica + 1) * size // replicas
    empty = tf.equal(first, last)
    row = tf.minimum(first, rows - 1)
    weight = tf.cast(~empty, tf.float64)
    return tf.where(empty, row, first), tf.where(empty, row + 1, last), weight


@dataclass(frozen=True)
class Part:
    """The part of every batch that one of several workers reads.

    Attributes:
        worker: Number of the worker, from 0.
        workers: Workers in all.
        replicas: Replicas of each worker.
        micro_batches: Micro-batches of each batch.
    """

    worker: int = 0
    workers: int = 1
    replicas: int = 1
    micro_batches: int = 1

    def rows(self, total: Tensor | int) -> Tensor:
        """Return which rows of a batch of `total` rows this worker reads: int32 [k].

        They are the shares of its replicas, micro-batch by micro-batch. A repeated row of weight 0
        is included, and may be another worker's.
        """
        if self.workers == 1:
            return tf.range(total)
        first, last, _ = self._shares(total)
        return tf.ragged.range(first, last).flat_values

    def range(self, total: Tensor | int) -> Tensor:
        """Return the adjoining rows of a batch of `total` rows that are counted: int32 [k].

        With one micro-batch, `rows` are these and those that are repeated with weight 0.
        """
        first = self.worker * total // self.workers
        return tf.range(first, (self.worker + 1) * total // self.workers)

    def local_share(
        self, total: Tensor | int, replica: Tensor | int, micro_batch: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `share_of_micro_batch` returns, counted in this worker's own rows.

        Args:
            total: Rows of the whole batch.
            replica: Number of one of this worker's replicas among those of all workers.
            micro_batch: Number of the micro-batch, from 0.
        """
        if self.workers == 1:
            return share_of_micro_batch(
                total, replica, self.replicas, micro_batch, self.micro_batches
            )
        first, last, weight = self._shares(total)
        with tf.device("CPU:0"):
            sizes = last - first
            number = micro_batch * self.replicas + replica - self.worker * self.replicas
            end = tf.cumsum(sizes)[number]
            return end - sizes[number], end, weight[number]

    def _shares(self, total: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the shares of this worker's replicas, in the order of `rows`."""
        with tf.device("CPU:0"):
            micro_batch = tf.repeat(tf.range(self.micro_batches), self.replicas)
            replica = tf.tile(tf.range(self.replicas), [self.micro_batches])
            replica += self.worker * self.replicas
            every = self.workers * self.replicas
            return share_of_micro_batch(total, replica, every, micro_batch, self.micro_batches)
