"""Which weights a model holds: the raw weights in a training step, the averages everywhere else."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from reszoo.lazy import tf
from reszoo.types import Array


class WeightAverages:
    """Exchanges the raw weights of a model with their running averages, and back.

    Between `show` and `hide` the model holds the averages, which are evaluated, saved and exported.
    Code that runs there may write to the model. `hide` takes such a value as the weight's value and
    as its average.

    Args:
        weights: The weights that have averages.
        averages: One variable per weight, or no variables if the run does not average.
    """

    def __init__(self, weights: Sequence[keras.Variable], averages: Sequence[tf.Variable]) -> None:
        self._pairs = list(zip(weights, averages, strict=True)) if averages else []
        self._raw: list[Array] = []

    def show(self) -> None:
        """Put the averages into the model. Does nothing if they are there already."""
        if not self._raw:
            self._raw = [weight.numpy() for weight, _ in self._pairs]
            for weight, average in self._pairs:
                weight.assign(average.numpy())

    def hide(self) -> None:
        """Put the raw weights back, except where the model does not hold the averages any more."""
        if not self._raw:
            return
        for (weight, average), raw in zip(self._pairs, self._raw, strict=True):
            value = weight.numpy()
            if np.array_equal(value, average.numpy(), equal_nan=True):
                weight.assign(raw)
            else:
                average.assign(value)
        self._raw = []

    def forget(self) -> None:
        """Drop the raw weights, because the variables have new values, as from a checkpoint."""
        self._raw = []
