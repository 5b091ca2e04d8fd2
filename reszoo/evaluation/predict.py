"""Classify images of any size with a trained model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from reszoo.errors import ReszooError
from reszoo.evaluation.inputs import Images
from reszoo.evaluation.multilabel import to_probabilities
from reszoo.evaluation.reading import read_batches, require_all
from reszoo.evaluation.source import Named, Source, open_source
from reszoo.keywords import explain_keywords
from reszoo.lazy import tf
from reszoo.models.settings import fixed_settings
from reszoo.types import JsonObject

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The most probable classes of one image. If it may have several, each has its own probability.

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
    return require_all(list(predict_each(open_source(model, weights), images, top=top)))


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
    preprocessing, names = source.preprocessing, source.class_names
    with fixed_settings():
        loaded = source.load()
    compute = tf.function(
        lambda inputs: to_probabilities(
            tf.cast(loaded(inputs, training=False), tf.float32), multi_label=source.multi_label
        ),
        input_signature=[tf.TensorSpec((None, *preprocessing.input_shape), tf.float32)],
    )
    for batch in read_batches(images, preprocessing, BATCH):
        pixels = [read for _, read in batch if not isinstance(read, ReszooError)]
        with fixed_settings():
            rows = iter(compute(preprocessing.apply(np.stack(pixels))).numpy() if pixels else ())
        for name, read in batch:
            if isinstance(read, ReszooError):
                yield read
                continue
            row = next(rows)
            best = np.argsort(-row, kind="stable")[:top]
            labels = tuple(names[index] for index in best)
            yield Prediction(path=name, labels=labels, probabilities=tuple(row[best].tolist()))
