"""Means, deviations and paired intervals, against SciPy's own paired t-test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from reszoo.comparison.statistics import paired_difference, summarize


@pytest.mark.parametrize("count", [2, 3, 5, 30])
def test_the_interval_is_that_of_scipys_paired_test(count: int) -> None:
    random = np.random.default_rng(count)
    first, second = random.normal(8.7, 0.2, count), random.normal(8.5, 0.3, count)
    found = paired_difference(
        {seed: float(value) for seed, value in enumerate(first)} | {99: 1e6},
        {seed: float(second[seed]) for seed in reversed(range(count))} | {98: -1e6},
    )
    assert found and found.interval and found.seeds == tuple(range(count))
    test = stats.ttest_rel(second, first)
    expected = test.confidence_interval(0.95)
    assert found.mean == pytest.approx((second - first).mean())
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.is_clear == (test.pvalue < 0.05)


def test_one_pair_has_no_interval_and_no_pair_no_difference() -> None:
    found = paired_difference({0: 9.0, 1: 8.0}, {1: 7.0})
    assert found and found.mean == -1 and found.interval is None and not found.is_clear
    assert paired_difference({0: 9.0}, {1: 7.0}) is None


def test_deviations_are_those_of_a_sample() -> None:
    values = [8.0, 9.0, 9.5]
    found = summarize(values)
    assert (found.count, found.mean) == (3, pytest.approx(np.mean(values)))
    assert found.std == pytest.approx(np.sqrt(np.var(values) * 3 / 2))
    assert summarize([8.0]).std is None
