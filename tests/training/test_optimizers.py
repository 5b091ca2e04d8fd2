"""Update rules against the same arithmetic in NumPy, with a learning rate that changes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.config.optimizer import SGD, Lamb, Optimizer, OptimizerConfig
from reszoo.models.build import build
from reszoo.training.optimizers import decays, make_optimizer, make_rule

RATES = (0.1, 0.3, 0.05, 0.0)
SHAPES = ((3, 4), (4,), (2, 2))  # the last starts at zero
RNG = np.random.default_rng(0)
START = [RNG.normal(size=shape) for shape in SHAPES[:2]] + [np.zeros(SHAPES[2])]
GRADIENTS = [[RNG.normal(size=shape) for shape in SHAPES] for _ in RATES]
GRADIENTS[1][1][:] = 0
DECAYED = (True, False, True)


def momentum(config: SGD) -> list[np.ndarray]:
    """The sum of gradients, and the present learning rate."""
    weights = [each.copy() for each in START]
    for at, weight in enumerate(weights):
        velocity = np.zeros_like(weight)
        for rate, gradients in zip(RATES, GRADIENTS, strict=True):
            velocity = config.momentum * velocity + gradients[at]
            ahead = gradients[at] + config.momentum * velocity
            weight -= rate * (ahead if config.nesterov else velocity)
    return weights


def lamb(config: Lamb) -> list[np.ndarray]:
    """Algorithm 2 of arXiv 1904.00962, with the decay as in its line 9."""
    weights = [each.copy() for each in START]
    for at, weight in enumerate(weights):
        mean, square = np.zeros_like(weight), np.zeros_like(weight)
        for step, (rate, gradients) in enumerate(zip(RATES, GRADIENTS, strict=True), 1):
            mean = config.beta1 * mean + (1 - config.beta1) * gradients[at]
            square = config.beta2 * square + (1 - config.beta2) * gradients[at] ** 2
            first, second = mean / (1 - config.beta1**step), square / (1 - config.beta2**step)
            change, ratio = first / (np.sqrt(second) + config.epsilon), 1.0
            if DECAYED[at]:
                change += config.weight_decay * weight
                sizes = np.linalg.norm(weight), np.linalg.norm(change)
                ratio = sizes[0] / sizes[1] if all(sizes) else 1.0
            weight -= rate * ratio * change
    return weights


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        SGD(velocity="gradients"),
        SGD(velocity="gradients", nesterov=True),
        Lamb(decay="update", weight_decay=0.3, beta2=0.9, epsilon=1e-3),
    ],
)
def test_rules_follow_their_equations(config: OptimizerConfig, alone: bool) -> None:
    weights = [keras.Variable(each, dtype="float64") for each in START]
    optimizer = make_optimizer(config)
    optimizer.build(weights)
    for rate, gradients in zip(RATES, GRADIENTS, strict=True):
        rule = make_rule(optimizer, config, ["float64"], alone=alone)
        for weight, gradient, decayed in zip(weights, gradients, DECAYED, strict=True):
            gradient, exact = tf.constant(gradient), tf.constant(rate, tf.float64)
            rule(gradient, weight.value, exact, decayed)
        optimizer.iterations.assign_add(1)
    expected = momentum(config) if isinstance(config, SGD) else lamb(config)
    for weight, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight.numpy(), other, rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "spared"),
    [
        ({}, set()),
        ({"decay_norms": False}, {"gamma", "beta", "bias"}),
        ({"no_decay": ["*/gamma", "*/beta"]}, {"gamma", "beta"}),
        ({"no_decay": ["head_*"]}, {"head_dense/kernel", "head_dense/bias"}),
        ({"weight_decay": 0.0}, {"kernel", "gamma", "beta", "bias"}),
    ],
)
def test_decay_excludes_weights_on_request(values: dict[str, Any], spared: set[str]) -> None:
    model, config = build("resnet8"), Optimizer.of(**{"weight_decay": 0.1} | values)
    whole = any("/" in name for name in spared)
    paths = [v.path for v in model.trainable_variables if not decays(v, config)]
    assert {path if whole else path.split("/")[-1] for path in paths} == spared
