"""The layers of all blocks: convolution, batch norm, ReLU, option A's padding, scalars."""

from __future__ import annotations

import functools
import math
from typing import Any

import keras
import numpy as np
from keras import KerasTensor

from reszoo.models.batchnorm import BatchNormalization
from reszoo.models.initializers import he_normal
from reszoo.models.settings import DATA_FORMAT
from reszoo.types import JsonObject, Shape, Tensor
from reszoo.zoo.spec import Spec

# As in Caffe and PyTorch, in which the published weights were trained (Keras' own default is 0.99).
BN_MOMENTUM = 0.9
# 1 / the standard deviation of max(x, 0) for normal x of variance 1 (arXiv 2101.08692, section 4).
GAMMA = math.sqrt(2 / (1 - 1 / math.pi))


def conv(
    x: KerasTensor, filters: int, kernel: int, name: str,
    *, stride: int = 1, groups: int = 1, bias: float | None = None, padding: str = "both",
    start: Any = None, scaled_weight: float | None = None, blur: bool = False,
) -> KerasTensor:  # fmt: skip
    """Apply a square convolution.

    Keras' padding "same" pads a strided
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
        start: Initializer of the weights, by default normal of variance 2 / fan_in.
        scaled_weight: The epsilon of `ScaledConv2D`, which is then used; None for `Conv2D`.
        blur: Whether `Blur` comes before a strided convolution.

    Reference: arXiv 1502.01852, equation 10.
    """
    if blur and stride > 1:
        x = Blur(name=f"{name}_blur")(x)
    pads = stride > 1 and kernel > 1 and padding == "both"
    if pads:
        x = keras.layers.ZeroPadding2D(kernel // 2, data_format=DATA_FORMAT, name=f"{name}_pad")(x)
    layer = keras.layers.Conv2D
    if scaled_weight is not None:
        layer = functools.partial(ScaledConv2D, epsilon=scaled_weight)
    return layer(
        filters,
        kernel,
        strides=stride,
        padding="valid" if pads else "same",
        data_format=DATA_FORMAT,
        groups=groups,
        use_bias=bias is not None,
        bias_initializer=keras.initializers.Constant(bias or 0.0),
        kernel_initializer=start or he_normal(2.0),
        name=name,
    )(x)


def normalize(x: KerasTensor, name: str, spec: Spec, *, zero: bool = False) -> KerasTensor:
    """Apply the normalization of maps of `spec`, if it has one.

    Args:
        x: The map, [n, h, w, c].
        name: Name of a batch norm. A group norm has "gn" in place of "bn".
        spec: The specification of the model.
        zero: Whether its scale starts at 0, so that its output is 0.
    """
    if spec.norm == "batch":
        return batch_norm(x, name, spec.bn_epsilon, zero=zero)
    if spec.norm == "group":
        return keras.layers.GroupNormalization(
            spec.norm_groups,
            epsilon=spec.bn_epsilon,
            gamma_initializer="zeros" if zero else "ones",
            name=name.replace("bn", "gn"),
        )(x)
    return x


def batch_norm(x: KerasTensor, name: str, epsilon: float, *, zero: bool = False) -> KerasTensor:
    """Apply batch norm. `zero` starts its scale at 0, so that its output is 0."""
    gamma = "zeros" if zero else "ones"
    return BatchNormalization(
        axis=-1, momentum=BN_MOMENTUM, epsilon=epsilon, gamma_initializer=gamma, name=name
    )(x)


def relu(x: KerasTensor, name: str) -> KerasTensor:
    """Apply max(x, 0)."""
    return keras.layers.ReLU(name=name)(x)


def activate(x: KerasTensor, name: str, spec: Spec) -> KerasTensor:
    """Apply the activation of `spec`. A tanh has "tanh" in its name in place of "relu"."""
    if spec.activation == "relu":
        return relu(x, name)
    return keras.layers.Activation(spec.activation, name=name.replace("relu", spec.activation))(x)


def weight_epsilon(spec: Spec) -> float | None:
    """Return the epsilon of the model's `ScaledConv2D`; None if it has ordinary convolutions."""
    return spec.bn_epsilon if spec.norm == "scaled_weight" else None


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
class Blur(keras.layers.Layer):  # type: ignore[misc]
    """Blur each channel by [1, 2, 1] / 4 in both directions, zero-padded (arXiv 1904.11486).

    From [n, height, width, c] to [n, ceil(height / stride), ceil(width / stride), c].

    Args:
        stride: Distance of the pixels that are kept.
        **kwargs: Arguments of every Keras layer.
    """

    def __init__(self, stride: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stride = stride

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output."""
        batch, *sides, channels = input_shape
        kept = (side if side is None else -(-side // self.stride) for side in sides)
        return (batch, *kept, channels)

    def call(self, inputs: Tensor) -> Tensor:
        """Return the blurred maps."""
        kernel = np.outer([1, 2, 1], [1, 2, 1])[:, :, None, None] / 16
        kernel = keras.ops.cast(np.tile(kernel, (1, 1, inputs.shape[-1], 1)), inputs.dtype)
        padded = keras.ops.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return keras.ops.depthwise_conv(padded, kernel, self.stride, data_format=DATA_FORMAT)

    def get_config(self) -> JsonObject:
        """Return the arguments from which Keras makes an equal layer."""
        return {**super().get_config(), "stride": self.stride}


@keras.saving.register_keras_serializable(package="reszoo")
class ReZero(keras.layers.Layer):  # type: ignore[misc]
    """Multiply by a learned scalar that starts at 0 (arXiv 2003.04887) or another number.

    Args:
        initial: The number.
        **kwargs: Arguments of every Keras layer.
    """

    def __init__(self, initial: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape: Shape) -> None:
        """Make the scalar."""
        start = keras.initializers.Constant(self.initial)
        self.alpha = self.add_weight(shape=(), initializer=start, name="alpha")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output."""
        return input_shape

    def call(self, inputs: Tensor) -> Tensor:
        """Return the scaled input."""
        return inputs * keras.ops.cast(self.alpha, inputs.dtype)

    def get_config(self) -> JsonObject:
        """Return the arguments from which Keras makes an equal layer."""
        return {**super().get_config(), "initial": self.initial}


@keras.saving.register_keras_serializable(package="reszoo")
class ScalarBias(keras.layers.Layer):  # type: ignore[misc]
    """Add a learned scalar that starts at 0 (arXiv 1901.09321, section 3.2)."""

    def build(self, input_shape: Shape) -> None:
        """Make the scalar."""
        self.offset = self.add_weight(shape=(), initializer="zeros", name="offset")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output."""
        return input_shape

    def call(self, inputs: Tensor) -> Tensor:
        """Return the sum."""
        return inputs + keras.ops.cast(self.offset, inputs.dtype)


@keras.saving.register_keras_serializable(package="reszoo")
class ScaledConv2D(keras.layers.Conv2D):  # type: ignore[misc]
    """A convolution whose filters have mean 0 and a learned norm, initially sqrt(2 / (1 - 1/pi)).

    With that norm, max(x, 0) of normal numbers of variance 1 becomes numbers of variance 1.

    Args:
        *args: Arguments of `keras.layers.Conv2D`.
        epsilon: Added to the variance of a filter.
        **kwargs: Arguments of `keras.layers.Conv2D`.

    Reference: arXiv 2101.08692, section 4.
    """

    def __init__(self, *args: Any, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: Shape) -> None:
        """Make kernel, bias and gain."""
        super().build(input_shape)
        self.gain = self.add_weight(shape=(self.filters,), initializer="ones", name="gain")

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Convolve with the scaled filters of `kernel` [height, width, in, out]."""
        axes = (0, 1, 2)
        fan_in = math.prod(kernel.shape[:-1])
        centered = kernel - keras.ops.mean(kernel, axes, keepdims=True)
        variance = keras.ops.mean(keras.ops.square(centered), axes, keepdims=True)
        scale = keras.ops.cast(self.gain, kernel.dtype) * (GAMMA / math.sqrt(fan_in))
        return super().convolution_op(
            inputs, centered * keras.ops.rsqrt(variance + self.epsilon) * scale
        )

    def get_config(self) -> JsonObject:
        """Return the arguments from which Keras makes an equal layer."""
        return {**super().get_config(), "epsilon": self.epsilon}
