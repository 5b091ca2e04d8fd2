"""Which rows of a batch each replica takes in each micro-batch."""

from __future__ import annotations

from reszoo.lazy import tf
from reszoo.types import Tensor


def share_of_micro_batch(
    rows: Tensor, replica: Tensor | int, replicas: int, micro_batch: int = 0, micro_batches: int = 1
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
    empty = first == last
    row = tf.minimum(first, rows - 1)
    weight = tf.cast(~empty, tf.float64)
    return tf.where(empty, row, first), tf.where(empty, row + 1, last), weight
