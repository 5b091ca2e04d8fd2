"""Which weights a model holds: raw weights inside a training step, averaged weights wherever somebody can see the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class WeightAverages:
    """Exchanges the raw weights of a model with their running averages, and back.

    Between `show` and `hide` the model holds the averages, which are evaluated, saved and exported.
    Code that runs there may write to the model. `hide` treats such a value as the weight's value and as its average.

    Args:
        weights: The weights that have averages.
        averages: One variable per weight, or no variables if the run does not average.
    """

    def __init__(self, weights: Sequence[Any], averages: Sequence[Any]) -> None:
        self._pairs = list(zip(weights, averages, strict=True)) if averages else []
        self._raw: list[np.ndarray] = []

    def show(self) -> None:
        """Put the averages into the model. Does nothing if they are there already."""
        if not self._raw:
            self._raw = [weight.numpy() for weight, _ in self._pairs]
            for weight, average in self._pairs:
                weight.assign(average.numpy())

    def hide(self) -> None:
        """Put the raw weights back, except where the model no longer holds the averages that `show` put there."""
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
        """Drop the raw weights: the variables were given new values, as by a checkpoint."""
        self._raw = []
