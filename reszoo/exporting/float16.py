"""Weights in half precision."""

from __future__ import annotations

import numpy as np

from reszoo.types import Array

SMALL = 1024  # tensors with fewer numbers stay in float32: half precision would save nothing


def to_float16(values: Array) -> Array:
    """Return a large tensor in float16, clipped to its range; a small one unchanged."""
    if values.dtype != np.float32 or values.size < SMALL:
        return values
    ends = np.finfo(np.float16)
    return np.clip(values, ends.min, ends.max).astype(np.float16)
