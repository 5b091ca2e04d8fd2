"""From the gradient of the whole batch to new weights: decay, clipping, optimizer and averages."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from functools import partial

import keras

from reszoo.config.optimizer import OptimizerConfig
from reszoo.config.training import FinetuneConfig, TrainConfig
from reszoo.lazy import tf
from reszoo.models.freeze import layer_groups
from reszoo.training.optimizers import decays, make_rule
from reszoo.training.protocols import Strategy
from reszoo.types import Tensor, Variable
from reszoo.weights.convert import HEAD


class WeightUpdate:
    """Updates weights on every device.

    Args:
        model: The model whose trainable weights are updated.
        optimizer: The optimizer, which is built for them.
        config: Weight decay and its kind.
        strategy: The strategy in whose scope the model was made.
        train: Clipping, and whether weights have averages.
        finetune: Factors on the learning rate of lower stages or blocks.
        statistics: Variables that have averages besides the weights.

    Attributes:
        weights: The weights, as the optimizer was built for them.
        averaged: The variables that have averages: the weights, and others.
        averages: Their exponential moving averages; both are empty without `ema`.

    Raises:
        ReszooError: If `finetune` needs stages that the model does not have, or no weight matches a
            pattern of `no_decay`.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        config: OptimizerConfig,
        strategy: Strategy,
        train: TrainConfig,
        finetune: FinetuneConfig,
        statistics: Sequence[Variable] = (),
    ) -> None:
        self.weights: list[Variable] = model.trainable_variables
        self._optimizer, self._config, self._strategy = optimizer, config, strategy
        self._train = train
        heads = (layer for layer in model.layers if layer.name == HEAD)
        self._classifier = {id(weight) for layer in heads for weight in layer.weights}
        for pattern in config.no_decay:
            if not fnmatch.filter([weight.path for weight in model.weights], pattern):
                expected = f'patterns of weights of {model.name}, such as "*/gamma"'
                raise config.contradiction("no_decay", expected, ["*/gamma", "*/beta"])
        factors = learning_rate_factors(model, finetune)
        self._factors = [factors.get(id(weight), 1.0) for weight in self.weights]
        # Keras would create the slots inside the traced step, which then must be traced twice.
        optimizer.build(self.weights)
        self.averaged: list[Variable] = [*self.weights, *statistics] if train.ema else []
        self.averages: list[Variable] = [
            tf.Variable(each.value, trainable=False) for each in self.averaged
        ]

    def regularize(
        self, gradients: list[Tensor], weights: Sequence[Variable], read: dict[int, Tensor]
    ) -> list[Tensor]:
        """Return the gradients clipped and with coupled weight decay.

        `clip_norm` limits the norm of loss and decay together; the other limits those of the loss.

        Args:
            gradients: One gradient per weight.
            weights: The weights.
            read: Values of some weights that this step has read, by the weight's id.
        """
        train = self._train
        if train.clip_value:
            low, high = -train.clip_value, train.clip_value
            gradients = [tf.clip_by_value(gradient, low, high) for gradient in gradients]
        if train.clip_adaptive:
            gradients = [
                gradient
                if id(weight) in self._classifier
                else clip_adaptively(gradient, weight.value, train.clip_adaptive)
                for gradient, weight in zip(gradients, weights, strict=True)
            ]
        if self._config.decay == "coupled":
            decay = constants(self._config.weight_decay, weights)
            gradients = [
                gradient + decay[weight.dtype] * read.get(id(weight), weight.value)
                if decays(weight, self._config)
                else gradient
                for gradient, weight in zip(gradients, weights, strict=True)
            ]
        if train.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, train.clip_norm)
        return gradients

    def apply(
        self, gradients: Sequence[Tensor], rate: Tensor, share: Tensor, indices: Sequence[int]
    ) -> bool:
        """Update the weights of the given indices; return True, for `tf.cond`.

        Args:
            gradients: One gradient per index, present on every device.
            rate: The learning rate, float32 [].
            share: The share of the new weights in their averages, float64 [].
            indices: Which of `weights` to update.
        """
        decoupled = self._config.decay == "decoupled"
        rule = make_rule(
            self._optimizer,
            self._config,
            [weight.dtype for weight in self.weights],
            alone=self._strategy.num_replicas_in_sync == 1,
        )
        for index, gradient in zip(indices, gradients, strict=True):
            weight = self.weights[index]
            decayed = decays(weight, self._config)
            own = rate if self._factors[index] == 1 else rate * self._factors[index]

            def update(
                variable: Variable,
                gradient: Tensor,
                decayed: bool = decayed,
                own: Tensor = own,
            ) -> None:
                if decoupled and decayed:
                    shrinkage = tf.cast(self._config.weight_decay * own, variable.dtype)
                    variable.assign_sub(variable * shrinkage)
                rule(gradient, variable, own, decayed)

            self._strategy.extended.update(weight.value, update, args=(gradient,), group=False)
        self._optimizer.iterations.assign_add(1)
        if self.averages:
            tf.cond(share > 0, partial(self._average, share, indices), lambda: False)
        return True

    def apply_compiled(
        self, gradients: list[Tensor], rate: Tensor, share: Tensor, indices: Sequence[int]
    ) -> bool:
        """Regularize and apply gradients as one program of XLA, on a single device.

        Otherwise it is several kernels for each weight.
        """

        def apply(gradients: list[Tensor], rate: Tensor, share: Tensor) -> None:
            weights = [self.weights[index] for index in indices]
            self.apply(self.regularize(gradients, weights, {}), rate, share, indices)

        tf.function(apply, autograph=False, jit_compile=True)(gradients, rate, share)
        return True

    def _average(self, share: Tensor, indices: Sequence[int]) -> bool:
        """Move the averages towards the variables; return True, for `tf.cond`."""

        def move(average: Variable, variable: Variable) -> None:
            part = tf.cast(share, average.dtype)
            moved = average + (variable - average) * part
            average.assign(tf.where(part == 1, variable, moved))

        for index in [*indices, *range(len(self.weights), len(self.averaged))]:
            variable = self.averaged[index].value
            self._strategy.extended.update(
                self.averages[index], move, args=(variable,), group=False
            )
        return True


