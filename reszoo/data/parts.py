"""One part of a set (train, validation or test), however it is stored: how many examples, in which order, how one is read."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from reszoo.data.keys import fold, shuffled
from reszoo.errors import ReszooError
from reszoo.lazy import tf

# The most that a set's decoded images may take in memory; a larger set is streamed.
MEMORY_LIMIT = 2**31


class Part(Protocol):
    """What a pipeline needs of a part."""

    @property
    def count(self) -> int:
        """The number of examples."""

    def take(self, indices: np.ndarray) -> Part:
        """The part that holds the examples at `indices` (int64, rising), in that order."""

    def elements(self, key: Any | None) -> tf.data.Dataset:
        """Every example's element once: in stored order, or in the order that `key` (int64 [2]) alone determines."""

    def load(self, element: Any) -> tuple[Any, Any]:
        """Turn an element into (image, label): uint8 [h, w, c] or the bytes of an image file, and int32."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images held in memory: uint8 [n, h, w, c] and labels int32 [n]."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def count(self) -> int:
        """The number of examples."""
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Arrays:
        """Return the examples with these indices, int [n]."""
        return Arrays(self.images[indices], self.labels[indices])

    def elements(self, key: Any | None) -> tf.data.Dataset:
        """Return the elements in the order that `key` gives, in their own order for None."""
        return _indices(self.count, key)

    def load(self, element: Any) -> tuple[Any, Any]:
        """Return the image and the label of an element."""
        images, labels = self.tensors()
        return tf.gather(images, element), tf.gather(labels, element)

    def tensors(self) -> tuple[Any, Any]:
        """Images and labels as TensorFlow constants."""
        # Made outside the graph being traced, so that the images are an input of it and not copied into it.
        # On the CPU, where tf.data runs: an eager constant would otherwise go to the first GPU and back for every batch.
        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(self.images), tf.constant(self.labels)


@dataclass(frozen=True, eq=False)
class Files:
    """Image files: paths [n], as Python reads them from the file system, and labels int32 [n]."""

    paths: np.ndarray
    labels: np.ndarray

    @property
    def count(self) -> int:
        """The number of examples."""
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Files:
        """Return the examples with these indices, int [n]."""
        return Files(self.paths[indices], self.labels[indices])

    def elements(self, key: Any | None) -> tf.data.Dataset:
        """Return the elements in the order that `key` gives, in their own order for None."""
        with (
            tf.init_scope(),
            tf.device("CPU:0"),
        ):  # as for Arrays: a million paths are an input of the graph, not a part of it
            paths, labels = tf.constant(encode_paths(self.paths)), tf.constant(self.labels)
        return _indices(self.count, key).map(lambda i: (tf.gather(paths, i), tf.gather(labels, i)))

    def load(self, element: Any) -> tuple[Any, Any]:
        """Return the image and the label of an element."""
        path, label = element
        return tf.io.read_file(path), label


# TFRecord files cannot be read at random, so a stream is shuffled twice: the files' order, and the records of each window. 16
# files are read in turn, so a window mixes many; two windows (one is read while the other is used) of 2,048 ImageNet
# photographs are about half a gigabyte.
READ_FILES = 16
WINDOW = 2048


@dataclass(frozen=True, eq=False)
class Records:
    """Records in TFRecord files, of which file i gives `takes[i]` records after the first `skips[i]`."""

    files: tuple[str, ...]
    skips: tuple[int, ...]
    takes: tuple[int, ...]
    parse: Callable[[Any], tuple[Any, Any]]  # one record -> (bytes of an image file, label)

    @property
    def count(self) -> int:
        """The number of examples."""
        return sum(self.takes)

    def take(self, indices: np.ndarray) -> Records:
        """Return the examples with these indices, int [n]."""
        # Files are read from front to back, so only a contiguous range can be had; every choice made of Records is one.
        start, stop = int(indices[0]), int(indices[-1]) + 1
        assert len(indices) == stop - start
        ends = np.cumsum(self.takes)
        low, high = np.clip(start, ends - self.takes, ends), np.clip(stop, ends - self.takes, ends)
        skips = self.skips + low - (ends - self.takes)
        kept = [
            (f, int(s), int(t)) for f, s, t in zip(self.files, skips, high - low, strict=True) if t
        ]
        files, firsts, takes = zip(*kept, strict=True)
        return Records(files, firsts, takes, self.parse)

    def elements(self, key: Any | None) -> tf.data.Dataset:
        """Return the elements in the order that `key` gives, in their own order for None."""
        files, skips, takes = (
            tf.constant(self.files),
            tf.constant(self.skips, tf.int64),
            tf.constant(self.takes, tf.int64),
        )

        def read(index: Any) -> tf.data.Dataset:
            records = tf.data.TFRecordDataset(tf.gather(files, index))
            return records.skip(tf.gather(skips, index)).take(tf.gather(takes, index))

        order = _indices(len(self.files), key)
        if key is None:
            return order.flat_map(read)
        # deterministic and a fixed cycle: the order must not depend on the machine's cores or speed.
        records = order.interleave(
            read, cycle_length=READ_FILES, num_parallel_calls=READ_FILES, deterministic=True
        )

        def mixed(number: Any, window: Any) -> Any:
            size = tf.size(window, out_type=tf.int64)
            return tf.gather(window, shuffled(tf.range(size), size, fold(key, number + 1)))

        # Not Dataset.shuffle: it takes in TensorFlow's global seed, and refuses a seed in a graph when that is 0.
        return records.batch(WINDOW).enumerate().map(mixed).prefetch(1).unbatch()

    def load(self, element: Any) -> tuple[Any, Any]:
        """Return the image and the label of an element."""
        return self.parse(element)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A set ready to be read: its class names and its parts, of which `validation` and `test` may be absent.

    skipped: the undecodable files left out.
    ignored: how many files of a folder were not read because they are not images, by kind.
    fingerprint: what identifies the images wherever they lie (`reszoo.data.fingerprint`), before a validation part is held out.
    """

    name: str
    class_names: tuple[str, ...]
    parts: dict[str, Part]
    skipped: tuple[str, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    fingerprint: Mapping[str, Any] = field(default_factory=dict)

    def part(self, split: str) -> Part:
        """Return a part. Raises `ReszooError` where the set lacks it."""
        if split not in self.parts:
            hint = "; set data.validation to hold some out" if split == "validation" else ""
            raise ReszooError(
                f"{self.name} has no {split!r} part (it has {', '.join(self.parts)}){hint}"
            )
        return self.parts[split]


def encode_paths(paths: Iterable[str]) -> list[bytes]:
    """Return paths as the bytes that the file system knows them by. TensorFlow takes only these: a name need not be UTF-8."""
    # os.fsencode without its Python function, which TensorFlow, tracing a graph, would warn that it cannot convert.
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    return [path.encode(encoding, errors) for path in paths]


def fits_memory(counts: Iterable[int], shape: tuple[int, int, int]) -> bool:
    """Whether so many uint8 images of `shape` may be held in memory: at most 2 GiB."""
    return sum(counts) * math.prod(shape) <= MEMORY_LIMIT


def _indices(count: int, key: Any | None) -> tf.data.Dataset:
    order = tf.data.Dataset.range(count)
    return order if key is None else order.map(lambda position: shuffled(position, count, key))
