"""Real images for the comparison with Keras and for the ranges of "int8"."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from reszoo.config.data import NoCrop
from reszoo.data.catalog import name_data
from reszoo.data.pipeline import Pipeline, open_dataset
from reszoo.errors import ChangedDataError, ReszooError
from reszoo.evaluation.evaluate import BATCH, other_data
from reszoo.evaluation.source import Source
from reszoo.images.preprocessing import Preprocessing
from reszoo.types import Array

CHECKED = 500  # test images, at most, that an export is compared on
CALIBRATED = 256  # training images, at most, that ranges are measured on


@dataclass(frozen=True, eq=False)
class Sample:
    """Some images.

    Attributes:
        images: Each uint8 [h, w, c] or the bytes of a file.
        labels: Their classes, int [n], or None.
        origin: What they are, for people.
    """

    images: Sequence[Array | bytes]
    labels: Array | None
    origin: str

    def inputs(self, preprocessing: Preprocessing) -> Array:
        """Return the images in the size of the input: uint8 [n, height, width, channels]."""
        spec = tf.TensorSpec((None, None, preprocessing.channels), tf.uint8)
        resize = tf.function(preprocessing.to_input, input_signature=[spec])
        return np.stack([resize(preprocessing.pixels(one)).numpy() for one in self.images])


@dataclass(frozen=True)
class Samples:
    """The images of an export.

    Attributes:
        check: To compare on; None for photographs.
        calibration: To measure ranges on, if the precision is "int8".
        note: Why the images are not the run's own, if they are not.
    """

    check: Sample | None = None
    calibration: Sample | None = None
    note: str = ""


def choose_samples(
    source: Source, preprocessing: Preprocessing, data: str | None, *, calibrate: bool
) -> Samples:
    """Return the test and training images of `data`, by default those of the run.

    Raises:
        ReszooError: The images that were named cannot be read, the run's own have changed, or they
            cannot be read and are needed to measure ranges.
    """
    run = source.run
    own = run.recipe.data if run else None
    data = name_data(data) if data else None
    if data is None and own is None:
        return Samples()
    try:
        pipeline = _open(source, preprocessing, data)
    except ChangedDataError:
        raise
    except (ReszooError, OSError) as error:
        if data is not None or calibrate:
            raise
        return Samples(note=str(error))
    check = draw(pipeline, "test", CHECKED)
    if pipeline.info.class_names not in (source.class_names, source.class_ids):
        check = dataclasses.replace(check, labels=None)
    return Samples(check, draw(pipeline, "train", CALIBRATED) if calibrate else None)


def _open(source: Source, preprocessing: Preprocessing, data: str | None) -> Pipeline:
    """Open the run's own pipeline if its images are asked for as they are, else a dataset."""
    run = source.run
    own = run.recipe.data if run else None
    if run and own and preprocessing is source.preprocessing and data in (None, own.name):
        try:
            return run.open_pipeline()
        except ChangedDataError:
            if data is None:
                raise
    name = data or (own.name if own else "")
    config = other_data(name, own, preprocessing)
    pipeline = open_dataset(config, NoCrop(), batch_size=BATCH, seed=0)
    if run and data is None:
        run.reject_other_data(pipeline.info, counts=False)
    return pipeline


def draw(pipeline: Pipeline, split: str, count: int) -> Sample:
    """Return at most `count` images of a split, evenly spread over it."""
    images, labels = pipeline.sample(split, count)
    total = pipeline.info.examples[split]
    amount = f"all {total}" if len(images) == total else f"{len(images)} of {total}"
    origin = f"{remove_folders(pipeline.info.name)}, {split}, {amount} images"
    return Sample(images, labels, origin)


def photographs(count: int = 32) -> Sample:
    """Return parts of scikit-learn's two photographs, in several scales; always the same."""
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    whole = load_sample_images().images
    images = []
    for number in range(count):
        image = whole[number % len(whole)]
        side = int(random.integers(128, min(image.shape[:2]) + 1))
        top, left = (int(random.integers(0, length - side + 1)) for length in image.shape[:2])
        part = image[top : top + side, left : left + side]
        images.append(np.ascontiguousarray(part[:, ::-1] if number % 4 > 1 else part))
    return Sample(images, None, f"{count} parts of scikit-learn's two photographs")


def drawings(preprocessing: Preprocessing) -> list[Array]:
    """Return smooth random images, uint8 [h, w, c], in three sizes; always the same."""
    random = np.random.default_rng(0)
    height, width, channels = preprocessing.input_shape
    images = []
    for size in ((height, width), (height + 7, 2 * width + 3), (3 * height + 1, width)):
        coarse = random.uniform(0, 255, (1, 5, 5, channels))
        large = tf.image.resize(coarse, size, method="bilinear")
        images.append(tf.cast(large, tf.uint8).numpy()[0])
    return images


def remove_folders(value: Any) -> Any:
    """Return a JSON value whose absolute paths are cut to their last part."""
    if isinstance(value, dict):
        return {key: remove_folders(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [remove_folders(one) for one in value]
    if isinstance(value, str):
        path = re.fullmatch(r"(folder:)?/.*?([^/]*)/*", value, re.DOTALL)
        return (path[1] or "") + path[2] if path else value
    return value
