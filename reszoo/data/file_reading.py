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


def find_shape(
    splits: Iterable[FileSplit], largest: int, sample: int = 64
) -> tuple[tuple[int, int, int], str]:
    """Return (height, width, channels) for the images of a dataset, and why in words.

    `sample` files, spread evenly, are decoded. Their size is kept if more than half of them have it
    and no side is longer than `largest`. Otherwise the images become squares, whose side is the
    median of the shorter sides, cut to a multiple of 8, and at most `largest`. There are 3 channels
    unless all are gray: a few gray files among many in color are common.
    """
    paths = np.concatenate([split.paths for split in splits])
    sizes, color = [], False
    for path in paths[np.unique(np.linspace(0, len(paths) - 1, sample).astype(int))]:
        try:
            image = decode_file(tf.io.read_file(os.fsencode(path)), 3).numpy()
        except tf.errors.OpError:
            continue
        sizes.append(image.shape[:2])
        color = color or bool((image != image[..., :1]).any())
    if not sizes:
        raise ReszooError(
            f"none of {min(sample, len(paths))} files tried can be decoded, "
            f"{printable(paths[0])!r} among them"
        )
    unique, counts = np.unique(sizes, axis=0, return_counts=True)
    height, width = unique[counts.argmax()].tolist()
    if 2 * counts.max() <= len(sizes) or max(height, width) > largest:
        side = min(largest, int(np.median(np.min(sizes, axis=1))))
        height = width = side - side % 8 if side > 8 else side
    low, high = unique.min(axis=0), unique.max(axis=0)
    found = " x ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in zip(low, high, strict=True))
    return (height, width, 3 if color else 1), f"{height}x{width}, found from images of {found}"


def read_files(
    splits: Mapping[str, FileSplit], preprocessing: Preprocessing, *, resized: bool = True
) -> tuple[dict[str, ArraySplit], list[str]]:
    """Decode every file into memory at the input's size.

    Args:
        splits: The files.
        preprocessing: The input's size.
        resized: Whether images may have another size than the input.

    Returns:
        The decoded splits, and the paths that cannot be decoded.

    Raises:
        ReszooError: If a file has another size and must not.
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
                size, expected = (
                    "x".join(map(str, each)) for each in (shapes[odd[0]], preprocessing.image_size)
                )
                raise ReszooError(
                    f"{printable(files.paths[indices[odd[0]]])} is {size}; expected {expected}"
                )
        bad += list(files.paths[~read])
        arrays[name] = ArraySplit(images, files.labels, files.paths)
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
