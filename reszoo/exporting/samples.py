"""Real images: what an export is checked on, and what the ranges of a quantised net are found on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from reszoo.data.pipeline import Pipeline
from reszoo.data.preprocessing import Preprocessing

CHECKED = 500
"""Images of the evaluation set that an export is compared with Keras on, at most."""
CALIBRATED = 256
"""Training images that the ranges of activations are found on, at most."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Pictures, uint8 [h, w, c] or the bytes of image files, their classes (int [n], or None), and what they are, in words."""

    pictures: Sequence[np.ndarray | bytes]
    labels: np.ndarray | None
    origin: str

    def inputs(self, preprocessing: Preprocessing) -> np.ndarray:
        """Return the pictures as a net is given them, before normalisation: uint8 [n, height, width, channels]."""
        shape = (None, None, preprocessing.channels)
        sized = tf.function(
            preprocessing.to_input, input_signature=[tf.TensorSpec(shape, tf.uint8)]
        )
        return np.stack([sized(preprocessing.pixels(one)).numpy() for one in self.pictures])


def draw(pipeline: Pipeline, split: str, count: int) -> Sample:
    """Return at most `count` images of a part, evenly spread over it."""
    pictures, labels = pipeline.sample(split, count)
    total = pipeline.info.examples[split]
    said = f"all {total}" if len(pictures) == total else f"{len(pictures)} of {total}"
    return Sample(
        pictures, labels, f"{without_folders(pipeline.info.name)}, {split}, {said} images"
    )


def photographs(count: int = 32) -> Sample:
    """Return parts of the two photographs that scikit-learn brings, at several scales, mirrored and not; always the same."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    whole = load_sample_images().images
    pictures = []
    for number in range(count):
        image = whole[number % len(whole)]
        side = int(rng.integers(128, min(image.shape[:2]) + 1))
        top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape[:2])
        part = image[top : top + side, left : left + side]
        pictures.append(np.ascontiguousarray(part[:, ::-1] if number % 4 > 1 else part))
    return Sample(pictures, None, f"{count} parts of scikit-learn's two photographs")


def drawings(preprocessing: Preprocessing) -> list[np.ndarray]:
    """Return smooth random images of the input's own size, wider and taller; uint8 [h, w, c], always the same."""
    rng = np.random.default_rng(0)
    height, width, channels = preprocessing.input_shape
    images: list[np.ndarray] = []
    for size in ((height, width), (height + 7, 2 * width + 3), (3 * height + 1, width)):
        coarse = rng.uniform(0, 255, (1, 5, 5, channels))
        images.append(
            tf.cast(tf.image.resize(coarse, size, method="bilinear"), tf.uint8).numpy()[0]
        )
    return images


def encode(image: Any) -> bytes:
    """Return a picture as a file that holds the same pixels: uint8 [h, w, 1 or 3] as PNG."""
    contents: bytes = tf.io.encode_png(image).numpy()
    return contents


def without_folders(value: Any) -> Any:
    """Return a value fit for JSON, its absolute paths cut to their last part: what is handed over tells nothing of where it was made."""
    if isinstance(value, dict):
        return {key: without_folders(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(one) for one in value]
    if isinstance(value, str) and (
        found := re.fullmatch(r"(folder:)?/.*?([^/]*)/*", value, re.DOTALL)
    ):
        return (found[1] or "") + found[2]
    return value
