"""Models on which blocks are stacked."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from reszoo.errors import ReszooError
from reszoo.lab.backbone import recipe_for, remove_softmax
from tests.models.helpers import images


@pytest.mark.parametrize("end", ["dense", "activation", "layer", "none"])
def test_logits_are_what_the_softmax_is_taken_of(end: str) -> None:
    inputs = keras.Input((4,))
    softmax = "softmax" if end == "dense" else None
    x = keras.layers.Dense(3, activation=softmax, name="dense")(inputs)
    if end == "activation":
        x = keras.layers.Activation("softmax")(x)
    if end == "layer":
        x = keras.layers.Softmax()(x)
    model, batch = keras.Model(inputs, x), images((5, 4))
    kernel, bias = model.get_layer("dense").get_weights()
    logits = np.asarray(remove_softmax(model)(batch))
    np.testing.assert_allclose(logits, batch @ kernel + bias, rtol=1e-5)


def test_another_final_activation_is_rejected() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="sigmoid")])
    with pytest.raises(ReszooError, match="ends in the activation 'sigmoid'; expected logits"):
        remove_softmax(model)


def test_a_model_name_is_the_recipes_model_and_vgg16_gets_small_steps() -> None:
    assert recipe_for("resnet8", None, []).model.name == "resnet8"
    recipe = recipe_for("vgg16", None, ["schedule.rate=0.5"])
    assert recipe.data.image_size == (32, 32) and recipe.optimizer.name == "adam"
    assert recipe.schedule.rate == 0.5
    assert recipe_for("vgg16", "quickstart", []).optimizer.name == "sgd"
