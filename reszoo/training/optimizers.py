"""Keras optimizers for recipes. The step, not the optimizer, decays, clips and averages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

import keras

from reszoo.config.optimizer import SGD, Lamb, OptimizerConfig
from reszoo.lazy import tf
from reszoo.types import Tensor, Variable

Rule: TypeAlias = Callable[[Tensor, Variable, Tensor, bool], object]
"""Updates a weight by (gradient, variable, learning rate, whether the weight decays)."""


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
    if not config.weight_decay or not (config.decay_norms or len(variable.shape) > 1):
        return False
    return not any(fnmatchcase(variable.path, pattern) for pattern in config.no_decay)


def make_rule(
    optimizer: keras.optimizers.Optimizer,
    config: OptimizerConfig,
    dtypes: Iterable[str],
    *,
    alone: bool,
) -> Rule:
    """Return how the optimizer updates a weight. Call it inside the traced step.

    Args:
        optimizer: The optimizer, built for its weights.
        config: The recipe's table.
        dtypes: The dtypes of the weights.
        alone: Whether there is only one replica. Then momentum is one fused kernel, which gives the
            same bits as Keras' own update.
    """
    if isinstance(config, SGD) and config.momentum:
        if alone:
            return _fused_momentum(optimizer, config, dtypes)
        if config.velocity == "gradients":
            return _gradient_momentum(optimizer, config)
    if isinstance(config, Lamb) and config.decay == "update":
        return _lamb(optimizer, config)
    return lambda gradient, variable, rate, _: optimizer.update_step(gradient, variable, rate)


def _fused_momentum(optimizer: keras.optimizers.SGD, config: SGD, dtypes: Iterable[str]) -> Rule:
    old = config.velocity == "gradients"
    kernel = tf.raw_ops.ResourceApplyMomentum if old else tf.raw_ops.ResourceApplyKerasMomentum
    momentum = {dtype: tf.constant(config.momentum, dtype) for dtype in sorted(set(dtypes))}

    def update(gradient: Tensor, variable: Variable, rate: Tensor, _: bool) -> None:
        kernel(
            var=variable.handle,
            accum=_slot(optimizer, optimizer.momentums, variable).handle,
            lr=tf.cast(rate, variable.dtype),
            grad=gradient,
            momentum=momentum[variable.dtype.name],
            use_nesterov=config.nesterov,
        )

    return update


def _gradient_momentum(optimizer: keras.optimizers.SGD, config: SGD) -> Rule:
    def update(gradient: Tensor, variable: Variable, rate: Tensor, _: bool) -> None:
        velocity = _slot(optimizer, optimizer.momentums, variable)
        velocity.assign(velocity * config.momentum + gradient)
        change = gradient + velocity * config.momentum if config.nesterov else velocity
        variable.assign_sub(tf.cast(rate, variable.dtype) * change)

    return update


def _lamb(optimizer: keras.optimizers.Lamb, config: Lamb) -> Rule:
    """Return LAMB as in timm: the decay is a part of the update, before the trust ratio.

    Reference: arXiv 1904.00962, algorithm 2.
    """
    count = tf.cast(optimizer.iterations.value, tf.float64) + 1
    first, second = (1 - tf.constant(b, tf.float64) ** count for b in (config.beta1, config.beta2))

    def update(gradient: Tensor, variable: Variable, rate: Tensor, decays: bool) -> None:
        dtype = variable.dtype
        mean = _slot(optimizer, optimizer._momentums, variable)
        square = _slot(optimizer, optimizer._velocities, variable)
        mean.assign_add((gradient - mean) * (1 - config.beta1))
        square.assign_add((gradient * gradient - square) * (1 - config.beta2))
        root = tf.sqrt(square) / tf.cast(tf.sqrt(second), dtype)
        change = mean / tf.cast(first, dtype) / (root + config.epsilon)
        if decays:
            change += config.weight_decay * variable
            size, length = tf.norm(variable), tf.norm(change)
            change *= tf.where((size > 0) & (length > 0), size / length, tf.ones([], dtype))
        variable.assign_sub(tf.cast(rate, dtype) * change)

    return update


def _slot(
    optimizer: keras.optimizers.Optimizer, slots: Sequence[Variable], variable: Variable
) -> Variable:
    """Return the slot of a variable on the device at hand."""
    return slots[optimizer._get_variable_index(variable)].value
