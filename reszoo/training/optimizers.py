"""From a recipe's optimizer to Keras' own. Decay, clipping and averaging belong to the step, not to the optimizer."""

from __future__ import annotations

from typing import Any

import keras

from reszoo.config.optimizer import OptimizerConfig


def make_optimizer(config: OptimizerConfig, rate: float = 0.1) -> keras.optimizers.Optimizer:
    """Return Keras' optimizer of that name with the recipe's momenta, at learning rate `rate`, without decay of its own."""
    if config.name == "sgd":
        return keras.optimizers.SGD(rate, momentum=config.momentum, nesterov=config.nesterov)
    if config.name == "rmsprop":
        return keras.optimizers.RMSprop(rate, momentum=config.momentum, epsilon=config.epsilon)
    betas = {"beta_1": config.beta1, "beta_2": config.beta2, "epsilon": config.epsilon}
    if config.name == "lamb":
        return keras.optimizers.Lamb(rate, **betas)
    # AdamW is Adam with decoupled decay, which the step applies.
    return keras.optimizers.Adam(rate, **betas)


def decays(variable: Any, config: OptimizerConfig) -> bool:
    """Return whether weight decay acts on `variable`: norm scales, biases and ReZero's scalars only with `decay_norms`."""
    return config.weight_decay > 0 and (config.decay_norms or len(variable.shape) > 1)
