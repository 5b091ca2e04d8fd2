"""What blocks add to their input, against gradients of the model and NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import reszoo
from reszoo.lab.inference import (
    block_steps,
    early_exits,
    estimation_errors,
    inference,
    unroll,
)  # fmt: skip
from reszoo.lab.report import finding
from reszoo.lab.units import CutModel, cut_model
from tests.models.helpers import BASIC, images, randomize

X, LABELS = images((7, 8, 8, 3)), np.array([0, 3, 9, 1, 1, 4, 2])


@pytest.fixture(scope="module")
def cut() -> CutModel:
    model = reszoo.build(BASIC.replace(depths=(1, 2)), input_shape=(8, 8, 3))
    randomize(model, 0)
    return cut_model(model)


def test_cosines_are_those_of_the_gradient_of_the_rest(cut: CutModel) -> None:
    found = block_steps(cut, X, LABELS)
    assert [row["cosine"] is None for row in found] == [False, True, False]
    before = tf.constant(cut.units[1](cut.units[0](cut.stem(X))))
    with tf.GradientTape() as tape:
        tape.watch(before)
        logits = cut.head(cut.units[2](before))
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits)
    gradient = np.reshape(tape.gradient(loss, before), (7, -1)).astype(np.float64)
    branch = np.reshape(cut.units[2].split(before)[1], (7, -1)).astype(np.float64)
    lengths = np.linalg.norm(branch, axis=1), np.linalg.norm(gradient, axis=1)
    expected = ((branch * gradient).sum(1) / lengths[0] / lengths[1]).mean()
    assert found[2]["cosine"] == pytest.approx(expected, rel=1e-4)
    size = np.linalg.norm(np.reshape(before, (7, -1)), axis=1)
    assert found[2]["ratio"] == pytest.approx((lengths[0] / size).mean(), rel=1e-5)


def test_a_branch_that_is_minus_the_gradient_has_cosine_minus_one(cut: CutModel) -> None:
    """The head is linear in the pooled map, so its gradient is known without a tape."""
    kernel = np.asarray(cut.head.layers[-1].kernel)

    class Downhill:
        """A block whose branch is minus the gradient at its input."""

        keeps_shape = True

        def split(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            shares = tf.nn.softmax(cut.head(x)) - tf.one_hot(LABELS, 10)
            step = tf.matmul(shares, kernel, transpose_b=True)[:, None, None]
            return x, tf.stop_gradient(-1e-4 * step * tf.ones_like(x))

        def join(self, total: tf.Tensor) -> tf.Tensor:
            return total

    model = CutModel(cut.stem, (*cut.units[:2], Downhill()), cut.head)  # type: ignore[arg-type]
    assert block_steps(model, X, LABELS)[2]["cosine"] == pytest.approx(-1, abs=1e-4)


def test_estimates_end_at_the_last_block_of_a_stage(cut: CutModel) -> None:
    found = estimation_errors(cut, X)
    assert found[0] == found[2] == {"bias": 0, "spread": 0}
    middle = np.asarray(cut.units[1](cut.units[0](cut.stem(X))), np.float64)
    last = np.asarray(cut.units[2](middle), np.float64)
    expected = (middle - last).mean() / last.std(), (middle - last).std() / last.std()
    assert (found[1]["bias"], found[1]["spread"]) == pytest.approx(expected, rel=1e-4)


def test_exits_use_the_models_own_head(cut: CutModel) -> None:
    first, last = early_exits(cut, X, LABELS)
    middle = cut.units[1](cut.units[0](cut.stem(X)))
    shares = [np.asarray(tf.nn.softmax(cut.head(x))) for x in (middle, cut.units[2](middle))]
    right = [values.argmax(1) == LABELS for values in shares]
    assert (first["accuracy"], last["accuracy"]) == tuple(row.mean() for row in right)
    top = np.sort(shares[0], axis=1)[:, -2:]
    own = shares[0][np.arange(7), LABELS]
    near = np.where(right[0], own - top[:, 0], top[:, 1] - own) < 0.1
    assert last["borderline"] == {
        "images": near.sum(), "right_before": (near & right[0]).sum(),
        "right": (near & right[1]).sum(),
    }  # fmt: skip
    x = cut.units[2](middle)
    norms = [float(np.linalg.norm(value)) for value in (x, cut.units[2](x))]
    assert unroll(cut, X)[:2] == pytest.approx([1, norms[1] / norms[0]], rel=1e-5)


def test_inference_leaves_a_record_and_a_report(done: Path, tmp_path: Path) -> None:
    models = [str(done / "runs" / f"{name}-seed0") for name in ("plain8", "resnet8")]
    record = inference(tmp_path / "out", models=models, images=20, quiet=True)
    plain, residual = record["results"]["models"].values()
    assert len(plain["exits"]) == 2 and len(residual["exits"]) == 1
    assert len(residual["probes"]) == 4
    assert set(plain["measures"]) < set(residual["measures"])
    assert record["results"]["measures"]["residual"] == residual["measures"]
    assert "resnet8-seed0" in finding(record)
    assert {"steps.png", "estimates.png", "read.png", "report.html"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
