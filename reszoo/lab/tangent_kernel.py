"""Neural tangent kernels of infinitely wide ReLU models, by their recursions over depth.

Weights have variance 2 / width. Inputs have norm 1, so a kernel is a function of their cosine; each
kernel here is divided by its value for equal inputs.

Reference: arXiv 1806.07572 (plain models) and 2002.06262 (residual models).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reszoo.data.embedded import load_digits
from reszoo.lab.statistics import round_numbers
from reszoo.types import Array, JsonObject

DEPTHS = (1, 4, 16, 64, 256, 1024)
RIDGE = 1e-6
ANGLES = 20_001
SCALES = {"plain": None, "residual": -1.0, "residual_unscaled": 0.0}
"""Powers of the depth by which branches are scaled; None for a plain model."""


def activation_moments(cosine: Array) -> tuple[Array, Array]:
    """Return 2 E[relu(a) relu(b)] and 2 E[a > 0 and b > 0] of normal a, b of a correlation.

    Reference: arc-cosine kernels of order 1 and 0, Cho and Saul 2009.
    """
    cosine = np.clip(cosine, -1, 1)
    angle = np.pi - np.arccos(cosine)
    return (np.sqrt(1 - cosine**2) + cosine * angle) / np.pi, angle / np.pi


def plain_kernel(cosine: Array, depth: int) -> Array:
    """Return the kernel of a plain model of `depth` hidden layers and a linear classifier."""
    kernel = cosine
    for _ in range(depth):
        cosine, active = activation_moments(cosine)
        kernel = cosine + kernel * active
    return kernel / (depth + 1)


def residual_kernel(cosine: Array, depth: int, scale: float) -> Array:
    """Return the kernel of x + scale V relu(W x), `depth` times, between fixed linear layers.

    Args:
        cosine: Cosines of pairs of inputs.
        depth: The number of blocks.
        scale: The factor of each branch.
    """
    kernel, square = np.zeros_like(cosine), scale**2
    for _ in range(depth):
        value, active = activation_moments(cosine)
        # In units of the mean square, which grows by 1 + scale^2 per block.
        gained = square * (value + cosine * active)
        kernel = ((1 + square * active) * kernel + gained) / (1 + square)
        cosine = (cosine + square * value) / (1 + square)
    return kernel * (1 + square) / (2 * square * depth)


def measure_kernels(depths: Sequence[int] = DEPTHS) -> JsonObject:
    """Measure kernels of several depths on the digits.

    Returns:
        `depths`, and for each kind of model `mean` and `deviation` of the kernel of two different
        training images, `change` (the largest difference from the kernel of the least depth), and
        `error` (of kernel regression on the test images, in percent).
    """
    splits = load_digits()
    images = [splits[split].images.reshape(splits[split].count, -1) for split in ("train", "test")]
    train, test = (each / np.linalg.norm(each.astype(float), axis=1)[:, None] for each in images)
    targets, labels = np.eye(10)[splits["train"].labels] - 0.1, splits["test"].labels
    # Gray values are not negative, and neither are cosines.
    grid = np.linspace(0, np.pi / 2, ANGLES)
    own, other = (np.arccos(np.clip(each @ train.T, 0, 1)) for each in (train, test))
    np.fill_diagonal(own, 0)
    pairs = np.triu_indices(len(own), 1)
    found: JsonObject = {"depths": list(depths)}
    for kind, power in SCALES.items():
        rows, first = [], None
        for depth in depths:
            cosines = np.cos(grid)
            if power is None:
                curve = plain_kernel(cosines, depth)
            else:
                curve = residual_kernel(cosines, depth, float(depth) ** power)
            first = curve if first is None else first
            kernel, between = np.interp(own, grid, curve), np.interp(other, grid, curve)
            weights = np.linalg.solve(kernel + RIDGE * np.eye(len(kernel)), targets)
            rows.append(
                {
                    "mean": kernel[pairs].mean(),
                    "deviation": kernel[pairs].std(),
                    "change": np.abs(kernel - np.interp(own, grid, first)).max(),
                    "error": 100 * np.mean(np.argmax(between @ weights, 1) != labels),
                }
            )
        found[kind] = {key: round_numbers(row[key] for row in rows) for key in rows[0]}
    return found
