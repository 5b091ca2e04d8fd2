"""The gradient of a micro-batch, compiled by XLA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from reszoo.lazy import tf
from reszoo.types import Tensor


class Compiled:
    """Computes a function of tensors and of a model's variables, compiled by XLA.

    The compiled program takes the variables' values as an argument, and returns the values that
    changed. It neither reads nor assigns a variable: under a strategy, XLA rejects the variables of
    another replica.

    Args:
        model: The model.
        function: Returns tensors of its positional arguments; it may read and assign the variables
            of `model`.
    """

    def __init__(self, model: keras.Model, function: Callable[..., Any]) -> None:
        self._variables = model.variables
        self._changed: list[int] = []

        def compute(arguments: tuple[Tensor, ...], values: list[Tensor]) -> tuple[Any, list[Any]]:
            mapping = list(zip(self._variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                result = function(*arguments)
                now = [scope.get_current_value(variable) for variable in self._variables]
            pairs = enumerate(zip(now, values, strict=True))
            self._changed = [at for at, (new, old) in pairs if new is not old]
            return result, [now[at] for at in self._changed]

        self._compiled = tf.function(compute, autograph=False, jit_compile=True)

    def __call__(self, *arguments: Any) -> Any:
        """Return the result for tensors, and assign the variables that the function changes."""
        values = [tf.convert_to_tensor(variable.value) for variable in self._variables]
        tensors = tuple(tf.convert_to_tensor(argument) for argument in arguments)
        result, after = self._compiled(tensors, values)
        for at, value in zip(self._changed, after, strict=True):
            self._variables[at].value.assign(value)
        return result
