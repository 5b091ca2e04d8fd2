"""Frozen layers stand still, statistics and all, in Keras' `fit` and in our own step; the rest learns; files keep it so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import reszoo
from reszoo.config.optimizer import SGD
from reszoo.config.training import TrainConfig
from reszoo.errors import ReszooError
from reszoo.models.batchnorm import BatchNormalization, synchronize_batch_norm
from reszoo.models.build import build
from reszoo.models.freeze import freeze, layer_groups
from reszoo.training.optimizers import make_optimizer
from reszoo.training.step import Stepper
from reszoo.zoo.layer_names import parse_layer_group

from .helpers import by_name, images, mostly_slow, randomize

SHAPE = (8, 8, 3)
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def small(**fields: Any) -> keras.Model:
    """A net of one block a stage with a random value in every weight, statistics too."""
    keras.utils.set_random_seed(1)
    model = build("resnet8", input_shape=SHAPE, **fields)
    randomize(model, 0)
    return model


def trainable(model: keras.Model) -> set[str]:
    """The layers that have a weight to learn."""
    owned = {id(variable) for variable in model.trainable_variables}
    return {
        layer.name
        for layer in model.layers
        if any(id(variable) in owned for variable in layer.variables)
    }


def with_weights(model: keras.Model, *prefixes: str) -> set[str]:
    return {
        layer.name
        for layer in model.layers
        if layer.trainable_weights and layer.name.startswith(prefixes)
    }


# Which layers


def test_layer_groups_follow_from_layer_names() -> None:
    groups = ["stem", "stage1", "stage2", "stage3", "head"]
    assert list(layer_groups(build("resnet8"))) == groups
    assert list(layer_groups(build("resnet8", top=False))) == groups[:-1]
    four = build("resnet18", input_shape=(32, 32, 3), depths=(1,) * 4, widths=(8,) * 4)
    assert list(layer_groups(four)) == [*groups[:-1], "stage4", "head"]
    names = [
        "stem_bn1",
        "stage12_block3_shortcut_conv",
        "head_dense",
        "images",
        "stack_block1_conv1",
        "stage1",
    ]
    assert [parse_layer_group(name) for name in names] == ["stem", "stage12", "head", "", "", ""]


@pytest.mark.parametrize("order", ["post", "pre"])
def test_all_up_to_the_stage_is_frozen_and_an_earlier_stage_unfreezes_the_rest(order: str) -> None:
    model = build("resnet8", input_shape=SHAPE, order=order)
    whole = trainable(model)
    stage3 = with_weights(model, "stage3", "head_bn")
    assert ("head_bn" in stage3) is (order == "pre")
    expected = {
        "all": {"head_dense"},
        "stage3": {"head_dense"},  # what stands between it and the classifier is its own
        "stage2": {"head_dense"} | stage3,
        "stage1": {"head_dense"} | stage3 | with_weights(model, "stage2"),
        "stem": whole - with_weights(model, "stem"),
        "none": whole,
    }
    for until, left in expected.items():
        assert freeze(model, until) is model
        assert trainable(model) == left, until
    model.trainable = False
    assert trainable(freeze(model, "stage2")) == expected["stage2"]


def test_batch_norms_can_stay_trainable_in_frozen_stages() -> None:
    model = build("resnet8", input_shape=SHAPE)
    freeze(model, "stage2", batch_norm="train")
    norms = {
        layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert trainable(model) == norms | with_weights(model, "stage3", "head")


def test_blocks_stacked_on_a_model_are_frozen_by_all_alone() -> None:
    model = reszoo.stack(small(), blocks=1)
    assert {"stack_block1_conv1", "head_dense"} < trainable(freeze(model, "stage3"))
    assert trainable(freeze(model, "all")) == {"head_dense"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"until": "stage4"},
            "until: 'stage4' is invalid; resnet8 takes 'none', 'stem', 'stage1', 'stage2', 'stage3', 'all'; did",
        ),
        ({"until": "head"}, "until: 'head' is invalid; resnet8 takes 'none', 'stem'"),
        ({"until": 3}, "until: 3 is invalid"),
        (
            {"batch_norm": "trian"},
            "batch_norm: 'trian' is invalid; resnet8 takes 'eval', 'train'; did you mean 'train'?",
        ),
    ],
)
def test_unknown_values_are_rejected_in_one_line_and_change_nothing(
    arguments: dict[str, Any], says: str
) -> None:
    model = freeze(build("resnet8", input_shape=SHAPE), "stem")
    before = trainable(model)
    with pytest.raises(ReszooError) as caught:
        freeze(model, **arguments)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert trainable(model) == before


def test_a_model_without_stage_names_is_rejected() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head_dense")(inputs), name="mine")
    for call in (freeze, layer_groups):
        with pytest.raises(
            ReszooError, match="mine has no layers named stage1_block1_.*reszoo built"
        ):
            call(model)


# What stands still while it trains


def test_the_fused_layer_computes_with_its_statistics_when_frozen() -> None:
    layer = BatchNormalization(epsilon=1e-3)
    layer.build((None, 4, 4, 3))
    random = np.random.default_rng(0)
    for variable in layer.weights:
        variable.assign(random.uniform(0.5, 1.5, tuple(variable.shape)))
    layer.trainable = False
    before = [np.asarray(variable) for variable in layer.weights]
    x = images((6, 4, 4, 3)) * 3 + 5
    y = layer(x, training=True)
    gamma, beta, mean, variance = before
    np.testing.assert_allclose(
        y, gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta, rtol=1e-5, atol=1e-5
    )
    for variable, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def by_step(model: keras.Model, x: Any, y: Any) -> None:
    settings, config = TrainConfig(batch_size=16, steps=2), SGD(weight_decay=1e-3)
    stepper = Stepper(model, make_optimizer(config), settings, config, tf.distribute.get_strategy())
    for start in (0, 16):
        stepper(tf.constant(x[start : start + 16]), tf.constant(y[start : start + 16]), 0.01)


def by_fit(model: keras.Model, x: Any, y: Any) -> None:
    model.compile(
        keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)


def by_keras_own_layers(model: keras.Model, x: Any, y: Any) -> None:
    synchronize_batch_norm(model)  # the layers that leave the fused operation for Keras' own path
    by_fit(model, x, y)


TRAININGS = [(by_step, "eval"), (by_fit, "eval"), (by_step, "train"), (by_fit, "train")]
TRAININGS += [(by_keras_own_layers, "eval"), (by_keras_own_layers, "train")]


@pytest.mark.parametrize(("training", "batch_norm"), mostly_slow(TRAININGS, 3))
def test_frozen_statistics_move_only_where_they_are_let(training: Any, batch_norm: str) -> None:
    """keras-team/keras#9214: a frozen normalisation that goes on taking its batch's statistics."""
    model = freeze(small(), "stage2", batch_norm)
    before = by_name(model)
    x, y = (
        images((32, *SHAPE), 3) * 2 + 1,
        np.random.default_rng(0).integers(0, 10, 32).astype(np.int32),
    )
    training(model, x, y)
    after = by_name(model)
    moved = {name for name in before if (before[name] != after[name]).any()}
    frozen = {name for name in before if name.startswith(("stem", "stage1", "stage2"))}
    norms = {name for name in frozen if name.endswith(NORM)}
    assert len(norms) == 4 * 5 and len(frozen - norms) == 5
    assert moved == set(before) - (frozen if batch_norm == "eval" else frozen - norms)


def test_a_file_keeps_what_is_frozen(tmp_path: Path) -> None:
    model = freeze(small(order="pre"), "stage2")
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert trainable(loaded) == trainable(model)
    x = images((4, *SHAPE))
    np.testing.assert_array_equal(np.asarray(loaded(x)), np.asarray(model(x)))
    assert trainable(freeze(loaded, "none")) == trainable(
        build("resnet8", input_shape=SHAPE, order="pre")
    )
    model.save_weights(tmp_path / "net.weights.h5")
    again = build("resnet8", input_shape=SHAPE, order="pre", weights=tmp_path / "net.weights.h5")
    np.testing.assert_array_equal(np.asarray(again(x)), np.asarray(model(x)))
