"""The layers of all blocks: convolution, batch norm, ReLU, option A's padding, ReZero's scalar."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import KerasTensor

from reszoo.models.batchnorm import BatchNormalization
from reszoo.models.settings import DATA_FORMAT
from reszoo.types import JsonObject, Shape, Tensor

# As in Caffe and PyTorch, in which the published weights were trained (Keras' own default is 0.99).
BN_MOMENTUM = 0.9


def conv(
    x: KerasTensor, filters: int, kernel: int, name: str,
    *, stride: int = 1, groups: int = 1, bias: float | None = None, padding: str = "both",
) -> KerasTensor:  # fmt: skip
    """Apply a square convolution.

    Weights start as normal numbers of variance 2 / fan_in. Keras' padding "same" pads a strided
    convolution on one side only, which would shift most published weights by a pixel.

    Args:
        x: The input, [n, h, w, c].
        filters: Output channels.
        kernel: Side of the kernel.
        name: Name of the layer.
        stride: The stride.
        groups: Groups of channels.
        bias: Initial value of the bias, None for no bias.
        padding: Of a strided convolution: "both" pads all sides equally, "same" as TensorFlow.

    Reference: arXiv 1502.01852, equation 10.
    """
    pads = stride > 1 and kernel > 1 and padding == "both"
    if pads:
        x = keras.layers.ZeroPadding2D(kernel // 2, data_format=DATA_FORMAT, name=f"{name}_pad")(x)
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="valid" if pads else "same",
        data_format=DATA_FORMAT,
        groups=groups,
        use_bias=bias is not None,
        bias_initializer=keras.initializers.Constant(bias or 0.0),
        kernel_initializer=keras.initializers.VarianceScaling(
            2.0, mode="fan_in", distribution="untruncated_normal"
        ),
        name=name,
    )(x)


def batch_norm(x: KerasTensor, name: str, epsilon: float, *, zero: bool = False) -> KerasTensor:
    """Apply batch norm. `zero` starts its scale at 0, so that its output is 0."""
    gamma = "zeros" if zero else "ones"
    return BatchNormalization(
        axis=-1, momentum=BN_MOMENTUM, epsilon=epsilon, gamma_initializer=gamma, name=name
    )(x)


def relu(x: KerasTensor, name: str) -> KerasTensor:
    """Apply max(x, 0)."""
    return keras.layers.ReLU(name=name)(x)


@keras.saving.register_keras_serializable(package="reszoo")
class PadChannels(keras.layers.Layer):  # type: ignore[misc]
    """Option A of arXiv 1512.03385: every `stride`-th pixel, and zero channels up to `channels`.

    From [n, height, width, c] to [n, ceil(height / stride), ceil(width / stride), channels].

    Args:
        channels: Output channels, at least c.
        stride: Distance of the pixels that are kept.
        pad_at: "both" puts half of the zero channels before the old ones, as
            akamaster/pytorch_resnet_cifar10; "end" puts all behind, as fb.resnet.torch.
        **kwargs: Arguments of every Keras layer.
    """

    def __init__(self, channels: int, stride: int = 1, pad_at: str = "both", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels, self.stride, self.pad_at = channels, stride, pad_at

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output."""
        batch, *sides, _ = input_shape
        kept = (side if side is None else -(-side // self.stride) for side in sides)
        return (batch, *kept, self.channels)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return the output for `inputs`, [n, h, w, c]."""
        old = inputs.shape[-1]
        new = self.channels - old
        before = new // 2 if self.pad_at == "both" else 0
        if training and self.stride > 1:
            # The same numbers by a convolution with ones and zeros, whose gradient costs a third of
            # that of a strided slice. Inference keeps the slice, which exports without weights.
            kernel = np.zeros((1, 1, old, self.channels), "float32")
            kernel[0, 0, range(old), range(before, before + old)] = 1
            kernel = keras.ops.cast(kernel, inputs.dtype)
            return keras.ops.conv(inputs, kernel, strides=self.stride, data_format=DATA_FORMAT)
        kept = inputs[:, :: self.stride, :: self.stride, :] if self.stride > 1 else inputs
        return keras.ops.pad(kept, [[0, 0], [0, 0], [0, 0], [before, new - before]])

    def get_config(self) -> JsonObject:
        """Return the arguments from which Keras makes an equal layer."""
        own = {"channels": self.channels, "stride": self.stride, "pad_at": self.pad_at}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="reszoo")
class ReZero(keras.layers.Layer):  # type: ignore[misc]
    """Multiply by a learned scalar that starts at 0 (arXiv 2003.04887)."""

    def build(self, input_shape: Shape) -> None:
        """Make the scalar."""
        self.alpha = self.add_weight(shape=(), initializer="zeros", name="alpha")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output."""
        return input_shape

    def call(self, inputs: Tensor) -> Tensor:
        """Return the scaled input."""
        return inputs * keras.ops.cast(self.alpha, inputs.dtype)
