"""All shortcuts: A, B, C, and the scaled, gated and dropped ones of arXiv 1603.05027."""

from __future__ import annotations

from keras import KerasTensor, layers

from reszoo.models.layers import PadChannels, conv, normalize, weight_epsilon
from reszoo.models.settings import DATA_FORMAT
from reszoo.zoo.own_parts import find_part
from reszoo.zoo.spec import Spec


def is_identity(spec: Spec, x: KerasTensor, channels: int, stride: int) -> bool:
    """Return whether the shortcut returns `x` unchanged."""
    return spec.shortcut != "C" and stride == 1 and x.shape[-1] == channels


def is_subsampled(spec: Spec, x: KerasTensor, channels: int, stride: int) -> bool:
    """Return whether the shortcut returns every `stride`-th pixel of `x` and nothing more."""
    at_end = spec.shrink_at == "last" and spec.shortcut == "B"
    return at_end and stride > 1 and x.shape[-1] == channels


def shortcut(x: KerasTensor, spec: Spec, channels: int, stride: int, block: str) -> KerasTensor:
    """Bring `x` to `channels` and to every `stride`-th pixel, by the option of `spec`."""
    if own := find_part("shortcut", spec.shortcut):
        return own.function(x, channels, stride, f"{block}_shortcut")
    if is_identity(spec, x, channels, stride):
        return x
    if spec.shortcut == "A" or is_subsampled(spec, x, channels, stride):
        return PadChannels(channels, stride, spec.pad_at, name=f"{block}_shortcut_pad")(x)
    if spec.shrink == "avgpool" and stride > 1:
        name = f"{block}_shortcut_pool"
        x = layers.AveragePooling2D(stride, stride, "same", DATA_FORMAT, name=name)(x)
        stride = 1
    # Normalized as the branch: not if the sum is normalized, nor before the next activation.
    normed = spec.shortcut_bn and spec.order not in ("pre", "bn_after_add")
    bias = 0.0 if spec.has_bias(normed=normed) else None
    x = conv(
        x, channels, 1, f"{block}_shortcut_conv",
        stride=stride, bias=bias, blur=spec.blur, scaled_weight=weight_epsilon(spec),
    )  # fmt: skip
    return normalize(x, f"{block}_shortcut_bn", spec) if normed else x


def join(branch: KerasTensor, x: KerasTensor, spec: Spec, block: str) -> KerasTensor:
    """Add the branch to the shortcut `x`, gated, scaled and dropped as `spec` says.

    Reference: arXiv 1603.05027, section 3.
    """
    if spec.gate != "none":
        gate = conv(x, x.shape[-1], 1, f"{block}_gate_conv", bias=spec.gate_bias)
        if spec.gate == "exclusive":
            opened = layers.Activation("sigmoid", name=f"{block}_gate_open")(gate)
            branch = layers.Multiply(name=f"{block}_gate_branch")([branch, opened])
        shut = layers.Rescaling(-1.0, name=f"{block}_gate_negate")(gate)  # 1 - s(z) = s(-z)
        shut = layers.Activation("sigmoid", name=f"{block}_gate_shut")(shut)
        x = layers.Multiply(name=f"{block}_gate_shortcut")([x, shut])
    if spec.shortcut_scale != 1:
        x = layers.Rescaling(spec.shortcut_scale, name=f"{block}_shortcut_scale")(x)
    if spec.shortcut_dropout:
        x = layers.Dropout(spec.shortcut_dropout, name=f"{block}_shortcut_dropout")(x)
    return layers.Add(name=f"{block}_add")([x, branch])
