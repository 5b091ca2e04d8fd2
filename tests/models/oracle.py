"""The forward pass in inference, again: NumPy in float64, from a Spec and weights by name, following figure 4 of 1603.05027."""

from __future__ import annotations

from typing import Any

import numpy as np

from reszoo import Spec

Array = np.ndarray[Any, np.dtype[np.float64]]
Weights = dict[str, Array]

# What a block does, arXiv 1603.05027, figure 4: (c)onvolve, (n)ormalise, (r)ectify, (+) add the shortcut. The k-th "n" or "c"
# is called bn<k> or conv<k>. Of a bottleneck, section 3 of 1512.03385.
STEPS = {
    ("basic", "post"): "c n r c n + r",
    ("basic", "bn_after_add"): "c n r c + n r",
    ("basic", "relu_before_add"): "c n r c n r +",
    ("basic", "relu_pre"): "r c n r c n +",
    ("basic", "pre"): "n r c n r c +",
    ("bottleneck", "post"): "c n r c n r c n + r",
    ("bottleneck", "bn_after_add"): "c n r c n r c + n r",
    ("bottleneck", "relu_before_add"): "c n r c n r c n r +",
    ("bottleneck", "relu_pre"): "r c n r c n r c n +",
    ("bottleneck", "pre"): "n r c n r c n r c +",
}


def forward(spec: Spec, weights: Weights, images: Array) -> Array:
    """Return the logits [n, classes] of images [n, height, width, channels]."""
    x = _stem(spec, weights, images.astype(np.float64))
    for stage, blocks in enumerate(spec.depths):
        for index in range(blocks):
            x = _block(spec, weights, x, stage, index)
    if spec.order == "pre":
        x = _norm(spec, weights, x, "head_bn")
    if spec.order in ("pre", "relu_pre"):
        x = _activate(spec, x)
    features = _plus(weights, x.mean(axis=(1, 2)), "head_bias")
    return features @ weights["head_dense/kernel"] + weights["head_dense/bias"]


def _activate(spec: Spec, x: Array) -> Array:
    return np.tanh(x) if spec.activation == "tanh" else np.maximum(x, 0)


def _stem(spec: Spec, weights: Weights, x: Array) -> Array:
    strides = {"cifar": [1], "imagenet": [2], "bare": [2], "deep": [2, 1, 1], "rs": [2, 1, 1, 2]}[
        spec.stem
    ]
    for number, stride in enumerate(strides, 1):
        x = _convolve(spec, weights, x, f"stem_conv{number}", stride, spec.padding)
        if spec.stem != "bare":
            x = _norm(spec, weights, x, f"stem_bn{number}")
            x = _activate(spec, _plus(weights, x, f"stem_bias{number}"))
    if spec.stem not in ("cifar", "rs"):
        padded = np.pad(
            x,
            [(0, 0), (1, 1), (1, 1), (0, 0)],
            constant_values=0 if spec.stem == "bare" else -np.inf,
        )
        if spec.padding == "same":
            padded = np.pad(x, _same(x, 3), constant_values=-np.inf)
        x = _windows(padded, 3, 1 if spec.blur else 2).max(axis=(-2, -1))
        x = _blur(x)[:, ::2, ::2] if spec.blur else x
    return x


