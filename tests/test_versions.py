"""Recorded versions come from the modules: TensorFlow's module can come from `tensorflow-cpu`, or from a bare folder."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import reszoo
from reszoo.bench import tensorflow_sides
from reszoo.bench.child import open_side
from reszoo.bench.sides import Job
from reszoo.exporting.formats import FORMATS
from reszoo.versions import module_versions

ROOT = Path(__file__).parents[1]
STACK = {
    "reszoo": reszoo.__version__,
    "tensorflow": tf.__version__,
    "keras": keras.__version__,
    "numpy": np.__version__,
}


# Hides every distribution but tensorflow-cpu, here and, as sitecustomize.py, in the processes started from here.
HIDE = """
import importlib.metadata

real = importlib.metadata.distribution

def distribution(name):
    if name.lower().replace("_", "-") in ("reszoo", "tensorflow", "keras", "numpy", "ai-edge-litert", "onnx"):
        raise importlib.metadata.PackageNotFoundError(name)
    return real("tensorflow" if name == "tensorflow-cpu" else name)

importlib.metadata.distribution = distribution
"""


@pytest.fixture
def only_tensorflow_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An environment as in the CPU image, where the distribution `tensorflow` is not installed."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(HIDE)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH') or ROOT}")
    monkeypatch.setattr(
        importlib.metadata, "distribution", importlib.metadata.distribution
    )  # put back afterwards
    exec(HIDE, {})
    code = "import importlib.metadata; importlib.metadata.version('tensorflow')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip().endswith(
        "PackageNotFoundError: No package metadata was found for tensorflow"
    )
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("tensorflow")


def test_a_module_is_asked_for_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "no_version", types.ModuleType("no_version"))
    assert module_versions("numpy", "no_version") == {
        "numpy": np.__version__,
        "no_version": "unknown",
    }


@pytest.mark.usefixtures("only_tensorflow_cpu")
def test_training_and_its_export_work_with_tensorflow_cpu_alone(tmp_path: Path) -> None:
    settings = [
        "model.name=resnet8",
        "train.epochs=1",
        "schedule.warmup=0",
        "data.examples=64",
        "data.validation=0",
    ]
    run = reszoo.train(
        "quickstart", overrides=settings, run_dir=tmp_path / "run", devices="cpu", quiet=True
    ).run
    assert {name: run.meta["versions"][name] for name in STACK} == STACK
    card = json.loads((run.path / "export" / "card.json").read_text())
    assert card["exported_with"] == {
        name: STACK[name] for name in ("reszoo", "tensorflow", "keras")
    }


@pytest.mark.usefixtures("only_tensorflow_cpu")
@pytest.mark.parametrize("name", FORMATS)
def test_an_export_records_the_versions_of_its_runtime(name: str) -> None:
    modules = [pytest.importorskip(module) for module in FORMATS[name].needs]
    found = module_versions("reszoo", "tensorflow", "keras", *FORMATS[name].needs)
    assert all(found[module.__name__] == module.__version__ for module in modules)


@pytest.mark.usefixtures("only_tensorflow_cpu")
def test_a_benchmark_works_with_tensorflow_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow_sides, "INPUT_IMAGES", 256)
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", lambda count: None)
    side = open_side(Job("reszoo", "input", "cifar", 128, 32, 10))
    assert side.versions == STACK
    assert next(side.open_input())[0].shape == (128, 32, 32, 3)


def test_no_module_asks_for_an_installed_distribution() -> None:
    """A distribution's name is a matter of the installation: tensorflow-cpu, tf-nightly, a folder on the path."""
    for path in sorted([*ROOT.glob("reszoo/**/*.py"), *ROOT.glob("tests/bench/*.py")]):
        found = re.findall(
            r"importlib\.metadata|import metadata\b|importlib_metadata|pkg_resources",
            path.read_text(),
        )
        assert not found, f"{path}: {found[0]}; use reszoo.versions.module_versions"
