"""Means over seeds, and differences of two recipes paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1) of one value per seed.

    Attributes:
        count: Number of seeds.
        mean: Their mean.
        std: None for a single seed.
    """

    count: int
    mean: float
    std: float | None


@dataclass(frozen=True)
class Difference:
    """The mean of differences of two recipes, paired by seed.

    Attributes:
        seeds: The seeds that both have.
        mean: Mean of second - first.
        interval: Its t interval of `CONFIDENCE`; None for a single pair.
    """

    seeds: tuple[int, ...]
    mean: float
    interval: tuple[float, float] | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def summarize(values: Sequence[float]) -> Summary:
    """Return mean and sample standard deviation of at least one value."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(len(values), float(np.mean(values)), std)


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """Return the difference second - first of values by seed; None without a common seed.

    The interval assumes that the differences of the seeds are independent and nearly normal. It
    does not cover the choice of test images, which is the same for every seed.
    """
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        return None
    found = summarize([second[seed] - first[seed] for seed in seeds])
    interval = None
    if found.std is not None:
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, found.count - 1))
        half *= found.std / float(np.sqrt(found.count))
        interval = (found.mean - half, found.mean + half)
    return Difference(seeds, found.mean, interval)
