"""Deepening a trained net without changing what it computes: the constructed solution of arXiv 1512.03385, section 1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from reszoo.errors import ReszooError
from reszoo.models.build import build
from reszoo.models.growth import check
from reszoo.models.settings import fixed_settings
from reszoo.zoo.catalog import spec as get_spec
from reszoo.zoo.layer_names import parse_block_layer
from reszoo.zoo.spec import Spec

# Initial values, the pace of moving averages, a branch's chance of survival and synchronised statistics decide nothing of
# what a trained net computes.
FREE = (
    "name",
    "dtype",
    "trainable",
    "synchronized",
    "momentum",
    "kernel_initializer",
    "bias_initializer",
    "gamma_initializer",
)
BATCH = 64


def grow(model: keras.Model, to: str | Spec, *, images: Any = None, **fields: Any) -> keras.Model:
    """Return a deeper member of a net's family that computes what `model` computes, with trainable new blocks.

    model: a net that `build` made, trained or not; it is left as it is. to: the deeper net, a name or a spec, with `fields`
        changed as in `build`; it must differ from the model's own in its depths alone. New blocks stand at the end of each
        stage. images: float32 [n, height, width, channels], some hundreds of those the net is trained on; needed for new
        batch normalisations on the main path (plain nets, shortcut C, order "bn_after_add") to be neutral in training too.

    A new residual block is the identity because the last scale of its branch is zero: the last normalisation's, or the last
    convolution's where none follows. The sum x + 0 is exact, so the outputs agree bit for bit, in training as well. Only that
    scale is zero: it has a gradient at once, and everything behind it from the second step on. A new plain block holds centred
    delta kernels and normalisations that give back what they take; dividing and multiplying round, so outputs agree
    within 1e-5 of the largest. Without `images` that holds for evaluation only, since in training a batch's own
    statistics normalise.

    The result's `growth` attribute says which blocks are new and the largest difference found on random inputs.
    Raises ReszooError where `to` is no deeper member of the family, or where its blocks cannot be the identity: gated or
    scaled shortcuts, plain bottlenecks, pre-activation that is plain or has shortcut C, "relu_before_add" without rezero.
    """
    spec = get_spec(to, **fields)
    if not isinstance(model, keras.Model) or not any(
        parse_block_layer(layer.name) for layer in model.layers
    ):
        raise ReszooError(
            "grow deepens a net that reszoo built; for any other Keras classifier there is reszoo.stack"
        )
    top = any(layer.name == "head_dense" for layer in model.layers)
    classes = int(model.output_shape[-1]) if top else None
    first = next(layer for layer in model.layers if layer.name.startswith("stem_conv"))
    with fixed_settings(
        first.dtype_policy
    ):  # the model's own: under another policy the outputs would differ
        deep = build(spec, classes=classes, input_shape=tuple(model.input_shape[1:]), top=top)
    added = transplant(model, deep, spec, images)
    deep.growth = check(model, deep, added, images)
    return deep


def transplant(
    model: keras.Model, deep: keras.Model, spec: Spec, images: Any = None
) -> tuple[str, ...]:
    """Give `deep`, a net of `spec`, the weights of the shallower `model` and make its other blocks the identity.

    Returns the names of the new blocks, such as "stage1_block4". Raises ReszooError as `grow` does, before any change.
    """
    refuse_without_identity(spec)
    added = _new_blocks(model, deep)
    mine, theirs = ({layer.name: layer for layer in net.layers} for net in (model, deep))
    for name in mine.keys() | theirs.keys():
        if _place(name) not in added:
            _refuse_other(model, deep, mine.get(name), theirs.get(name))
    for name, layer in mine.items():
        for old, new in zip(layer.weights, theirs[name].weights, strict=True):
            if "seed" not in new.name:
                new.assign(np.asarray(old))
    statistics = _statistics(model, {place.split("_")[0] for place in added}, images)
    for place in added:
        own = [
            layer
            for name, layer in theirs.items()
            if name.startswith(f"{place}_") and layer.weights
        ]
        _make_identity(
            {layer.name.removeprefix(f"{place}_"): layer for layer in own},
            spec,
            *statistics[place.split("_")[0]],
        )
    return tuple(added)


def refuse_without_identity(spec: Spec) -> None:
    """Raise ReszooError where a block of `spec` cannot start as the identity, with the reason."""
    plain = spec.shortcut == "none"
    reasons = {
        "its shortcut is gated, and a gate never lets everything through": spec.gate != "none",
        "shrink_at='last' halves in the block behind which new ones would stand": spec.shrink_at
        == "last",
        f"its shortcut is scaled by {spec.shortcut_scale:g}": spec.shortcut_scale != 1,
        "order 'relu_before_add' hides a zero branch from its gradient; give rezero=true": spec.order
        == "relu_before_add"
        and not spec.rezero
        and not plain,
        "a plain bottleneck narrows inside and cannot carry what enters it": plain
        and spec.block == "bottleneck",
        f"a plain block of order '{spec.order}' rectifies what enters it, which may be negative": plain
        and spec.order in ("pre", "relu_pre"),
        f"a projection in every block (shortcut 'C') reads what order '{spec.order}' has rectified": spec.shortcut
        == "C"
        and spec.order in ("pre", "relu_pre"),
        "squeeze-and-excitation weighs what a plain block hands on": plain and spec.se_ratio > 0,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ReszooError(f"{spec.name} cannot be grown: {reason}")


def _place(name: str) -> str:
    found = parse_block_layer(name)
    return found.block_name if found else ""


def _new_blocks(model: keras.Model, deep: keras.Model) -> list[str]:
    """Return the blocks that `deep` has beyond `model`, in order. Raises ReszooError when there are fewer, or none."""
    old, new = (
        list(dict.fromkeys(filter(None, (_place(layer.name) for layer in net.layers))))
        for net in (model, deep)
    )
    if lost := [place for place in old if place not in new]:
        raise ReszooError(
            f"{deep.name} lacks {lost[0]}, which {model.name} has: a net grows to a deeper one only"
        )
    added = [place for place in new if place not in old]
    if not added:
        raise ReszooError(f"{model.name} has all blocks of {deep.name} already; give a deeper net")
    if missing := {place.split("_")[0] for place in new} - {place.split("_")[0] for place in old}:
        raise ReszooError(
            f"{deep.name} has a {min(missing)}, which {model.name} lacks: growing adds blocks, not stages"
        )
    return added


def _refuse_other(model: keras.Model, deep: keras.Model, mine: Any, theirs: Any) -> None:
    """Raise ReszooError unless a layer of the old net stands in the new one, alike in all that decides its output."""
    if mine is None or theirs is None:
        where, name = (model, mine.name) if theirs is None else (deep, theirs.name)
        if isinstance(mine or theirs, keras.layers.InputLayer):
            return
        why = f"only {where.name} has {name}"
    elif mine.__class__.__name__ != theirs.__class__.__name__:
        why = f"{mine.name} is a {mine.__class__.__name__} in the one and a {theirs.__class__.__name__} in the other"
    else:
        one, other = dict(_decisive(mine)), dict(_decisive(theirs))
        differing = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
        if not differing:
            return
        key = min(differing)
        why = f"{mine.name} has {key} {one.get(key)} in the one and {other.get(key)} in the other"
    raise ReszooError(
        f"{deep.name} is no deeper {model.name}: {why}; give the fields that {model.name} was built with, such as shortcut='B'"
    )


def _decisive(layer: Any) -> Iterator[tuple[str, Any]]:
    yield "weights", [tuple(weight.shape) for weight in layer.weights]
    for key, value in layer.get_config().items():
        if key not in FREE and not (
            isinstance(layer, keras.layers.Dropout) and key in ("rate", "seed")
        ):
            yield key, list(value) if isinstance(value, tuple) else value


def _statistics(model: keras.Model, stages: set[str], images: Any) -> dict[str, tuple[Any, Any]]:
    """Return per channel mean and variance of the map that leaves each stage, over images and pixels; 0 and 1 unless given."""
    ends = {
        stage: [x for x in model.layers if x.name.startswith(f"{stage}_block")][-1].output
        for stage in stages
    }
    if images is None:
        return {stage: (0.0, 1.0) for stage in stages}
    maps = keras.Model(model.input, ends)
    sums = {stage: (0, 0.0, 0.0) for stage in stages}
    for start in range(0, len(images), BATCH):
        for stage, value in maps(images[start : start + BATCH], training=False).items():
            pixels = np.asarray(keras.ops.convert_to_numpy(value), np.float64)
            pixels = pixels.reshape(-1, pixels.shape[-1])
            count, total, squares = sums[stage]
            sums[stage] = (count + len(pixels), total + pixels.sum(0), squares + (pixels**2).sum(0))
    means = {
        stage: (total / count, squares / count) for stage, (count, total, squares) in sums.items()
    }
    return {
        stage: (mean, np.maximum(square - mean**2, 0)) for stage, (mean, square) in means.items()
    }


def _make_identity(layers: dict[str, Any], spec: Spec, mean: Any, variance: Any) -> None:
    """Set a new block's weights such that it hands on its input, whose channels have this mean and variance.

    layers: those with weights, by name within the block: "conv1", "bn2", "shortcut_conv", ...
    """
    last = 2 if spec.block == "basic" else 3
    if spec.shortcut == "none":
        carried = ["conv1", "conv2"]
        neutral = ["bn1", "bn2"]
    else:
        carried = ["shortcut_conv"] if spec.shortcut == "C" else []
        neutral = ["shortcut_bn"] if spec.shortcut == "C" and "shortcut_bn" in layers else []
        if spec.order == "bn_after_add":
            neutral.append(f"bn{last}")
        if not spec.rezero:  # its number starts at zero
            last_conv = spec.order in ("pre", "bn_after_add")
            scale = layers[f"conv{last}"].kernel if last_conv else layers[f"bn{last}"].gamma
            scale.assign(np.zeros(scale.shape))
    for name in carried:
        kernel = layers[name].kernel
        delta = np.zeros(kernel.shape)
        middle = kernel.shape[0] // 2
        delta[middle, middle] = np.eye(kernel.shape[2])
        kernel.assign(delta)
    for name in neutral:
        norm, one = layers[name], np.ones(layers[name].gamma.shape)
        norm.gamma.assign(np.sqrt(variance * one + norm.epsilon))
        norm.beta.assign(mean * one)
        norm.moving_mean.assign(mean * one)
        norm.moving_variance.assign(variance * one)
