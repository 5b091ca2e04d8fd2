"""Losses against their formulas in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from reszoo.config.training import TrainConfig
from reszoo.errors import ReszooError
from reszoo.training.losses import find_class_weights, make_losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("loss", "threshold"),
    [
        ("categorical", 0.0),
        ("binary", 0.0),
        ("binary", 0.2),
        ("binary_sum", 0.0),
        ("binary_sum", 0.2),
    ],
)
def test_losses_equal_their_formula(loss: str, threshold: float, smoothing: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (6, 5)).astype(np.float32)
    targets = rng.dirichlet([0.5] * 5, 6).astype(np.float32)
    train = TrainConfig(
        batch_size=6,
        steps=1,
        loss=loss,  # type: ignore[arg-type]
        label_smoothing=smoothing,
        target_threshold=threshold,
    )
    soft = targets * (1 - smoothing) + smoothing / 5
    if threshold:
        soft = (soft > threshold).astype(np.float32)
    wide = logits.astype("f8")
    softmax = np.log(np.exp(wide) / np.exp(wide).sum(axis=-1, keepdims=True))
    sigmoid = 1 / (1 + np.exp(-wide))
    binary = -(soft * np.log(sigmoid) + (1 - soft) * np.log(1 - sigmoid))
    expected = {
        "categorical": -(soft * softmax).sum(axis=-1),
        "binary": binary.mean(axis=-1),
        "binary_sum": binary.sum(axis=-1),
    }[loss]
    got = make_losses(train, "float32")(targets, logits)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    weights = [0.25, 4.0, 1.0, 2.0, 0.5]
    got = make_losses(train, "float32", weights)(targets, logits)
    np.testing.assert_allclose(got, expected * (targets @ weights), rtol=1e-5, atol=1e-6)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    counts = [500, 250, 120, 40]
    labels = np.repeat(np.arange(4), counts)
    theirs = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    ours = find_class_weights("balanced", "abcd", counts)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert find_class_weights("none", "abcd", counts) == []
    assert find_class_weights({"c": 3.0}, "abcd", []) == [1, 1, 3, 1]


@pytest.mark.parametrize(
    ("setting", "counts", "said"),
    [
        ({"dgo": 2.0}, [1, 1], "train.class_weights: unknown class \"dgo\"; did you mean 'dog'?"),
        ("balanced", [], "streamed images of unknown labels; expected a table"),
        ("balanced", [3, 0], "Example: --set 'train.class_weights={\"cat\"=2.0}'"),
    ],
)
def test_class_weights_that_do_not_fit_the_data_are_rejected(
    setting: Any, counts: list[int], said: str
) -> None:
    with pytest.raises(ReszooError) as caught:
        find_class_weights(setting, ("cat", "dog"), counts)
    assert said in str(caught.value)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_several_labels_weigh_the_images_that_have_a_class(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 3, (7, 4)), rng.integers(0, 2, (7, 4)).astype(float)
    counts = targets.sum(axis=0).astype(int).tolist()
    weights = find_class_weights("balanced", "abcd", counts, 7)
    np.testing.assert_allclose(weights, [(7 - count) / count for count in counts])
    train = TrainConfig(batch_size=7, steps=1, loss="bce", label_smoothing=smoothing)
    soft, p = targets * (1 - smoothing) + smoothing / 2, 1 / (1 + np.exp(-logits))
    for factors in ([], weights):
        positive = np.array(factors or 1.0)
        expected = -(positive * soft * np.log(p) + (1 - soft) * np.log(1 - p)).mean(axis=1)
        got = make_losses(train, "float64", factors)(targets, logits)
        np.testing.assert_allclose(got, expected, rtol=1e-9)
