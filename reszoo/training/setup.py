"""What a recipe trains, on the devices at hand: its data, its model with initial weights, and its stepper."""

from __future__ import annotations

from collections.abc import Callable

import keras

from reszoo.config.recipe import Recipe
from reszoo.data.device_pipeline import open_device_pipeline
from reszoo.data.pipeline import Pipeline, open_pipeline
from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.models.batchnorm import synchronise
from reszoo.models.build import build
from reszoo.training.devices import first_device
from reszoo.training.optimizers import make_optimizer
from reszoo.training.step import Stepper
from reszoo.weights.load import renew_head

ModelSource = keras.Model | Callable[[Pipeline], keras.Model]
"""A model made elsewhere than by the recipe, or a function that makes it for the data."""


def open_data(recipe: Recipe, strategy: tf.distribute.Strategy) -> Pipeline:
    """Open the recipe's dataset. With `data.on_device` its images lie on the first device of the strategy."""
    if recipe.data.on_device:
        return open_device_pipeline(recipe, device=first_device(strategy))
    return open_pipeline(recipe)


def make_model(recipe: Recipe, pipeline: Pipeline, *, load_weights: bool = True) -> keras.Model:
    """Return the recipe's model for the data.

    If the dataset's classes differ from the weights' classes, the classifier is re-initialized, even when the counts
    match.

    Args:
        recipe: The recipe.
        pipeline: Its data.
        load_weights: Load the weights that the recipe starts from; False where a checkpoint replaces them.
    """
    info = pipeline.info
    weights = recipe.model.weights or None if load_weights else None
    model = build(
        recipe.model.spec, input_shape=info.input_shape, classes=info.classes, weights=weights
    )
    published = recipe.model.published
    other_classes = published is not None and not published.classifies(info.class_names)
    if weights and published and other_classes and len(published.class_names) == info.classes:
        renew_head(model)
    return model


def take_model(source: ModelSource, pipeline: Pipeline) -> keras.Model:
    """Return a model made elsewhere.

    Raises:
        ReszooError: If it does not map the images of the data to one logit per class.
    """
    model = source if isinstance(source, keras.Model) else source(pipeline)
    info, takes, gives = pipeline.info, tuple(model.input_shape[1:]), tuple(model.output_shape[1:])
    fits = len(takes) == 3 and all(
        side in (None, given) for side, given in zip(takes, info.input_shape, strict=True)
    )
    if not fits or gives != (info.classes,):
        raise ReszooError(
            f"model: {model.name} maps {takes} to {gives}; expected {info.input_shape} to "
            f"({info.classes},), the images and classes of {info.name}. Change data.name or "
            "data.image_size, or give another model"
        )
    return model


def make_stepper(model: keras.Model, recipe: Recipe, strategy: tf.distribute.Strategy) -> Stepper:
    """Return the stepper of a recipe, and compile `model`. Call in the strategy's scope."""
    if recipe.train.batch_norm == "sync":
        synchronise(model)
    optimizer = make_optimizer(recipe.optimizer)
    # For callbacks, and for whoever loads the model: the stepper computes and scales the loss itself.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss=loss, metrics=["accuracy"], auto_scale_loss=False)
    # Keras makes the metrics at the first batch of its own loop; callbacks look there for the direction of a monitor.
    model._compile_metrics.build(
        keras.ops.zeros((1,)), keras.ops.zeros((1, model.output_shape[-1]))
    )
    return Stepper(
        model,
        optimizer,
        recipe.train,
        recipe.optimizer,
        strategy,
        recipe.finetune.stage_decay,
        images_on=first_device(strategy) if recipe.data.on_device else "CPU:0",
    )
