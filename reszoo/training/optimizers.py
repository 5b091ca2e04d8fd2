"""Keras optimizers for recipes. The step, not the optimizer, decays, clips and averages."""

from __future__ import annotations

import keras

from reszoo.config.optimizer import OptimizerConfig


def make_optimizer(config: OptimizerConfig, rate: float = 0.1) -> keras.optimizers.Optimizer:
    """Return the Keras optimizer of a recipe, without weight decay.

    Args:
        config: The recipe's table.
        rate: The learning rate.
    """
    if config.name == "sgd":
        return keras.optimizers.SGD(rate, momentum=config.momentum, nesterov=config.nesterov)
    if config.name == "rmsprop":
        return keras.optimizers.RMSprop(rate, momentum=config.momentum, epsilon=config.epsilon)
    betas = {"beta_1": config.beta1, "beta_2": config.beta2, "epsilon": config.epsilon}
    if config.name == "lamb":
        return keras.optimizers.Lamb(rate, **betas)
    # AdamW is Adam with decoupled decay, which the step applies.
    return keras.optimizers.Adam(rate, **betas)


def decays(variable: keras.Variable, config: OptimizerConfig) -> bool:
    """Return whether a weight decays.

    Scales of batch normalization, biases and ReZero's scalars decay only with `decay_norms`.
    """
    return config.weight_decay > 0 and (config.decay_norms or len(variable.shape) > 1)
