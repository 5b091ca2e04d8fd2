"""The sums over workers: a step on several hosts equals a step on as many replicas of one host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from reszoo.training.devices import open_strategy
from tests.training import step_cases
from tests.training.pairs import Processes

FAST = ("all", "adamw", "float32 local", "bfloat16", "overflow 1")
SLOW = [case for case in step_cases.ALL if case not in FAST]


def run_workers(folder: Path, cases: Any, count: int = 2) -> Path:
    with Processes(folder, count) as processes:
        processes.start_all("tests.training.step_cases", str(folder), *cases)
        assert processes.wait_all() == [0] * count
    return folder


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_workers(tmp_path_factory.mktemp("fast"), FAST)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_workers(tmp_path_factory.mktemp("slow"), SLOW)


@pytest.mark.parametrize(
    "case", [*FAST, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_two_workers_equal_two_replicas(
    case: str, strategy: tf.distribute.Strategy, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue("fast" if case in FAST else "slow")
    expected = step_cases.run(case, strategy)
    for index in range(2):
        with np.load(folder / f"{case}-{index}.npz") as found:
            assert sorted(found) == sorted(expected)
            for name, value in expected.items():
                np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.slow
def test_three_workers_equal_three_replicas(tmp_path: Path, two_devices: None) -> None:
    """To the order of additions in the ring of three."""
    cases = ("all", "adamw")
    run_workers(tmp_path, cases, 3)
    for case in cases:
        expected = step_cases.run(case, open_strategy("cpu:3"))
        for index in range(3):
            with np.load(tmp_path / f"{case}-{index}.npz") as found:
                for name, value in expected.items():
                    np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12)
