"""Linear residual layers against what can be derived by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reszoo.lab.linear import HESSIAN_SIZE, hessian_at_zero, learn, linear, random_map


def test_the_hessian_at_zero_is_that_of_the_paper() -> None:
    """By hand: over two layers its eigenvalues are plus and minus the singular values of the error.

    Over one layer a single block has the identity as Hessian; over three it is zero.
    """
    error = np.eye(HESSIAN_SIZE) - random_map(7)[:HESSIAN_SIZE, :HESSIAN_SIZE]
    singular = np.linalg.svd(error, compute_uv=False)
    for blocks in (1, 3):
        found = hessian_at_zero(2, blocks)
        assert found["largest"] == pytest.approx(singular[0], rel=1e-5)
        assert found["condition"] == pytest.approx(singular[0] / singular[-1], rel=1e-4)
    assert hessian_at_zero(1, 1)["condition"] == pytest.approx(1, abs=1e-5)
    assert hessian_at_zero(1, 4)["condition"] > hessian_at_zero(1, 2)["condition"] > 2
    flat = hessian_at_zero(3, 2)
    assert flat["largest"] < 1e-5 and flat["condition"] == np.inf


def test_a_scaled_identity_is_shared_equally() -> None:
    """The product of depth equal layers I + A is 2 I for A = (2^(1/depth) - 1) I, the least norm."""
    for depth in (2, 6):
        error, norm = learn(2 * np.eye(4), depth, "residual", 0)
        assert error < 1e-12
        assert norm == pytest.approx(2 ** (1 / depth) - 1, rel=0.01)


def test_linear_leaves_a_record_and_a_report(tmp_path: Path) -> None:
    record = linear(tmp_path / "out", depths=(2, 3), seeds=1, quiet=True)
    found = record["results"]["measures"]
    assert found["two_layer_condition_ratio"] == pytest.approx(1, abs=1e-4)
    assert found["residual_error"] < 1e-6
    assert {"record.json", "report.html", "norms.png", "hessians.png"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
