"""Sharpness-aware steps equal the two passes of the paper, computed one by one on one device."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.config.optimizer import SGD
from reszoo.models.batchnorm import synchronize_batch_norm
from reszoo.models.build import build
from reszoo.training.step import Stepper
from tests.training.test_step import SHAPE, SLOW, SMALL, batches, difference, make, weights

RADIUS, DECAY, RATE, STEPS = 0.5, 1e-2, 0.1, 3


def reference(model: keras.Model, rows: int) -> list[np.ndarray]:
    """Two passes in NumPy around Keras' own gradients, with momentum 0.9 and coupled decay."""
    velocity = [np.zeros(weight.shape) for weight in model.trainable_variables]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def differentiate(images: tf.Tensor, labels: tf.Tensor) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        return [each.numpy() for each in tape.gradient(value, model.trainable_weights)]

    for step, (images, labels) in enumerate(batches(rows, STEPS)):
        start = [weight.numpy() for weight in model.trainable_variables]
        found = differentiate(images, labels)
        if step != 1:  # the interval is 2
            statistics = [each.numpy() for each in model.non_trainable_variables]
            norm = np.sqrt(sum((each**2).sum() for each in found))
            for weight, value, each in zip(model.trainable_variables, start, found, strict=True):
                weight.assign(value + RADIUS * each / norm)
            found = differentiate(images, labels)
            for variable, value in zip(model.non_trainable_variables, statistics, strict=True):
                variable.assign(value)
        for index, (value, each) in enumerate(zip(start, found, strict=True)):
            velocity[index] = 0.9 * velocity[index] - RATE * (each + DECAY * value)
            model.trainable_variables[index].assign(value + velocity[index])
    return [variable.numpy() for variable in model.variables]


def train(stepper: Stepper, rows: int) -> Stepper:
    settings = SGD(sam_radius=RADIUS, sam_interval=2)
    for step, (images, labels) in enumerate(batches(rows, STEPS)):
        stepper.radius = settings.sam_radius_at(step)
        stepper(images, labels, RATE)
    return stepper


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=SLOW)])
def test_steps_are_those_of_the_paper(replicas: int, strategy: tf.distribute.Strategy) -> None:
    """The norm is that of the whole batch, and the statistics are those of the first pass."""
    optimizer = {"name": "sgd", "weight_decay": DECAY}
    over = strategy if replicas > 1 else None
    stepper = train(make(over, policy="float64", optimizer=optimizer), 13)
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy("float64")
    try:
        model = build("resnet8", input_shape=SHAPE, **SMALL)
        synchronize_batch_norm(model)
    finally:
        keras.config.set_dtype_policy("float32")
    expected = reference(model, 13)
    assert difference(weights(stepper), expected) < 1e-7
    assert stepper.totals.numpy()[2] == 13 * STEPS


@SLOW
def test_both_passes_draw_the_same_masks() -> None:
    """A move of almost no length gives the plain step, with masks and micro-batches."""
    fields, found = {**SMALL, "drop_path": 0.5}, []
    for radius in (0.0, 1e-9):
        stepper = make(policy="float64", fields=fields, accumulate=2)
        stepper.radius = radius
        for images, labels in batches(16, 2):
            stepper(images, labels, RATE)
        found.append(weights(stepper))
    assert difference(*found) < 1e-6
