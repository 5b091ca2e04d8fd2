"""Batch norm folded into the convolution before it: the same inference, fewer operations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from reszoo.models.graph import Node, nodes
from reszoo.models.settings import DATA_FORMAT, fixed_settings
from reszoo.types import Array, Variable


@dataclass(frozen=True)
class Folded:
    """A model for inference, and the names of its batch norms that were folded or kept.

    A batch norm is folded if its input is a convolution's output that nothing else reads: all of
    them in post-activation models, those between two convolutions of a block in pre-activation
    models.
    """

    model: keras.Model
    removed: tuple[str, ...]
    kept: tuple[str, ...]


@fixed_settings()
def fold(
    model: keras.Model,
    *,
    norms: bool = True,
    dtype: str | None = "float32",
    image_size: tuple[int, int] | None = None,
) -> Folded:
    """Return a copy of a Keras functional model with its batch norms folded where that is exact.

    With scale s = gamma / sqrt(variance + epsilon), kernel w and bias b become w * s and
    (b - mean) * s + beta, computed in float64. The copy is on one device, whatever strategy made
    `model`.

    Args:
        model: A functional model; it is not changed.
        norms: Fold batch norms; False only copies.
        dtype: The dtype policy of the copy; None keeps that of each layer.
        image_size: Another (height, width) of the input.
    """
    names = [
        layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    pairs = _find_pairs(model) if norms else {}
    removed = set(pairs.values())

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config() | ({"dtype": dtype} if dtype else {})
        if layer.name in pairs:
            config |= {"use_bias": True, "bias_initializer": "zeros"}
        return type(layer).from_config(config)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in removed else layer(*args, **kwargs)

    inputs = None
    if image_size:
        inputs = keras.Input((*image_size, model.input_shape[-1]), dtype="float32")
    copy = keras.models.clone_model(
        model, clone_function=clone, call_function=call, input_tensors=inputs
    )
    for layer in copy.layers:
        if layer.weights:
            own, norm = model.get_layer(layer.name), pairs.get(layer.name)
            weights = _fold_weights(own, model.get_layer(norm)) if norm else own.get_weights()
            layer.set_weights(weights)
    kept = tuple(name for name in names if name not in removed)
    return Folded(copy, tuple(name for name in names if name in removed), kept)


def _find_pairs(model: keras.Model) -> dict[str, str]:
    """Return the name of the batch norm that follows each convolution and alone reads it."""
    calls = nodes(model)
    readers: dict[int, list[Node]] = {}
    for node in calls:
        for tensor in node.input_tensors:
            readers.setdefault(id(tensor), []).append(node.operation)
    outputs = {id(tensor) for tensor in model.outputs}
    times = Counter(id(node.operation) for node in calls)
    found = {}
    for node in calls:
        conv, after = node.operation, readers.get(id(node.outputs[0]), [])
        if (
            isinstance(conv, keras.layers.Conv2D)
            and conv.activation is keras.activations.linear
            and conv.data_format == DATA_FORMAT  # kernels below have their channels last
            and len(after) == 1
            and isinstance(after[0], keras.layers.BatchNormalization)
            and after[0].axis in (-1, 3)
            and id(node.outputs[0]) not in outputs
            and times[id(conv)] == times[id(after[0])] == 1
        ):
            found[conv.name] = after[0].name
    return found


def _fold_weights(conv: keras.Layer, norm: keras.Layer) -> list[Array]:
    """Return the kernel and bias of a convolution that includes the batch norm after it."""

    def read(value: Variable) -> Array:
        return np.asarray(value, np.float64)

    scale = 1 / np.sqrt(read(norm.moving_variance) + norm.epsilon)
    scale = scale * (read(norm.gamma) if norm.scale else 1.0)
    bias = read(conv.bias) if conv.use_bias else 0.0
    shift = (bias - read(norm.moving_mean)) * scale + (read(norm.beta) if norm.center else 0.0)
    return [(read(conv.kernel) * scale).astype(np.float32), shift.astype(np.float32)]
