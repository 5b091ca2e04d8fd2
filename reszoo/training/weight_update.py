"""From the gradient of the whole batch to new weights: decay, clipping, optimizer and averages."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import keras

from reszoo.config.optimizer import OptimizerConfig
from reszoo.lazy import tf
from reszoo.models.freeze import layer_groups
from reszoo.training.optimizers import decays, make_rule
from reszoo.training.protocols import Strategy
from reszoo.types import Tensor, Variable


class WeightUpdate:
    """Updates weights on every device.

    Args:
        model: The model whose trainable weights are updated.
        optimizer: The optimizer, which is built for them.
        config: Weight decay and its kind.
        strategy: The strategy in whose scope the model was made.
        clip_norm: Upper bound of the gradient's norm; 0 for none.
        ema: Decay of the averaged weights per step; 0 for none.
        stage_decay: Factor on the learning rate from each stage to the one below it.

    Attributes:
        weights: The weights, as the optimizer was built for them.
        averages: Their exponential moving averages; empty without `ema`.

    Raises:
        ReszooError: If `stage_decay` is not 1 and the model has no stages, or if no weight matches
            a pattern of `no_decay`.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        config: OptimizerConfig,
        strategy: Strategy,
        *,
        clip_norm: float = 0.0,
        ema: float = 0.0,
        stage_decay: float = 1.0,
    ) -> None:
        self.weights: list[Variable] = model.trainable_variables
        self._optimizer, self._config, self._strategy = optimizer, config, strategy
        self._clip_norm, self._ema = clip_norm, ema
        for pattern in config.no_decay:
            if not fnmatch.filter([weight.path for weight in model.weights], pattern):
                expected = f'patterns of weights of {model.name}, such as "*/gamma"'
                raise config.contradiction("no_decay", expected, ["*/gamma", "*/beta"])
        factors = learning_rate_factors(model, stage_decay)
        self._factors = [factors.get(id(weight), 1.0) for weight in self.weights]
        # Keras would create the slots inside the traced step, which then must be traced twice.
        optimizer.build(self.weights)
        self.averages: list[Variable] = []
        if ema:
            self.averages = [tf.Variable(each.value, trainable=False) for each in self.weights]

    def regularize(
        self, gradients: list[Tensor], weights: Sequence[Variable], read: dict[int, Tensor]
    ) -> list[Tensor]:
        """Return the gradients with coupled weight decay, clipped by their global norm.

        Args:
            gradients: One gradient per weight.
            weights: The weights.
            read: Values of some weights that this step has read, by the weight's id.
        """
        if self._config.decay == "coupled":
            decay = constants(self._config.weight_decay, weights)
            gradients = [
                gradient + decay[weight.dtype] * read.get(id(weight), weight.value)
                if decays(weight, self._config)
                else gradient
                for gradient, weight in zip(gradients, weights, strict=True)
            ]
        if self._clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm)
        return gradients

    def apply(self, gradients: Sequence[Tensor], rate: Tensor, indices: Sequence[int]) -> bool:
        """Update the weights of the given indices; return True, for `tf.cond`.

        Args:
            gradients: One gradient per index, present on every device.
            rate: The learning rate, float32 [].
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
                average: Variable | None = None,
                decayed: bool = decayed,
                own: Tensor = own,
            ) -> None:
                if decoupled and decayed:
                    shrinkage = tf.cast(self._config.weight_decay * own, variable.dtype)
                    variable.assign_sub(variable * shrinkage)
                rule(gradient, variable, own, decayed)
                if average is not None:
                    average.assign_add((variable - average) * (1 - self._ema))

            average = (self.averages[index],) if self.averages else ()
            arguments = (gradient, *average)
            self._strategy.extended.update(weight.value, update, args=arguments, group=False)
        self._optimizer.iterations.assign_add(1)
        return True


def constants(value: float, weights: Sequence[Variable]) -> dict[str, Tensor]:
    """Return a number as one constant per dtype of the weights, which keeps the graph small."""
    dtypes = sorted({weight.dtype for weight in weights})
    return {dtype: tf.constant(value, dtype) for dtype in dtypes}


def learning_rate_factors(model: keras.Model, stage_decay: float) -> dict[int, float]:
    """Return the factor on the learning rate of each variable, by the variable's id.

    The topmost stage has factor 1, each stage below it `stage_decay` times the factor above it.
    The result is empty if `stage_decay` is 1.

    Raises:
        ReszooError: If the model has no stages.
    """
    if stage_decay == 1:
        return {}
    stages = layer_groups(model)
    top = len(stages) - 1
    return {
        id(variable): stage_decay ** (top - height)
        for height, layers in enumerate(stages.values())
        for layer in layers
        for variable in layer.variables
    }
