"""Losses against their formulas in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from reszoo.config.training import TrainConfig
from reszoo.training.losses import make_losses


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
