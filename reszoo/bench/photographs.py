"""Photographs that input pipelines are measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_sample_images


def write_photographs(folder: Path, count: int = 256) -> None:
    """Write JPEG files of about 75 kB, enlarged parts of two photographs, in two classes."""
    whole = load_sample_images().images
    random = np.random.default_rng(0)
    for number in range(count):
        top, left = int(random.integers(0, 60)), int(random.integers(0, 90))
        part = whole[number % 2][top : top + 367, left : left + 550]
        large = tf.clip_by_value(tf.image.resize(part, (400, 600), method="bicubic"), 0, 255)
        path = folder / "train" / f"class{number % 2}" / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_jpeg(tf.cast(large, tf.uint8), quality=93).numpy())
