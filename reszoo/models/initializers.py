"""Initial weights of convolutions."""

from __future__ import annotations

import math
from typing import Any

import keras

from reszoo.types import JsonObject, Tensor
from reszoo.zoo.spec import Spec


@keras.saving.register_keras_serializable(package="reszoo")
class DeltaOrthogonal(keras.initializers.Initializer):  # type: ignore[misc]
    """A random orthogonal matrix in the middle of the kernel, zeros elsewhere.

    Args:
        gain: The factor of the matrix.

    Reference: arXiv 1806.05393, section 3.
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain, self._matrix = gain, keras.initializers.Orthogonal(gain)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        """Return a kernel [height, width, in, out]."""
        before = [(side - 1) // 2 for side in shape[:2]]
        pads = [[low, side - 1 - low] for low, side in zip(before, shape[:2], strict=True)]
        matrix = self._matrix(shape[2:], dtype=dtype)[None, None]
        return keras.ops.pad(matrix, [*pads, [0, 0], [0, 0]])

    def get_config(self) -> JsonObject:
        """Return the arguments from which Keras makes an equal initializer."""
        return {"gain": self.gain}


def he_normal(gain: float) -> keras.initializers.Initializer:
    """Return the initializer of normal numbers of variance `gain` / fan_in."""
    return keras.initializers.VarianceScaling(
        gain, mode="fan_in", distribution="untruncated_normal"
    )


def initial_weights(spec: Spec, scale: float = 1.0) -> Any:
    """Return the initializer of a convolution in a branch or the stem of `spec`.

    The mean square of normal maps stays the same: max(x, 0) halves it, tanh(x) of small x keeps it.

    Args:
        spec: The specification of the model.
        scale: Factor of the weights; 0 for zeros.
    """
    if not scale:
        return "zeros"
    gain = (2.0 if spec.activation == "relu" else 1.0) * scale**2
    orthogonal = spec.initialization == "delta_orthogonal"
    return DeltaOrthogonal(math.sqrt(gain)) if orthogonal else he_normal(gain)
