"""Grad-CAM: which places of an image speak for a class."""

from __future__ import annotations

import keras
import numpy as np

from reszoo.errors import ReszooError, did_you_mean
from reszoo.lazy import tf
from reszoo.models.graph import cut_layers
from reszoo.types import Array, Tensor


class GradCam:
    """Computes Grad-CAM maps of one model.

    With maps A of a layer and the logit y of a class, the weight of channel k is the mean of
    dy / dA[i, j, k] over all places, and the result is max(0, sum over k of weight k * A[i, j, k]).

    Args:
        model: Maps float images [n, h, w, c] to logits [n, classes].
        layer: A layer, or a stage such as "stage2" for its last layer; by default the last layer
            with maps.

    Attributes:
        layer: The layer.

    Raises:
        ReszooError: If the model has no such layer.

    Reference: arXiv 1610.02391, equations 1 and 2.
    """

    def __init__(self, model: keras.Model, layer: str = "") -> None:
        self.layer = find_layer(model, layer)
        self._maps = keras.Model(model.input, self.layer.output)
        self._logits = keras.Model(self.layer.output, model.output)

    def __call__(self, images: Tensor | Array, classes: Tensor | Array) -> Array:
        """Return the maps of one class of each image, float64 [n, height, width] of the layer.

        Args:
            images: The model's inputs, float [n, h, w, c].
            classes: Integers [n].
        """
        maps = self._maps(images, training=False)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            logits = self._logits(maps, training=False)
            own = tf.gather(logits, tf.cast(classes, tf.int32), batch_dims=1)
        weights = np.asarray(tape.gradient(own, maps)).astype(np.float64).mean(axis=(1, 2))
        values = np.asarray(maps).astype(np.float64)
        places: Array = np.einsum("nhwk,nk->nhw", values, weights)
        return np.maximum(places, 0)


def find_layer(model: keras.Model, name: str = "") -> keras.layers.Layer:
    """Return the layer whose maps Grad-CAM explains; the arguments are those of `GradCam`."""
    layers = {layer.name: layer for layer in cut_layers(model) if _has_maps(layer)}
    if not layers:
        raise ReszooError(
            f"{model.name}: no layer with maps [n, height, width, channels] that the logits depend "
            "on; Grad-CAM expects a convolutional model"
        )
    stage = [key for key in layers if name and key.startswith(f"{name}_")]
    chosen = name if name in layers or not name else stage[-1] if stage else None
    if chosen is None:
        stages = sorted({key.split("_")[0] for key in layers if key.startswith("stage")})
        raise ReszooError(
            f"layer: {name!r} is invalid; expected one of {', '.join([*stages, *layers][:12])}"
            f"{did_you_mean(name, layers)}"
        )
    return layers[chosen or list(layers)[-1]]


def _has_maps(layer: keras.layers.Layer) -> bool:
    shape = tuple(layer.output.shape)
    is_input = isinstance(layer, keras.layers.InputLayer)
    return not is_input and len(shape) == 4 and shape[1:3] != (1, 1)
