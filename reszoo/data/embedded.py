"""Datasets without files: scikit-learn's digits, and synthetic images."""

from __future__ import annotations

import math

import numpy as np

from reszoo.data.dataset import ArraySplit
from reszoo.data.holdout import choose_stratified, complement

TEST_DIGITS = 360  # a fifth, each class in proportion: the usual share, as no test split exists
SYNTHETIC_SHAPE = (32, 32, 3)  # unless the recipe gives another
SYNTHETIC_CLASSES = tuple(f"stripes_{angle:03d}" for angle in range(0, 180, 18))
SYNTHETIC_COUNTS = {"train": 1024, "test": 256}


def load_digits() -> dict[str, ArraySplit]:
    """Return scikit-learn's 1,797 handwritten digits, uint8 [8, 8, 1].

    1,437 are for training and 360 for testing, always the same. Gray values 0..16 become 0..255.
    """
    from sklearn.datasets import load_digits as load

    bunch = load()
    images = np.round(bunch.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
    whole = ArraySplit(images, bunch.target.astype(np.int32))
    test = choose_stratified(whole.labels, TEST_DIGITS)
    return {"train": whole.take(complement(whole.count, test)), "test": whole.take(test)}


def load_synthetic(shape: tuple[int, int, int]) -> dict[str, ArraySplit]:
    """Return 1,024 + 256 synthetic images, uint8 of `shape` (h, w, c): stripes in ten directions.

    Phase and noise differ between images, so that a small model separates the classes but a linear
    model does not.
    """
    height, width, channels = shape
    y, x = np.mgrid[:height, :width] / max(height, width)
    splits = {}
    for number, (split, count) in enumerate(SYNTHETIC_COUNTS.items()):
        random = np.random.RandomState(number)
        labels = (np.arange(count) % len(SYNTHETIC_CLASSES)).astype(np.int32)
        images = np.empty((count, *shape), np.uint8)
        for i, label in enumerate(labels):
            angle = math.pi * label / len(SYNTHETIC_CLASSES)
            distance = 4 * (x * math.cos(angle) + y * math.sin(angle))
            wave = np.sin(2 * math.pi * (distance + random.rand()))
            noise = random.randint(-48, 49, (height, width, channels))
            images[i] = np.clip(127.5 + 64 * wave[..., np.newaxis] + noise, 0, 255)
        splits[split] = ArraySplit(images, labels)
    return splits
