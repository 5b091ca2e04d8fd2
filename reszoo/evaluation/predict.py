"""What a trained net sees in image files of any size."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reszoo.errors import ReszooError
from reszoo.evaluation.inputs import Images, list_images
from reszoo.evaluation.source import Named, open_source
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

BATCH = 64

# A file of 16 bits per channel without a value above this holds the values of a 12-bit camera or scanner.
RANGE_DARK = 2**12


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The classes most probable for one image, best first, and their probabilities (0..1).

    path: the image file; for an image that was given as an array or bytes, its place among the images, such as "[2]".
    """

    path: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, fit for JSON."""
        return asdict(self)


@explain_keywords
@fixed_settings()
def predict(
    net: Named, images: Images, *, top: int = 5, weights: str | None = None
) -> list[Prediction]:
    """Classify images with a trained net, in the order given.

    net: a run or its folder, a net's name, whose published `weights` (by default its first) are taken, or a model built with
    such.
    images: a file, a folder (its images by name, sub-folders included), the bytes of a file, an array of pixels 0..255
    ([h, w], [h, w, c] or [n, h, w, c]), a Pillow image, or a list of these. Files are JPEG, PNG, BMP, WebP, TIFF,
    or the first frame of a GIF.
    top: how many classes to give for each image, at most all there are. Images are prepared as in evaluation.
    Raises ReszooError for a net that is none of these or not finished and, before anything is computed, for files that cannot be
    read as an image, by name.
    """
    if top < 1:
        raise ReszooError(f"top must be at least 1, got {top}")
    files = list_images(images)
    source = open_source(net, weights)
    preprocessing, names = source.preprocessing, source.class_names
    inputs, unreadable = [], []
    for file in files:
        try:
            read = file.read(lambda path: read_image(path, preprocessing), preprocessing.from_image)
            inputs.append(read.numpy())
        except ReszooError as error:
            unreadable.append(str(error))
    if unreadable:
        count = (
            f"{len(unreadable)} of {len(files)} images cannot be read: " if len(files) > 1 else ""
        )
        more = f"; and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
        raise ReszooError(count + "; ".join(unreadable[:3]) + more)
    model = source.load()
    compiled = tf.function(
        lambda images: tf.nn.softmax(tf.cast(model(images, training=False), tf.float32)),
        input_signature=[tf.TensorSpec((None, *preprocessing.input_shape), tf.float32)],
    )
    predictions = []
    for start in range(0, len(files), BATCH):
        rows = compiled(np.stack(inputs[start : start + BATCH])).numpy()
        for file, row in zip(files[start : start + BATCH], rows, strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            labels, probabilities = (
                tuple(names[i] for i in best),
                tuple(float(row[i]) for i in best),
            )
            predictions.append(
                Prediction(path=file.name, labels=labels, probabilities=probabilities)
            )
    return predictions


def read_image(path: Path, preprocessing: Preprocessing) -> Any:
    """Return one image file as a model's input, float32 [height, width, channels]; ReszooError when it is not an image.

    The pixels are those of training and evaluation, and of an export where it reads the format.
    """
    shown = printable(str(path))
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise ReszooError(f"{shown}: {error.strerror}") from error
    if find_format(contents[:START]) is None:
        raise ReszooError(
            f"{shown}: {explain_damage(path)}; expected a file in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        )
    try:
        height, width, _ = read_layout(contents)
        if height * width > MAX_PIXELS:
            raise ReszooError(
                f"{shown}: {height * width:,} pixels are more than the {MAX_PIXELS:,} that are read; make it smaller"
            )
        values = value_range(path) if may_have_16_bits(contents[:START]) else None
        if values and 0 < values[1] < RANGE_DARK:
            raise ReszooError(
                f"{shown}: 16 bits per channel with no value above {values[1]} is invalid, because it would be nearly black; "
                "expected values up to 65535. Example: multiply its values, or save it with 8 bits"
            )
        return preprocessing.from_image(preprocessing.pixels(contents))
    except ReszooError:
        raise
    except (tf.errors.OpError, ValueError) as error:
        raise ReszooError(f"{shown}: cannot be decoded: {explain_damage(path)}") from error
