"""Blocks that share a traced function, and momentum in one kernel, equal the plain path."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.config.optimizer import SGD
from reszoo.config.training import TrainConfig
from reszoo.models.build import build
from reszoo.models.freeze import freeze
from reszoo.training import step as module
from reszoo.training.block_functions import BlockByBlock, split
from reszoo.training.devices import precision
from reszoo.training.forward import Forward
from reszoo.training.optimizers import make_optimizer, make_rule
from reszoo.training.step import Stepper

STEPS = 4
MODELS: dict[str, dict[str, Any]] = {
    "resnet20": {"input_shape": (8, 8, 3)},
    "plain20": {"input_shape": (8, 8, 3)},
    "resnet14_v2": {"input_shape": (8, 8, 3)},
    "resnet14": {"input_shape": (8, 8, 3), "drop_path": 0.3},
    "resnet8": {"input_shape": (8, 8, 3), "block": "bottleneck", "shortcut": "B", "dropout": 0.3},
    "wrn16_4": {"input_shape": (8, 8, 3), "se_ratio": 0.25},
}
QUICK = "resnet14"  # with random layers
CASES = [pytest.param(name, marks=[] if name == QUICK else pytest.mark.slow) for name in MODELS]


def make(name: str, *, frozen: str = "none", nesterov: bool = False, **fields: Any) -> Stepper:
    keras.utils.set_random_seed(1)
    config, settings = (
        SGD(weight_decay=1e-4, nesterov=nesterov),
        TrainConfig(batch_size=6, steps=STEPS),
    )
    model = freeze(build(name, **fields), frozen)
    return Stepper(model, make_optimizer(config), settings, config, tf.distribute.get_strategy())


def train(stepper: Stepper) -> list[float]:
    """Take STEPS steps; return the sum of losses after each."""
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(STEPS):
        images = tf.constant(rng.normal(size=(6, *stepper.model.input_shape[1:])), tf.float32)
        stepper(images, tf.constant(rng.integers(0, 10, 6), tf.int32), 0.02)
        losses.append(float(stepper.totals.numpy()[0]))
    return losses


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stepper]:
    """As `make`, on the plain path: Keras' own call of the model."""

    def plain(*args: Any, **options: Any) -> Stepper:
        with monkeypatch.context() as patched:
            patched.setattr(module, "Forward", partial(Forward, shared=False))
            return make(*args, **options)

    return plain


@pytest.mark.parametrize("name", CASES)
def test_steps_are_the_plain_ones(name: str, plainly: Callable[..., Stepper]) -> None:
    ours, plain = make(name, **MODELS[name]), plainly(name, **MODELS[name])
    np.testing.assert_allclose(train(ours), train(plain), rtol=1e-6)
    for one, two in ((ours.model, plain.model), (ours.optimizer, plain.optimizer)):
        for own, other in zip(one.variables, two.variables, strict=True):
            np.testing.assert_allclose(
                own.numpy(), other.numpy(), rtol=1e-6, atol=1e-6, err_msg=own.path
            )


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_in_one_kernel_is_that_of_keras_to_the_bit(nesterov: bool) -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=50).astype("f4"), rng.normal(size=(5, 50)).astype("f4")
    found = []
    for kernel in (True, False):
        stepper = make("resnet8", input_shape=(8, 8, 3), nesterov=nesterov)
        weight = next(variable for variable in stepper.weights if variable.shape == (10,))
        weight.assign(start[:10])
        update = make_rule(stepper.optimizer, SGD(nesterov=nesterov), ["float32"], alone=kernel)
        for gradient in gradients:
            update(tf.constant(gradient[:10]), weight.value, tf.constant(0.1), False)
        found.append(weight.numpy())
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("name", "blocks", "kinds"),
    [
        ("resnet56", 27, 5),
        ("plain56", 27, 5),
        ("resnet56_v2", 27, 6),
        ("resnet20_sd", 9, 9),
        ("resnet50", 16, 8),
    ],
)
def test_blocks_that_are_alike_share_a_function(name: str, blocks: int, kinds: int) -> None:
    forward = BlockByBlock(build(name))
    assert (forward.blocks, forward.kinds) == (blocks, kinds)


def test_blocks_of_other_input_shapes_are_other_kinds() -> None:
    """Two blocks of one stage with the same layers: one takes 16 channels, the other 64."""
    keras.utils.set_random_seed(1)
    model = build(
        "resnet8", input_shape=(8, 8, 3), block="bottleneck", shortcut="C", depths=(2, 1, 1)
    )
    forward = BlockByBlock(model)
    assert (forward.blocks, forward.kinds) == (4, 4)
    images = tf.random.stateless_normal([4, 8, 8, 3], [1, 2])
    np.testing.assert_allclose(forward(images), model(images, training=True), rtol=1e-5, atol=1e-6)


def test_under_mixed_precision(plainly: Callable[..., Stepper]) -> None:
    with precision("mixed_bfloat16"):
        ours, plain = (one("resnet8", input_shape=(8, 8, 3)) for one in (make, plainly))
    np.testing.assert_allclose(train(ours), train(plain), rtol=1e-6)


def test_a_partly_frozen_model_takes_the_plain_path() -> None:
    for frozen, expected in (("stage1", False), ("none", True)):
        stepper = make("resnet8", frozen=frozen, input_shape=(8, 8, 3))
        assert isinstance(stepper._forward._blocks, BlockByBlock) == expected


def test_a_block_without_one_entry_and_one_exit_is_computed_layer_by_layer() -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="stage1_block1_conv1")(inputs)
    y = keras.layers.Conv2D(4, 3, padding="same", name="stage1_block1_conv2")(x)
    z = keras.layers.Conv2D(4, 3, padding="same", name="stage1_block2_conv1")(y)
    z = keras.layers.Add(name="stage1_block2_add")([z, x])  # reaches into the block before the last
    z = keras.layers.Conv2D(4, 3, padding="same", name="stage1_block3_conv1")(z)
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(z))
    model = keras.Model(inputs, outputs)
    assert [group.name for group in split(model)] == [*[None] * 4, "stage1_block3", None, None]
    images = tf.random.normal((2, 8, 8, 3))
    np.testing.assert_allclose(BlockByBlock(model)(images), model(images), rtol=1e-5, atol=1e-6)
