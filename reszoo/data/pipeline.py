"""Batches for training and evaluation. Which images, in which order, augmented how, is a function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reszoo.config.data import AugmentConfig, DataConfig, InceptionCrop, ScaleCrop
from reszoo.config.recipe import Recipe
from reszoo.data.augment import (
    mirror,
    mirrored,
    pad_crop_flip,
    pca_noise,
    random_windows,
    take_window,
)
from reszoo.data.corrupt import explain
from reszoo.data.decode import decode_file, find_layout
from reszoo.data.formats import START, decode_pixels, image_format
from reszoo.data.keys import fold, make_key, shuffled
from reszoo.data.parts import Arrays, Files, ImageSet, Part
from reszoo.data.preprocessing import Preprocessing
from reszoo.data.sets import load_set
from reszoo.data.statistics import fitted
from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.weights.transforms import Transforms

# What a key is for: the order of an epoch, the crop of an example, the changes to a batch.
ORDER, EXAMPLE, BATCH = range(3)

FOREVER = 2**62  # steps, or epochs, of a stream without end


@dataclass(frozen=True)
class DataInfo:
    """What a dataset is: class names in label order, the model's input shape (h, w, c), and how many examples each split has.

    class_counts: of each split, the number of examples of each class; a split of a streamed dataset whose labels are not known
        beforehand is absent.
    skipped: the files that cannot be decoded and were left out.
    ignored: how many files beside the images were not read, by kind.
    fingerprint: what identifies the images wherever they lie (`reszoo.data.fingerprint`).
    """

    name: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    examples: dict[str, int]
    skipped: tuple[str, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)
    class_counts: dict[str, list[int]] = field(default_factory=dict)
    fingerprint: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, images: ImageSet, preprocessing: Preprocessing) -> DataInfo:
        """Describe a set whose images become the net's input by `preprocessing`."""
        counts = {split: part.count for split, part in images.parts.items()}
        return cls(
            name=images.name,
            class_names=images.class_names,
            input_shape=preprocessing.input_shape,
            examples={split: counts.get(split, 0) for split in ("train", "validation", "test")},
            skipped=images.skipped,
            ignored=dict(images.ignored),
            class_counts={
                split: np.bincount(part.labels, minlength=len(images.class_names)).tolist()
                for split, part in images.parts.items()
                if isinstance(part, Arrays | Files)
            },
            fingerprint=images.fingerprint,
        )

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {
            "name": self.name,
            "classes": self.classes,
            "class_names": list(self.class_names),
            "input_shape": list(self.input_shape),
            "examples": self.examples,
            "class_counts": self.class_counts,
            "skipped": list(self.skipped),
            "ignored": self.ignored,
            "fingerprint": dict(self.fingerprint),
        }


def open_pipeline(recipe: Recipe, *, batch_size: int | None = None) -> Pipeline:
    """Open a recipe's dataset.

    Args:
        recipe: The recipe; its paths absolute where it will be stored.
        batch_size: Images per batch in place of the recipe's.

    Raises:
        ReszooError: If dataset, sizes and augmentation do not fit together.
    """
    return open_dataset(recipe.data, recipe.augment, **recipe.batches(batch_size))


def open_dataset(
    data: DataConfig,
    augment: AugmentConfig,
    *,
    batch_size: int,
    seed: int,
    transforms: Transforms | None = None,
) -> Pipeline:
    """Open a dataset without a recipe.

    Args:
        data: Which dataset, and its splits.
        augment: Random changes to training images.
        batch_size: Images per batch.
        seed: Of order and augmentation.
        transforms: What data.normalize = "weights" stands for.

    Raises:
        ReszooError: If dataset, sizes and augmentation do not fit together.
    """
    images, preprocessing = prepare(
        data, augment, batch_size=batch_size, seed=seed, transforms=transforms
    )
    return Pipeline(images, preprocessing, augment, batch_size=batch_size, seed=seed)


def prepare(
    data: DataConfig,
    augment: AugmentConfig,
    *,
    batch_size: int,
    seed: int,
    transforms: Transforms | None,
) -> tuple[ImageSet, Preprocessing]:
    """Load the set that `data` names, and return it with how its images become the net's input; see `open_dataset`."""
    if batch_size < 1:
        raise ReszooError(f"the batch size must be at least 1, got {batch_size}")
    if not 0 <= seed < 2**63:
        raise ReszooError(f"the seed must be a whole number from 0 to 2**63 - 1, got {seed}")
    images, preprocessing = load_set(data, augment)
    if augment.crop == "scale" and augment.scale[0] < max(preprocessing.image_size):
        raise ReszooError(
            f"augment.scale = {list(augment.scale)} goes below the crop, data.image_size = {list(preprocessing.image_size)}"
        )
    return images, fitted(preprocessing, images.parts["train"], data.normalize, transforms)


