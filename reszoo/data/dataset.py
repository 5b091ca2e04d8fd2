"""A dataset and its splits: how many examples a split has, in which order, and how one is read."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from reszoo.data.random_keys import fold_in, shuffle_indices
from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.types import Array, JsonMapping, Tensor

MEMORY_LIMIT = 2**31  # bytes of a dataset's decoded images; a larger dataset is streamed

# TFRecord files cannot be read at random, so a stream is shuffled twice: the order of the files,
# and the records of each window. 16 files are read in turn, so that a window mixes many. Two
# windows (one is read while the other is used) of 2,048 ImageNet photos are about half a gigabyte.
READ_FILES = 16
WINDOW = 2048


class Split(Protocol):
    """What a pipeline needs of a split."""

    @property
    def count(self) -> int:
        """The number of examples."""

    def take(self, indices: Array) -> Split:
        """Return the examples at `indices` (int64, rising) as a split."""

    def elements(self) -> tf.data.Dataset:
        """Return each example's element once, in stored order."""

    def load(self, element: Any) -> tuple[Tensor, Tensor]:
        """Return an element's image (uint8 [h, w, c] or the bytes of a file) and label.

        The label is int32 []; float32 [classes], 0 and 1, if an image may have several classes.
        """


@runtime_checkable
class IndexedSplit(Split, Protocol):
    """A split whose examples can be read in any order."""

    def pick(self, indices: tf.data.Dataset) -> tf.data.Dataset:
        """Return the elements of the examples at `indices`, int64 each."""


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """Images in memory: uint8 [n, h, w, c], their labels, and the files, if they are known.

    Labels are int32 [n], or float32 [n, classes] as `Split.load` returns them.
    """

    images: Array
    labels: Array
    paths: Array | None = None

    @property
    def count(self) -> int:
        """The number of examples."""
        return len(self.labels)

    def take(self, indices: Array) -> ArraySplit:
        """Return the examples at `indices`, int [n]."""
        paths = None if self.paths is None else self.paths[indices]
        return ArraySplit(self.images[indices], self.labels[indices], paths)

    def elements(self) -> tf.data.Dataset:
        """Return the examples' indices."""
        return tf.data.Dataset.range(self.count)

    def pick(self, indices: tf.data.Dataset) -> tf.data.Dataset:
        """Return `indices`."""
        return indices

    def load(self, element: Any) -> tuple[Tensor, Tensor]:
        """Return the image and label of one index, or of several."""
        images, labels = self.tensors()
        return tf.gather(images, element), tf.gather(labels, element)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return images and labels as TensorFlow constants."""
        return _constant(self.images), _constant(self.labels)


@dataclass(frozen=True, eq=False)
class FileSplit:
    """Image files: paths [n] as Python reads them from the file system, and labels.

    Labels are int32 [n], or float32 [n, classes] as `Split.load` returns them.
    """

    paths: Array
    labels: Array

    @property
    def count(self) -> int:
        """The number of examples."""
        return len(self.labels)

    def take(self, indices: Array) -> FileSplit:
        """Return the examples at `indices`, int [n]."""
        return FileSplit(self.paths[indices], self.labels[indices])

    def elements(self) -> tf.data.Dataset:
        """Return (path, label) of each example."""
        return self.pick(tf.data.Dataset.range(self.count))

    def pick(self, indices: tf.data.Dataset) -> tf.data.Dataset:
        """Return (path, label) of the examples at `indices`."""
        paths, labels = _constant(encode_paths(self.paths)), _constant(self.labels)
        return indices.map(lambda i: (tf.gather(paths, i), tf.gather(labels, i)))

    def load(self, element: Any) -> tuple[Tensor, Tensor]:
        """Return the contents of a file and its label."""
        path, label = element
        return tf.io.read_file(path), label


@dataclass(frozen=True, eq=False)
class RecordSplit:
    """Records in TFRecord files.

    Attributes:
        files: Paths of the files.
        skips: For each file, how many of its first records are skipped.
        takes: For each file, how many records follow.
        parse: From a record to (bytes of an image file, label).
    """

    files: tuple[str, ...]
    skips: tuple[int, ...]
    takes: tuple[int, ...]
    parse: Callable[[Tensor], tuple[Tensor, Tensor]]

    @property
    def count(self) -> int:
        """The number of examples."""
        return sum(self.takes)

    def take(self, indices: Array) -> RecordSplit:
        """Return the examples at `indices`, which must be contiguous: files are read forward."""
        start, stop = int(indices[0]), int(indices[-1]) + 1
        assert len(indices) == stop - start
        ends = np.cumsum(self.takes)
        low, high = np.clip(start, ends - self.takes, ends), np.clip(stop, ends - self.takes, ends)
        skips = self.skips + low - (ends - self.takes)
        kept = [
            (f, int(s), int(t)) for f, s, t in zip(self.files, skips, high - low, strict=True) if t
        ]
        files, firsts, takes = zip(*kept, strict=True)
        return RecordSplit(files, firsts, takes, self.parse)

    def elements(self) -> tf.data.Dataset:
        """Return the records in the order of the files."""
        return _slice_files(self.files, self.skips, self.takes).flat_map(_read)

    def shuffled(self, key: Tensor, lane: Tensor | int = 0, lanes: int = 1) -> tf.data.Dataset:
        """Return the records of a lane in the order that `key` (int64 [2]) names.

        `key` names an order of the files. Their records in that order are cut into `lanes` lanes
        of equal size, whatever the files' sizes; each lane is read and shuffled by itself.
        """
        order = shuffle_indices(tf.range(len(self.files), dtype=tf.int64), len(self.files), key)
        columns = (tf.constant(self.skips, tf.int64), tf.constant(self.takes, tf.int64))
        skips, takes = (tf.gather(column, order) for column in columns)
        ends = tf.cumsum(takes)
        begins, lane = ends - takes, tf.cast(lane, tf.int64)
        first, last = (number * self.count // lanes for number in (lane, lane + 1))
        low = tf.minimum(tf.maximum(first, begins), ends)
        high = tf.minimum(tf.maximum(last, begins), ends)
        slices = _slice_files(tf.gather(self.files, order), skips + low - begins, high - low)
        # The order must not depend on the machine's cores or speed: deterministic, a fixed cycle.
        cycle = max(1, READ_FILES // lanes)
        records = slices.filter(lambda file, skip, take: take > 0).interleave(
            _read, cycle_length=cycle, num_parallel_calls=cycle, deterministic=True
        )
        key = key if lanes == 1 else fold_in(key, lane)

        def shuffle(number: Tensor, window: Tensor) -> Tensor:
            size = tf.size(window, out_type=tf.int64)
            return tf.gather(
                window, shuffle_indices(tf.range(size), size, fold_in(key, number + 1))
            )

        # Dataset.shuffle would depend on TensorFlow's global seed.
        window = max(1, WINDOW // lanes)
        return records.batch(window).enumerate().map(shuffle).prefetch(1).unbatch()

    def load(self, element: Any) -> tuple[Tensor, Tensor]:
        """Return the contents of the image file in a record, and its label."""
        return self.parse(element)


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A dataset ready to be read.

    Attributes:
        name: The recipe's `data.name`.
        class_names: In label order.
        splits: `train`, and perhaps `validation` and `test`.
        skipped: Files that cannot be decoded and were skipped.
        ignored: How many files of a folder are not images, by kind.
        fingerprint: What identifies the images wherever they lie (`reszoo.data.fingerprint`),
            before a validation split is held out.
        found_size: The input's size and the sizes that it was found from, or "" if it was given.
    """

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    skipped: tuple[str, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    fingerprint: JsonMapping = field(default_factory=dict)
    found_size: str = ""

    def split(self, name: str) -> Split:
        """Return a split. Raises ReszooError if the dataset lacks it."""
        if name not in self.splits:
            fix = ". Example: --set data.validation=500" if name == "validation" else ""
            raise ReszooError(
                f"{self.name}: no {name!r} split; expected one of {', '.join(self.splits)}{fix}"
            )
        return self.splits[name]


def count_images(labels: Array, classes: int) -> Array:
    """Return how many images each class has, int64 [classes], from the labels of a split."""
    if labels.ndim == 1:
        return np.bincount(labels, minlength=classes)
    return np.asarray(np.count_nonzero(labels, axis=0))


def _slice_files(files: Any, skips: Any, takes: Any) -> tf.data.Dataset:
    """Return the path of each file (string), its records to skip and those to take (int64)."""
    counts = (tf.cast(skips, tf.int64), tf.cast(takes, tf.int64))
    return tf.data.Dataset.from_tensor_slices((tf.convert_to_tensor(files), *counts))


def _read(file: Tensor, skip: Tensor, take: Tensor) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(file).skip(skip).take(take)


def encode_paths(paths: Iterable[str]) -> list[bytes]:
    """Return paths as the bytes by which the file system knows them; they need not be UTF-8."""
    # Not os.fsencode: TensorFlow, tracing a graph, would warn that it cannot convert it.
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    return [path.encode(encoding, errors) for path in paths]


def fits_memory(counts: Iterable[int], shape: tuple[int, int, int]) -> bool:
    """Return whether so many uint8 images of `shape` take at most `MEMORY_LIMIT`."""
    return sum(counts) * math.prod(shape) <= MEMORY_LIMIT


def _constant(values: Array | list[bytes]) -> Tensor:
    # Made outside the graph that is traced, so that the values are its input and not copied into
    # it. On the CPU, where tf.data runs: an eager constant would otherwise go to the first GPU and
    # back for each batch.
    with tf.init_scope(), tf.device("CPU:0"):
        return tf.constant(values)
