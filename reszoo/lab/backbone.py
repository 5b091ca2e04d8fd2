"""Models on which `reszoo lab drift` stacks blocks: trained ones, and fresh ones to train first."""

from __future__ import annotations

from pathlib import Path

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
from reszoo.types import JsonObject

VGG16 = "vgg16"
# VGG16 halves an image five times; without batch normalization it learns by small steps only.
VGG16_RECIPE = {
    "data.image_size": [32, 32],
    "optimizer.name": "adam",
    "optimizer.weight_decay": 0.0,
    "schedule.kind": "constant",
    "schedule.rate": 3e-4,
    "schedule.warmup": 0.0,
}


def is_trained(backbone: str) -> bool:
    """Return whether a backbone is a Keras file or a run folder rather than the name of a model."""
    return backbone.endswith(".keras") or (Path(backbone) / "recipe.toml").is_file()


def recipe_for(backbone: str, name: str | None, overrides: Overrides) -> Recipe:
    """Return the recipe `name`; by default a run's own, or "quickstart", adapted for VGG16."""
    changes: JsonObject = parse_overrides(overrides)
    run = is_trained(backbone) and not backbone.endswith(".keras")
    if name is None and run:
        return load_recipe(str(Path(backbone) / "recipe.toml"), changes)
    if not is_trained(backbone) and backbone != VGG16 and "/" not in backbone:
        changes = {"model.name": backbone, **changes}
    if name is None and backbone == VGG16:
        changes = {**VGG16_RECIPE, **changes}
    return load_recipe(name or "quickstart", changes)


def load_backbone(backbone: str, recipe: Recipe, pipeline: Pipeline) -> keras.Model:
    """Return the model that `backbone` names, from images to logits.

    Raises:
        ReszooError: For an unknown name, a file that cannot be read, or images too small for VGG16.
    """
    if backbone.endswith(".keras"):
        if not Path(backbone).is_file():
            raise ReszooError(f"backbone: no file {backbone}")
        try:
            return remove_softmax(keras.models.load_model(backbone, compile=False))
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ReszooError(f"{backbone} cannot be read as a Keras model: {reason}") from error
    if is_trained(backbone):
        return Run.open(backbone).load_model()
    if backbone == VGG16:
        return _build_vgg16(pipeline.info)
    if "/" in backbone:
        raise ReszooError(f"backbone: {backbone} is not a run folder: it holds no recipe.toml")
    return make_model(recipe, pipeline)


def _build_vgg16(info: DataInfo) -> keras.Model:
    if min(info.input_shape[:2]) < 32:
        raise ReszooError(
            f"backbone: vgg16 takes images of at least 32x32 pixels, but {info.name} gives "
            f"{info.input_shape[0]}x{info.input_shape[1]}. Fix: --set data.image_size=[32,32]"
        )
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=info.input_shape)
    # Keras' Glorot start halves a rectified signal's variance per layer (arXiv 1502.01852, 2.2).
    for layer in base.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(keras.initializers.HeNormal()(layer.kernel.shape))
    x = keras.layers.GlobalAveragePooling2D(DATA_FORMAT, name="head_pool")(base.output)
    logits = keras.layers.Dense(info.classes, name="head_dense")(x)
    return keras.Model(base.input, logits, name=VGG16)


def remove_softmax(model: keras.Model) -> keras.Model:
    """Return the model without its final softmax, if any. May change the last layer of `model`.

    Raises:
        ReszooError: For a model without a graph, or with another final activation.
    """
    if isinstance(model, keras.Sequential) and model.built:
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not isinstance(model, keras.Function) or len(model.outputs) != 1:
        raise ReszooError(f"{model.name} is not a functional model with one output")
    last, sources = producer(model.outputs[0])
    activation = getattr(last, "activation", None)
    softmax, linear = keras.activations.softmax, keras.activations.linear
    layers = keras.layers.Softmax | keras.layers.Activation
    if isinstance(last, layers) and activation in (None, softmax):
        return keras.Model(model.input, sources[0], name=model.name)
    if activation is softmax:
        last.activation = linear
    elif activation not in (None, linear):
        raise ReszooError(
            f"{model.name} ends in the activation {activation.__name__!r}; expected logits or a "
            "softmax"
        )
    return model
