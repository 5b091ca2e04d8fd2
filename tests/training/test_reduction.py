"""The sums over workers: a step on several hosts equals a step on as many replicas of one host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training import step_cases
from tests.training.pairs import Processes

FAST = ("all", "adamw", "float32 local", "bfloat16", "overflow 1")
SLOW = [case for case in step_cases.ALL if case not in FAST]


def run_workers(folder: Path, cases: Any, count: int = 2) -> Path:
    """Run cases on several workers, and on as many replicas of one process.

    The replicas are not those of this process: another test may have made its operations
    deterministic, which changes the last digits.
    """
    with Processes(folder, count) as processes:
        processes.start_all("tests.training.step_cases", str(folder), *cases)
        assert processes.wait_all() == [0] * count
    with Processes(folder / "replicas", 0) as alone:
        alone.start_alone(
            "tests.training.step_cases", f"cpu:{count}", "0", str(folder / "replicas"), *cases
        )
        assert alone.wait_all() == [0]
    return folder


def load(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_workers(tmp_path_factory.mktemp("fast"), FAST)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_workers(tmp_path_factory.mktemp("slow"), SLOW)


@pytest.mark.parametrize(
    "case", [*FAST, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_two_workers_equal_two_replicas(case: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue("fast" if case in FAST else "slow")
    expected = load(folder / "replicas" / f"{case}-0.npz")
    assert len(expected) > 20
    for index in range(2):
        found = load(folder / f"{case}-{index}.npz")
        assert sorted(found) == sorted(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.slow
def test_three_workers_equal_three_replicas(tmp_path: Path) -> None:
    """To the order of additions in the ring of three."""
    run_workers(tmp_path, ("all", "adamw"), 3)
    for case in ("all", "adamw"):
        expected = load(tmp_path / "replicas" / f"{case}-0.npz")
        for index in range(3):
            found = load(tmp_path / f"{case}-{index}.npz")
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12)
