"""Logical CPU devices stand in for GPUs; one strategy over two of them serves nearly the whole session."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session", autouse=True)
def undrawn_figures() -> Iterator[None]:
    """Write the text of a run's figures instead of drawing them, which takes half a second per run and more.

    `plots._save.__wrapped__` draws; tests/evaluation/test_plots.py uses it.
    """
    from matplotlib.text import Text

    from reszoo.evaluation import plots

    @functools.wraps(plots._save)
    def save(figure: Any, path: str) -> None:
        text = "\n".join(each.get_text() for each in figure.findobj(Text))
        for suffix in (".png", ".svg"):
            Path(path).with_suffix(suffix).write_text(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "_save", save)
        yield


@pytest.fixture(scope="session", autouse=True)
def exports_run_here(two_devices: None) -> Iterator[None]:
    """Run each export for its check in this process, and for its speed once: a fresh interpreter takes four seconds.

    `parity._run.__wrapped__` starts one; tests/exporting uses it.
    """
    from reszoo.errors import ReszooError
    from reszoo.exporting import parity

    @functools.wraps(parity._run)
    def run(kind: str, export: Path, folder: Path) -> dict[str, Any]:
        try:
            return parity.reload.PROGRAMS[kind](str(export), folder)
        except Exception as error:
            raise ReszooError(str(error)) from error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "_run", run)
        patch.setattr(parity.reload, "SECONDS", 0)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside a developer's checkout, or a skip."""
    root = Path(os.environ.get("RESZOO_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root} (set RESZOO_TEST_DATA)")
    return root
