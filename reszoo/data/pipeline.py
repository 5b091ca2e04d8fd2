"""Batches for training and evaluation.

Which images a training batch holds, in which order and augmented how, is a function of (seed,
epoch, step).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reszoo.config.data import AugmentConfig, DataConfig, InceptionCrop, ScaleCrop
from reszoo.config.recipe import Recipe
from reszoo.data.augmentation import (
    draw_mirrored,
    draw_windows,
    mirror,
    pad_crop_flip,
    pca_noise,
    take_window,
)
from reszoo.data.batches import Batch, Batches, keep_order
from reszoo.data.corruption import explain_error
from reszoo.data.dataset import ArraySplit, ImageDataset, Split
from reszoo.data.info import DataInfo
from reszoo.data.loading import load_dataset
from reszoo.data.normalization import fit_normalization
from reszoo.data.random_keys import fold_in, make_key, shuffle_indices
from reszoo.errors import ReszooError
from reszoo.images.decoding import decode_file, find_layout
from reszoo.images.formats import START, decode_pixels, find_format
from reszoo.images.preprocessing import Preprocessing
from reszoo.lazy import tf
from reszoo.types import Array, Tensor

# What a key is for: the order of an epoch, the crop of an example, the changes to a batch.
ORDER, EXAMPLE, BATCH = range(3)

FOREVER = 2**62  # steps, or epochs, of an endless stream


def open_pipeline(recipe: Recipe, *, batch_size: int | None = None) -> Pipeline:
    """Open a recipe's dataset.

    Args:
        recipe: The recipe; its paths absolute where it will be stored.
        batch_size: Images per batch instead of the recipe's.

    Raises:
        ReszooError: If dataset, sizes and augmentation contradict each other.
    """
    return open_dataset(recipe.data, recipe.augment, **recipe.batches(batch_size))


def open_dataset(
    data: DataConfig,
    augment: AugmentConfig,
    *,
    batch_size: int,
    seed: int,
    transforms: Preprocessing | None = None,
) -> Pipeline:
    """Open a dataset without a recipe.

    Args:
        data: Which dataset, and its splits.
        augment: Random changes to training images.
        batch_size: Images per batch.
        seed: Of order and augmentation.
        transforms: Preprocessing of the published weights, for data.normalize = "weights".

    Raises:
        ReszooError: If dataset, sizes and augmentation contradict each other.
    """
    dataset, preprocessing = load_normalized(data, augment, transforms)
    return Pipeline(dataset, preprocessing, augment, batch_size=batch_size, seed=seed)


def load_normalized(
    data: DataConfig, augment: AugmentConfig, transforms: Preprocessing | None
) -> tuple[ImageDataset, Preprocessing]:
    """Load a dataset and its preprocessing; see `open_dataset`."""
    dataset, preprocessing = load_dataset(data, augment)
    if isinstance(augment, ScaleCrop) and augment.scale[0] < max(preprocessing.image_size):
        raise ReszooError(
            f"augment.scale: {list(augment.scale)} is invalid; expected at least the crop, "
            f"data.image_size = {list(preprocessing.image_size)}"
        )
    train = dataset.splits["train"]
    return dataset, fit_normalization(preprocessing, train, data.normalize, transforms)


class Pipeline:
    """The batches of one dataset.

    Args:
        dataset: The dataset.
        preprocessing: How an image becomes the model's input in evaluation.
        augment: Random changes to training images.
        batch_size: Images per batch.
        seed: Of order and augmentation.

    Attributes:
        dataset, preprocessing: As given.
        info: What the dataset holds.
        steps_per_epoch: ceil(training examples / batch size). The last batch of an epoch is short
            if the batch size does not divide the number of examples.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        preprocessing: Preprocessing,
        augment: AugmentConfig,
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        if batch_size < 1:
            raise ReszooError(f"batch_size: {batch_size} is invalid; expected an integer >= 1")
        if not 0 <= seed < 2**63:
            raise ReszooError(f"seed: {seed} is invalid; expected an integer in 0 ... 2**63 - 1")
        self.dataset, self._augment = dataset, augment
        self._batch_size, self._seed = batch_size, seed
        self.preprocessing = preprocessing
        self.info = DataInfo.of(dataset, preprocessing)
        self.steps_per_epoch = -(-self.info.examples["train"] // batch_size)
        self._pad = augment.pad if augment.crop == "pad" else 0
        # Whether images of the input's size are cropped or mirrored.
        self._moves = augment.crop == "pad" or (augment.flip and augment.crop == "none")

    def train(self, start_step: int = 0) -> Batches:
        """Return training batches without end, from step `start_step` on.

        Batch t holds examples (t mod steps_per_epoch) * batch_size ... of epoch t //
        steps_per_epoch. It depends only on the dataset, the settings, the seed and t. A stream from
        step k therefore equals the stream from 0 without its first k batches.

        Raises:
            ReszooError: If color noise is drawn for inputs in BGR.
        """
        self._check_color()
        split = self.dataset.splits["train"]
        if self._fits_input(split) and not isinstance(self._augment, ScaleCrop | InceptionCrop):
            batches = self._gather_batches(split, start_step)
        else:
            batches = self._stream_batches(split, start_step)
        ordered: Batches = keep_order(batches.prefetch(tf.data.AUTOTUNE))
        return ordered

    def evaluation(self, split: str) -> Batches:
        """Return the batches of a split without augmentation: each example once, in stored order.

        Raises:
            ReszooError: If the dataset lacks the split.
        """
        source, apply = self.dataset.split(split), self.preprocessing.apply

        def load_batch(elements: Tensor) -> Batch:
            images, labels = source.load(elements)
            return apply(images), labels

        elements, size = source.elements(None), self._batch_size
        if self._fits_input(source):
            batches = elements.batch(size).map(load_batch, num_parallel_calls=tf.data.AUTOTUNE)
        else:
            examples = elements.map(self._load_resized(source), num_parallel_calls=tf.data.AUTOTUNE)
            batches = examples.batch(size).map(lambda images, labels: (apply(images), labels))
        ordered: Batches = keep_order(batches.prefetch(tf.data.AUTOTUNE))
        return ordered

    def sample(self, split: str, count: int) -> tuple[list[Array | bytes], Array]:
        """Return at most `count` examples of a split as stored, spread evenly over it.

        Returns:
            Images, each uint8 [h, w, c] or the bytes of a JPEG or PNG file (other formats are
            decoded), and labels, int32 [n].

        Raises:
            ReszooError: If the dataset lacks the split.
        """
        source = self.dataset.split(split)
        chosen = (
            source.elements(None).shard(-(-source.count // count), 0).map(_unpacked(source.load))
        )
        examples = list(chosen.as_numpy_iterator())
        labels = np.array([label for _, label in examples], np.int32)
        return [_to_portable(image) for image, _ in examples], labels

    def explain(self, error: BaseException) -> ReszooError | None:
        """Return the one-line reason for an error that a batch raised; None if not the images'."""
        return explain_error(self.dataset, error)

    def _fits_input(self, split: Split) -> bool:
        """Return whether a split is in memory at the input's size."""
        shape = self.preprocessing.input_shape
        return isinstance(split, ArraySplit) and split.images.shape[1:] == shape

    def _gather_batches(self, split: Split, start_step: int) -> tf.data.Dataset:
        """Return the batches of a split in memory, each gathered and augmented as a whole."""

        def load_batch(step: Tensor) -> Batch:
            images, labels = split.load(self._rows(step))
            return self._augment_batch(step, images, labels)

        steps = tf.data.Dataset.range(start_step, FOREVER)
        return steps.map(load_batch, num_parallel_calls=tf.data.AUTOTUNE)

    def _rows(self, step: Tensor) -> Tensor:
        """Return which training examples a batch holds, in order: int64 [b]."""
        count, size, steps = self.info.examples["train"], self._batch_size, self.steps_per_epoch
        first = (step % steps) * size
        positions = tf.range(first, tf.minimum(first + size, tf.constant(count, tf.int64)))
        return shuffle_indices(positions, count, make_key(self._seed, ORDER, step // steps))

    def _check_color(self) -> None:
        if self._augment.color == "pca" and self.preprocessing.channel_order == "BGR":
            raise ReszooError(
                "augment.color: pca is invalid; this noise is in RGB, but the model's input is in "
                "BGR. Example: --set augment.color=none"
            )

    def _stream_batches(self, split: Split, start_step: int) -> tf.data.Dataset:
        """Return the batches of a split that is decoded or cropped one example at a time."""
        first_epoch, first_batch = divmod(start_step, self.steps_per_epoch)
        size, auto, augment = self._batch_size, tf.data.AUTOTUNE, self._augment

        def load(*element: Any) -> tuple[Tensor, Tensor, Tensor]:
            payload, label = _unpacked(split.load)(*element)
            if payload.dtype == tf.string:
                return payload, find_layout(payload), label
            return payload, tf.concat([tf.shape(payload)[:2], [1]], axis=0), label

        def cut(
            payload: Tensor, layout: Tensor, window: Tensor, mirrored: Tensor, label: Tensor
        ) -> Batch:
            image = take_window(payload, window, self.preprocessing, layout)
            return mirror(image, mirrored) if augment.flip else image, label

        def epoch_batches(epoch: Tensor) -> tf.data.Dataset:
            batch = tf.where(epoch == first_epoch, tf.constant(first_batch, tf.int64), 0)
            elements = split.elements(make_key(self._seed, ORDER, epoch)).skip(batch * size)
            if not isinstance(augment, ScaleCrop | InceptionCrop):
                return elements.map(self._load_resized(split), num_parallel_calls=auto).batch(size)
            key = make_key(self._seed, EXAMPLE, epoch)

            # For a batch at once: one by one, drawing takes a third of the time of decoding.
            def draw(number: Tensor, loaded: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
                payloads, layouts, labels = loaded
                target = self.preprocessing.image_size
                windows = draw_windows(layouts[:, :2], augment, target, fold_in(key, number))
                step = epoch * self.steps_per_epoch + number
                mirrored = draw_mirrored(tf.shape(labels)[0], make_key(self._seed, BATCH, step, 1))
                return payloads, layouts, windows, mirrored, labels

            drawn = elements.map(load, num_parallel_calls=auto).batch(size)
            drawn = drawn.enumerate(batch).map(draw)
            return drawn.unbatch().map(cut, num_parallel_calls=auto).batch(size)

        epochs = tf.data.Dataset.range(first_epoch, FOREVER)
        return (
            epochs.flat_map(epoch_batches)
            .enumerate(start_step)
            .map(lambda step, batch: self._augment_batch(step, *batch), num_parallel_calls=auto)
        )

    def _load_resized(self, split: Split) -> Any:
        """Return a function from an element to (uint8 image of the input's size, label)."""

        def load(element: Any) -> Batch:
            payload, label = split.load(element)
            if payload.dtype == tf.string:
                payload = decode_file(payload, self.preprocessing.channels)
            return self.preprocessing.to_input(payload), label

        return _unpacked(load)

    def _augment_batch(self, step: Tensor, images: Tensor, labels: Tensor) -> Batch:
        """Normalize and augment a batch of uint8 images of the input's size."""
        images = self.preprocessing.apply(images)
        if self._augment.color == "pca":
            images = pca_noise(images, self.preprocessing.std, make_key(self._seed, BATCH, step, 0))
        if self._moves:
            key = make_key(self._seed, BATCH, step, 1)
            images = pad_crop_flip(images, self._pad, self._augment.flip, key)
        return images, labels


def _to_portable(image: Any) -> Array | bytes:
    """Return an image as an export takes it: an array, or the bytes of a JPEG or PNG file."""
    if not isinstance(image, bytes):
        return np.asarray(image)
    return image if find_format(image[:START]) in ("JPEG", "PNG") else decode_pixels(image)


def _unpacked(function: Any) -> Any:
    """Let a function of one element take it from tf.data, which unpacks tuples."""
    return lambda *element: function(element if len(element) > 1 else element[0])