def _block(spec: Spec, weights: Weights, x: Array, stage: int, index: int) -> Array:
    place = f"stage{stage + 1}_block{index + 1}"
    if spec.shrink_at == "first":
        stride = 2 if stage > 0 and index == 0 else 1
    else:
        stride = 2 if stage < len(spec.depths) - 1 and index == spec.depths[stage] - 1 else 1
    striding = 2 if spec.block == "bottleneck" and spec.stride_at == "conv2" else 1
    steps = STEPS[spec.block, spec.order].split()
    entered, norms, convolutions, added = x, 0, 0, False
    leading = steps.index("c")
    active = x
    if stage == index == 0 and spec.stem != "bare":  # section 4.1: the stem has activated already
        norms += steps[:leading].count("n")
    else:
        for step in steps[:leading]:
            if step == "n":
                norms += 1
                active = _norm(spec, weights, active, f"{place}_bn{norms}")
            else:
                active = _activate(spec, active)
    if spec.norm == "scaled_weight":
        active = active / np.sqrt(_variance(spec, stage, index))
    active = _plus(weights, active, f"{place}_bias1")
    x = active
    for step in steps[leading:]:
        if step == "c":
            convolutions += 1
            step = stride if convolutions == striding else 1
            x = _blur(x) if spec.blur and step == 2 else x
            x = _convolve(spec, weights, x, f"{place}_conv{convolutions}", step, spec.padding)
        elif step == "n":
            norms += 1
            x = _norm(spec, weights, x, f"{place}_bn{norms}")
        elif step == "r":
            x = _plus(weights, x, f"{place}_bias{2 * convolutions}") if not added else x
            x = _activate(spec, x)
            x = _plus(weights, x, f"{place}_bias{2 * convolutions + 1}") if not added else x
        else:
            if f"{place}_multiplier/alpha" in weights:  # arXiv 1901.09321, figure 1
                x = x * weights[f"{place}_multiplier/alpha"]
                x = x + weights[f"{place}_bias{2 * convolutions}/offset"]
            x, added = _add(spec, weights, x, entered, active, stride, place), True
    return x


def _add(
    spec: Spec, weights: Weights, x: Array, entered: Array, active: Array, stride: int, place: str
) -> Array:
    if spec.se_ratio:  # arXiv 1709.01507, equations 2 to 4
        squeezed = x.mean(axis=(1, 2))
        inside = (
            squeezed @ weights[f"{place}_se_reduce/kernel"][0, 0]
            + weights[f"{place}_se_reduce/bias"]
        )
        outside = (
            np.maximum(inside, 0) @ weights[f"{place}_se_expand/kernel"][0, 0]
            + weights[f"{place}_se_expand/bias"]
        )
        x = x * _sigmoid(outside)[:, None, None, :]
    if spec.shortcut == "none":
        return x
    if spec.rezero:
        x = x * weights[f"{place}_rezero/alpha"]
    x = x * spec.branch_scale
    same = stride == 1 and entered.shape[-1] == x.shape[-1]
    if same and spec.shortcut != "C":
        carried = entered
    elif spec.shortcut == "A":
        carried = _pad_channels(active[:, ::stride, ::stride], x.shape[-1], spec.pad_at)
    elif spec.shrink_at == "last" and spec.shortcut == "B" and entered.shape[-1] == x.shape[-1]:
        carried = entered[:, ::stride, ::stride]
    else:
        active = entered if spec.shortcut_from == "input" else active
        if stride == 2 and spec.shrink == "avgpool":
            carried = _convolve(spec, weights, _average(active), f"{place}_shortcut_conv", 1)
        else:
            active = _blur(active) if spec.blur and stride == 2 else active
            carried = _convolve(spec, weights, active, f"{place}_shortcut_conv", stride)
        if spec.shortcut_bn and spec.order not in ("pre", "bn_after_add"):
            carried = _norm(spec, weights, carried, f"{place}_shortcut_bn")
    if spec.gate != "none":  # 1603.05027, section 3.1: g(x) = sigmoid(W x + b)
        opened = _sigmoid(
            carried @ weights[f"{place}_gate_conv/kernel"][0, 0]
            + weights[f"{place}_gate_conv/bias"]
        )
        x = x * opened if spec.gate == "exclusive" else x
        carried = carried * (1 - opened)
    return x + carried * spec.shortcut_scale


def _pad_channels(x: Array, channels: int, where: str) -> Array:
    new = channels - x.shape[-1]
    out = np.zeros((*x.shape[:3], channels))
    start = new // 2 if where == "both" else 0
    out[..., start : start + x.shape[-1]] = x
    return out


def _average(x: Array) -> Array:
    """Average over 2x2; the last row or column of an odd map is averaged over the pixels there are."""
    sums: Array = np.add.reduceat(
        np.add.reduceat(x, np.arange(0, x.shape[1], 2), 1), np.arange(0, x.shape[2], 2), 2
    )
    ones = np.ones_like(x)
    counts = np.add.reduceat(
        np.add.reduceat(ones, np.arange(0, x.shape[1], 2), 1), np.arange(0, x.shape[2], 2), 2
    )
    return sums / counts


