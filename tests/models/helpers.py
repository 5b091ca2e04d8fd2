"""What the tests of the nets share: small nets, random weights, weights by name."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from reszoo import Spec

BASIC = Spec(
    name="tiny",
    block="basic",
    depths=(2, 1),
    widths=(6, 12),
    stem="cifar",
    stem_width=6,
    shortcut="A",
)
BOTTLENECK = BASIC.replace(block="bottleneck", widths=(4, 8))


def randomize(model: Any, seed: int) -> None:
    """Give every weight a random value, statistics and scales too, such that activations neither vanish nor explode."""
    for layer in model.layers:
        for variable in layer.weights:
            # By name, because two nets may hold the same layers in another order.
            random = np.random.default_rng(
                [seed, zlib.crc32(f"{layer.name}/{variable.name}".encode())]
            )
            shape, kind = tuple(variable.shape), variable.name
            if kind == "moving_variance":
                value = random.uniform(0.5, 2.0, shape)
            elif kind in ("gamma", "gain"):
                value = random.uniform(0.5, 1.5, shape) * random.choice([-1, 1], shape)
            elif kind == "kernel":
                value = random.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
            elif kind in ("moving_mean", "beta", "bias", "alpha", "offset"):
                value = random.normal(0, 0.5, shape)
            else:
                continue  # the state of a random generator
            variable.assign(value)


def by_name(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return a net's weights as {"stage1_block1_conv1/kernel": array, ...} in float64."""
    return {
        f"{layer.name}/{variable.name}": np.asarray(variable.value, np.float64)
        for layer in model.layers
        for variable in layer.weights
        if "seed" not in variable.name
    }


def shapes(model: Any) -> dict[str, list[int]]:
    """Return {"stem_conv1/kernel": [3, 3, 3, 16], ...} in the order of the layers."""
    return {name: list(value.shape) for name, value in by_name(model).items()}


def images(shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def mostly_slow(cases: Sequence[Any], kept: int) -> list[Any]:
    """Return the first `kept` cases for every run of the tests, and the others for slow ones."""
    slow = [pytest.param(*_values(case), marks=pytest.mark.slow) for case in cases[kept:]]
    return [*cases[:kept], *slow]


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
