"""The exchange of raw and averaged weights, on a model of one layer."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from reszoo.training.averaging import WeightAverages


def model_and_averages() -> tuple[keras.Model, list[tf.Variable]]:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.set_weights([np.full((2, 2), 1.0), np.full(2, 1.0)])
    return model, [tf.Variable(tf.fill(weight.shape, 5.0)) for weight in model.trainable_variables]


def values(model: keras.Model, averages: list[tf.Variable]) -> list[float]:
    """One number per weight and per average; all elements must be alike."""
    arrays = [*model.get_weights(), *(average.numpy() for average in averages)]
    assert all(len(np.unique(array)) == 1 for array in arrays)
    return [float(array.flat[0]) for array in arrays]


def test_shown_averages_are_taken_back() -> None:
    model, averages = model_and_averages()
    exchange = WeightAverages(model.trainable_variables, averages)
    for _ in range(2):
        exchange.show()
        exchange.show()  # a second call must not take the averages for raw weights
        assert values(model, averages) == [5, 5, 5, 5]
        exchange.hide()
        exchange.hide()
        assert values(model, averages) == [1, 1, 5, 5]


def test_values_written_while_averages_are_shown_become_weight_and_average() -> None:
    model, averages = model_and_averages()
    for shown, expected in ((averages, [1, 7, 5, 7]), ([], [1, 7, 5, 7])):
        exchange = WeightAverages(model.trainable_variables, shown)
        exchange.show()
        model.layers[0].bias.assign([7.0, 7.0])
        exchange.hide()
        assert values(model, averages) == expected


def test_averages_that_are_not_finite_stay_averages() -> None:
    model, averages = model_and_averages()
    averages[0].assign(np.full((2, 2), np.nan))
    exchange = WeightAverages(model.trainable_variables, averages)
    exchange.show()
    exchange.hide()
    assert values(model, averages)[:2] == [1, 1]


def test_forgotten_raw_weights_do_not_return() -> None:
    model, averages = model_and_averages()
    exchange = WeightAverages(model.trainable_variables, averages)
    exchange.show()
    model.set_weights([np.full((2, 2), 3.0), np.full(2, 3.0)])
    exchange.forget()
    exchange.hide()
    assert values(model, averages) == [3, 3, 5, 5]
