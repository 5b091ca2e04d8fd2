"""Maps and gradients before training, against NumPy and TensorFlow's gradients."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.lab import propagation as lab
from reszoo.lab import tangent_kernel
from reszoo.lab.propagation import gradient_correlation, measure_maps, propagation
from tests.models.helpers import BASIC


@pytest.mark.parametrize("stack", ["plain", "residual"])
def test_the_correlation_is_that_of_automatic_gradients(
    stack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "NEURONS", 8)
    monkeypatch.setattr(lab, "INPUTS", 5)
    draw = np.random.default_rng([0, 3])
    inputs = tf.constant(draw.standard_normal((5, 8)))
    weights = [draw.standard_normal((8, 8)) * np.sqrt(2 / 8) for _ in range(3)]
    readout = draw.standard_normal((1, 8))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        x = inputs
        for matrix in weights:
            branch = tf.nn.relu(x) @ matrix
            x = (x + branch) / np.sqrt(2) if stack == "residual" else branch
        loss = tf.reduce_sum(x * readout)
    gradients = np.asarray(tape.gradient(loss, inputs))
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    expected = (unit @ unit.T)[np.triu_indices(5, 1)].mean()
    assert gradient_correlation(stack, 3, 1) == pytest.approx(expected, rel=1e-9)


def test_maps_add_up_from_block_to_block() -> None:
    """Branches and shortcuts are uncorrelated at first, so mean squares add up, nearly."""
    spec = BASIC.replace(depths=(6,), widths=(32,), stem_width=32, order="pre")
    found = measure_maps(spec, 0)
    total = found["entry"] + np.cumsum(found["branch"])
    np.testing.assert_allclose(found["x"], total, rtol=0.1)
    np.testing.assert_allclose(np.mean(found["branch"]), 1, rtol=0.2)
    keras.utils.set_random_seed(0)
    zero = measure_maps(spec.replace(norm="none", rezero=True), 0)
    assert zero["branch"] == [0] * 6 and zero["x"] == pytest.approx([zero["entry"]] * 6, rel=1e-5)


def test_propagation_leaves_a_record_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "NEURONS", 64)
    monkeypatch.setattr(lab, "STACKS", {stack: depths[:2] for stack, depths in lab.STACKS.items()})
    monkeypatch.setattr(tangent_kernel.measure_kernels, "__defaults__", ((1, 2, 4, 8),))
    record = propagation(tmp_path / "out", blocks=4, width=4, seeds=1, quiet=True)
    assert set(record["results"]["maps"]) == set(lab.FORMS)
    assert record["results"]["measures"]["fixup_growth"] == pytest.approx(1, abs=1e-4)
    errors = [record["results"]["kernels"][kind]["error"][0] for kind in ("plain", "residual")]
    assert errors[0] == errors[1] < 3  # one layer, one kernel, which reads digits well
    assert {"record.json", "report.html", "maps.png", "gradients.png", "kernels.png"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
