"""Training batches of images in memory, each gathered and augmented as a whole."""

from __future__ import annotations

from reszoo.data.batch_augmentation import BatchAugmentation
from reszoo.data.batch_order import BatchOrder
from reszoo.data.batches import Batch
from reszoo.data.dataset import Split
from reszoo.data.micro_batches import Part
from reszoo.lazy import tf
from reszoo.types import Tensor


def gather_batches(
    split: Split,
    order: BatchOrder,
    part: Part,
    augmentation: BatchAugmentation,
    steps: tf.data.Dataset,
) -> tf.data.Dataset:
    """Return a worker's rows of the batches of `steps` (int64), of images of the input's size."""

    def load_batch(step: Tensor) -> Batch:
        total = order.rows(step)
        rows = part.rows(total)
        images, labels = split.load(order.indices(step, rows))
        plan = augmentation.draw(step, total, rows)
        return augmentation.apply(images, plan), augmentation.make_targets(labels, plan)

    return steps.map(load_batch, num_parallel_calls=tf.data.AUTOTUNE)
