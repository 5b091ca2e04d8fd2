"""Batches for training and evaluation.

Which images a training batch holds, in which order and augmented how, is a function of (seed,
epoch, step).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from reszoo.config.data import AugmentConfig, DataConfig, InceptionCrop, ScaleCrop
from reszoo.config.recipe import Recipe
from reszoo.data.batch_augmentation import BatchAugmentation
from reszoo.data.batch_order import BatchOrder
from reszoo.data.batches import Batch, Batches, keep_order
from reszoo.data.corruption import explain_error
from reszoo.data.dataset import ArraySplit, FileSplit, ImageDataset, RecordSplit, Split
from reszoo.data.info import DataInfo
from reszoo.data.loading import load_dataset
from reszoo.data.memory_batches import gather_batches
from reszoo.data.micro_batches import Part
from reszoo.data.normalization import at_size, fit_normalization
from reszoo.data.stream_batches import FOREVER, resized_loader, stream_batches, unpacked
from reszoo.errors import ReszooError
from reszoo.images.formats import START, decode_pixels, find_format
from reszoo.images.preprocessing import Preprocessing
from reszoo.lazy import tf
from reszoo.types import Array, Tensor

TrainSizes: TypeAlias = Callable[[int, tuple[int, int]], dict[int, tuple[int, int]]]
"""Steps per epoch and the size in evaluation to sizes by first step: `Recipe.train_sizes`."""


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
    largest: int = 224,
    train_sizes: TrainSizes | None = None,
) -> Pipeline:
    """Open a dataset without a recipe.

    Args:
        data: Which dataset, and its splits.
        augment: Random changes to training images.
        batch_size: Images per batch.
        seed: Of order and augmentation.
        transforms: Preprocessing of the published weights, for data.normalize = "weights".
        largest: The longest side of an input whose size is found from the images of a folder.
        train_sizes: Sizes of the training images; by default that of the evaluation.

    Raises:
        ReszooError: If dataset, sizes and augmentation contradict each other.
    """
    dataset, preprocessing = load_normalized(data, augment, transforms, largest)
    return Pipeline(
        dataset,
        preprocessing,
        augment,
        batch_size=batch_size,
        seed=seed,
        lanes=data.lanes,
        sampler=data.sampler,
        train_sizes=train_sizes,
    )


def load_normalized(
    data: DataConfig, augment: AugmentConfig, transforms: Preprocessing | None, largest: int
) -> tuple[ImageDataset, Preprocessing]:
    """Load a dataset and its preprocessing; see `open_dataset`."""
    dataset, preprocessing = load_dataset(data, augment, largest)
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
        lanes: Parts into which an epoch of a streamed dataset is cut; see `data.lanes`.
        sampler: Which images an epoch shows; see `data.sampler`.
        train_sizes: Sizes of the training images; by default that of the evaluation.

    Attributes:
        dataset, preprocessing: As given.
        train_sizes: Height and width of the training images by the first step that has them.
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
        lanes: int = 1,
        sampler: str = "shuffle",
        train_sizes: TrainSizes | None = None,
    ) -> None:
        if batch_size < 1:
            raise ReszooError(f"batch_size: {batch_size} is invalid; expected an integer >= 1")
        if not 0 <= seed < 2**63:
            raise ReszooError(f"seed: {seed} is invalid; expected an integer in 0 ... 2**63 - 1")
        self.dataset, self._augment = dataset, augment
        self._batch_size, self._seed, self._lanes = batch_size, seed, lanes
        self.preprocessing = preprocessing
        self.info = DataInfo.of(dataset, preprocessing)
        labels = self._labels() if sampler == "balanced" else None
        count = self.info.examples["train"]
        self._order = BatchOrder(count, batch_size, seed, augment.repeats, labels)
        self.steps_per_epoch = self._order.steps_per_epoch
        size = preprocessing.image_size
        self.train_sizes = train_sizes(self.steps_per_epoch, size) if train_sizes else {0: size}
        largest = max(map(max, self.train_sizes.values()))
        if isinstance(augment, ScaleCrop) and augment.scale[0] < largest:
            what = "data.train_sizes" if train_sizes else "data.image_size"
            raise ReszooError(
                f"augment.scale: {list(augment.scale)} is invalid; expected at least the crop, "
                f"{largest} pixels by {what}"
            )

    def train(self, start_step: int = 0, part: Part | None = None) -> Batches:
        """Return training batches without end, from step `start_step` on.

        Batch t holds examples (t mod steps_per_epoch) * batch_size ... of epoch t //
        steps_per_epoch. It depends only on the dataset, the settings, the seed and t. A stream from
        step k therefore equals the stream from 0 without its first k batches.

        Args:
            start_step: The first step.
            part: Which rows of each batch to read, one of several workers' parts; None reads all.

        Raises:
            ReszooError: If color noise is drawn for inputs in BGR, `lanes` do not fit the batch
                size or the part, or images of several hosts are to be mixed.
        """
        split, part = self.dataset.splits["train"], part or Part()
        self._augment.reject_mix_of(part.workers)
        if self._lanes > 1 and not isinstance(split, RecordSplit):
            raise ReszooError(
                f"data.lanes: {self._lanes} is invalid for {self.dataset.name}; expected 1, "
                "because its images can be read in any order. Example: --set data.lanes=1"
            )
        runs = [
            self._train_at(size, split, part, first).take(count)
            for first, count, size in self._runs_of_one_size(start_step)
        ]
        batches = functools.reduce(lambda run, following: run.concatenate(following), runs)
        ordered: Batches = keep_order(batches.prefetch(tf.data.AUTOTUNE))
        return ordered

    def _runs_of_one_size(self, start: int) -> Iterator[tuple[int, int, tuple[int, int]]]:
        """Yield (first step, steps, size) from a step on; the last has no end, which is -1."""
        ends = [*list(self.train_sizes)[1:], FOREVER]
        for (first, size), end in zip(self.train_sizes.items(), ends, strict=True):
            if start < end:
                first = max(first, start)
                yield first, -1 if end == FOREVER else end - first, size

    def _train_at(
        self, size: tuple[int, int], split: Split, part: Part, start_step: int
    ) -> tf.data.Dataset:
        """Return the batches of a worker's part from a step on, of images of one size."""
        whole = isinstance(self._augment, ScaleCrop | InceptionCrop)
        fits = self._fits_input(split) and not whole
        preprocessing = at_size(self.preprocessing, size, cropped=fits)
        augmentation, order = self._augmentation(preprocessing), self._order
        if fits and size == self.preprocessing.image_size:
            steps = tf.data.Dataset.range(start_step, FOREVER)
            return gather_batches(split, order, part, augmentation, steps)
        return stream_batches(split, order, part, augmentation, start_step, self._lanes)

    def rows(self, step: int) -> int:
        """Return how many rows the whole training batch of a step has."""
        first = step % self.steps_per_epoch * self._batch_size
        return min(self._batch_size, self.info.examples["train"] - first)

    def evaluation(self, split: str, part: Part | None = None) -> Batches:
        """Return the batches of a split without augmentation: each example once, in stored order.

        Args:
            split: The name of the split.
            part: On several hosts, whose part to return: worker w of W reads batches w, w + W, ...

        Raises:
            ReszooError: If the dataset lacks the split.
        """
        source, apply = self.dataset.split(split), self.preprocessing.apply

        def load_batch(elements: Tensor) -> Batch:
            images, labels = source.load(elements)
            return apply(images), labels

        elements, size = source.elements(), self._batch_size
        whole = part or Part()
        dealt = elements.batch(size).shard(whole.workers, whole.worker)
        if self._fits_input(source):
            batches = dealt.map(load_batch, num_parallel_calls=tf.data.AUTOTUNE)
        else:
            load = resized_loader(source, self.preprocessing)
            elements = dealt.unbatch() if part else elements
            examples = elements.map(load, num_parallel_calls=tf.data.AUTOTUNE)
            batches = examples.batch(size).map(lambda images, labels: (apply(images), labels))
        ordered: Batches = keep_order(batches.prefetch(tf.data.AUTOTUNE))
        return ordered

    def sample(self, split: str, count: int) -> tuple[list[Array | bytes], Array]:
        """Return at most `count` examples of a split as stored, spread evenly over it.

        Returns:
            Images, each uint8 [h, w, c] or the bytes of a JPEG or PNG file (other formats are
            decoded), and labels, int32 [n] or float32 [n, classes].

        Raises:
            ReszooError: If the dataset lacks the split.
        """
        source = self.dataset.split(split)
        chosen = source.elements().shard(-(-source.count // count), 0).map(unpacked(source.load))
        examples = list(chosen.as_numpy_iterator())
        labels = np.array([label for _, label in examples])
        return [_to_portable(image) for image, _ in examples], labels

    def explain(self, error: BaseException) -> ReszooError | None:
        """Return the one-line reason for an error that a batch raised; None if not the images'."""
        return explain_error(self.dataset, error)

    def _labels(self) -> Array:
        split = self.dataset.splits["train"]
        if not isinstance(split, ArraySplit | FileSplit):
            raise ReszooError(
                f'data.sampler: "balanced" is invalid for {self.dataset.name}, whose images are '
                'streamed in stored order; expected "shuffle". Example: --set data.sampler=shuffle'
            )
        return split.labels

    def _fits_input(self, split: Split) -> bool:
        """Return whether a split is in memory at the input's size."""
        shape = self.preprocessing.input_shape
        return isinstance(split, ArraySplit) and split.images.shape[1:] == shape

    def _augmentation(self, preprocessing: Preprocessing | None = None) -> BatchAugmentation:
        chosen = preprocessing or self.preprocessing
        return BatchAugmentation(self._augment, chosen, self._order, self.info.classes)


def _to_portable(image: Any) -> Array | bytes:
    """Return an image as an export takes it: an array, or the bytes of a JPEG or PNG file."""
    if not isinstance(image, bytes):
        return np.asarray(image)
    return image if find_format(image[:START]) in ("JPEG", "PNG") else decode_pixels(image)
