"""The parts every block is made of: convolution and normalisation bound once, option A's padding, ReZero's scalar."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from reszoo.models.batchnorm import BatchNormalization
from reszoo.models.settings import DATA_FORMAT

# As in Caffe and PyTorch, in which the published weights were trained (Keras' own default is 0.99).
BN_MOMENTUM = 0.9


def conv(
    x: Any,
    filters: int,
    kernel: int,
    name: str,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: Any = None,
) -> Any:
    """Apply a square convolution, padded alike on all sides, without bias unless `bias` gives its initial value.

    Weights start as normal numbers of variance 2 / fan_in (He et al., arXiv 1502.01852, equation 10). Keras' "same" pads a
    strided convolution on one side only, which would shift every published weight by a pixel, hence the explicit padding.
    """
    if stride > 1 and kernel > 1:
        x = keras.layers.ZeroPadding2D(kernel // 2, data_format=DATA_FORMAT, name=f"{name}_pad")(x)
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        data_format=DATA_FORMAT,
        groups=groups,
        use_bias=bias is not None,
        bias_initializer=keras.initializers.Constant(bias or 0.0),
        kernel_initializer=keras.initializers.VarianceScaling(
            2.0, mode="fan_in", distribution="untruncated_normal"
        ),
        name=name,
    )(x)


def norm(x: Any, name: str, epsilon: float, *, zero: bool = False) -> Any:
    """Normalise over the batch; `zero` starts the scale at 0, so that what leaves is 0."""
    gamma = "zeros" if zero else "ones"
    return BatchNormalization(
        axis=-1, momentum=BN_MOMENTUM, epsilon=epsilon, gamma_initializer=gamma, name=name
    )(x)


def relu(x: Any, name: str) -> Any:
    """Apply max(x, 0)."""
    return keras.layers.ReLU(name=name)(x)


@keras.saving.register_keras_serializable(package="reszoo")
class PadChannels(keras.layers.Layer):
    """Option A of arXiv 1512.03385: every `stride`-th pixel, and zero channels up to `channels`, at the "end" or "both" sides.

    Takes [n, height, width, c] with c <= channels, gives [n, ceil(height / stride), ceil(width / stride), channels]. No
    weights. "both" puts half of the new channels before the old ones (as akamaster/pytorch_resnet_cifar10), "end" all behind
    (as facebookarchive/fb.resnet.torch).
    """

    def __init__(self, channels: int, stride: int = 1, pad_at: str = "both", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels, self.stride, self.pad_at = channels, stride, pad_at

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the output."""
        batch, *sides, _ = input_shape
        return (
            batch,
            *(side if side is None else -(-side // self.stride) for side in sides),
            self.channels,
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the output for `inputs`, [n, h, w, c]."""
        old = inputs.shape[-1]
        new = self.channels - old
        before = new // 2 if self.pad_at == "both" else 0
        if training and self.stride > 1:
            # The same numbers by a convolution with ones and zeros, whose gradient costs a third of a strided slice's. Inference
            # keeps the slice, which needs no weights where the net is exported.
            kernel = np.zeros((1, 1, old, self.channels), "float32")
            kernel[0, 0, range(old), range(before, before + old)] = 1
            kernel = keras.ops.cast(kernel, inputs.dtype)
            return keras.ops.conv(inputs, kernel, strides=self.stride, data_format=DATA_FORMAT)
        kept = inputs[:, :: self.stride, :: self.stride, :] if self.stride > 1 else inputs
        return keras.ops.pad(kept, [[0, 0], [0, 0], [0, 0], [before, new - before]])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which Keras makes an equal layer."""
        return {
            **super().get_config(),
            "channels": self.channels,
            "stride": self.stride,
            "pad_at": self.pad_at,
        }


@keras.saving.register_keras_serializable(package="reszoo")
class ReZero(keras.layers.Layer):
    """Multiply by one learned number that starts at 0 (arXiv 2003.04887). Any shape in, the same out."""

    def build(self, input_shape: Any) -> None:
        """Make the scalar."""
        self.alpha = self.add_weight(shape=(), initializer="zeros", name="alpha")

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the output."""
        return input_shape

    def call(self, inputs: Any) -> Any:
        """Return the output for `inputs`, [n, h, w, c]."""
        return inputs * keras.ops.cast(self.alpha, inputs.dtype)
