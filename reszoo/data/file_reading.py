"""Decode the image files of a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from reszoo.data.dataset import ArraySplit, FileSplit, encode_paths
from reszoo.errors import ReszooError
from reszoo.images.decoding import decode_file
from reszoo.images.formats import printable
from reszoo.images.preprocessing import Preprocessing
from reszoo.lazy import tf
from reszoo.types import Array, Tensor


def find_shape(splits: Iterable[FileSplit], sample: int = 64) -> tuple[int, int, int]:
    """Return (height, width, channels) of a dataset.

    The size is that of the first file that can be decoded. There are 3 channels unless `sample`
    files, spread evenly, are all gray: a few gray files among many in color are common.
    """
    paths = np.concatenate([split.paths for split in splits])
    size, color = None, False
    for path in paths[np.unique(np.linspace(0, len(paths) - 1, sample).astype(int))]:
        try:
            image = decode_file(tf.io.read_file(os.fsencode(path)), 3).numpy()
        except tf.errors.OpError:
            continue
        size = size or (image.shape[0], image.shape[1])
        color = color or bool((image != image[..., :1]).any())
    if size is None:
        raise ReszooError(
            f"none of {min(sample, len(paths))} files tried can be decoded, "
            f"{printable(paths[0])!r} among them"
        )
    return (*size, 3 if color else 1)


def read_files(
    splits: Mapping[str, FileSplit], preprocessing: Preprocessing, *, resized: bool
) -> tuple[dict[str, ArraySplit], list[str]]:
    """Decode every file into memory at the input's size.

    Args:
        splits: The files.
        preprocessing: The input's size.
        resized: Whether the recipe gives a size. If not, all images must have the input's size.

    Returns:
        The decoded splits, and the paths that cannot be decoded.

    Raises:
        ReszooError: If a file has another size.
    """
    bad: list[str] = []
    arrays: dict[str, ArraySplit] = {}
    for name, files in splits.items():
        images = np.empty((files.count, *preprocessing.input_shape), np.uint8)
        read = np.zeros(files.count, bool)
        for indices, shapes, batch in _decode(files.paths, preprocessing):
            images[indices], read[indices] = batch, True
            odd = np.flatnonzero((shapes != preprocessing.image_size).any(axis=1))
            if len(odd) and not resized:
                height, width = shapes[odd[0]]
                raise ReszooError(
                    f"{printable(files.paths[indices[odd[0]]])} is {height}x{width} where others "
                    f"are {'x'.join(map(str, preprocessing.image_size))}; expected one size. "
                    "Example: --set data.image_size=[224,224]"
                )
        bad += list(files.paths[~read])
        arrays[name] = ArraySplit(images, files.labels)
        if not read.all():
            arrays[name] = arrays[name].take(np.flatnonzero(read))
    return arrays, bad


def _decode(paths: Array, preprocessing: Preprocessing) -> Iterator[tuple[Array, Array, Array]]:
    """Yield batches of (indices, original sizes [n, 2], images at input size) of whole files."""

    def load(index: Tensor, path: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image = decode_file(tf.io.read_file(path), preprocessing.channels)
        return index, tf.shape(image)[:2], preprocessing.to_input(image)

    numbered = tf.data.Dataset.from_tensor_slices(encode_paths(paths)).enumerate()
    decoded = numbered.map(load, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors().batch(256)
    batches: Iterator[tuple[Array, Array, Array]] = decoded.prefetch(2).as_numpy_iterator()
    return batches


def find_corrupt(paths: Array) -> list[str]:
    """Decode every file, in parallel; return those that cannot be decoded."""
    return decode_all(paths)[0]


def decode_all(paths: Array) -> tuple[list[str], Array]:
    """Decode every file, in parallel.

    Returns:
        The paths that cannot be decoded, and the size of each other image, int [n, (h, w)].
    """

    def load(index: Tensor, path: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # A pixel is returned too: an image that nothing uses would not be decoded.
        image = decode_file(tf.io.read_file(path), 3)
        return index, tf.shape(image)[:2], image[0, 0, 0]

    if not len(paths):
        return [], np.empty((0, 2), int)
    numbered = tf.data.Dataset.from_tensor_slices(encode_paths(paths)).enumerate()
    decoded = numbered.map(load, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    found = [(index, size) for index, size, _ in decoded.as_numpy_iterator()]
    sizes = np.array([size for _, size in found], int).reshape(-1, 2)
    return list(np.delete(paths, np.array([index for index, _ in found], int))), sizes