def _blur(x: Array) -> Array:
    """Average every pixel with its neighbors, weighted 1, 2, 1; zeros lie outside (arXiv 1904.11486)."""
    for axis in (1, 2):
        zero = np.zeros_like(x.take([0], axis))
        more = np.concatenate([zero, x, zero], axis)
        sides = [more.take(range(start, start + x.shape[axis]), axis) for start in (0, 1, 2)]
        x = (sides[0] + 2 * sides[1] + sides[2]) / 4
    return x


def _windows(x: Array, size: int, stride: int) -> Array:
    """Return [n, h, w, c, size, size]: what a kernel of `size` sees."""
    views = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))  # type: ignore[call-overload]
    return views[:, ::stride, ::stride]


def _same(x: Array, size: int) -> list[tuple[int, int]]:
    """Return TensorFlow's padding "same" for stride 2: the larger half comes last."""
    totals = [max((-(-side // 2) - 1) * 2 + size - side, 0) for side in x.shape[1:3]]
    return [(0, 0), *((total // 2, total - total // 2) for total in totals), (0, 0)]


def _convolve(
    spec: Spec, weights: Weights, x: Array, name: str, stride: int, padding: str = "both"
) -> Array:
    """Convolve with kernel [k, k, c / groups, out], padded, and add the bias if there is one."""
    kernel, epsilon = weights[f"{name}/kernel"], spec.bn_epsilon
    if f"{name}/gain" in weights:  # arXiv 2101.08692, equation 2, with the gain of ReLU
        flat = kernel.reshape(-1, kernel.shape[-1])
        flat = (flat - flat.mean(0)) / np.sqrt((flat.var(0) + epsilon) * len(flat))
        kernel = (flat * weights[f"{name}/gain"] * np.sqrt(2 / (1 - 1 / np.pi))).reshape(
            kernel.shape
        )
    size, _, inside, out = kernel.shape
    half = size // 2
    margins = [(0, 0), (half, half), (half, half), (0, 0)]
    margins = _same(x, size) if padding == "same" and stride == 2 else margins
    seen = _windows(np.pad(x, margins), size, stride)
    groups = x.shape[-1] // inside
    seen = seen.reshape(*seen.shape[:3], groups, inside, size, size)
    grouped = kernel.reshape(size, size, inside, groups, out // groups)
    result: Array = np.einsum("nhwgiab,abigo->nhwgo", seen, grouped, optimize=True)
    return result.reshape(*result.shape[:3], out) + weights.get(f"{name}/bias", np.zeros(out))


def _norm(spec: Spec, weights: Weights, x: Array, name: str) -> Array:
    epsilon = spec.bn_epsilon
    if spec.norm in ("none", "scaled_weight"):
        return x
    if spec.norm == "group":  # arXiv 1803.08494, equations 1, 2 and 7
        name = name.replace("bn", "gn")
        maps = x.reshape(*x.shape[:3], spec.norm_groups, -1)
        mean, variance = (f(maps, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
        normal = ((maps - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)
        return normal * weights[f"{name}/gamma"] + weights[f"{name}/beta"]
    deviation = np.sqrt(weights[f"{name}/moving_variance"] + epsilon)
    return (x - weights[f"{name}/moving_mean"]) / deviation * weights[f"{name}/gamma"] + weights[
        f"{name}/beta"
    ]


def _plus(weights: Weights, x: Array, name: str) -> Array:
    """Add a scalar bias if there is one."""
    return x + weights.get(f"{name}/offset", np.zeros(()))


def _variance(spec: Spec, stage: int, index: int) -> float:
    """Follow the variance from block to block (arXiv 2101.08692, section 3)."""
    variance = 1.0
    for number, blocks in enumerate(spec.depths):
        for block in range(blocks):
            if (number, block) == (stage, index):
                return variance
            if spec.shortcut == "C" or (spec.shortcut == "B" and number and not block):
                variance = 1.0  # the projection reads the scaled input
            variance += spec.branch_scale**2 if spec.shortcut != "none" else 0
    raise AssertionError


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))
