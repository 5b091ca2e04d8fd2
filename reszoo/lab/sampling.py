"""Images on which an experiment measures a model."""

from __future__ import annotations

import numpy as np

from reszoo.data.pipeline import Pipeline
from reszoo.types import Array


def sample_images(pipeline: Pipeline, split: str, wanted: int) -> Array:
    """Return up to `wanted` preprocessed images of a split, float32 [n, h, w, c].

    They are evenly spaced, so that a dataset sorted by class gives images of all classes.
    """
    count = pipeline.info.examples[split]
    chosen = set(np.linspace(0, count - 1, min(wanted, count)).astype(int).tolist())
    kept, seen = [], 0
    for images, _ in pipeline.evaluation(split).as_numpy_iterator():
        kept += [image for index, image in enumerate(images, seen) if index in chosen]
        seen += len(images)
    return np.stack(kept)
