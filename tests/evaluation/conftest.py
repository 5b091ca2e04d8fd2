"""The run's model in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from reszoo.training.run import Run
from reszoo.types import Array

Classify: TypeAlias = Callable[[Array], Array]


@pytest.fixture(scope="session")
def classify(digits_run: Path) -> Classify:
    """Probabilities [n, 10] of gray images [n, 8, 8], 0..255, by NumPy."""
    run = Run.open(digits_run)
    kernel, bias = run.load_model().get_weights()

    def compute(images: Array) -> Array:
        inputs = np.asarray(images, float)[..., None] / 255 - run.preprocessing.mean
        exponents = np.exp(inputs.reshape(len(inputs), -1) @ kernel.astype(float) + bias)
        return exponents / exponents.sum(1, keepdims=True)

    return compute
