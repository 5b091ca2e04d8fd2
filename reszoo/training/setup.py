"""What a recipe trains on the devices at hand: its data, its model and its stepper."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import keras

from reszoo.config.recipe import Recipe
from reszoo.data.device_pipeline import open_device_pipeline
from reszoo.data.info import DataInfo
from reszoo.data.pipeline import Pipeline, open_pipeline
from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.models.batchnorm import synchronize_batch_norm
from reszoo.models.build import build
from reszoo.models.freeze import freeze
from reszoo.references import call_function, invalid_reference
from reszoo.training.devices import first_device
from reszoo.training.losses import find_class_weights
from reszoo.training.optimizers import make_optimizer
from reszoo.training.step import Stepper
from reszoo.training.workers import Workers
from reszoo.weights.load import renew_head

ModelSource: TypeAlias = keras.Model | Callable[[Pipeline], keras.Model]
"""A model that the recipe does not make, or a function that makes it for the data."""


def open_data(recipe: Recipe, strategy: tf.distribute.Strategy) -> Pipeline:
    """Open the recipe's dataset; with `data.on_device` on the first device of the strategy."""
    if recipe.data.on_device:
        return open_device_pipeline(recipe, device=first_device(strategy))
    return open_pipeline(recipe)


def make_model(
    recipe: Recipe,
    pipeline: Pipeline,
    *,
    given: ModelSource | None = None,
    load_weights: bool = True,
) -> keras.Model:
    """Return the model to train, with the layers frozen that the recipe freezes.

    If the dataset's classes differ from the weights' classes, the classifier is re-initialized,
    even when the counts match.

    Args:
        recipe: The recipe.
        pipeline: Its data.
        given: A model that the recipe does not make.
        load_weights: Load the weights that the recipe starts from; False if a checkpoint replaces
            them.

    Raises:
        ReszooError: If a given model does not map the images of the data to one logit per class.
    """
    settings = recipe.finetune
    if given is None and recipe.model.is_own:
        given = _make_own(recipe, pipeline)
    if given is not None:
        model = given if isinstance(given, keras.Model) else given(pipeline)
        if isinstance(model, keras.Sequential):  # has no graph of its own
            model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        _check_shapes(model, pipeline)
        if settings.freeze != "none":
            freeze(model, settings.freeze, settings.batch_norm)
        return model
    info, published = pipeline.info, recipe.model.published
    least, smallest = recipe.model.spec.total_stride, min(map(min, pipeline.train_sizes.values()))
    if recipe.data.train_sizes and smallest < least:
        raise ReszooError(
            f"data.train_sizes: {smallest} pixels are invalid; expected at least {least}, because "
            f"{recipe.model.spec.name} shrinks its input {least} times"
        )
    weights = recipe.model.weights or None if load_weights else None
    model = build(
        recipe.model.spec, input_shape=info.input_shape, classes=info.classes, weights=weights
    )
    other_classes = published is not None and not published.classifies(info.class_names)
    if weights and published and other_classes and len(published.class_names) == info.classes:
        renew_head(model)
    return freeze(model, settings.freeze, settings.batch_norm)


def _make_own(recipe: Recipe, pipeline: Pipeline) -> keras.Model:
    """Return the model that the user's function makes for the data."""
    config, info = recipe.model, pipeline.info
    arguments = {"input_shape": info.input_shape, "classes": info.classes, **config.fields}
    function = config.load_object("name")
    own = call_function("model.name", config.name, function, arguments)
    if not isinstance(own, keras.Model):
        why = f"expected a Keras model, not {type(own).__name__}"
        raise invalid_reference("model.name", config.name, why)
    return own


def _check_shapes(model: keras.Model, pipeline: Pipeline) -> None:
    info, takes, gives = pipeline.info, tuple(model.input_shape[1:]), tuple(model.output_shape[1:])
    fits = len(takes) == 3 and all(
        side in (None, known) for side, known in zip(takes, info.input_shape, strict=True)
    )
    if not fits or gives != (info.classes,):
        raise ReszooError(
            f"model: {model.name} maps {takes} to {gives}; expected {info.input_shape} to "
            f"({info.classes},), the images and classes of {info.name}. Change data.name or "
            "data.image_size, or give another model"
        )


def share_start(stepper: Stepper, workers: Workers) -> None:
    """Give every worker the values that worker 0 starts with."""
    variables = [*stepper.model.variables, *stepper.state().values()]
    values = workers.share([variable.numpy() for variable in variables])
    for variable, value in zip(variables, values, strict=True):
        if not workers.first:
            variable.assign(value)


def make_stepper(
    model: keras.Model,
    recipe: Recipe,
    info: DataInfo,
    strategy: tf.distribute.Strategy,
    workers: Workers,
) -> Stepper:
    """Return the stepper of a recipe, and compile the model. Call it in the strategy's scope.

    Raises:
        ReszooError: If the class weights do not fit the data.
    """
    weights = class_weights(recipe, info)
    if recipe.train.batch_norm == "sync":
        synchronize_batch_norm(model)
    optimizer = make_optimizer(recipe.optimizer)
    # For callbacks and for users of the saved model; the stepper computes its loss itself.
    multi_label, metric = recipe.data.multi_label, "accuracy"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Keras builds the metrics at the first batch of `fit`. Callbacks read the directions there.
    logits = keras.ops.zeros((1, model.output_shape[-1]))
    targets = keras.ops.zeros((1,))
    if multi_label:
        loss, targets = keras.losses.BinaryCrossentropy(from_logits=True), logits
        metric = keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
    model.compile(optimizer, loss=loss, metrics=[metric], auto_scale_loss=False)
    model._compile_metrics.build(targets, logits)
    return Stepper(
        model,
        optimizer,
        recipe.train,
        recipe.optimizer,
        strategy,
        recipe.finetune,
        images_on=first_device(strategy) if recipe.data.on_device else "CPU:0",
        worker=workers.index,
        workers=workers.count,
        soft=recipe.augment.mixes,
        multi_label=multi_label,
        class_weights=weights,
    )


def class_weights(recipe: Recipe, info: DataInfo) -> list[float]:
    """Return the weight of each class in the loss; none if all classes count alike."""
    counts = info.class_counts.get("train", [])
    images = info.examples["train"] if recipe.data.multi_label else 0
    return find_class_weights(recipe.train.class_weights, info.class_names, counts, images)
