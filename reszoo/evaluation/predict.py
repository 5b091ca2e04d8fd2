"""What a trained net sees in image files of any size."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reszoo.data.header import MAX_PIXELS, pixel_count
from reszoo.data.preprocessing import Preprocessing
from reszoo.errors import ReszooError
from reszoo.evaluation.source import Given, open_source
from reszoo.lazy import tf
from reszoo.nets.settings import fixed_settings

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The classes most probable for one image, best first, and their probabilities (0..1)."""

    path: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, fit for JSON."""
        return asdict(self)


@fixed_settings()
def predict(
    net: Given, paths: Iterable[str | os.PathLike[str]], *, top: int = 5, weights: str | None = None
) -> list[Prediction]:
    """Classify image files (JPEG, PNG, BMP, or the first frame of a GIF) with a trained net, in the order given.

    net: a run or its folder, a net's name, whose published `weights` (by default its first) are taken, or a model built with
    such.
    top: how many classes to give for each image, at most all there are. Images are prepared as in evaluation.
    Raises ReszooError for a net that is none of these or not finished and, before anything is computed, for files that cannot be
    read as an image, by name.
    """
    if top < 1:
        raise ReszooError(f"top must be at least 1, got {top}")
    files = [Path(path) for path in paths]
    source = open_source(net, weights)
    preprocessing, names = source.preprocessing, source.class_names
    inputs, unreadable = [], []
    for file in files:
        try:
            inputs.append(read_image(file, preprocessing).numpy())
        except ReszooError as error:
            unreadable.append(str(error))
    if unreadable:
        count = f"{len(unreadable)} of {len(files)} images cannot be read: " if len(files) > 1 else ""
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
            labels, probabilities = tuple(names[i] for i in best), tuple(float(row[i]) for i in best)
            predictions.append(Prediction(path=str(file), labels=labels, probabilities=probabilities))
    return predictions


def read_image(path: Path, preprocessing: Preprocessing) -> Any:
    """Return one image file as a net's input, float32 [height, width, channels]; ReszooError when it is no image."""
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise ReszooError(f"{path}: {error.strerror}") from error
    if contents[:2] == b"BM" and int.from_bytes(contents[28:30], "little") < 24:
        raise ReszooError(f"{path}: a BMP with a palette is not understood; save it as PNG")
    try:
        if contents[:3] == b"\xff\xd8\xff" or contents[:8] == b"\x89PNG\r\n\x1a\n":
            if (count := int(pixel_count(contents))) > MAX_PIXELS:
                raise ReszooError(
                    f"{path}: {count:,} pixels are more than the {MAX_PIXELS:,} that are read; make it smaller"
                )
            return preprocessing.from_bytes(contents)  # as in an export, to the bit
        return preprocessing.from_image(tf.io.decode_image(contents, channels=3, expand_animations=False))
    except ReszooError:
        raise
    except (tf.errors.OpError, ValueError) as error:
        raise ReszooError(f"{path}: no JPEG, PNG, BMP or GIF image, or a damaged one") from error
