"""Logical CPU devices stand in for GPUs; one strategy over two of them serves nearly the whole session."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import reszoo  # noqa: F401  (sets what TensorFlow reads when it loads)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session", autouse=True)
def two_devices() -> None:
    """Divide the CPU into three devices, of which all tests but those of three replicas use two."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)


@pytest.fixture(scope="session")
def strategy(two_devices: None) -> object:
    """A MirroredStrategy over both devices: the one the command line opens for `--devices cpu:2`."""
    from reszoo.training.devices import open_strategy

    return open_strategy("cpu:2")


@pytest.fixture(autouse=True)
def default_policy() -> Iterator[None]:
    """Put Keras' dtype policy back after each test that used Keras."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside a developer's checkout, or a skip."""
    root = Path(os.environ.get("RESZOO_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root} (set RESZOO_TEST_DATA)")
    return root
