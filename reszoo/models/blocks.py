"""One block, basic or bottleneck, in each of the five orders of arXiv 1603.05027, figure 4."""

from __future__ import annotations

from keras import KerasTensor, layers

from reszoo.models.initializers import initial_weights
from reszoo.models.layers import (
    ReZero,
    ScalarBias,
    activate,
    conv,
    normalize,
    relu,
    weight_epsilon,
)  # fmt: skip
from reszoo.models.settings import DATA_FORMAT
from reszoo.models.shortcuts import is_identity, is_subsampled, join, shortcut
from reszoo.zoo.own_parts import find_part
from reszoo.zoo.spec import Spec


def block(
    x: KerasTensor, spec: Spec, stage: int, index: int, *, first: bool, survival: float
) -> KerasTensor:
    """Apply a block: H(x) = shortcut(x) + F(x), or F(x) in a plain model.

    Args:
        x: The input, [n, h, w, c].
        spec: The specification of the model.
        stage: Number of the stage, from 0.
        index: Number of the block in the stage, from 0.
        first: Whether it is the model's first block, whose pre-activation the stem (unless "bare")
            has computed (arXiv 1603.05027, section 4.1).
        survival: Probability that its branch is kept in training.
    """
    name = f"stage{stage + 1}_block{index + 1}"
    channels, stride = spec.out_channels(stage), spec.stride(stage, index)
    last = 2 if spec.block == "basic" else 3

    active = x if first and spec.stem != "bare" else _pre_activate(x, spec, name)
    if spec.norm == "scaled_weight" and (variance := input_variance(spec, stage, index)) != 1:
        active = layers.Rescaling(variance**-0.5, name=f"{name}_input_scale")(active)
    if spec.initialization == "fixup":
        active = ScalarBias(name=f"{name}_bias1")(active)
    own = find_part("block", spec.block)
    if own:
        out = own.function(active, channels, stride, f"{name}_own")
    else:
        out = _branch(active, spec, stage, stride, name)
    if spec.shortcut != "none":
        out = _scale_and_drop(out, spec, name, survival)
        # An identity takes the raw input; a projection the activated one, as its branch does.
        raw = is_identity(spec, x, channels, stride) or is_subsampled(spec, x, channels, stride)
        raw = raw or spec.shortcut_from == "input"
        out = join(out, shortcut(x if raw else active, spec, channels, stride, name), spec, name)
    if spec.order == "bn_after_add":
        out = normalize(out, f"{name}_bn{last}", spec)
    if spec.order in ("post", "bn_after_add"):
        out = activate(out, f"{name}_relu{last}", spec)
    return out


def _pre_activate(x: KerasTensor, spec: Spec, name: str) -> KerasTensor:
    if spec.order == "pre":
        x = normalize(x, f"{name}_bn1", spec)
    return activate(x, f"{name}_relu1", spec) if spec.order in ("pre", "relu_pre") else x