def clip_adaptively(gradient: Tensor, weight: Variable, factor: float) -> Tensor:
    """Return a gradient that is at most `factor` times the weight, by the norms of their filters.

    A filter is what one output reads; a vector is one filter. Small weights count as of norm 0.001.

    Reference: arXiv 2102.06171, section 4.1.
    """
    axes = list(range(max(len(gradient.shape) - 1, 1))) if len(gradient.shape) else None
    squares = (tf.reduce_sum(each * each, axes, keepdims=True) for each in (weight, gradient))
    limit, norm = map(tf.sqrt, squares)
    limit = factor * tf.maximum(limit, 1e-3)
    return tf.where(norm < limit, gradient, gradient * (limit / tf.maximum(norm, 1e-6)))


def constants(value: float, weights: Sequence[Variable]) -> dict[str, Tensor]:
    """Return a number as one constant per dtype of the weights, which keeps the graph small."""
    dtypes = sorted({weight.dtype for weight in weights})
    return {dtype: tf.constant(value, dtype) for dtype in dtypes}


def learning_rate_factors(model: keras.Model, finetune: FinetuneConfig) -> dict[int, float]:
    """Return the factor on the learning rate of each variable, by the variable's id.

    The topmost group has factor 1, each group below it the decay times the factor above it. Groups
    are stem, stages and classifier, or with `block_decay` stem, blocks and classifier. The result
    is empty if both decays are 1.

    Raises:
        ReszooError: If the model has no stages.
    """
    decay = finetune.stage_decay * finetune.block_decay  # at most one of them is not 1
    if decay == 1:
        return {}
    groups = layer_groups(model, by_block=finetune.block_decay != 1)
    top = len(groups) - 1
    return {
        id(variable): decay ** (top - height)
        for height, layers in enumerate(groups.values())
        for layer in layers
        for variable in layer.variables
    }
