"""Clipping, factors on the learning rate and shares of averages, against arithmetic."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.config.optimizer import SGD
from reszoo.config.training import FinetuneConfig, TrainConfig
from reszoo.models.build import build
from reszoo.training.optimizers import make_optimizer
from reszoo.training.weight_update import WeightUpdate, learning_rate_factors
from reszoo.weights.convert import HEAD

DECAY = 0.5


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return build("resnet14_v2", input_shape=(8, 8, 3))


def norms(array: np.ndarray) -> np.ndarray:
    """The norm of each filter, or of a vector."""
    rows = array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array[:, None]
    return np.sqrt((rows.astype(np.float64) ** 2).sum(axis=0))


@pytest.mark.parametrize("limit", [{"clip_value": 0.02}, {"clip_adaptive": 0.05}])
def test_clipping_precedes_the_decay(limit: dict[str, float], model: keras.Model) -> None:
    config, train = SGD(weight_decay=DECAY), TrainConfig(batch_size=1, steps=1, **limit)  # type: ignore[arg-type]
    strategy = tf.distribute.get_strategy()
    update = WeightUpdate(model, make_optimizer(config), config, strategy, train, FinetuneConfig())
    rng, weights = np.random.default_rng(0), update.weights
    gradients = [rng.normal(0, 0.02, each.shape).astype(np.float32) for each in weights]
    found = update.regularize([tf.constant(each) for each in gradients], weights, {})
    changed = 0
    for weight, gradient, other in zip(weights, gradients, found, strict=True):
        clipped = np.clip(gradient, -0.02, 0.02)
        if "clip_adaptive" in limit:
            most = 0.05 * np.maximum(norms(weight.numpy()), 1e-3)
            excess = np.maximum(norms(gradient) / most, 1)
            clipped = gradient / (1 if weight.path.startswith(HEAD) else excess)
            changed += (excess > 1).sum() if weight.path.startswith(HEAD) else 0
        expected = clipped + DECAY * weight.numpy()
        np.testing.assert_allclose(other, expected, rtol=1e-5, atol=1e-7, err_msg=weight.path)
        changed += (clipped != gradient).sum()
    assert changed > 100


def test_each_residual_block_has_its_own_learning_rate(model: keras.Model) -> None:
    """timm's groups: the stem, each block, and the classifier, with the last norm in a block."""
    factors = learning_rate_factors(model, FinetuneConfig(block_decay=0.5))
    groups = ["stem_", *(f"stage{s}_block{b}_" for s in (1, 2, 3) for b in (1, 2)), "head_"]
    seen = set()
    for weight in model.trainable_variables:
        group = next(at for at, each in enumerate(groups) if weight.path.startswith(each))
        seen.add(group)
        group -= weight.path.startswith("head_bn")
        assert factors[id(weight)] == 0.5 ** (7 - group), weight.path
    assert seen == set(range(8)) and learning_rate_factors(model, FinetuneConfig()) == {}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [0.1] * 8),
        ({"ema_every": 3}, [0.1, 0, 0, 0.1, 0.1, 0, 0, 0.1]),
        ({"ema_start": 0.0}, [1, *[0.1] * 7]),
        ({"ema_start": 1.0, "ema_every": 2}, [1, 0, 1, 0, 1, 0, 0.1, 0]),
        ({"ema_warmup": 1.0}, [0.5, 1 / 3, 1 / 4, 1 / 5, 1 / 6, 1 / 7, 1 / 8, 1 / 9]),
        ({"ema_start": 0.5, "ema_warmup": 0.5}, [1, 1, 1, *(n**-0.5 for n in range(2, 7))]),
    ],
)
def test_shares_of_the_averages(keys: dict[str, Any], expected: list[float]) -> None:
    train = TrainConfig(batch_size=1, steps=1, ema=0.9, **keys)
    assert [train.ema_share(step, 4) for step in range(8)] == pytest.approx(expected)
