"""The nets that `reszoo lab drift` stacks blocks on: trained ones, and fresh ones to train first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

import reszoo.models  # noqa: F401  (registers the layers)
from reszoo.config.load import load_recipe
from reszoo.config.overrides import Overrides, parse_overrides
from reszoo.config.recipe import Recipe
from reszoo.data.info import DataInfo
from reszoo.data.pipeline import Pipeline
from reszoo.errors import ReszooError
from reszoo.models.graph import producer
from reszoo.models.settings import DATA_FORMAT
from reszoo.training.run import Run
from reszoo.training.setup import make_model

VGG16 = "vgg16"
# VGG16 halves an image five times; without normalisation it learns by small steps only.
VGG16_RECIPE = {
    "data.image_size": [32, 32],
    "optimizer.name": "adam",
    "optimizer.weight_decay": 0.0,
    "schedule.kind": "constant",
    "schedule.rate": 3e-4,
    "schedule.warmup": 0.0,
}


def trained(backbone: str) -> bool:
    """Return whether a backbone is a file or a folder, which is trained already, rather than the name of a net."""
    return backbone.endswith(".keras") or (Path(backbone) / "recipe.toml").is_file()


def recipe_for(backbone: str, name: str | None, overrides: Overrides) -> Recipe:
    """Return the recipe asked for; by default a run's own, or "quickstart", with small steps and 32x32 pixels for VGG16."""
    if name is not None:
        return load_recipe(name, _overrides(backbone, overrides))
    if trained(backbone) and not backbone.endswith(".keras"):
        return load_recipe(str(Path(backbone) / "recipe.toml"), overrides)
    return load_recipe(
        "quickstart",
        {**(VGG16_RECIPE if backbone == VGG16 else {}), **_overrides(backbone, overrides)},
    )


def _overrides(backbone: str, overrides: Overrides) -> dict[str, Any]:
    """Return the overrides with the backbone as the recipe's model, where it is a model name of the zoo."""
    if trained(backbone) or backbone == VGG16 or "/" in backbone:
        return parse_overrides(overrides)
    return {"model.name": backbone, **parse_overrides(overrides)}


def load_backbone(backbone: str, recipe: Recipe, pipeline: Pipeline) -> keras.Model:
    """Return the model that `backbone` names, giving logits: a run's, a file's, VGG16, or the recipe's own at its start.

    Raises ReszooError for a name that is none, a file that cannot be read, or a set too small for VGG16.
    """
    if backbone.endswith(".keras"):
        if not Path(backbone).is_file():
            raise ReszooError(f"no file {backbone}")
        try:
            return logits(keras.models.load_model(backbone, compile=False))
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ReszooError(f"{backbone} cannot be read as a Keras model: {reason}") from error
    if trained(backbone):
        return Run.open(backbone).load_model()
    if backbone == VGG16:
        return _vgg16(pipeline.info)
    if "/" in backbone:
        raise ReszooError(f"{backbone} is no run folder: it holds no recipe.toml")
    return make_model(recipe, pipeline)


def _vgg16(info: DataInfo) -> keras.Model:
    if min(info.input_shape[:2]) < 32:
        raise ReszooError(
            f"vgg16 takes images of at least 32x32 pixels, but {info.name} gives "
            f"{info.input_shape[0]}x{info.input_shape[1]}; give --set data.image_size=[32,32]"
        )
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=info.input_shape)
    # Keras' own start (Glorot) halves a rectified signal's variance in each of the 13 layers (arXiv 1502.01852, section 2.2).
    for layer in base.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(keras.initializers.HeNormal()(layer.kernel.shape))
    x = keras.layers.GlobalAveragePooling2D(DATA_FORMAT, name="head_pool")(base.output)
    return keras.Model(
        base.input, keras.layers.Dense(info.classes, name="head_dense")(x), name=VGG16
    )


def logits(net: keras.Model) -> keras.Model:
    """Return the net without the softmax it may end in, for the loss is taken of logits. Changes `net`'s last layer.

    Raises ReszooError for a net without a graph, or one that ends in a sigmoid.
    """
    if isinstance(net, keras.Sequential) and net.built:
        net = keras.Model(net.inputs[0], net.outputs[0], name=net.name)
    if not isinstance(net, keras.Function) or len(net.outputs) != 1:
        raise ReszooError(
            f"{net.name} is no functional model of one output, whose graph can be read"
        )
    last, sources = producer(net.outputs[0])
    activation = getattr(last, "activation", None)
    if isinstance(last, keras.layers.Softmax | keras.layers.Activation) and activation in (
        None,
        keras.activations.softmax,
    ):
        return keras.Model(net.input, sources[0], name=net.name)
    if activation is keras.activations.softmax:
        last.activation = keras.activations.linear
    elif activation not in (None, keras.activations.linear):
        raise ReszooError(
            f"{net.name} ends in the activation {activation.__name__!r}, but must give logits or a softmax"
        )
    return net


def input_fits(net: keras.Model, info: DataInfo, where: str) -> None:
    """Raise ReszooError unless the net takes the set's images and gives its classes."""
    takes, gives = tuple(net.input_shape[1:]), tuple(net.output_shape[1:])
    fits = len(takes) == 3 and all(
        a in (None, b) for a, b in zip(takes, info.input_shape, strict=True)
    )
    if not fits or gives != (info.classes,):
        raise ReszooError(
            f"{where} maps {takes} to {gives}, but {info.name} has images of {info.input_shape} in {info.classes} classes; "
            "give another --recipe, or --set data.name and data.image_size"
        )
