"""Training batches of images that are decoded or cropped one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from reszoo.config.data import InceptionCrop, ScaleCrop
from reszoo.data.augmentation import draw_windows, mirror, place_windows, take_window
from reszoo.data.batch_augmentation import BatchAugmentation
from reszoo.data.batch_order import BatchOrder
from reszoo.data.batches import Batch
from reszoo.data.dataset import IndexedSplit, RecordSplit, Split
from reszoo.data.micro_batches import Part
from reszoo.data.random_keys import EXAMPLE, ORDER, fold_in, make_key
from reszoo.errors import ReszooError
from reszoo.images.decoding import decode_file, find_layout
from reszoo.images.preprocessing import Preprocessing
from reszoo.lazy import tf
from reszoo.types import Tensor

FOREVER = 2**62  # steps, or epochs, of an endless stream


def stream_batches(
    split: Split,
    order: BatchOrder,
    part: Part,
    augmentation: BatchAugmentation,
    start_step: int,
    lanes: int = 1,
) -> tf.data.Dataset:
    """Return a worker's rows of the batches of a split from a step on, without end.

    Args:
        split: The split.
        order: The order of its examples.
        part: The part of each batch that the worker reads.
        augmentation: The random changes.
        start_step: The first step.
        lanes: Parts of equal size into which the records of an epoch are cut.

    Raises:
        ReszooError: If lanes and part do not fit each other or the batch size.
    """
    own = part.rows
    if isinstance(split, RecordSplit):
        _check_lanes(order, part, lanes)
        if augmentation.augment.flip_mode == "alternating":
            raise ReszooError(
                'augment.flip_mode: "alternating" is invalid for a streamed dataset, whose images '
                'have no number; expected "random". Example: --set augment.flip_mode=random'
            )
        own = part.range
        batches = _read_records(split, order, part, augmentation, start_step, lanes)
    else:
        assert isinstance(split, IndexedSplit)
        batches = _read_indexed(split, order, part, augmentation, start_step)

    def augment(step: Tensor, batch: Batch) -> Batch:
        images, labels = batch
        total = order.rows(step)
        plan = augmentation.draw(step, total, own(total))
        images, labels = augmentation.apply(images, plan), augmentation.make_targets(labels, plan)
        if own == part.rows:
            return images, labels
        # A row that a replica repeats with weight 0 was read once.
        places = part.rows(total) - own(total)[0]
        return tf.gather(images, places), tf.gather(labels, places)

    return batches.enumerate(start_step).map(augment, num_parallel_calls=tf.data.AUTOTUNE)


def _read_indexed(
    split: IndexedSplit,
    order: BatchOrder,
    part: Part,
    augmentation: BatchAugmentation,
    start_step: int,
) -> tf.data.Dataset:
    """Return a worker's rows of the batches of examples that can be read in any order."""
    steps = order.steps_per_epoch
    full, rest = divmod(order.count, order.size)

    def read(run: Tensor) -> tf.data.Dataset:
        epoch, short = run // 2, run % 2
        first = tf.maximum(epoch * steps + short * full, start_step)
        last = epoch * steps + tf.where(short == 0, tf.constant(full, tf.int64), steps)
        rows = part.rows(tf.where(short == 0, order.size, rest or order.size))
        every = tf.data.Dataset.range(first, last).map(lambda step: order.indices(step, rows))
        size = tf.size(rows, tf.int64)
        return _load(
            split, split.pick(every.unbatch()), first, size, order, part.rows, augmentation
        )

    # Two runs per epoch: the full batches and the short one, of which a worker may have more rows.
    return tf.data.Dataset.range(2 * (start_step // steps), FOREVER).flat_map(read)


def _read_records(
    split: RecordSplit,
    order: BatchOrder,
    part: Part,
    augmentation: BatchAugmentation,
    start_step: int,
    lanes: int,
) -> tf.data.Dataset:
    """Return a worker's rows of the batches of records: an equal number of each lane."""
    steps, block = order.steps_per_epoch, order.size // lanes
    own = lanes // part.workers

    def read(epoch: Tensor) -> tf.data.Dataset:
        first = tf.maximum(epoch * steps, start_step)
        key = make_key(order.seed, ORDER, epoch)
        read_before = (first - epoch * steps) * block
        numbers = tf.data.Dataset.range(part.worker * own, (part.worker + 1) * own)

        def read_lane(lane: Tensor) -> tf.data.Dataset:
            records = split.shuffled(key, lane, lanes)
            if order.repeats > 1:
                count = (lane + 1) * order.count // lanes - lane * order.count // lanes
                records = records.flat_map(
                    lambda record: tf.data.Dataset.from_tensors(record).repeat(order.repeats)
                ).take(count)
            return records.skip(read_before)

        elements = numbers.interleave(read_lane, cycle_length=own, block_length=block)
        return _load(split, elements, first, own * block, order, part.range, augmentation)

    return tf.data.Dataset.range(start_step // steps, FOREVER).flat_map(read)


def _check_lanes(order: BatchOrder, part: Part, lanes: int) -> None:
    """Raise ReszooError if the rows of a worker are not those of whole lanes."""
    size, last = order.size, int(order.rows(tf.constant(-1, tf.int64)))
    if size % lanes:
        raise ReszooError(
            f"data.lanes: {lanes} is invalid; expected a divisor of train.batch_size = {size}. "
            "Example: --set data.lanes=1"
        )
    if lanes % part.workers:
        raise ReszooError(
            f"data.lanes: {lanes} is invalid; expected a multiple of the number of workers, "
            f"{part.workers}, for a streamed dataset. Example: --set data.lanes={part.workers}"
        )
    if part.workers > 1 and part.micro_batches > 1:
        raise ReszooError(
            f"train.accumulate: {part.micro_batches} is invalid; expected 1 for a streamed dataset "
            "on several hosts. Example: --set train.accumulate=1"
        )
    for worker in range(part.workers):
        each = replace(part, worker=worker)
        if not set(each.rows(last).numpy()) <= set(each.range(last).numpy()):
            raise ReszooError(
                f"train.batch_size: {size} is invalid; the last batch of an epoch has {last} "
                f"images for {part.workers * part.replicas} replicas, too few for a streamed "
                "dataset on several hosts. Change train.batch_size or data.examples"
            )


def _load(
    split: Split,
    elements: tf.data.Dataset,
    first: Tensor,
    size: Tensor | int,
    order: BatchOrder,
    own: Callable[[Tensor], Tensor],
    augmentation: BatchAugmentation,
) -> tf.data.Dataset:
    """Return (uint8 images of the input's size, labels) of elements, `size` per batch.

    Args:
        split: The split.
        elements: Its elements in the order of the batches.
        first: The step of the first batch.
        size: Rows of each batch that are read.
        order: The order of the examples.
        own: Maps the rows of a whole batch to those that are read.
        augmentation: The random changes.
    """
    augment, preprocessing = augmentation.augment, augmentation.preprocessing
    auto = tf.data.AUTOTUNE
    if not isinstance(augment, ScaleCrop | InceptionCrop):
        load = resized_loader(split, preprocessing)
        return elements.map(load, num_parallel_calls=auto).batch(size)

    def find(*element: Any) -> tuple[Tensor, Tensor, Tensor]:
        payload, label = unpacked(split.load)(*element)
        if payload.dtype == tf.string:
            return payload, find_layout(payload), label
        return payload, tf.concat([tf.shape(payload)[:2], [1]], axis=0), label

    # For a batch at once: one by one, drawing takes a third of the time of decoding.
    def draw(step: Tensor, found: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        payloads, layouts, labels = found
        steps, total = order.steps_per_epoch, order.rows(step)
        rows = own(total)
        key = fold_in(make_key(order.seed, EXAMPLE, step // steps), step % steps)
        draws = tf.gather(draw_windows(total, augment, key), rows)
        windows = place_windows(layouts[:, :2], draws, augment, preprocessing.image_size)
        mirrored = augmentation.draw_mirrored(step, total, rows)
        return payloads, layouts, windows, mirrored, labels

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
