"""Freezing the lower part of a net, and the places (stem, stages, classifier) by which fine-tuning goes."""

from __future__ import annotations

from typing import Any

import keras

from reszoo.errors import ReszooError, did_you_mean
from reszoo.weights.convert import HEAD
from reszoo.zoo.layer_names import parse_place

MODES = ("eval", "train")


def freeze(model: keras.Model, until: str = "stage3", batch_norm: str = "eval") -> keras.Model:
    """Freeze a net up to and including the place `until`, thaw the rest, and return the same net, changed in place.

    until: "stem", "stage1", ... up to the last stage (stage3 of a CIFAR net), which ends where the classifier begins; "all"
        for everything but the classifier; "none" to thaw all.
    batch_norm: "eval" keeps frozen normalisations as they are, their statistics too; with "train" they go on learning,
        statistics, scales and offsets, and only the other frozen weights stand still.

    These are Keras' own `layer.trainable` flags, which are saved with the model; frozen dropout goes on dropping. As
    always in Keras, compile the model again afterwards, for a traced training step keeps the flags it was traced with.
    Raises ReszooError for a place that the net has not, and for a net without places.
    """
    if not isinstance(model, keras.Model):
        raise ReszooError(f"freeze takes a net that reszoo built, not {model!r}")
    placed = layers_by_place(model)
    stops = ("none", *(place for place in placed if place != "head"), "all")
    if until not in stops:
        near = did_you_mean(str(until), stops)
        raise ReszooError(
            f"until is {until!r}, but {model.name} has {', '.join(map(repr, stops))}{near}"
        )
    if batch_norm not in MODES:
        near = did_you_mean(str(batch_norm), MODES)
        raise ReszooError(f"batch_norm is {batch_norm!r}, but must be 'eval' or 'train'{near}")
    # A flag set to what it is already does not reach the layers below: TensorFlow's attribute tracking skips it.
    model.trainable = False
    model.trainable = True
    if until == "all":
        frozen = [layer for layer in model.layers if layer.name != HEAD]
    else:
        frozen = [layer for place in list(placed)[: stops.index(until)] for layer in placed[place]]
    for layer in frozen:
        layer.trainable = batch_norm == "train" and isinstance(
            layer, keras.layers.BatchNormalization
        )
    return model


def places(model: keras.Model) -> tuple[str, ...]:
    """Return the places of a net from its images to its classes, such as ("stem", "stage1", "stage2", "stage3", "head").

    "head" is the classifier, and missing in a net built with top=False.
    Raises ReszooError for a net without such layers.
    """
    return tuple(layers_by_place(model))


def layers_by_place(model: keras.Model) -> dict[str, list[Any]]:
    """Return the layers of each place, in the order of `places`; what is named otherwise, such as the input, is left out.

    What stands between the last stage and the classifier (a pre-activation net's last normalisation) is the last stage's.
    Raises ReszooError for a net without such layers.
    """
    found: dict[str, list[Any]] = {}
    for layer in model.layers:
        if place := parse_place(layer.name):
            found.setdefault(place, []).append(layer)
    stages = [place for place in found if place.startswith("stage")]
    if not stages:
        raise ReszooError(
            f"{model.name} has no layers named stage1_block1_...; only a net that reszoo built has places"
        )
    head = found.pop("head", [])
    found[stages[-1]] += [layer for layer in head if layer.name != HEAD]
    classifier = [layer for layer in head if layer.name == HEAD]
    return found | ({"head": classifier} if classifier else {})
