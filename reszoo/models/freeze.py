"""Freeze the lower layer groups (stem, stages, classifier) of a model."""

from __future__ import annotations

import keras

from reszoo.errors import ReszooError, did_you_mean
from reszoo.weights.convert import HEAD
from reszoo.zoo.layer_names import parse_block_layer, parse_layer_group

MODES = ("eval", "train")


def freeze(model: keras.Model, until: str = "stage3", batch_norm: str = "eval") -> keras.Model:
    """Freeze a model up to and including a layer group, in place, and unfreeze the rest.

    These are Keras' own `layer.trainable` flags, which are saved with the model. Frozen dropout
    still drops. Compile the model again afterwards, because a traced step keeps the old flags.

    Args:
        model: A model that `build` made.
        until: "stem", "stage1", ... up to the last stage; "all" for everything but the classifier;
            "none" to unfreeze all.
        batch_norm: "eval" keeps frozen batch norms as they are, with their statistics. With "train"
            they still learn statistics, scales and offsets.

    Returns:
        The same model.

    Raises:
        ReszooError: For an unknown layer group, and for a model without layer groups.
    """
    if not isinstance(model, keras.Model):
        raise ReszooError(f"freeze expects a model that reszoo built, not {model!r}")
    groups = layer_groups(model)
    stops = ("none", *(group for group in groups if group != "head"), "all")
    for name, value, options in (("until", until, stops), ("batch_norm", batch_norm, MODES)):
        if value not in options:
            shown, near = ", ".join(map(repr, options)), did_you_mean(str(value), options)
            raise ReszooError(f"{name}: {value!r} is invalid; {model.name} takes {shown}{near}")
    # TensorFlow's tracking skips a flag that is set to its present value, layers below included.
    model.trainable = False
    model.trainable = True
    frozen = [layer for group in list(groups)[: stops.index(until)] for layer in groups[group]]
    if until == "all":
        frozen = [layer for layer in model.layers if layer.name != HEAD]
    for layer in frozen:
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = batch_norm == "train" and is_norm
    return model


def layer_groups(
    model: keras.Model, *, by_block: bool = False
) -> dict[str, list[keras.layers.Layer]]:
    """Return the layers of each group from input to output: "stem", "stage1", ..., "head".

    With `by_block` each residual block is a group, "stage1_block1".

    "head" is the classifier, and missing in a model built with top=False. Layers between the last
    stage and the classifier belong to that stage. The input belongs to no group.

    Raises:
        ReszooError: For a model without such layers.
    """
    found: dict[str, list[keras.layers.Layer]] = {}
    for layer in model.layers:
        block = parse_block_layer(layer.name) if by_block else None
        if group := block.block_name if block else parse_layer_group(layer.name):
            found.setdefault(group, []).append(layer)
    stages = [group for group in found if group.startswith("stage")]
    if not stages:
        raise ReszooError(
            f"{model.name} has no layers named stage1_block1_...; expected a model that reszoo "
            "built"
        )
    head = found.pop("head", [])
    found[stages[-1]] += [layer for layer in head if layer.name != HEAD]
    classifier = [layer for layer in head if layer.name == HEAD]
    return found | ({"head": classifier} if classifier else {})
