"""CKA, probes and stitches against NumPy, scikit-learn and maps that are known."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.linear_model import Ridge

import reszoo
from reszoo.errors import ReszooError
from reszoo.lab.similarity import (
    RIDGE,
    block_outputs,
    calibrate,
    classify_linearly,
    fit_linear_map,
    linear_cka,
    predict,
    probe_accuracies,
    similarity_profile,
    stitch_error,
    unit_gram,
)
from reszoo.types import Array
from tests.models.helpers import BASIC, images, randomize

BATCH = images((24, 8, 8, 3))
LABELS = np.arange(24) % 4


@pytest.fixture(scope="module")
def models() -> list[keras.Model]:
    found = [reszoo.build(BASIC, input_shape=(8, 8, 3), classes=4) for _ in range(2)]
    for seed, model in enumerate(found):
        randomize(model, seed)
    return found


def cka_by_features(one: Array, other: Array) -> float:
    """Equation 5 of arXiv 1905.00414, from features instead of examples."""
    x, y = (each.reshape(len(each), -1).astype(np.float64) for each in (one, other))
    x, y = x - x.mean(0), y - y.mean(0)
    cross, first, second = (np.linalg.norm(a.T @ b) for a, b in ((y, x), (x, x), (y, y)))
    return float(cross**2 / (first * second))


def test_cka_is_that_of_the_paper(models: list[keras.Model]) -> None:
    profiles = [similarity_profile(model, BATCH) for model in models]
    found = linear_cka(*profiles)
    names = list(block_outputs(models[0]))
    assert found.shape == (len(names), len(names)) and names[:2] == ["stem", "stage1_block1"]
    maps = [
        [predict(keras.Model(model.input, model.get_layer(layer).output), BATCH) for layer in
         ("stem_relu1", "stage1_block1_relu2", "stage2_block1_relu2")]
        for model in models
    ]  # fmt: skip
    rows = [names.index(name) for name in ("stem", "stage1_block1", "stage2_block1")]
    expected = [[cka_by_features(a, b) for b in maps[1]] for a in maps[0]]
    np.testing.assert_allclose(found[np.ix_(rows, rows)], expected, rtol=1e-4)
    np.testing.assert_allclose(np.diag(linear_cka(profiles[0], profiles[0])), 1, rtol=1e-5)


def test_cka_ignores_rotations_and_scales_but_not_other_linear_maps() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(30, 6)) * [5, 3, 1, 1, 1, 1] + 2
    rotation = np.linalg.qr(draw.normal(size=(6, 6)))[0]

    def cka(other: Array) -> float:
        return float(linear_cka({"x": unit_gram(x)}, {"x": unit_gram(other)})[0, 0])

    assert cka(-3 * x @ rotation + 7) == pytest.approx(1)
    assert cka(x @ np.diag([1, 1, 9, 1, 1, 1.0])) < 0.7


def test_probes_are_ridge_regression() -> None:
    draw = np.random.default_rng(0)
    train, test = draw.normal(size=(40, 2, 2, 3)) * 5, draw.normal(size=(90, 2, 2, 3)) * 5
    train[..., 2] = 4  # a constant feature
    labels = draw.integers(0, 3, 40)
    flat, other = train.reshape(40, -1), test.reshape(90, -1)
    keep = flat.std(0) > 0
    mean, deviation = flat[:, keep].mean(0), flat[:, keep].std(0)
    ridge = Ridge(alpha=RIDGE * 40).fit((flat[:, keep] - mean) / deviation, np.eye(3)[labels])
    expected = ridge.predict((other[:, keep] - mean) / deviation).argmax(1)
    np.testing.assert_array_equal(classify_linearly(train, labels, test), expected)


def test_a_probe_finds_what_the_images_show(models: list[keras.Model]) -> None:
    """Images are brighter by class, which every layer can pass on."""
    bright = np.broadcast_to(LABELS[:, None, None, None], BATCH.shape) * 2 + 0.1 * BATCH
    found = probe_accuracies(models[0], (bright, LABELS), (bright[::-1], LABELS[::-1]))
    assert list(found) == list(block_outputs(models[0]))
    assert found["stem"] > 0.9


def test_the_linear_map_is_found() -> None:
    draw = np.random.default_rng(0)
    x, kernel, bias = draw.normal(size=(5, 3, 3, 4)), draw.normal(size=(4, 2)), [3.0, -1.0]
    found = fit_linear_map(x, x @ kernel + bias)
    np.testing.assert_allclose(found[0][0, 0], kernel, atol=1e-9)
    np.testing.assert_allclose(found[1], bias, atol=1e-9)


def test_a_stitch_of_a_model_with_itself_is_the_model(models: list[keras.Model]) -> None:
    model, name = models[0], "stage1_block2"
    bias = model.get_layer("head_dense").bias
    bias.assign(bias - predict(model, BATCH).mean(0))  # so that all classes occur
    before = model.get_weights()
    labels = predict(model, BATCH).argmax(1)
    parts = BATCH, BATCH, labels
    assert stitch_error(model, model, (name, name), parts, (BATCH, labels), steps=0) == 0
    other = stitch_error(models[1], model, (name, name), parts, (BATCH, labels), steps=1)
    assert other > 0
    for old, weight in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, weight)
    with pytest.raises(ReszooError, match="differ in size"):
        stitch_error(model, model, (name, "stage2_block1"), parts, (BATCH, labels))


def test_calibrated_batch_norms_have_the_statistics_of_the_images() -> None:
    model = reszoo.build(BASIC, input_shape=(8, 8, 3), classes=4)
    calibrate(model, BATCH)
    norm = model.get_layer("stem_bn1")
    maps = predict(keras.Model(model.input, model.get_layer("stem_conv1").output), BATCH)
    np.testing.assert_allclose(norm.moving_mean, maps.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, maps.var((0, 1, 2)), rtol=1e-3)
    assert norm.momentum > 0
