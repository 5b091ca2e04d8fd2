"""Residual blocks added to a trained backbone, each of them the identity at first."""

from __future__ import annotations

from typing import Any

import keras

from reszoo.errors import ReszooError, did_you_mean
from reszoo.models.graph import can_be_negative, flatten_layers, producer, uses, waists
from reszoo.models.growth import check
from reszoo.models.layers import conv, norm, relu
from reszoo.models.settings import fixed_settings

BLOCKS = ("basic", "bottleneck")
ORDERS = ("auto", "post", "pre")
NARROWING = 4  # of a bottleneck's inner width, arXiv 1512.03385, figure 5
EPSILON = 1e-5  # of normalisation, as the zoo's own nets have it


def stack(
    backbone: keras.Model,
    *,
    blocks: int = 2,
    at: str | None = None,
    block: str = "basic",
    order: str = "auto",
) -> keras.Model:
    """Return a copy of a functional model with residual blocks after layer `at`, which computes what `backbone` computes.

    backbone: any functional or built Sequential Keras model, trained or not; it is left as it is, and the result has its own
        copy of the weights, uncompiled. at: the layer whose map [n, height, width, channels] goes into the blocks, everything
        behind it reading theirs; by default the last one with a map of more than one pixel and no branch beside it.
    block: "basic", two 3x3 convolutions, or "bottleneck", 1x1, 3x3 and 1x1 at a quarter of the width (arXiv 1512.03385,
        figure 5).
    order: "post" is relu(x + F(x)), which is x only where x is not negative, the last normalisation of F scaling by zero;
        "pre" is x + F(x), F normalising and rectifying before each convolution (arXiv 1603.05027, figure 4e), the last
        kernel being zero. "auto": "post" where the graph shows that the map cannot be negative, else "pre".

    Adding 0 is exact, so the outputs agree bit for bit. Only that last scale is zero: it has a gradient at once, and all
    other new weights from the second step on. New layers are named stack_block1_conv1, ..._bn1, ..._relu1, ..._add, or
    stack2_block1_... where those names are taken. The result's `growth` says which blocks are new and the largest
    difference of an output on random inputs.
    Raises ReszooError for a model without a graph, a layer that is not there or gives no map, order "post" where
    the map can be negative, and outputs that differ by more than 1e-5 of the largest.
    """
    net = _functional(backbone)
    _refuse_words(blocks, block, order)
    place = _find(net, at) if at is not None else _last_map(net)
    _refuse_map(net, place, block)
    negative = can_be_negative(place.output)
    if order == "post" and negative:
        raise ReszooError(
            f"the output of {place.name!r} can be negative, which a block's last ReLU would cut off; "
            "give order='pre', or `at` a layer that ends in a ReLU"
        )
    if order == "auto":
        order = "pre" if negative else "post"
    prefix = _free_prefix(net)
    names = [f"{prefix}_block{index + 1}" for index in range(blocks)]

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        y = layer(*args, **kwargs)
        if layer.name != place.name:
            return y
        for name in names:
            with fixed_settings(getattr(place, "dtype_policy", None) or _policy_of(y)):
                y = _block(y, name, block, order)
        return y

    try:
        copy = keras.models.clone_model(
            net, input_tensors=_inputs(net), clone_function=_copy, call_function=call
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ReszooError(f"{backbone.name} cannot be copied: {_line(error)}") from error
    stacked = keras.Model(copy.input, copy.output, name=f"{backbone.name}_stacked")
    for layer in net.layers:
        if layer.variables:
            _hand_over(layer, stacked.get_layer(layer.name))
    stacked.growth = check(net, stacked, names)
    return stacked


def _functional(backbone: Any) -> keras.Model:
    """Return the backbone as a model with a graph of its own layers."""
    if isinstance(backbone, keras.Sequential) and backbone.built:
        return keras.Model(backbone.inputs[0], backbone.outputs[0], name=backbone.name)
    if not isinstance(backbone, keras.Model) or not isinstance(backbone, keras.Function):
        what = f"a {type(backbone).__name__}" + (
            " that is not built" if isinstance(backbone, keras.Sequential) else ""
        )
        raise ReszooError(
            f"backbone is {what}, but stack needs a functional model, whose graph can be read: "
            "keras.Model(inputs, outputs), or a Sequential one that begins with keras.Input"
        )
    return backbone


def _refuse_words(blocks: Any, block: Any, order: Any) -> None:
    if isinstance(blocks, bool) or not isinstance(blocks, int) or blocks < 1:
        raise ReszooError(f"blocks is {blocks!r}, but must be a whole number of at least 1")
    for key, value, options in (("block", block, BLOCKS), ("order", order, ORDERS)):
        if value not in options:
            raise ReszooError(
                f"{key} is {value!r}, but must be {' or '.join(map(repr, options))}{did_you_mean(str(value), options)}"
            )


def _find(net: keras.Model, at: Any) -> Any:
    """Return the layer or operation called `at`."""
    found = {operation.name: operation for operation in net.operations}
    if at not in found:
        near = did_you_mean(str(at), found) or f"; its last map is that of {_last_map(net).name!r}"
        raise ReszooError(f"{net.name} has no layer {at!r}{near}")
    return found[at]


def _last_map(net: keras.Model) -> Any:
    """Return the last layer, no branch running beside it, with a map of more than one pixel, or else with any map."""
    maps = [
        layer
        for layer in waists(net)
        if not isinstance(layer, keras.layers.InputLayer) and _is_map(layer.output)
    ]
    if not maps:
        raise ReszooError(
            f"{net.name} has no layer that gives a map [n, height, width, channels] to stack blocks on"
        )
    return ([layer for layer in maps if tuple(layer.output.shape[1:3]) != (1, 1)] or maps)[-1]


def _is_map(output: Any) -> bool:
    return hasattr(output, "shape") and len(output.shape) == 4 and output.shape[-1] is not None


def _refuse_map(net: keras.Model, place: Any, block: str) -> None:
    """Raise ReszooError where blocks cannot stand behind the layer `place`."""
    layers = [
        *net.operations,
        *flatten_layers(net, include_self=False),
    ]  # those of models used as layers too
    if first := [
        layer for layer in layers if getattr(layer, "data_format", None) == "channels_first"
    ]:
        raise ReszooError(
            f"{net.name} cannot be stacked: its layer {first[0].name!r} puts channels first; "
            "blocks are built for channels last"
        )
    if isinstance(place, keras.layers.InputLayer):
        raise ReszooError(
            f"at={place.name!r} is the input; give a layer behind it, such as {_last_map(net).name!r}"
        )
    if (count := uses(net, place)) > 1:
        raise ReszooError(
            f"{place.name!r} is used {count} times in {net.name}; give `at` a layer that is used once"
        )
    if not _is_map(place.output):
        shape = getattr(place.output, "shape", "more than one tensor")
        raise ReszooError(
            f"the output of {place.name!r} is {shape}, but blocks need a map [n, height, width, channels]; "
            f"the last one is that of {_last_map(net).name!r}"
        )
    channels = place.output.shape[-1]
    if block == "bottleneck" and channels % NARROWING:
        raise ReszooError(
            f"{place.name!r} gives {channels} channels, which a bottleneck cannot divide by {NARROWING}; give block='basic'"
        )


def _free_prefix(net: keras.Model) -> str:
    taken, number = [operation.name for operation in net.operations], 1
    while any(name.startswith(f"{_prefix(number)}_block") for name in taken):
        number += 1
    return _prefix(number)


def _prefix(number: int) -> str:
    return "stack" if number == 1 else f"stack{number}"


def _policy_of(tensor: Any) -> str:
    """Return the dtype policy that computes in a tensor's dtype and keeps weights in at least float32."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return f"mixed_{dtype}" if dtype in ("float16", "bfloat16") else dtype


def _block(x: Any, name: str, block: str, order: str) -> Any:
    """Apply one residual block at the width of `x`, whose branch gives 0."""
    width = x.shape[-1]
    inner = width if block == "basic" else width // NARROWING
    convs = [(width, 3), (width, 3)] if block == "basic" else [(inner, 1), (inner, 3), (width, 1)]
    last = len(convs)
    y = x
    for number, (filters, kernel) in enumerate(convs, 1):
        if order == "pre":
            y = relu(norm(y, f"{name}_bn{number}", EPSILON), f"{name}_relu{number}")
        elif number > 1:
            y = relu(y, f"{name}_relu{number - 1}")
        y = conv(y, filters, kernel, f"{name}_conv{number}")
        if order == "post":
            y = norm(y, f"{name}_bn{number}", EPSILON, zero=number == last)
    if order == "pre":
        kernel = producer(y)[0].kernel
        kernel.assign(keras.ops.zeros_like(kernel))
    y = keras.layers.Add(name=f"{name}_add")([x, y])
    return relu(y, f"{name}_relu{last}") if order == "post" else y


def _inputs(net: keras.Model) -> Any:
    """Return fresh inputs in the structure of the model's, under the same names."""
    return keras.tree.map_structure(
        lambda tensor: keras.Input(
            batch_shape=tensor.shape, dtype=tensor.dtype, name=producer(tensor)[0].name
        ),
        net.input,
    )


def _copy(layer: Any) -> Any:
    """Return a fresh layer of the same configuration; one without a state, which Keras may not copy, serves both models."""
    try:
        return layer.__class__.from_config(layer.get_config())
    except (TypeError, ValueError, NotImplementedError):
        if not isinstance(layer, keras.layers.Layer) or layer.variables:
            raise
        return layer


def _hand_over(old: Any, new: Any) -> None:
    """Give a copied layer the weights of the old one, and what of it is trained."""
    if new is not old:
        new.set_weights(old.get_weights())
        for mine, theirs in zip(flatten_layers(old), flatten_layers(new), strict=True):
            if mine.trainable != theirs.trainable and not isinstance(mine, keras.Model):
                theirs.trainable = mine.trainable


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
