"""Deepen a trained model without changing what it computes (arXiv 1512.03385, section 1)."""

from __future__ import annotations

from typing import Any, TypeAlias

import keras
import numpy as np

from reszoo.errors import ReszooError
from reszoo.models.build import build
from reszoo.models.equivalence import BATCH, check_equivalence
from reszoo.models.settings import fixed_settings
from reszoo.types import Array, JsonObject
from reszoo.zoo.catalog import spec as get_spec
from reszoo.zoo.layer_names import parse_block_layer
from reszoo.zoo.own_parts import find_part
from reszoo.zoo.spec import Spec

# Settings of a layer that do not change what a trained model computes.
IGNORED_SETTINGS = {
    "name", "dtype", "trainable", "synchronized", "momentum",
    "kernel_initializer", "bias_initializer", "gamma_initializer",
}  # fmt: skip
NORM_NAMES = {"batch": "bn", "group": "gn"}
Statistics: TypeAlias = "tuple[Array | float, Array | float]"


def grow(
    model: keras.Model, to: str | Spec, *, images: Array | None = None, **fields: Any
) -> keras.Model:
    """Return a deeper model of the same family that computes what `model` computes.

    A new residual block is the identity because the last scale of its branch is zero: that of the
    last normalization, or the last convolution if no normalization follows it. The sum x + 0 is
    exact, so the outputs agree bit for bit, in training as well. Only that scale is zero: it has a
    gradient at once, and everything below it from the second step on. A new plain block holds
    centered delta kernels and batch norms that return their input. Their rounding changes outputs
    by at most 1e-5 of the largest, in bfloat16 by 1/256. Without `images` that holds for evaluation
    only.

    Args:
        model: A model that `build` made, trained or not. It is not changed.
        to: The deeper model, by name or specification. It may differ from `model` in depths only.
        images: Some hundreds of training images, float32 [n, height, width, channels]. Needed for
            new batch norms on the main path (plain models, shortcut C, order "bn_after_add") to be
            neutral in training too.
        **fields: Fields of the specification that are changed, as in `build`.

    Returns:
        The model. Its attribute `growth` holds the new blocks and the largest difference found.

    Raises:
        ReszooError: If `to` is not a deeper model of the family, or its blocks cannot be the
            identity.
    """
    spec = get_spec(to, **fields)
    is_ours = isinstance(model, keras.Model) and any(map(_block_of, model.layers))
    if not is_ours:
        raise ReszooError(
            "grow deepens models that reszoo built; for other Keras classifiers use reszoo.stack"
        )
    top = any(layer.name == "head_dense" for layer in model.layers)
    classes = int(model.output_shape[-1]) if top else None
    first = next(layer for layer in model.layers if layer.name.startswith("stem_conv"))
    with fixed_settings(first.dtype_policy):  # under another policy the outputs would differ
        deep = build(spec, classes=classes, input_shape=tuple(model.input_shape[1:]), top=top)
    added = transfer_weights(model, deep, spec, images)
    deep.growth = check_equivalence(model, deep, added, images)
    return deep


def transfer_weights(
    model: keras.Model, deep: keras.Model, spec: Spec, images: Array | None = None
) -> tuple[str, ...]:
    """Give a deeper model the weights of `model`, and make its other blocks the identity.

    Args:
        model: The shallower model.
        deep: The deeper model, which is changed.
        spec: The specification of the deeper model.
        images: As in `grow`.

    Returns:
        The names of the new blocks, such as "stage1_block4".

    Raises:
        ReszooError: As `grow` does, before any change.
    """
    check_can_grow(spec)
    added = _new_blocks(model, deep)
    old, new = ({layer.name: layer for layer in each.layers} for each in (model, deep))
    for name in sorted(old.keys() | new.keys()):
        layer = old.get(name) or new[name]
        if _block_of(layer) in added or isinstance(layer, keras.layers.InputLayer):
            continue
        if difference := _compare(old.get(name), new.get(name)):
            raise ReszooError(
                f"{deep.name} is not a deeper {model.name}: {name}: {difference}; give the fields "
                f"that {model.name} was built with, such as shortcut='B'"
            )
    for name, layer in old.items():
        if layer.weights:
            for mine, theirs in zip(layer.weights, new[name].weights, strict=True):
                if "seed" not in theirs.name:
                    theirs.assign(np.asarray(mine))
    statistics = _statistics(model, {block.split("_")[0] for block in added}, images)
    for block in added:
        layers = {
            name.removeprefix(f"{block}_"): layer
            for name, layer in new.items()
            if name.startswith(f"{block}_") and layer.weights
        }
        _make_identity(layers, spec, *statistics[block.split("_")[0]])
    return tuple(added)