def _branch(x: KerasTensor, spec: Spec, stage: int, stride: int, name: str) -> KerasTensor:
    """Apply F: the convolutions with batch norm and ReLU between them."""
    channels, inner = spec.out_channels(stage), spec.inner_channels(stage)
    convs = [(channels, 3, stride, 1), (channels, 3, 1, 1)]
    if spec.block == "bottleneck":
        first, second = (stride, 1) if spec.stride_at == "conv1" else (1, stride)
        convs = [(inner, 1, first, 1), (inner, 3, second, spec.groups), (channels, 1, 1, 1)]
    before, fixup = spec.order in ("pre", "relu_pre"), spec.initialization == "fixup"
    for number, (filters, kernel, step, groups) in enumerate(convs, 1):
        last = number == len(convs)
        if number > 1:
            if spec.order == "pre":
                x = normalize(x, f"{name}_bn{number}", spec)
            if fixup:
                x = ScalarBias(name=f"{name}_bias{2 * number - 2}")(x)
            x = activate(x, f"{name}_relu{number if before else number - 1}", spec)
            if fixup:
                x = ScalarBias(name=f"{name}_bias{2 * number - 1}")(x)
        if last and spec.dropout:
            x = layers.Dropout(spec.dropout, name=f"{name}_dropout")(x)
        normed = not (last and spec.order in ("pre", "bn_after_add"))
        bias = 0.0 if spec.has_bias(normed=normed) else None
        x = conv(
            x, filters, kernel, f"{name}_conv{number}",
            stride=step, groups=groups, bias=bias, padding=spec.padding, blur=spec.blur,
            start=initial_weights(spec, initial_scale(spec, last=last)),
            scaled_weight=weight_epsilon(spec),
        )  # fmt: skip
        if normed and spec.order != "pre":
            zero = last and spec.zero_gamma
            x = normalize(x, f"{name}_bn{number}", spec, zero=zero)
    if fixup:
        x = ReZero(1.0, name=f"{name}_multiplier")(x)
        x = ScalarBias(name=f"{name}_bias{2 * len(convs)}")(x)
    if spec.order == "relu_before_add":
        x = activate(x, f"{name}_relu{len(convs)}", spec)
    return _squeeze_and_excite(x, spec, name) if spec.se_ratio else x


def input_variance(spec: Spec, stage: int, index: int) -> float:
    """Return the variance of a block's input at the start, if branches return variance 1.

    A projection takes the input that was scaled to variance 1, so it starts the sum again.

    Args:
        spec: The specification of the model.
        stage: Number of the stage, from 0.
        index: Number of the block in the stage, from 0.

    Reference: arXiv 2101.08692, section 3.
    """
    if spec.shortcut == "none":
        return 1.0
    projects = spec.shortcut in ("B", "C")
    before = index if stage and projects else sum(spec.depths[:stage]) + index
    if projects and stage and not index:
        before = spec.depths[stage - 1]
    if spec.shortcut == "C":
        before = min(before, 1)
    return 1 + before * spec.branch_scale**2


def initial_scale(spec: Spec, *, last: bool) -> float:
    """Return the factor of a branch's initial weights. `last`: of its last convolution.

    Reference: arXiv 1901.09321, section 3.2: 0, or L^(-1/(2m-2)) for L branches of m convolutions.
    """
    if spec.initialization != "fixup":
        return 1.0
    convs = 2 if spec.block == "basic" else 3
    return 0.0 if last else float(sum(spec.depths) ** (-1 / (2 * convs - 2)))


def _squeeze_and_excite(x: KerasTensor, spec: Spec, name: str) -> KerasTensor:
    """Scale each channel by a gate computed from all of them (arXiv 1709.01507, section 3)."""
    channels = x.shape[-1]
    pool = layers.GlobalAveragePooling2D(DATA_FORMAT, keepdims=True, name=f"{name}_se_pool")
    reduced = max(1, round(channels * spec.se_ratio))
    gate = conv(pool(x), reduced, 1, f"{name}_se_reduce", bias=0.0)
    gate = conv(relu(gate, f"{name}_se_relu"), channels, 1, f"{name}_se_expand", bias=0.0)
    gate = layers.Activation("sigmoid", name=f"{name}_se_gate")(gate)
    return layers.Multiply(name=f"{name}_se_scale")([x, gate])


def _scale_and_drop(x: KerasTensor, spec: Spec, name: str, survival: float) -> KerasTensor:
    """Scale the branch, and drop it as a whole for some examples in training."""
    if spec.rezero:
        x = ReZero(name=f"{name}_rezero")(x)
    if spec.branch_scale != 1:
        x = layers.Rescaling(spec.branch_scale, name=f"{name}_branch_scale")(x)
    if survival < 1:
        mask = (None, 1, 1, 1)
        x = layers.Dropout(1 - survival, noise_shape=mask, name=f"{name}_drop_path")(x)
    return x
