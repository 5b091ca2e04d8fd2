"""Read the graph of a functional model.

All uses of Keras' private parts of a graph are here; `tests/test_upstream.py` names them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeAlias

import keras

from reszoo.models.layers import Blur, PadChannels
from reszoo.types import Tensor

Node: TypeAlias = Any
"""A node of Keras' graph: one call of an operation. Keras does not export its type."""

L = keras.layers
# Layers whose last operation is their `activation`. Exact types: a subclass may do more.
ACTIVATED = (
    *(L.Activation, L.Dense, L.Conv2D),
    *(L.Conv2DTranspose, L.DepthwiseConv2D, L.SeparableConv2D),
)
POSITIVE = ("relu", "relu6", "sigmoid", "hard_sigmoid", "softplus", "softmax", "exponential")
POSITIVE_FUNCTIONS = tuple(getattr(keras.activations, name) for name in POSITIVE)
# keras.ops of one tensor, by class name: `keras.ops.relu(x)` leaves these in a graph.
POSITIVE_OPS: tuple[str, ...] = ("Relu", "Relu6", "Sigmoid", "HardSigmoid", "Softplus")
POSITIVE_OPS += ("Softmax", "Absolute", "Square", "Exp")
# Layers whose output is not negative if their inputs are not.
CARRYING: tuple[type, ...] = (L.MaxPooling2D, L.AveragePooling2D, L.ZeroPadding2D, L.Cropping2D)
CARRYING += (L.GlobalMaxPooling2D, L.GlobalAveragePooling2D, L.Dropout, L.SpatialDropout2D)
CARRYING += (L.Reshape, L.Flatten, L.Permute, L.Identity, PadChannels, Blur)
CARRYING += (L.Concatenate, L.Add, L.Multiply, L.Average, L.Minimum)


def producer(tensor: Tensor) -> tuple[keras.layers.Layer, list[Tensor]]:
    """Return (the layer or operation that made a symbolic tensor, the tensors it was made from)."""
    operation, node, _ = tensor._keras_history
    return operation, list(operation._inbound_nodes[node].input_tensors)


def readers(layer: keras.layers.Layer) -> list[Node]:
    """Return the layers and operations that read the outputs of a layer, in any model."""
    return [node.operation for node in layer._outbound_nodes]


def flatten_layers(
    layer: keras.layers.Layer, *, include_self: bool = True
) -> list[keras.layers.Layer]:
    """Return a layer and the layers inside it, at any depth."""
    layers: list[keras.layers.Layer] = layer._flatten_layers(include_self=include_self)
    return layers


def count_calls(model: keras.Model, operation: keras.Operation) -> int:
    """Return how often a model's graph calls one of its layers or operations."""
    return sum(node.operation is operation for node in nodes(model))


def cut_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers that every later layer depends on through their one output, in order."""
    order = nodes(model)
    calls = Counter(id(node.operation) for node in order)
    last_use = {id(x): index for index, node in enumerate(order) for x in node.input_tensors}
    found, reach = [], -1  # the last node that reads what earlier nodes made
    for index, node in enumerate(order):
        if reach <= index and len(node.outputs) == 1 and calls[id(node.operation)] == 1:
            found.append(node.operation)
        reach = max([reach, *(last_use.get(id(tensor), -1) for tensor in node.outputs)])
    return found


def nodes(model: keras.Model) -> list[Node]:
    """Return the calls that make up a model's graph, each after those it depends on."""
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def can_be_negative(tensor: Tensor) -> bool:
    """Return False if the graph shows that a tensor has no value below 0, else True.

    Known are activations >= 0, and pooling, padding, dropout, reshaping, sums and products of them.
    All other tensors count as negative.
    """
    known: dict[int, bool] = {}

    def negative(tensor: Tensor) -> bool:
        if id(tensor) not in known:
            known[id(tensor)] = decide(tensor)
        return known[id(tensor)]

    def decide(tensor: Tensor) -> bool:
        operation, sources = producer(tensor)
        # A model used as a layer: its own graph decides.
        if isinstance(operation, keras.Function | keras.Sequential):
            return negative(operation.outputs[tensor._keras_history.tensor_index])
        kind = type(operation)
        if kind is L.ReLU:
            return bool(operation.negative_slope)
        is_op = kind.__module__.startswith("keras.src.ops.")
        if kind is L.Softmax or (is_op and kind.__name__ in POSITIVE_OPS):
            return False
        if kind in ACTIVATED:
            if kind is L.Activation and operation.activation is keras.activations.linear:
                return negative(sources[0])
            return operation.activation not in POSITIVE_FUNCTIONS
        if kind is L.UpSampling2D:  # the smoother interpolations overshoot
            return operation.interpolation not in ("nearest", "bilinear") or negative(sources[0])
        if kind is L.Maximum:
            return all(map(negative, sources))
        return kind not in CARRYING or any(map(negative, sources))

    return negative(tensor)
