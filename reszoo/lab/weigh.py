"""What the measurements of an experiment share: which images are looked at, and when a difference counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reszoo.data.pipeline import Pipeline


def direction(differences: Sequence[float]) -> int:
    """Return 1 or -1 where differences, one a seed, are clearly above or below 0, else 0.

    Clearly: all have that sign and their mean is beyond two standard errors of itself. One alone counts by its sign.
    """
    points = np.asarray(differences, np.float64)
    error = points.std(ddof=1) / np.sqrt(len(points)) if len(points) > 1 else 0.0
    agreed = len(set(np.sign(points))) == 1
    return int(np.sign(points[0])) if agreed and abs(points.mean()) > 2 * error else 0


def sample(pipeline: Pipeline, split: str, wanted: int) -> np.ndarray:
    """Return up to `wanted` images of a split, evenly spaced, as a net takes them: of all classes, also where it is sorted by class."""
    count = pipeline.info.examples[split]
    chosen = set(np.linspace(0, count - 1, min(wanted, count)).astype(int).tolist())
    kept, seen = [], 0
    for images, _ in pipeline.evaluation(split).as_numpy_iterator():
        kept += [image for index, image in enumerate(images, seen) if index in chosen]
        seen += len(images)
    return np.stack(kept)
