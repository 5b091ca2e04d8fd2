"""Read images in batches, as pixels of the size of a model's input."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from reszoo.errors import ReszooError
from reszoo.evaluation.inputs import Images, Item, iterate_images
from reszoo.images.bit_depth import may_have_16_bits, value_range
from reszoo.images.formats import (
    FORMATS,
    MAX_PIXELS,
    START,
    explain_damage,
    find_format,
    printable,
    read_layout,
)
from reszoo.images.preprocessing import Preprocessing
from reszoo.lazy import tf
from reszoo.types import Array

T = TypeVar("T")

DARK = 2**12  # a file of 16 bits per channel without larger values holds those of a 12-bit camera
NAMED_FILES = 3  # unreadable files that an error names


def read_batches(
    images: Images, preprocessing: Preprocessing, size: int
) -> Iterator[list[tuple[str, Array | ReszooError]]]:
    """Read images in batches; an iterator is read as its images are needed.

    Args:
        images: As for `predict`.
        preprocessing: Of the model.
        size: Images per batch.

    Yields:
        For each image of a batch its name, and uint8 [height, width, channels] or the error if it
        cannot be read.

    Raises:
        ReszooError: A folder holds no image, or something is not an image.
    """

    def read(item: Item) -> tuple[str, Array | ReszooError]:
        try:
            if item.pixels is not None:
                return item.name, np.asarray(preprocessing.to_input(item.pixels))
            with item.open_file() as path:
                return item.name, read_pixels(path, preprocessing, item.name)
        except ReszooError as error:
            return item.name, error

    items = iterate_images(images)
    with ThreadPoolExecutor() as pool:
        while batch := list(itertools.islice(items, size)):
            yield list(pool.map(read, batch))


def require_all(results: Sequence[T | ReszooError]) -> list[T]:
    """Return results without errors. Raises ReszooError if images cannot be read."""
    if unreadable := [str(result) for result in results if isinstance(result, ReszooError)]:
        of_all = f"{len(unreadable)} of {len(results)} images cannot be read: "
        more = len(unreadable) - NAMED_FILES
        raise ReszooError(
            (of_all if len(results) > 1 else "")
            + "; ".join(unreadable[:NAMED_FILES])
            + (f"; and {more} more" if more > 0 else "")
        )
    return [result for result in results if not isinstance(result, ReszooError)]


def read_pixels(path: Path, preprocessing: Preprocessing, name: str = "") -> Array:
    """Read one image file in the size of a model's input.

    The pixels are those of training, evaluation, and an export that reads the format.

    Args:
        path: The file.
        preprocessing: Of the model.
        name: The name of the file in messages; by default its path.

    Returns:
        uint8 [height, width, channels].

    Raises:
        ReszooError: The file is not an image, is damaged, or has more than `MAX_PIXELS` pixels.
    """
    shown = printable(name or str(path))
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise ReszooError(f"{shown}: {error.strerror}") from error
    start = contents[:START]
    if find_format(start) is None:
        formats = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise ReszooError(f"{shown}: {explain_damage(path)}; expected a file in {formats}")
    try:
        height, width, _ = read_layout(contents)
        if height * width > MAX_PIXELS:
            raise ReszooError(
                f"{shown}: {height * width:,} pixels are more than the {MAX_PIXELS:,} that are "
                "read; make it smaller"
            )
        values = value_range(path) if may_have_16_bits(start) else None
        if values and 0 < values[1] < DARK:
            raise ReszooError(
                f"{shown}: 16 bits per channel with no value above {values[1]} is invalid, because "
                "it would be nearly black; expected values up to 65535. Example: multiply its "
                "values, or save it with 8 bits"
            )
        return np.asarray(preprocessing.to_input(preprocessing.pixels(contents)))
    except (tf.errors.OpError, ValueError) as error:
        if isinstance(error, ReszooError):
            raise
        raise ReszooError(f"{shown}: cannot be decoded: {explain_damage(path)}") from error
