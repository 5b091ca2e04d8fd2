"""The sets that need no files: scikit-learn's digits, and synthetic images."""

from __future__ import annotations

import math

import numpy as np

from reszoo.data.parts import Arrays, ImageSet, Part
from reszoo.data.splits import rest, stratified

# A fifth of the digits, each class in proportion: the usual share, as the set comes without a test part.
DIGITS_TEST = 360

# What `synthetic` is unless the recipe gives another size.
SYNTHETIC_SHAPE = (32, 32, 3)
SYNTHETIC_CLASSES = 10
SYNTHETIC_COUNTS = {"train": 1024, "test": 256}


def load_digits() -> ImageSet:
    """Return scikit-learn's 1,797 handwritten digits, uint8 [8, 8, 1]: 1,437 to train and 360, fixed and stratified, to test.

    The source's grey values 0 ... 16 are spread over 0 ... 255.
    """
    from sklearn.datasets import load_digits as load

    bunch = load()
    images = np.round(bunch.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
    whole = Arrays(images, bunch.target.astype(np.int32))
    test = stratified(whole.labels, DIGITS_TEST)
    parts: dict[str, Part] = {
        "train": whole.take(rest(whole.count, test)),
        "test": whole.take(test),
    }
    return ImageSet("digits", tuple(str(d) for d in range(10)), parts)


def load_synthetic(shape: tuple[int, int, int] | None = None) -> ImageSet:
    """Return 1,024 + 256 made-up images, uint8 [h, w, c] of `shape` (32, 32, 3), in ten classes: stripes of ten directions.

    Phase and noise differ from image to image, so that no linear model tells the classes apart but a small net does.
    """
    height, width, channels = shape or SYNTHETIC_SHAPE
    y, x = np.mgrid[:height, :width] / max(height, width)
    parts: dict[str, Part] = {}
    for number, (part, count) in enumerate(SYNTHETIC_COUNTS.items()):
        random = np.random.RandomState(number)
        labels = (np.arange(count) % SYNTHETIC_CLASSES).astype(np.int32)
        images = np.empty((count, height, width, channels), np.uint8)
        for i, label in enumerate(labels):
            angle = math.pi * label / SYNTHETIC_CLASSES
            wave = np.sin(
                2 * math.pi * (4 * (x * math.cos(angle) + y * math.sin(angle)) + random.rand())
            )
            noise = random.randint(-48, 49, (height, width, channels))
            images[i] = np.clip(127.5 + 64 * wave[..., np.newaxis] + noise, 0, 255)
        parts[part] = Arrays(images, labels)
    names = tuple(f"stripes_{18 * c:03d}" for c in range(SYNTHETIC_CLASSES))
    return ImageSet("synthetic", names, parts)
