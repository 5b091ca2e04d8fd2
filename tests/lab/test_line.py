"""Polynomials and stacks on a line, against least squares by NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from reszoo.lab.line import COUNTS, fit_polynomials, make_points, train_line_stacks
from reszoo.lab.stacks import RESIDUAL_ZERO


def test_polynomials_are_least_squares_and_go_wild_on_noise_alone() -> None:
    curves = fit_polynomials(2)
    found = {(curve["degree"], curve["points"], curve["noise"]): curve for curve in curves}
    grid = np.linspace(-1, 1, 1001)
    for (degree, count, noise), curve in found.items():
        if degree > 15:  # there powers of x lose all digits
            continue
        for seed in range(2):
            x, y = make_points(count, noise, seed)
            weights = np.linalg.lstsq(np.vander(x, degree + 1), y, rcond=None)[0]
            training = np.mean((np.vander(x, degree + 1) @ weights - y) ** 2)
            fresh = np.mean((np.vander(grid, degree + 1) @ weights - grid) ** 2) + noise**2
            assert curve["training"][seed] == pytest.approx(training, rel=1e-4, abs=1e-15)
            assert curve["fresh"][seed] == pytest.approx(fresh, rel=1e-4, abs=1e-15)
    for count in COUNTS:
        assert max(found[count - 1, count, 0.1]["training"]) < 1e-12
        assert max(found[count - 1, count, 0.0]["fresh"]) < 1e-12
    assert min(found[31, 32, 0.1]["fresh"]) > 1e6
    x, y = make_points(32, 0.1, 0)
    assert np.ptp(np.diff(x)) < 1e-12 and 0.05 < np.std(y - x) < 0.15


def test_errors_of_a_stack_that_stays_the_identity_are_those_of_the_points() -> None:
    for fit in train_line_stacks(RESIDUAL_ZERO, depth=2, seeds=2, steps=1, rate=1e-30)["fits"]:
        for seed in range(2):
            x, y = make_points(fit["points"], fit["noise"], seed)
            error = pytest.approx(np.mean((x - y) ** 2), rel=1e-4, abs=1e-12)
            assert fit["training"][seed] == error
        assert fit["fresh"] == pytest.approx([fit["noise"] ** 2] * 2, abs=1e-9)