def check_can_grow(spec: Spec) -> None:
    """Raise ReszooError where a block of `spec` cannot start as the identity, with the reason."""
    plain, activated = spec.shortcut == "none", spec.order in ("pre", "relu_pre")
    main = plain or spec.shortcut == "C" or spec.order == "bn_after_add"
    hidden = spec.order == "relu_before_add" and not spec.rezero and not plain
    reasons = {
        "a gate never passes everything": spec.gate != "none",
        "norm 'scaled_weight' scales inputs by the number of blocks before them": spec.norm
        == "scaled_weight",
        "norm 'group' changes the input of a block on the main path": main and spec.norm == "group",
        "shrink_at='last' halves in the block before new ones": spec.shrink_at == "last",
        "tanh changes the input of a block": spec.activation == "tanh" and (main or not activated),
        f"its shortcut is scaled by {spec.shortcut_scale:g}": spec.shortcut_scale != 1,
        "a zero branch has no gradient in order 'relu_before_add'; use rezero=true": hidden,
        "a plain bottleneck cannot carry its input": plain and spec.block == "bottleneck",
        "your own function makes its shortcut or its branch": any(
            find_part(kind, getattr(spec, kind)) for kind in ("shortcut", "block")
        ),
        f"order '{spec.order}' rectifies the input of a plain block": plain and activated,
        f"order '{spec.order}' rectifies the input of shortcut 'C'": spec.shortcut == "C"
        and activated,
        "squeeze-and-excitation scales the output of a plain block": plain and spec.se_ratio > 0,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ReszooError(f"{spec.name} cannot be grown: {reason}")


def _block_of(layer: keras.layers.Layer) -> str:
    found = parse_block_layer(layer.name)
    return found.block_name if found else ""


def _new_blocks(model: keras.Model, deep: keras.Model) -> list[str]:
    """Return the blocks that only `deep` has, in order."""
    old, new = (list(dict.fromkeys(filter(None, map(_block_of, m.layers)))) for m in (model, deep))
    stages = {block.split("_")[0] for block in old}
    added = [block for block in new if block not in old]
    if lost := [block for block in old if block not in new]:
        raise ReszooError(
            f"{deep.name} has no {lost[0]}, but {model.name} has; give a deeper model"
        )
    if not added:
        raise ReszooError(f"{deep.name} has no block that {model.name} lacks; give a deeper model")
    if missing := [block for block in added if block.split("_")[0] not in stages]:
        stage = missing[0].split("_")[0]
        raise ReszooError(
            f"{model.name} has no {stage}, but {deep.name} has; grow only adds blocks"
        )
    return added


def _compare(old: keras.layers.Layer | None, new: keras.layers.Layer | None) -> str:
    """Return in what two layers of the same name differ, "" if they compute the same."""
    if old is None or new is None:
        return f"only the {'deeper' if old is None else 'shallower'} model has it"
    kinds = [type(layer).__name__ for layer in (old, new)]
    if kinds[0] != kinds[1]:
        return f"{kinds[0]} in one model, {kinds[1]} in the other"
    one, other = _settings(old), _settings(new)
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            return f"{key} is {one.get(key)} in one model and {other.get(key)} in the other"
    return ""


def _settings(layer: keras.layers.Layer) -> JsonObject:
    ignored = IGNORED_SETTINGS
    if isinstance(layer, keras.layers.Dropout):
        ignored = ignored | {"rate", "seed"}
    found = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in layer.get_config().items()
        if key not in ignored
    }
    return found | {"weights": [tuple(weight.shape) for weight in layer.weights]}


def _statistics(
    model: keras.Model, stages: set[str], images: Array | None
) -> dict[str, Statistics]:
    """Return mean and variance per channel of each stage's output; 0 and 1 without images."""
    if images is None:
        return {stage: (0.0, 1.0) for stage in stages}
    ends = {layer.name.split("_")[0]: layer.output for layer in model.layers if _block_of(layer)}
    maps = keras.Model(model.input, {stage: ends[stage] for stage in stages})
    sums: JsonObject = {stage: (0, 0.0, 0.0) for stage in stages}
    for start in range(0, len(images), BATCH):
        for stage, value in maps(images[start : start + BATCH], training=False).items():
            pixels = np.asarray(keras.ops.convert_to_numpy(value), np.float64)
            pixels = pixels.reshape(-1, pixels.shape[-1])
            count, total, squares = sums[stage]
            sums[stage] = (count + len(pixels), total + pixels.sum(0), squares + (pixels**2).sum(0))
    found: dict[str, Statistics] = {}
    for stage, (count, total, squares) in sums.items():
        mean = total / count
        found[stage] = mean, np.maximum(squares / count - mean**2, 0)
    return found


def _make_identity(
    layers: dict[str, keras.layers.Layer], spec: Spec, mean: Array | float, variance: Array | float
) -> None:
    """Set a new block's weights so that it returns its input.

    Args:
        layers: The layers with weights, by name within the block: "conv1", "bn2", ...
        spec: The specification of the model.
        mean: Mean of the block's input, per channel.
        variance: Its variance.
    """
    last = 2 if spec.block == "basic" else 3
    deltas: list[str] = []
    neutral: list[str] = []
    if spec.shortcut == "none":
        deltas = ["conv1", "conv2"]
        neutral = [name for name in ("bn1", "bn2") if name in layers]
    elif spec.shortcut == "C":
        deltas = ["shortcut_conv"]
        neutral = [name for name in layers if name == "shortcut_bn"]
    if spec.shortcut != "none":
        if spec.order == "bn_after_add":
            neutral.append(f"bn{last}")
        if not spec.rezero:  # its scalar starts at zero
            if spec.normalizes_maps and spec.order not in ("pre", "bn_after_add"):
                scale = layers[f"{NORM_NAMES[spec.norm]}{last}"].gamma
            else:
                scale = layers[f"conv{last}"].kernel
            scale.assign(np.zeros(scale.shape))
    for name in deltas:
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
