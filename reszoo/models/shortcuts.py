"""The one place that knows the shortcut options: A, B, C, and the scaled, gated and dropped ones of arXiv 1603.05027."""

from __future__ import annotations

from typing import Any

import keras

from reszoo.models.layers import PadChannels, conv, norm
from reszoo.models.settings import DATA_FORMAT
from reszoo.zoo.spec import Spec


def is_identity(spec: Spec, x: Any, channels: int, stride: int) -> bool:
    """Return whether the shortcut hands `x` on unchanged."""
    return spec.shortcut != "C" and stride == 1 and x.shape[-1] == channels


def is_subsampled(spec: Spec, x: Any, channels: int, stride: int) -> bool:
    """Return whether the shortcut hands on every `stride`-th pixel of `x` and nothing more."""
    return (
        spec.shrink_at == "last" and spec.shortcut == "B" and stride > 1 and x.shape[-1] == channels
    )


def shortcut(x: Any, spec: Spec, channels: int, stride: int, place: str) -> Any:
    """Bring `x` to `channels` and to every `stride`-th pixel, by the spec's option; "none" has no shortcut to bring."""
    if is_identity(spec, x, channels, stride):
        return x
    if spec.shortcut == "A" or is_subsampled(spec, x, channels, stride):
        return PadChannels(channels, stride, spec.pad_at, name=f"{place}_shortcut_pad")(x)
    if spec.shrink == "avgpool" and stride > 1:
        pool = keras.layers.AveragePooling2D(
            stride, stride, padding="same", data_format=DATA_FORMAT, name=f"{place}_shortcut_pool"
        )
        x = pool(x)
        stride = 1
    # Normalised as the branch is: not where the sum is normalised afterwards, nor before the next activation.
    normed = spec.order not in ("pre", "bn_after_add")
    bias = 0.0 if spec.has_bias(normed=normed) else None
    x = conv(x, channels, 1, f"{place}_shortcut_conv", stride=stride, bias=bias)
    return norm(x, f"{place}_shortcut_bn", spec.bn_epsilon) if normed else x


def join(branch: Any, x: Any, spec: Spec, place: str) -> Any:
    """Add the branch to the shortcut `x`, both weighed as the spec says (arXiv 1603.05027, section 3)."""
    if spec.gate != "none":
        gate = conv(x, x.shape[-1], 1, f"{place}_gate_conv", bias=spec.gate_bias)
        if spec.gate == "exclusive":
            opened = keras.layers.Activation("sigmoid", name=f"{place}_gate_open")(gate)
            branch = keras.layers.Multiply(name=f"{place}_gate_branch")([branch, opened])
        shut = keras.layers.Rescaling(-1.0, name=f"{place}_gate_negate")(
            gate
        )  # 1 - sigmoid(z) = sigmoid(-z)
        shut = keras.layers.Activation("sigmoid", name=f"{place}_gate_shut")(shut)
        x = keras.layers.Multiply(name=f"{place}_gate_shortcut")([x, shut])
    if spec.shortcut_scale != 1:
        x = keras.layers.Rescaling(spec.shortcut_scale, name=f"{place}_shortcut_scale")(x)
    if spec.shortcut_dropout:
        x = keras.layers.Dropout(spec.shortcut_dropout, name=f"{place}_shortcut_dropout")(x)
    return keras.layers.Add(name=f"{place}_add")([x, branch])
