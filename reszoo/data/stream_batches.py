"""Training batches of images that are decoded or cropped one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reszoo.config.data import InceptionCrop, ScaleCrop
from reszoo.data.augmentation import (
    draw_mirrored,
    draw_windows,
    mirror,
    place_windows,
    take_window,
)
from reszoo.data.batch_augmentation import BatchAugmentation
from reszoo.data.batch_order import BatchOrder
from reszoo.data.batches import Batch
from reszoo.data.dataset import IndexedSplit, RecordSplit, Split
from reszoo.data.micro_batches import Part
from reszoo.data.random_keys import BATCH, EXAMPLE, ORDER, fold_in, make_key
from reszoo.errors import ReszooError
from reszoo.images.decoding import decode_file, find_layout
from reszoo.images.preprocessing import Preprocessing
from reszoo.lazy import tf
from reszoo.types import Tensor


def stream_batches(
    split: Split,
    order: BatchOrder,
    part: Part,
    augmentation: BatchAugmentation,
    start_step: int,
) -> tf.data.Dataset:
    """Return a worker's rows of the batches of a split from a step on, without end."""
    steps, size = order.steps_per_epoch, order.size
    first_epoch, first_batch = divmod(start_step, steps)
    full = order.count // size
    rows, rows_of_last = part.rows(size), part.rows(order.count - full * size or size)
    assert isinstance(split, IndexedSplit | RecordSplit)
    if isinstance(split, RecordSplit) and part.workers > 1:
        raise ReszooError("data.name: a streamed dataset is not supported on several hosts")

    def epoch_batches(epoch: Tensor) -> tf.data.Dataset:
        first = tf.where(epoch == first_epoch, tf.constant(first_batch, tf.int64), 0)
        if isinstance(split, RecordSplit):
            elements = split.shuffled(make_key(order.seed, ORDER, epoch)).skip(first * size)
            return _load_batches(split, elements, epoch, first, size, order, part, augmentation)
        pick = split.pick

        def read(first: Tensor | int, last: int, rows: Tensor) -> tf.data.Dataset:
            """Return `rows` of the batches `first` ... `last` - 1 of the epoch."""
            batches = tf.data.Dataset.range(first, last)
            indices = batches.map(lambda number: order.indices(epoch * steps + number, rows))
            elements = pick(indices.unbatch())
            return _load_batches(
                split, elements, epoch, first, len(rows), order, part, augmentation
            )

        # A worker may have more rows of the short last batch than of the others.
        return read(first, full, rows).concatenate(
            read(tf.maximum(first, full), steps, rows_of_last)
        )

    def augment(step: Tensor, batch: Batch) -> Batch:
        images, labels = batch
        total = order.rows(step)
        plan = augmentation.draw(step, total, part.rows(total))
        return augmentation.apply(images, plan), labels

    epochs = tf.data.Dataset.range(first_epoch, 2**62).flat_map(epoch_batches)
    return epochs.enumerate(start_step).map(augment, num_parallel_calls=tf.data.AUTOTUNE)


def _load_batches(
    split: Split,
    elements: tf.data.Dataset,
    epoch: Tensor,
    first: Tensor | int,
    size: int,
    order: BatchOrder,
    part: Part,
    augmentation: BatchAugmentation,
) -> tf.data.Dataset:
    """Return (uint8 images of the input's size, labels) of elements, `size` per batch.

    Args:
        split: The split.
        elements: Its elements in the order of the batches, from batch `first` of the epoch on.
        epoch: Number of the epoch.
        first: Number of the first batch in the epoch.
        size: Rows of each batch that this worker reads.
        order: The order of the examples.
        part: The part of each batch that this worker reads.
        augmentation: The random changes.
    """
    augment, preprocessing, auto = (
        augmentation.augment,
        augmentation.preprocessing,
        tf.data.AUTOTUNE,
    )
    if not isinstance(augment, ScaleCrop | InceptionCrop):
        load = resized_loader(split, preprocessing)
        return elements.map(load, num_parallel_calls=auto).batch(size)
    key = make_key(augmentation.seed, EXAMPLE, epoch)

    def find(*element: Any) -> tuple[Tensor, Tensor, Tensor]:
        payload, label = unpacked(split.load)(*element)
        if payload.dtype == tf.string:
            return payload, find_layout(payload), label
        return payload, tf.concat([tf.shape(payload)[:2], [1]], axis=0), label

    # For a batch at once: one by one, drawing takes a third of the time of decoding.
    def draw(number: Tensor, found: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        payloads, layouts, labels = found
        step = epoch * order.steps_per_epoch + number
        total = order.rows(step)
        rows = part.rows(total)
        draws = tf.gather(draw_windows(total, augment, fold_in(key, number)), rows)
        windows = place_windows(layouts[:, :2], draws, augment, preprocessing.image_size)
        mirrored = draw_mirrored(total, make_key(augmentation.seed, BATCH, step, 1))
        return payloads, layouts, windows, tf.gather(mirrored, rows), labels

    def cut(
        payload: Tensor, layout: Tensor, window: Tensor, mirrored: Tensor, label: Tensor
    ) -> Batch:
        image = take_window(payload, window, preprocessing, layout)
        return mirror(image, mirrored) if augment.flip else image, label

    drawn = elements.map(find, num_parallel_calls=auto).batch(size).enumerate(first).map(draw)
    return drawn.unbatch().map(cut, num_parallel_calls=auto).batch(size)


def resized_loader(split: Split, preprocessing: Preprocessing) -> Callable[..., Batch]:
    """Return a function from an element to (uint8 image of the input's size, label)."""

    def load(element: Any) -> Batch:
        payload, label = split.load(element)
        if payload.dtype == tf.string:
            payload = decode_file(payload, preprocessing.channels)
        return preprocessing.to_input(payload), label

    return unpacked(load)


def unpacked(function: Callable[[Any], Batch]) -> Callable[..., Batch]:
    """Let a function of one element take it from tf.data, which unpacks tuples."""
    return lambda *element: function(element if len(element) > 1 else element[0])
