"""The loss around models, against surfaces whose curvature is known."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import reszoo
from reszoo.errors import ReszooError
from reszoo.lab.landscape import (
    compute_measures,
    landscape,
    measure_surface,
    nonconvex_share,
    random_direction,
)
from reszoo.lab.report import finding
from reszoo.lab.similarity import predict
from tests.models.helpers import BASIC, images, randomize

X, Y = np.meshgrid(np.linspace(-1, 1, 11), np.linspace(-1, 1, 11), indexing="ij")


@pytest.mark.parametrize(
    ("plane", "share"),
    [
        (X**2 + 3 * Y**2, 0),
        (X**2 - Y**2, 1),
        (X**2 - 0.05 * Y**2, 0),  # less than a tenth
        (X * Y, 1),
        ((X + Y) ** 2, 0),
        (3 * X - Y, 0),
        (np.where(X > 0, np.inf, X), 5 / 9),
        (np.cos(np.pi * X), 5 / 9),  # curved downwards between -0.5 and 0.5
    ],
)
def test_the_share_that_is_not_convex(plane: np.ndarray, share: float) -> None:
    assert nonconvex_share(plane) == pytest.approx(share)


def test_directions_have_the_norms_of_the_filters() -> None:
    model = reszoo.build(BASIC, input_shape=(8, 8, 3), classes=4)
    randomize(model, 0)
    direction = random_direction(model, 0)
    for weight, own in zip(model.trainable_weights, direction, strict=True):
        value = weight.numpy()
        if value.ndim < 2:
            assert not own.any()
            continue
        for index in range(value.shape[-1]):
            norm = np.linalg.norm(value[..., index])
            assert np.linalg.norm(own[..., index]) == pytest.approx(norm, rel=1e-4)
    kernel = [each for each in direction if each.ndim == 4][0]
    assert not np.allclose(kernel, random_direction(model, 1)[0])


def test_the_loss_of_a_linear_model_is_convex_and_its_plane_is_that_of_numpy() -> None:
    keras.utils.set_random_seed(0)
    entry = keras.Input((2, 2, 3))
    model = keras.Model(entry, keras.layers.Dense(4)(keras.layers.Flatten()(entry)))
    batch, labels = images((20, 2, 2, 3)), np.arange(20) % 4
    found = measure_surface(model, batch, labels, 5, "trained")
    assert found["nonconvex"] == 0 < found["sharpness"]
    one, other = (random_direction(model, seed)[0].astype(np.float64) for seed in (0, 1))
    logits = batch.reshape(20, -1) @ (model.layers[-1].kernel.numpy() - 1.0 * one + 0.5 * other)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(20), labels]
    assert found["plane"][0][3] == pytest.approx(expected.mean(), rel=1e-4)
    np.testing.assert_allclose(found["lines"][0][::2], [row[2] for row in found["plane"]])


def test_statistics_of_batch_norm_and_the_model_afterwards() -> None:
    model = reszoo.build(BASIC, input_shape=(8, 8, 3), classes=4)
    randomize(model, 0)
    before, batch, labels = model.get_weights(), images((12, 8, 8, 3)), np.arange(12) % 4
    logits = predict(model, batch).astype(np.float64)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(12), labels]
    centers = [measure_surface(model, batch, labels, 3, each)["center"] for each in
               ("trained", "batch")]  # fmt: skip
    assert centers[0] == pytest.approx(expected.mean(), rel=1e-4) != pytest.approx(centers[1])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_measures_compare_the_shallowest_with_the_deepest() -> None:
    def row(kind: str, depth: int, share: float, sharpness: float) -> dict[str, object]:
        own = {"nonconvex": share, "sharpness": sharpness, "plane": [[0.0] * 12] * 12}
        return {"kind": kind, "depth": depth, "trained": own, "batch": own}

    models = [row("plain", 20, 0.2, 4), row("plain", 56, 0.6, 9)]
    assert compute_measures(models) == {}
    found = compute_measures([*models, row("residual", 20, 0.1, 2), row("residual", 56, 0, 3)])
    assert found["trained_ratio_shallow"] == pytest.approx(2)
    assert found["trained_ratio_deep"] == pytest.approx(60)  # one cell of 100 at least
    assert found["batch_plain_change"] == pytest.approx(0.4)
    assert found["trained_residual_change"] == pytest.approx(-0.1)
    assert (found["trained_sharper_shallow"], found["trained_sharper_deep"]) == (2, 3)


def test_landscape_leaves_a_record_and_a_report(done: Path, tmp_path: Path) -> None:
    runs = [str(done / "runs" / f"{name}-seed0") for name in ("plain8", "resnet8")]
    record = landscape(tmp_path / "out", models=runs, images=20, points=5, quiet=True)
    first = record["results"]["models"][0]
    assert np.shape(first["batch"]["plane"]) == (5, 5) and np.shape(first["batch"]["lines"]) == (
        2,
        9,
    )
    assert finding(record).count("%") == 2
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made >= {"record.json", "report.html", "plane_batch.png", "lines.png"}
    with pytest.raises(ReszooError, match="points: 6 is invalid; expected an odd number"):
        landscape(tmp_path / "even", models=runs, points=6, quiet=True)
