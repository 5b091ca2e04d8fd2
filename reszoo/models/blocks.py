"""One block, basic or bottleneck, in each of the five orders of arXiv 1603.05027, figure 4."""

from __future__ import annotations

from typing import Any

import keras

from reszoo.models.layers import ReZero, conv, norm, relu
from reszoo.models.settings import DATA_FORMAT
from reszoo.models.shortcuts import is_identity, is_subsampled, join, shortcut
from reszoo.zoo.spec import Spec


def block(x: Any, spec: Spec, stage: int, index: int, first: bool, survival: float) -> Any:
    """Apply block `index` (from 0) of stage `stage` (from 0): H(x) = shortcut(x) + F(x), or F(x) in a plain net.

    first: the net's very first block, whose pre-activation the stem (unless "bare") has done already (section 4.1). survival: the chance
    that its branch is kept in training.
    """
    place = f"stage{stage + 1}_block{index + 1}"
    channels = spec.out_channels(stage)
    stride = spec.stride(stage, index)

    active = x if first and spec.stem != "bare" else _activate(x, spec, place)
    out = _branch(active, spec, stage, stride, place)
    if spec.shortcut != "none":
        out = _weigh(out, spec, place, survival)
        # An identity hands on the raw input; one that changes the shape reads the activated one, as its branch does.
        raw = is_identity(spec, x, channels, stride) or is_subsampled(spec, x, channels, stride)
        source = x if raw else active
        out = join(out, shortcut(source, spec, channels, stride, place), spec, place)
    last = _last(spec)
    if spec.order == "bn_after_add":
        out = norm(out, f"{place}_bn{last}", spec.bn_epsilon)
    if spec.order in ("post", "bn_after_add"):
        out = relu(out, f"{place}_relu{last}")
    return out


def _last(spec: Spec) -> int:
    return 2 if spec.block == "basic" else 3


def _activate(x: Any, spec: Spec, place: str) -> Any:
    """Do what a pre-activation order does before the first convolution."""
    if spec.order == "pre":
        x = norm(x, f"{place}_bn1", spec.bn_epsilon)
    return relu(x, f"{place}_relu1") if spec.order in ("pre", "relu_pre") else x


def _branch(x: Any, spec: Spec, stage: int, stride: int, place: str) -> Any:
    """Apply F: the convolutions with what stands between them."""
    channels, inner = spec.out_channels(stage), spec.inner_channels(stage)
    if spec.block == "basic":
        convs = [(channels, 3, stride, 1), (channels, 3, 1, 1)]
    else:
        strides = (stride, 1) if spec.stride_at == "conv1" else (1, stride)
        convs = [
            (inner, 1, strides[0], 1),
            (inner, 3, strides[1], spec.groups),
            (channels, 1, 1, 1),
        ]
    before = spec.order in ("pre", "relu_pre")
    for number, (filters, kernel, step, groups) in enumerate(convs, 1):
        last = number == len(convs)
        if number > 1:
            if spec.order == "pre":
                x = norm(x, f"{place}_bn{number}", spec.bn_epsilon)
            x = relu(x, f"{place}_relu{number if before else number - 1}")
        if last and spec.dropout:
            x = keras.layers.Dropout(spec.dropout, name=f"{place}_dropout")(x)
        normed = not (last and spec.order in ("pre", "bn_after_add"))
        bias = 0.0 if spec.has_bias(normed=normed) else None
        x = conv(x, filters, kernel, f"{place}_conv{number}", stride=step, groups=groups, bias=bias)
        if normed and spec.order != "pre":
            x = norm(x, f"{place}_bn{number}", spec.bn_epsilon, zero=last and spec.zero_gamma)
    if spec.order == "relu_before_add":
        x = relu(x, f"{place}_relu{len(convs)}")
    return _excite(x, spec, place) if spec.se_ratio else x


def _excite(x: Any, spec: Spec, place: str) -> Any:
    """Weigh each channel by a gate computed from all of them (arXiv 1709.01507, section 3)."""
    channels = x.shape[-1]
    gate = keras.layers.GlobalAveragePooling2D(DATA_FORMAT, keepdims=True, name=f"{place}_se_pool")(
        x
    )
    gate = conv(gate, max(1, round(channels * spec.se_ratio)), 1, f"{place}_se_reduce", bias=0.0)
    gate = conv(relu(gate, f"{place}_se_relu"), channels, 1, f"{place}_se_expand", bias=0.0)
    gate = keras.layers.Activation("sigmoid", name=f"{place}_se_gate")(gate)
    return keras.layers.Multiply(name=f"{place}_se_scale")([x, gate])


def _weigh(x: Any, spec: Spec, place: str, survival: float) -> Any:
    """Scale the branch, by a constant or a learned number, and drop it whole for some examples."""
    if spec.rezero:
        x = ReZero(name=f"{place}_rezero")(x)
    if spec.branch_scale != 1:
        x = keras.layers.Rescaling(spec.branch_scale, name=f"{place}_branch_scale")(x)
    if survival < 1:
        x = keras.layers.Dropout(
            1 - survival, noise_shape=(None, 1, 1, 1), name=f"{place}_drop_path"
        )(x)
    return x
