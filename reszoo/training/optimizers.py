"""Keras optimizers for recipes. The step, not the optimizer, decays, clips and averages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

import keras

from reszoo.config.optimizer import SGD, CustomOptimizer, Lamb, OptimizerConfig
from reszoo.lazy import tf
from reszoo.references import call_function, invalid_reference, is_passed
from reszoo.types import Tensor, Variable

Rule: TypeAlias = Callable[[Tensor, Variable, Tensor, bool], object]
"""Updates a weight by (gradient, variable, learning rate, whether the weight decays)."""


def make_optimizer(config: OptimizerConfig, rate: float = 0.1) -> keras.optimizers.Optimizer:
    """Return the Keras optimizer of a recipe, without weight decay.

    Args:
        config: The recipe's table.
        rate: The learning rate.
    """
    if isinstance(config, CustomOptimizer):
        return _make_own(config, rate)
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


def _make_own(config: CustomOptimizer, rate: float) -> keras.optimizers.Optimizer:
    """Return the user's optimizer: the object that was given, or what the user's function returns.

    Raises:
        ReszooError: If it is not an optimizer, or does what the step does.
    """
    found, reference = config.load_object("name"), config.name
    if not is_passed(reference):
        arguments = {"learning_rate": rate}
        found = call_function("optimizer.name", reference, found, arguments)
    if getattr(found, "built", False):  # of an earlier run, whose weights it updates
        found = found.from_config(found.get_config())
    if not isinstance(found, keras.optimizers.Optimizer):
        why = f"expected a Keras optimizer, not {type(found).__name__}"
        raise invalid_reference("optimizer.name", reference, why)
    for name, key in TAKEN.items():
        if value := getattr(found, name, None):
            why = f"its {name} = {value} would have no effect; expected none, and {key} instead"
            raise invalid_reference("optimizer.name", reference, why)
    if not isinstance(found._learning_rate, keras.Variable):
        why = "its learning rate is a schedule; expected a number, and the schedule in [schedule]"
        raise invalid_reference("optimizer.name", reference, why)
    return found


TAKEN = {
    "weight_decay": "optimizer.weight_decay with optimizer.decay",
    "clipnorm": "train.clip_norm",
    "clipvalue": "train.clip_value",
    "global_clipnorm": "train.clip_norm",
    "use_ema": "train.ema",
    "gradient_accumulation_steps": "train.accumulate",
    "loss_scale_factor": "train.precision",
}
"""What the step does in place of the optimizer: an attribute of Keras, and the recipe's key."""
