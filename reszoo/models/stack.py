"""Add residual blocks to a trained backbone, each of them the identity at first."""

from __future__ import annotations

from typing import Any

import keras

from reszoo.errors import ReszooError, did_you_mean
from reszoo.models.equivalence import check_equivalence
from reszoo.models.graph import can_be_negative, count_calls, cut_layers, flatten_layers, producer
from reszoo.models.layers import batch_norm, conv, relu
from reszoo.models.settings import fixed_settings
from reszoo.types import Tensor

BLOCKS = ("basic", "bottleneck")
ORDERS = ("auto", "post", "pre")
NARROWING = 4  # width / inner width of a bottleneck, arXiv 1512.03385, figure 5
EPSILON = 1e-5


def stack(
    backbone: keras.Model,
    *,
    blocks: int = 2,
    at: str | None = None,
    block: str = "basic",
    order: str = "auto",
) -> keras.Model:
    """Return a copy of a functional model with residual blocks after a layer.

    The result computes what `backbone` computes. Adding 0 is exact, so the outputs agree bit for
    bit. Only the last scale of a branch is zero: it has a gradient at once, and all other new
    weights from the second step on. New layers are named stack_block1_conv1, ..._bn1, ..._relu1,
    ..._add, or stack2_block1_... where those names are taken.

    Args:
        backbone: Any functional or built Sequential model, trained or not. It is not changed; the
            result has its own copy of the weights, uncompiled.
        blocks: Number of blocks, at least 1.
        at: Name of the layer whose output [n, height, width, channels] goes into the blocks. All
            later layers read their output. By default the last such layer that has an output of
            more than one pixel and no parallel branch.
        block: "basic", two 3x3 convolutions, or "bottleneck", 1x1, 3x3 and 1x1 at a quarter of the
            width (arXiv 1512.03385, figure 5).
        order: "post" is relu(x + F(x)), which is x only where x is not negative. "pre" is x + F(x)
            (arXiv 1603.05027, figure 4e). "auto" is "post" if the graph shows that the layer's
            output cannot be negative, else "pre".

    Returns:
        The model. Its attribute `growth` holds the new blocks and the largest difference of an
        output on random inputs.

    Raises:
        ReszooError: For a model without a graph, a layer that does not exist or has another output,
            order "post" after a layer that can be negative, and outputs that differ by more than
            1e-5 of the largest.
    """
    model = _functional(backbone)
    if isinstance(blocks, bool) or not isinstance(blocks, int) or blocks < 1:
        raise ReszooError(f"blocks: {blocks!r} is invalid; expected an integer >= 1")
    _check_choice("block", block, BLOCKS)
    _check_choice("order", order, ORDERS)
    layer = _find_layer(model, at) if at is not None else _last_map(model)
    _check_layer(model, layer, block)
    negative = can_be_negative(layer.output)
    if order == "post" and negative:
        raise ReszooError(
            f"order: 'post' is invalid; the output of {layer.name!r} can be negative, and the last "
            "ReLU of a block would change it. Use order='pre', or `at` a layer that ends in a ReLU"
        )
    if order == "auto":
        order = "pre" if negative else "post"
    prefix = _free_prefix(model)
    names = [f"{prefix}_block{index + 1}" for index in range(blocks)]

    def call(each: Any, *args: Any, **kwargs: Any) -> Any:
        y = each(*args, **kwargs)
        if each.name == layer.name:
            for name in names:
                with fixed_settings(getattr(layer, "dtype_policy", None) or _policy_of(y)):
                    y = _block(y, name, block, order)
        return y

    try:
        copy = keras.models.clone_model(
            model, input_tensors=_inputs(model), clone_function=_copy, call_function=call
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ReszooError(f"{backbone.name} cannot be copied: {reason}") from error
    stacked = keras.Model(copy.input, copy.output, name=f"{backbone.name}_stacked")
    for old in model.layers:
        if old.variables:
            _copy_state(old, stacked.get_layer(old.name))
    stacked.growth = check_equivalence(model, stacked, names)
    return stacked


def _functional(backbone: object) -> keras.Model:
    """Return the backbone as a model with a graph of its own layers."""
    if isinstance(backbone, keras.Sequential) and backbone.built:
        return keras.Model(backbone.inputs[0], backbone.outputs[0], name=backbone.name)
    if isinstance(backbone, keras.Model) and isinstance(backbone, keras.Function):
        return backbone
    unbuilt = " that is not built" if isinstance(backbone, keras.Sequential) else ""
    raise ReszooError(
        f"backbone: a {type(backbone).__name__}{unbuilt} is invalid; expected a functional model, "
        "keras.Model(inputs, outputs), or a Sequential model that begins with keras.Input"
    )


def _check_choice(name: str, value: object, options: tuple[str, ...]) -> None:
    if value not in options:
        shown, near = " or ".join(map(repr, options)), did_you_mean(str(value), options)
        raise ReszooError(f"{name}: {value!r} is invalid; expected {shown}{near}")


def _find_layer(model: keras.Model, at: str) -> keras.layers.Layer:
    """Return the layer or operation called `at`."""
    found = {operation.name: operation for operation in model.operations}
    if at not in found:
        near = (
            did_you_mean(str(at), found) or f"; the last map is that of {_last_map(model).name!r}"
        )
        raise ReszooError(f"at: {model.name} has no layer {at!r}{near}")
    return found[at]


def _last_map(model: keras.Model) -> keras.layers.Layer:
    """Return the last layer without a parallel branch whose output is a map."""
    maps = [each for each in cut_layers(model) if not _is_input(each) and _is_map(each.output)]
    if not maps:
        raise ReszooError(
            f"{model.name} has no layer with an output [n, height, width, channels] for blocks"
        )
    return ([each for each in maps if tuple(each.output.shape[1:3]) != (1, 1)] or maps)[-1]


def _is_input(layer: object) -> bool:
    return isinstance(layer, keras.layers.InputLayer)


def _is_map(output: Tensor) -> bool:
    return hasattr(output, "shape") and len(output.shape) == 4 and output.shape[-1] is not None


def _check_layer(model: keras.Model, layer: keras.layers.Layer, block: str) -> None:
    """Raise ReszooError where blocks cannot follow a layer."""
    inner = flatten_layers(model, include_self=False)  # those of models used as layers too
    for each in (*model.operations, *inner):
        if getattr(each, "data_format", None) == "channels_first":
            raise ReszooError(
                f"{model.name} cannot be stacked: its layer {each.name!r} puts channels first; "
                "expected channels last"
            )
    start = f"at: {layer.name!r} is invalid"
    last = "" if _is_map(layer.output) and not _is_input(layer) else _last_map(model).name
    if _is_input(layer):
        raise ReszooError(f"{start}, because it is the input. Example: at={last!r}")
    if (count := count_calls(model, layer)) > 1:
        raise ReszooError(
            f"{start}, because {model.name} uses it {count} times; give a layer that is used once"
        )
    if not _is_map(layer.output):
        shape = getattr(layer.output, "shape", "more than one tensor")
        raise ReszooError(
            f"{start}, because its output is {shape}; expected [n, height, width, channels]. "
            f"Example: at={last!r}"
        )
    channels = layer.output.shape[-1]
    if block == "bottleneck" and channels % NARROWING:
        raise ReszooError(
            f"block: 'bottleneck' is invalid; {layer.name!r} has {channels} channels, which "
            f"{NARROWING} does not divide. Use block='basic'"
        )


def _free_prefix(model: keras.Model) -> str:
    taken = [operation.name for operation in model.operations]
    prefix, number = "stack", 1
    while any(name.startswith(f"{prefix}_block") for name in taken):
        number += 1
        prefix = f"stack{number}"
    return prefix


def _policy_of(tensor: keras.KerasTensor) -> str:
    """Return the dtype policy that computes in a tensor's dtype, with weights of >= 32 bits."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return f"mixed_{dtype}" if dtype in ("float16", "bfloat16") else dtype


def _block(x: keras.KerasTensor, name: str, block: str, order: str) -> keras.KerasTensor:
    """Apply one residual block at the width of `x`, whose branch returns 0."""
    width = x.shape[-1]
    inner = width // NARROWING
    convs = [(width, 3), (width, 3)] if block == "basic" else [(inner, 1), (inner, 3), (width, 1)]
    last = len(convs)
    y = x
    for number, (filters, kernel) in enumerate(convs, 1):
        if order == "pre":
            y = relu(batch_norm(y, f"{name}_bn{number}", EPSILON), f"{name}_relu{number}")
        elif number > 1:
            y = relu(y, f"{name}_relu{number - 1}")
        y = conv(y, filters, kernel, f"{name}_conv{number}")
        if order == "post":
            y = batch_norm(y, f"{name}_bn{number}", EPSILON, zero=number == last)
    if order == "pre":
        weights = producer(y)[0].kernel
        weights.assign(keras.ops.zeros_like(weights))
    y = keras.layers.Add(name=f"{name}_add")([x, y])
    return relu(y, f"{name}_relu{last}") if order == "post" else y


def _inputs(model: keras.Model) -> Tensor | list[Tensor]:
    """Return new inputs in the structure of the model's, under the same names."""

    def copy(tensor: keras.KerasTensor) -> keras.KerasTensor:
        name = producer(tensor)[0].name
        return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)

    return keras.tree.map_structure(copy, model.input)


def _copy(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Return a copy of a layer. One without state that Keras cannot copy is shared."""
    try:
        return layer.__class__.from_config(layer.get_config())
    except (TypeError, ValueError, NotImplementedError):
        if not isinstance(layer, keras.layers.Layer) or layer.variables:
            raise
        return layer


def _copy_state(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Give a copied layer the weights and the `trainable` flags of the old one."""
    if new is not old:
        new.set_weights(old.get_weights())
        for mine, theirs in zip(flatten_layers(old), flatten_layers(new), strict=True):
            if mine.trainable != theirs.trainable and not isinstance(mine, keras.Model):
                theirs.trainable = mine.trainable
