"""The comparison of an export with Keras notices each wrong output, and runs where Keras cannot be imported."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from reszoo.errors import ReszooError
from reszoo.exporting import parity
from reszoo.exporting.parity import KerasRunner, check_export, run_export


@pytest.fixture(scope="module")
def honest(exported: Any) -> dict[str, np.ndarray]:
    """What the export really computes for its sample."""
    seen: dict[str, np.ndarray] = {}

    def record(kind: str, export: Path, folder: Path) -> dict[str, np.ndarray]:
        seen.update(run_export(kind, export, folder))
        return seen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "run_export", record)
        found = check(exported)
    assert found.probability_difference < 1e-5 and found.agreement == 1
    return seen


def check(exported: Any, kind: str = "savedmodel", sample: Any = None) -> parity.Check:
    path, sample = exported.out / "1", sample or exported.sample
    return check_export(kind, path, exported.model, exported.preprocessing, sample)


def answer(patch: pytest.MonkeyPatch, outputs: dict[str, np.ndarray]) -> None:
    copy = {name: value.copy() for name, value in outputs.items()}
    patch.setattr(parity, "run_export", lambda kind, export, folder: copy)


@pytest.mark.parametrize(
    ("output", "row", "value", "message"),
    [
        ("bytes/probabilities", 3, math.nan, "differ from the Keras model's by inf"),
        ("float-0001/probabilities", 0, 2.0, "differ from the Keras model's by"),
        ("bytes/status", 0, 1, "misjudges which files are images: status 1 for file 0"),
        ("bytes/status", -1, 0, "misjudges which files are images"),
    ],
)
def test_each_wrong_output_is_noticed(
    output: str,
    row: int,
    value: float,
    message: str,
    honest: dict[str, np.ndarray],
    exported: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer(monkeypatch, honest)
    check(exported).require("float32")
    spoilt = {name: one.copy() for name, one in honest.items()}
    spoilt[output][row] = value
    answer(monkeypatch, spoilt)
    with pytest.raises(ReszooError, match=message):
        check(exported).require("float32")


def test_agreement_and_accuracy_are_those_of_the_export(
    honest: dict[str, np.ndarray], exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the Keras model's: the export's answer to the second of three images is spoilt here."""
    images = slice(6, 9)  # after three drawings as PNG and as JPEG; a broken file is last
    best = honest["bytes/probabilities"][images].argmax(1)
    sample = dataclasses.replace(exported.sample, labels=best)
    spoilt = {name: one.copy() for name, one in honest.items()}
    rows = spoilt["bytes/probabilities"][images]
    rows[1] = np.roll(rows[1], 1)
    answer(monkeypatch, spoilt)
    found = check(exported, sample=sample)
    assert (found.images, found.what) == (3, "mine")
    assert (found.agreement, found.accuracy, found.keras_accuracy) == (2 / 3, 2 / 3, 1.0)
    with pytest.raises(ReszooError, match="differ from the Keras model's"):
        found.require("float32")


def test_an_export_in_8_bits_must_have_the_first_classes(
    exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the answers spoilt, as by a quantization that went wrong."""
    sample = dataclasses.replace(exported.sample, images=exported.sample.images[:2], labels=None)
    outputs = KerasRunner(exported.model, exported.preprocessing)(
        sample.inputs(exported.preprocessing)
    )
    given = np.concatenate(
        [np.roll(outputs.probabilities[:1], 1, axis=1), outputs.probabilities[1:]]
    )
    answer(monkeypatch, {"pixels/logits": outputs.logits, "pixels/probabilities": given})
    line = (
        r"50.0 % of the exported model's decisions are the Keras model's .* at least 90 % in int8"
    )
    with pytest.raises(ReszooError, match=line):
        check(exported, "litert", sample).require("int8")


def test_a_model_that_tensorflow_alone_cannot_run_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "runtimes.py"
    script.write_text("raise SystemExit('no such op')")
    monkeypatch.setattr(parity.runtimes, "__file__", str(script))
    with pytest.raises(
        ReszooError, match="TensorFlow alone cannot load the exported .*: no such op"
    ):
        run_export("savedmodel", tmp_path, tmp_path)


def test_a_diverged_model_is_an_error(exported: Any) -> None:
    copy = keras.models.clone_model(exported.model)
    copy.layers[-1].bias.assign(np.full(12, np.nan))
    pixels = np.zeros((1, 12, 10, 3), np.uint8)
    with pytest.raises(ReszooError, match="not finite numbers; did its training diverge"):
        KerasRunner(copy, exported.preprocessing)(pixels)


@pytest.mark.parametrize("kind", ["savedmodel", "litert", "onnx"])
def test_an_export_runs_where_its_makers_cannot_be_imported(kind: str, tmp_path: Path) -> None:
    """Or an export that needs them would pass."""
    program = f"""
import runpy, sys
found = runpy.run_path({str(parity.runtimes.__file__)!r})
def tried(export, folder):
    return {{name: name in sys.modules and sys.modules[name] is None for name in ("keras", "tf_keras", "reszoo", "tensorflow")}}
found["PROGRAMS"][{kind!r}] = tried
found["main"]({kind!r}, "", {str(tmp_path)!r})
"""
    subprocess.run([sys.executable, "-P", "-c", program], check=True)
    with np.load(tmp_path / "outputs.npz") as blocked:
        assert {name: bool(value) for name, value in blocked.items()} == {
            "keras": True, "tf_keras": True, "reszoo": True, "tensorflow": kind != "savedmodel",
        }  # fmt: skip
