"""Weights in half precision: which, and how they are rounded."""

from __future__ import annotations

import numpy as np

SMALL = 1024
"""Numbers in a tensor below which half precision saves nothing worth having."""


def to_half(values: np.ndarray) -> np.ndarray:
    """Return float16, what is too large for it at its ends."""
    ends = np.finfo(np.float16)
    return np.clip(values, ends.min, ends.max).astype(np.float16)