class Pipeline:
    """The batches of one set.

    info: what the set is. preprocessing: how an image becomes the net's input at evaluation.
    steps_per_epoch: ceil(training examples / batch size); the last batch of an epoch is short where it does not divide.
    """

    def __init__(
        self,
        images: ImageSet,
        preprocessing: Preprocessing,
        augment: AugmentConfig,
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        self._images, self._augment, self._batch_size, self._seed = (
            images,
            augment,
            batch_size,
            seed,
        )
        self.preprocessing = preprocessing
        self.info = DataInfo.of(images, preprocessing)
        self.steps_per_epoch = -(-self.info.examples["train"] // batch_size)

    def train(self, start_step: int = 0) -> tf.data.Dataset:
        """Training batches without end, from step `start_step` on: (float32 [b, h, w, c], int32 [b]).

        Batch t holds examples (t mod steps_per_epoch) * batch_size ... of epoch t // steps_per_epoch. It depends on nothing but
        the set, the settings, the seed and t, so a stream from step k equals the stream from 0 without its first k batches.

        Raises `ReszooError` for colour noise on inputs in BGR.
        """
        self._check_color()
        part = self._images.parts["train"]
        if self._in_batches(part) and self._augment.crop in ("none", "pad"):
            batches = self._gathered(part, start_step)
        else:
            batches = self._streamed(part, start_step)
        return keep_order(batches.prefetch(tf.data.AUTOTUNE))

    def evaluation(self, split: str) -> tf.data.Dataset:
        """The batches of part `split` (`train`, `validation` or `test`), un-augmented: each example once, in stored order.

        (float32 [b, h, w, c], int32 [b]); the last batch may be short. Raises `ReszooError` for a part that the set lacks.
        """
        part, apply = self._images.part(split), self.preprocessing.apply

        def batch(elements: Any) -> tuple[Any, Any]:
            images, labels = part.load(elements)
            return apply(images), labels

        def example(element: Any) -> tuple[Any, Any]:
            payload, label = part.load(element)
            return self._sized(payload), label

        elements, size = part.elements(None), self._batch_size
        if self._in_batches(part):
            batches = elements.batch(size).map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        else:
            examples = elements.map(_packed(example), num_parallel_calls=tf.data.AUTOTUNE)
            batches = examples.batch(size).map(lambda images, labels: (apply(images), labels))
        return keep_order(batches.prefetch(tf.data.AUTOTUNE))

    def sample(self, split: str, count: int) -> tuple[list[np.ndarray | bytes], np.ndarray]:
        """Return at most `count` examples of a split as they are stored, evenly spread over it.

        Returns:
            Images, each uint8 [h, w, c] or the bytes of a JPEG or PNG file (files of other formats come decoded, upright), and
            labels, int32 [n].

        Raises:
            ReszooError: the dataset lacks the split.
        """
        part = self._images.part(split)
        chosen = part.elements(None).shard(-(-part.count // count), 0).map(_packed(part.load))
        examples = [(_portable(image), label) for image, label in chosen.as_numpy_iterator()]
        return [image for image, _ in examples], np.array(
            [label for _, label in examples], np.int32
        )

    def explain(self, error: BaseException) -> ReszooError | None:
        """The one-line reason for an error that a batch raised, if the images are to blame; else None."""
        return explain(self._images, error)

    def _in_batches(self, part: Part) -> bool:
        return isinstance(part, Arrays) and part.images.shape[1:] == self.preprocessing.input_shape

    def _gathered(self, part: Part, start_step: int) -> tf.data.Dataset:
        """Batches of a part in memory: each is gathered, normalised and augmented as a whole."""
        assert isinstance(part, Arrays)
        images, labels = part.tensors()

        def batch(step: Any) -> tuple[Any, Any]:
            rows = self._rows(step)
            return self._augmented(step, tf.gather(images, rows), tf.gather(labels, rows))

        steps_on = tf.data.Dataset.range(start_step, FOREVER)
        return steps_on.map(batch, num_parallel_calls=tf.data.AUTOTUNE)

    def _rows(self, step: Any) -> Any:
        """Return which training examples batch `step` holds, in order: int64 [b]."""
        count, size, steps = self.info.examples["train"], self._batch_size, self.steps_per_epoch
        first = (step % steps) * size
        positions = tf.range(first, tf.minimum(first + size, tf.constant(count, tf.int64)))
        return shuffled(positions, count, make_key(self._seed, ORDER, step // steps))

    def _check_color(self) -> None:
        """Raise ReszooError for color noise on inputs in BGR."""
        if self._augment.color == "pca" and self.preprocessing.channel_order == "BGR":
            raise ReszooError(
                "augment.color = 'pca' is noise in RGB, but this net's input is in BGR; set augment.color='none'"
            )

    @property
    def _pad(self) -> int:
        return self._augment.pad if self._augment.crop == "pad" else 0

    @property
    def _moves(self) -> bool:
        """Whether input-sized images are cropped or mirrored."""
        return self._augment.crop == "pad" or (self._augment.flip and self._augment.crop == "none")

    def _streamed(self, part: Part, start_step: int) -> tf.data.Dataset:
        """Batches of a part that is decoded or cropped an example at a time."""
        first_epoch, first_batch = divmod(start_step, self.steps_per_epoch)
        size, auto = self._batch_size, tf.data.AUTOTUNE

        def load(*element: Any) -> tuple[Any, Any, Any]:
            payload, label = _packed(part.load)(*element)
            if payload.dtype == tf.string:
                return payload, find_layout(payload), label
            return payload, tf.concat([tf.shape(payload)[:2], [1]], axis=0), label

        def cut(payload: Any, placed: Any, window: Any, turn: Any, label: Any) -> tuple[Any, Any]:
            image = take_window(payload, window, self.preprocessing, placed)
            return mirror(image, turn) if self._augment.flip else image, label

        def sized(*element: Any) -> tuple[Any, Any]:
            payload, label = _packed(part.load)(*element)
            return self._sized(payload), label

        def epoch_batches(epoch: Any) -> tf.data.Dataset:
            batch = tf.where(epoch == first_epoch, tf.constant(first_batch, tf.int64), 0)
            elements = part.elements(make_key(self._seed, ORDER, epoch)).skip(batch * size)
            augment = self._augment
            if not isinstance(augment, ScaleCrop | InceptionCrop):
                return elements.map(sized, num_parallel_calls=auto).batch(size)
            key = make_key(self._seed, EXAMPLE, epoch)

            # Drawn for a batch at once: one by one, windows cost a third of what decoding does.
            def draw(number: Any, loaded: tuple[Any, Any, Any]) -> tuple[Any, Any, Any, Any, Any]:
                payloads, layouts, labels = loaded
                target = self.preprocessing.image_size
                windows = random_windows(layouts[:, :2], augment, target, fold(key, number))
                turns = mirrored(
                    tf.shape(labels)[0],
                    make_key(self._seed, BATCH, epoch * self.steps_per_epoch + number, 1),
                )
                return payloads, layouts, windows, turns, labels

            drawn = (
                elements.map(load, num_parallel_calls=auto).batch(size).enumerate(batch).map(draw)
            )
            return drawn.unbatch().map(cut, num_parallel_calls=auto).batch(size)

        batches = (
            tf.data.Dataset.range(first_epoch, FOREVER)
            .flat_map(epoch_batches)
            .enumerate(start_step)
        )
        return batches.map(
            lambda step, batch: self._augmented(step, *batch), num_parallel_calls=auto
        )

    def _sized(self, payload: Any) -> Any:
        image = (
            decode_file(payload, self.preprocessing.channels)
            if payload.dtype == tf.string
            else payload
        )
        return self.preprocessing.to_input(image)

    def _augmented(self, step: Any, images: Any, labels: Any) -> tuple[Any, Any]:
        """Normalise and augment a batch of input-sized uint8 images."""
        augment = self._augment
        images = self.preprocessing.apply(images)
        if augment.color == "pca":
            images = pca_noise(images, self.preprocessing.std, make_key(self._seed, BATCH, step, 0))
        if self._moves:
            images = pad_crop_flip(
                images, self._pad, augment.flip, make_key(self._seed, BATCH, step, 1)
            )
        return images, labels


def _portable(image: Any) -> np.ndarray | bytes:
    """Return an image as an export takes it: an array, or the bytes of a JPEG or PNG file."""
    if not isinstance(image, bytes):
        return np.asarray(image)
    return image if image_format(image[:START]) in ("JPEG", "PNG") else decode_pixels(image)


def _packed(function: Any) -> Any:
    """Let `function` of one element take a dataset's element whether it is a tuple or not."""
    return lambda *element: function(element if len(element) > 1 else element[0])


def keep_order(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Keep the order of parallel maps whatever the global setting."""
    options = tf.data.Options()
    options.deterministic = True
    return batches.with_options(options)
