"""Lesions, against models changed by hand and against the gradient of the whole model."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import reszoo
from reszoo import ReszooError
from reszoo.lab.lesion import (
    altered_errors,
    delete,
    lesion,
    path_gradient,
    rank_order,
    share_of_paths,
    swap,
)  # fmt: skip
from reszoo.lab.report import finding
from reszoo.lab.units import CutModel, cut_model
from tests.models.helpers import BASIC, images, randomize


@pytest.fixture(scope="module")
def cut() -> CutModel:
    model = reszoo.build(BASIC.replace(depths=(3, 1)), input_shape=(8, 8, 3))
    randomize(model, 0)
    return cut_model(model)


def test_errors_are_those_of_the_altered_model(cut: CutModel) -> None:
    x, (one, two, three, last) = images((260, 8, 8, 3)), cut.units
    whole = [(index, False) for index in range(4)]
    orders = [whole, delete(whole, [1, 3]), [(2, False), (1, False), (0, False), (3, False)]]
    stem = cut.stem(x)
    by_hand = (
        last(three(two(one(stem)))),
        last.delete(three(two.delete(one(stem)))),
        last(one(two(three(stem)))),
    )
    chosen = [np.argmax(cut.head(features), axis=1) for features in by_hand]
    errors = altered_errors(cut, x, chosen[0], orders)
    assert errors[0] == 0
    expected = [100 * (other != chosen[0]).mean() for other in chosen]
    np.testing.assert_allclose(errors, expected, atol=0.4)  # an image may be at a boundary


def test_the_gradients_of_all_paths_add_up_to_the_gradient(cut: CutModel) -> None:
    x, labels = tf.constant(images((2, 8, 8, 3))), tf.constant([1, 7])
    choices = itertools.product((0.0, 1.0), repeat=len(cut.units))
    total = sum(np.asarray(path_gradient(cut, x, labels, tf.constant(taken))) for taken in choices)
    with tf.GradientTape() as tape:
        tape.watch(x)
        features = cut.stem(x)
        for unit in cut.units:
            features = unit(features)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, cut.head(features))
    expected = np.asarray(tape.gradient(loss, x))
    np.testing.assert_allclose(total, expected, atol=1e-5 * np.abs(expected).max())


def test_only_units_of_equal_shape_are_swapped(cut: CutModel) -> None:
    orders = [swap(cut, count, np.random.default_rng(count)) for count in range(1, 30)]
    assert {order[-1] for order in orders} == {(3, False)}
    assert len({tuple(order) for order in orders}) == 6
    assert rank_order([(0, False), (1, False), (2, False)]) == 1
    assert rank_order([(2, False), (1, False), (0, False)]) == -1
    assert rank_order([(1, False), (0, False), (2, False)]) == pytest.approx(1 / 3)


def test_path_lengths_are_binomial() -> None:
    taken = [sum(path) for path in itertools.product((0, 1), repeat=10)]
    assert share_of_paths(2, 4, 10) == np.mean([2 <= count <= 4 for count in taken])
    assert share_of_paths(0, 54) == 1


def test_lesion_leaves_a_record_and_a_report(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reszoo.lab.lesion.MOST", 2)
    models = [str(done / "runs" / f"{name}-seed0") for name in ("plain8", "resnet8")]
    record = lesion(tmp_path / "out", models=models, images=20, repeats=1, quiet=True)
    plain, residual = record["results"]["models"].values()
    assert [unit["error"] is None for unit in plain["units"]] == [False] * 2 + [True, False] * 2
    assert all(unit["error"] is not None for unit in residual["units"])
    assert len(residual["gradient"]) == 4 and "gradient" not in plain
    assert set(plain["measures"]) < set(residual["measures"])
    assert "resnet8-seed0" in finding(record)
    assert {"deleted.png", "several.png", "gradient.png", "report.html"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    with pytest.raises(ReszooError, match="begun with images"):
        lesion(tmp_path / "out", models=models, images=30, repeats=1, quiet=True)


@pytest.mark.slow
def test_named_models_are_trained_first(tmp_path: Path) -> None:
    options = {"images": 20, "repeats": 1, "budget": 2, "quiet": True}
    record = lesion(tmp_path / "out", models=["plain8", "resnet8_v2"], **options)
    assert list(record["results"]["models"]) == ["plain8", "resnet8_v2"]
    assert (tmp_path / "out" / "runs" / "plain8" / "model.keras").is_file()
