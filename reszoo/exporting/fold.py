"""Batch normalisation folded into the convolution before it: the same function in inference, with fewer operations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from reszoo.models.graph import nodes
from reszoo.models.settings import DATA_FORMAT, fixed_settings


@dataclass(frozen=True)
class Folded:
    """A net for inference in float32, and the normalisations that went into a convolution, or could not.

    One can where its input is a convolution's output that nothing else reads: all of them in post-activation nets (v1, v1.5),
    those between two convolutions of a block in pre-activation ones.
    """

    model: Any
    removed: tuple[str, ...]
    kept: tuple[str, ...]


@fixed_settings()
def fold(model: Any) -> Folded:
    """Return a float32 copy of a Keras functional model, its normalisations folded wherever that is exact.

    With scale s = gamma / sqrt(variance + epsilon), kernel w and bias b become w * s and (b - mean) * s + beta, computed in float64.
    """
    pairs = _pairs(model)
    inside = {norm: conv for conv, norm in pairs.items()}

    def in_float32(layer: Any) -> Any:
        config = layer.get_config() | {"dtype": "float32"}
        if layer.name in pairs:
            config |= {"use_bias": True, "bias_initializer": "zeros"}
        return type(layer).from_config(config)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in inside else layer(*args, **kwargs)

    copy = keras.models.clone_model(model, clone_function=in_float32, call_function=call)
    for layer in copy.layers:
        if not layer.weights:
            continue
        own = model.get_layer(layer.name)
        if layer.name in pairs:
            layer.set_weights(_folded(own, model.get_layer(pairs[layer.name])))
        else:
            layer.set_weights(own.get_weights())
    norms = unfolded(model).kept
    return Folded(
        copy,
        tuple(name for name in norms if name in inside),
        tuple(name for name in norms if name not in inside),
    )


def unfolded(model: Any) -> Folded:
    """Return a net as it is, none of its normalisations folded."""
    norms = (
        layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    )
    return Folded(model, (), tuple(norms))


def _pairs(model: Any) -> dict[str, str]:
    """Return the normalisation that follows each convolution and alone reads it, by their layers' names."""
    calls = nodes(model)
    readers: dict[int, list[Any]] = {}
    for node in calls:
        for tensor in node.input_tensors:
            readers.setdefault(id(tensor), []).append(node.operation)
    outputs = {id(tensor) for tensor in model.outputs}
    times = Counter(id(node.operation) for node in calls)
    found = {}
    for node in calls:
        conv, after = node.operation, readers.get(id(node.outputs[0]), [])
        if (
            not isinstance(conv, keras.layers.Conv2D)
            or conv.activation is not keras.activations.linear
        ):
            continue
        if conv.data_format != DATA_FORMAT:
            continue  # the axes below are those of channels-last maps
        if (
            len(after) != 1
            or id(node.outputs[0]) in outputs
            or times[id(conv)] != 1
            or times[id(after[0])] != 1
        ):
            continue
        if isinstance(after[0], keras.layers.BatchNormalization) and after[0].axis in (-1, 3):
            found[conv.name] = after[0].name
    return found


def _folded(conv: Any, norm: Any) -> list[np.ndarray]:
    """Return kernel and bias of a convolution that does what it and the normalisation after it do."""
    mean, variance = (
        np.asarray(value, np.float64) for value in (norm.moving_mean, norm.moving_variance)
    )
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma, np.float64)
    bias = np.asarray(conv.bias, np.float64) if conv.use_bias else 0.0
    shift = (bias - mean) * scale + (np.asarray(norm.beta, np.float64) if norm.center else 0.0)
    kernel = (
        np.asarray(conv.kernel, np.float64) * scale
    )  # the last axis is the output's channels, groups or not
    return [kernel.astype(np.float32), shift.astype(np.float32)]
