"""Images on which an experiment measures a model."""

from __future__ import annotations

import numpy as np

from reszoo.data.pipeline import Pipeline
from reszoo.types import Array


def sample_images(pipeline: Pipeline, split: str, wanted: int) -> Array:
    """Return up to `wanted` preprocessed images of a split, float32 [n, h, w, c].

    They are evenly spaced, so that a dataset sorted by class gives images of all classes.
    """
    return sample_examples(pipeline, split, wanted)[0]


def sample_examples(pipeline: Pipeline, split: str, wanted: int) -> tuple[Array, Array]:
    """Return the images of `sample_images`, and their labels [n]."""
    count = pipeline.info.examples[split]
    chosen = set(np.linspace(0, count - 1, min(wanted, count)).astype(int).tolist())
    images, labels, seen = [], [], 0
    for batch, classes in pipeline.evaluation(split).as_numpy_iterator():
        kept = [index for index in range(len(batch)) if seen + index in chosen]
        images.append(batch[kept])
        labels.append(classes[kept])
        seen += len(batch)
    return np.concatenate(images), np.concatenate(labels)
