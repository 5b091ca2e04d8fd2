"""Keras' optimizers with the engine's decay, clipping, averages and rates inside, for training by Keras' own `fit`."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from reszoo.training.config import OptimizerConfig, TrainConfig
from reszoo.training.optimizers import decays, make_optimizer


def make_planned(config: OptimizerConfig, train: TrainConfig, rates: np.ndarray) -> Any:
    """Return the recipe's optimizer, which updates as `Stepper` does: decay, then clipping, then the update, then the averages.

    rates: float [steps], the learning rate of each update.
    """
    plain = make_optimizer(config, float(rates[0]))
    kind: Any = type(plain)
    optimizer = _planned(kind).from_config(plain.get_config() | {"global_clipnorm": train.clip_norm or None})
    optimizer.plan(config, train, rates)
    return optimizer


@functools.cache
def _planned(kind: Any) -> Any:
    class Planned(kind):
        """An optimizer of Keras' that follows a plan; call `plan` before `build`."""

        def plan(self, config: OptimizerConfig, train: TrainConfig, rates: np.ndarray) -> None:
            self._config, self._train, self._rates = config, train, np.asarray(rates, np.float32)
            self.averages: list[Any] = []

        def build(self, variables: list[Any]) -> None:
            super().build(variables)
            if self._train.ema and not self.averages:
                self.averages = [self.add_variable_from_reference(v, "average") for v in variables]
                for average, variable in zip(self.averages, variables, strict=True):
                    average.assign(variable.numpy())  # a copy: two may not share memory that is given away

        def _get_current_learning_rate(self) -> Any:
            return ops.take(self._rates, ops.minimum(self._iterations.value, len(self._rates) - 1))

        def apply(self, grads: list[Any], trainable_variables: list[Any] | None = None) -> None:
            variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
            rate, wanted = self._get_current_learning_rate(), [decays(v, self._config) for v in variables]
            if self._config.decay == "coupled":
                grads = [
                    g + self._config.weight_decay * v.value if wants else g
                    for g, v, wants in zip(grads, variables, wanted, strict=True)
                ]
            if self._config.decay == "decoupled":
                for variable, wants in zip(variables, wanted, strict=True):
                    if wants:
                        variable.assign(
                            variable.value * (1 - ops.cast(self._config.weight_decay * rate, variable.dtype))
                        )
            super().apply(grads, variables)
            for variable, average in zip(variables, self.averages, strict=False):
                average.assign(average.value + (variable.value - average.value) * (1 - self._train.ema))

    return Planned


@keras.saving.register_keras_serializable(package="reszoo")
class Totals(keras.metrics.Metric):
    """The loss summed over images, right answers and images since it was last set to zero, which `fit` does not do."""

    def __init__(self, label_smoothing: float = 0.0, name: str = "totals", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing
        self.sums = self.add_variable(shape=(4,), initializer="zeros", name="sums")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        labels = ops.cast(ops.reshape(y_true, [-1]), "int32")
        loss = ops.sum(row_losses(labels, y_pred, self.label_smoothing))
        right = ops.sum(ops.cast(ops.argmax(y_pred, axis=-1) == labels, "float32"))
        images = ops.cast(ops.shape(labels)[0], "float32")
        self.sums.assign(self.sums.value + ops.stack([ops.cast(loss, "float32"), right, images, 0.0]))

    def result(self) -> dict[str, Any]:
        loss, right, images, _ = ops.unstack(self.sums.value)
        return {"loss_sum": loss, "right": right, "images": images}

    def reset_state(self) -> None:
        """Leave the sums: a row of the history may span several of `fit`'s epochs."""

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def row_losses(labels: Any, logits: Any, label_smoothing: float) -> Any:
    """Return the cross-entropy of each row, in nats: labels int32 [n], logits [n, classes]."""
    classes = logits.shape[-1]
    target = ops.one_hot(labels, classes, dtype=logits.dtype) * (1 - label_smoothing) + label_smoothing / classes
    return ops.categorical_crossentropy(target, logits, from_logits=True)
