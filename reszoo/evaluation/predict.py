"""Classify images of any size with a trained model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from reszoo.errors import ReszooError
from reszoo.evaluation.inputs import Images, Item, iterate_images
from reszoo.evaluation.source import Named, Source, open_source
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
from reszoo.keywords import explain_keywords
from reszoo.lazy import tf
from reszoo.models.settings import fixed_settings
from reszoo.types import Array, JsonObject, Tensor

BATCH = 64
DARK = 2**12  # a file of 16 bits per channel without larger values holds those of a 12-bit camera
NAMED_FILES = 3  # unreadable files that an error names


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The most probable classes of one image.

    Attributes:
        path: The image file; for an array or bytes the index of the image, such as "[2]".
        labels: Class names, the most probable first.
        probabilities: Of these classes, 0..1.
    """

    path: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    def to_dict(self) -> JsonObject:
        """Return the fields for JSON."""
        return asdict(self)


@explain_keywords
def predict(
    model: Named, images: Images, *, top: int = 5, weights: str | None = None
) -> list[Prediction]:
    """Classify images with a trained model.

    Args:
        model: A run or its folder, a model name with published weights, or a model built with them.
        images: A file, a folder (its images by name, with sub-folders), the bytes of a file, an
            array of pixels 0..255 ([h, w], [h, w, c] or [n, h, w, c]), a Pillow image, or a list of
            these. Files are JPEG, PNG, BMP, WebP, TIFF, or the first frame of a GIF. Images are
            prepared as in evaluation.
        top: Classes per image, >= 1; at most all.
        weights: Which published weights, for a model name; by default the model's first.

    Returns:
        One prediction per image, in the given order.

    Raises:
        ReszooError: The model is unknown or not trained to its end, or images cannot be read.
    """
    results = list(predict_each(open_source(model, weights), images, top=top))
    if unreadable := [str(result) for result in results if isinstance(result, ReszooError)]:
        of_all = f"{len(unreadable)} of {len(results)} images cannot be read: "
        more = len(unreadable) - NAMED_FILES
        raise ReszooError(
            (of_all if len(results) > 1 else "")
            + "; ".join(unreadable[:NAMED_FILES])
            + (f"; and {more} more" if more > 0 else "")
        )
    return [result for result in results if isinstance(result, Prediction)]


def predict_each(source: Source, images: Images, *, top: int) -> Iterator[Prediction | ReszooError]:
    """Classify images in batches, and hold one batch in memory.

    Args:
        source: The model.
        images: As for `predict`; an iterator is read as its images are needed.
        top: As for `predict`.

    Yields:
        For each image in the given order its prediction, or the error if it cannot be read.

    Raises:
        ReszooError: As `predict`, except for images that cannot be read.
    """
    if top < 1:
        raise ReszooError(f"top: {top} is invalid; expected an integer >= 1")
    preprocessing, names, items = source.preprocessing, source.class_names, iterate_images(images)

    def read(item: Item) -> Array | ReszooError:
        try:
            return np.asarray(read_item(item, preprocessing))
        except ReszooError as error:
            return error

    with fixed_settings():
        loaded = source.load()
    compute = tf.function(
        lambda inputs: tf.nn.softmax(tf.cast(loaded(inputs, training=False), tf.float32)),
        input_signature=[tf.TensorSpec((None, *preprocessing.input_shape), tf.float32)],
    )
    with ThreadPoolExecutor() as pool:
        while batch := list(itertools.islice(items, BATCH)):
            found = list(pool.map(read, batch))
            inputs = [one for one in found if not isinstance(one, ReszooError)]
            with fixed_settings():
                rows = iter(compute(np.stack(inputs)).numpy() if inputs else ())
            for item, one in zip(batch, found, strict=True):
                if isinstance(one, ReszooError):
                    yield one
                    continue
                row = next(rows)
                best = np.argsort(-row, kind="stable")[:top]
                labels = tuple(names[index] for index in best)
                yield Prediction(
                    path=item.name, labels=labels, probabilities=tuple(row[best].tolist())
                )


def read_item(item: Item, preprocessing: Preprocessing) -> Tensor:
    """Read one image as a model's input; the rest is as in `read_image`."""
    if item.pixels is not None:
        return preprocessing.from_image(item.pixels)
    with item.open_file() as path:
        return read_image(path, preprocessing, item.name)


def read_image(path: Path, preprocessing: Preprocessing, name: str = "") -> Tensor:
    """Read one image file as a model's input.

    The pixels are those of training, evaluation, and an export that reads the format.

    Args:
        path: The file.
        preprocessing: Of the model.
        name: The name of the file in messages; by default its path.

    Returns:
        float32 [height, width, channels].

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
        return preprocessing.from_image(preprocessing.pixels(contents))
    except (tf.errors.OpError, ValueError) as error:
        if isinstance(error, ReszooError):
            raise
        raise ReszooError(f"{shown}: cannot be decoded: {explain_damage(path)}") from error
