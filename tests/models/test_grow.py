"""A grown net computes what it was grown from, bit for bit where the arithmetic allows it, and all of it can learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import reszoo
from reszoo import Spec, build, grow
from reszoo.errors import ReszooError
from reszoo.models.equivalence import check_equivalence
from reszoo.models.grow import transfer_weights
from reszoo.models.settings import fixed_settings

from .helpers import BASIC, BOTTLENECK, images, mostly_slow, randomize
from .test_gradients import gradients

DEEPER = {"name": "deep", "depths": (4, 2)}
THIN: dict[str, Any] = {"widths": (8, 8, 16, 16), "stem_width": 8}

EXACT = [
    BASIC,
    BOTTLENECK.replace(order="pre", shortcut="B"),
    BASIC.replace(order="relu_pre"),
    BASIC.replace(rezero=True, order="relu_before_add"),
    BASIC.replace(se_ratio=1.0),  # with fewer hidden units chance may leave all of them off
    BASIC.replace(drop_path=0.5, dropout=0.2),
    BOTTLENECK.replace(shortcut="B", stride_at="conv2"),
    BASIC.replace(branch_scale=0.5),
    BOTTLENECK,
    BASIC.replace(shortcut="B"),
    BASIC.replace(order="pre"),
    BASIC.replace(rezero=True),
    BASIC.replace(rezero=True, order="pre"),
    BASIC.replace(zero_gamma=True),
    BASIC.replace(norm="none"),
    BASIC.replace(activation="tanh", order="pre"),
    BASIC.replace(norm="none", initialization="fixup"),
    BASIC.replace(norm="group", norm_groups=2),
    BOTTLENECK.replace(shortcut="B", groups=2, group_width=32),
]
ROUNDED = [
    BASIC.replace(shortcut="none"),
    BASIC.replace(shortcut="none", order="relu_before_add"),
    BASIC.replace(shortcut="none", order="bn_after_add"),
    BASIC.replace(shortcut="C"),
    BOTTLENECK.replace(shortcut="C"),
    BASIC.replace(order="bn_after_add"),
    BASIC.replace(order="bn_after_add", shortcut="C"),
]


def label(net: Spec) -> str:
    default = (BASIC if net.block == "basic" else BOTTLENECK).to_dict()
    return ",".join(
        [
            net.block,
            *(f"{key}={value}" for key, value in net.to_dict().items() if default[key] != value),
        ]
    )


def trained(net: Spec | str, seed: int = 0, side: int = 9) -> keras.Model:
    model = build(net, input_shape=(side, side, 3), classes=5)
    randomize(model, seed)
    return model


def outputs(model: keras.Model, batch: Any, training: bool = False) -> np.ndarray[Any, Any]:
    return np.asarray(model(batch, training=training))


@pytest.mark.parametrize("net", mostly_slow(EXACT, 8), ids=label)
def test_residual_models_agree_bit_for_bit(net: Spec) -> None:
    old = trained(net)
    before = [np.asarray(weight) for weight in old.weights]
    new = grow(old, net.replace(**DEEPER))
    batch = images((16, 9, 9, 3), 1)
    np.testing.assert_array_equal(outputs(new, batch), outputs(old, batch))
    if not net.drop_path:  # masks are drawn anew
        np.testing.assert_array_equal(
            outputs(new, batch, training=True), outputs(old, batch, training=True)
        )
    assert new.growth.exact and new.growth.difference == 0
    assert new.growth.added == ("stage1_block3", "stage1_block4", "stage2_block2")
    for weight, value in zip(old.weights, before, strict=True):
        if net.drop_path or "moving" not in weight.name:  # which the look in training mode moved
            np.testing.assert_array_equal(np.asarray(weight), value)


@pytest.mark.parametrize("net", mostly_slow(ROUNDED, 1), ids=label)
def test_blocks_that_normalize_their_input_agree_up_to_rounding(net: Spec) -> None:
    old = trained(net)
    calibration = images((64, 9, 9, 3), 2)
    # Moving statistics as training leaves them: those of the batches. Else a batch's own, in training, would be others.
    for layer in old.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    outputs(old, calibration, training=True)
    expected = outputs(old, calibration)
    largest = np.abs(expected).max()
    for given_images in (None, calibration):
        new = grow(old, net.replace(**DEEPER), images=given_images)
        assert new.growth.difference <= 1e-5 * largest * 1.01
        np.testing.assert_allclose(outputs(new, calibration), expected, atol=1e-5 * largest, rtol=0)
        moved = np.abs(
            outputs(new, calibration, training=True) - outputs(old, calibration, training=True)
        ).max()
        # Only statistics of the images make a normalisation neutral in training.
        assert moved < 1e-3 * largest if given_images is not None else moved > 1e-2 * largest


@pytest.mark.parametrize("net", mostly_slow(EXACT, 2) + mostly_slow(ROUNDED, 1), ids=label)
def test_every_new_weight_has_a_gradient_within_two_steps(net: Spec) -> None:
    """No new block is frozen; without dropping, which hides a branch for a step."""
    net = net.replace(drop_path=0.0, dropout=0.0)
    new = grow(trained(net), net.replace(**DEEPER))
    reached = np.zeros(len(new.trainable_variables), bool)
    for step in range(2):
        found = gradients(new, step)
        assert all(np.isfinite(value).all() for value in found)
        reached |= [bool(value.any()) for value in found]
        for weight, value in zip(new.trainable_variables, found, strict=True):
            weight.assign_sub(0.1 * value)
    assert [
        w.path for w, there in zip(new.trainable_variables, reached, strict=True) if not there
    ] == []


BY_NAME: list[tuple[str, str, dict[str, Any]]] = [
    ("resnet8", "resnet20", {}),
    ("resnet50_d", "resnet50_d", THIN),
    ("wrn10_1", "wrn16_1", {}),
    ("resnet8_v2", "resnet14_v2", {}),
    ("resnet18", "resnet34", THIN),
    ("resnet18_v2", "resnet34_v2", THIN),
    ("resnet50", "resnet101", {**THIN, "depths": (3, 4, 6, 3)}),
    ("se_resnet50", "se_resnet50", {**THIN, "se_ratio": 0.25}),
]


@pytest.mark.parametrize(("small", "large", "fields"), mostly_slow(BY_NAME, 2))
def test_the_families_grow_by_name(small: str, large: str, fields: dict[str, Any]) -> None:
    few = {"depths": (1, 1, 1, 1)} if "widths" in fields else {}
    more = {"depths": (2, 1, 2, 1)} if "widths" in fields else {}
    old = trained(reszoo.spec(small, **{**fields, **few}), side=33)
    new = grow(old, large, **{**fields, **more})
    batch = images((2, 33, 33, 3))
    np.testing.assert_array_equal(outputs(new, batch), outputs(old, batch))
    assert new.name == reszoo.spec(large).name


def test_plain_models_grow_by_name_and_images_make_the_growth_neutral() -> None:
    old = trained("plain8", side=16)
    new = grow(old, "plain20", images=images((64, 16, 16, 3)))
    assert 0 < new.growth.difference < 1e-4  # logits are of the order of 10
    kernel = np.asarray(new.get_layer("stage2_block3_conv1").kernel)
    np.testing.assert_array_equal(kernel[1, 1], np.eye(32))
    assert kernel.sum() == 32
    np.testing.assert_allclose(
        np.asarray(new.get_layer("stage2_block3_bn1").moving_mean),
        np.asarray(new.get_layer("stage2_block3_bn1").beta),
    )


@pytest.mark.parametrize(("policy", "share"), [("float32", 1e-5), ("mixed_bfloat16", 2**-8)])
def test_the_limit_of_the_difference_is_that_of_the_precision(policy: str, share: float) -> None:
    """A plain20 that was trained in bfloat16 differed by 3e-4 once it was grown."""
    with fixed_settings(policy):
        one, other = (build(BASIC, input_shape=(9, 9, 3), classes=5) for _ in range(2))
    randomize(one, 0)
    other.set_weights(one.get_weights())
    batch = images((4, 9, 9, 3))
    bias = other.get_layer("head_dense").bias
    bias.assign_add(tf.fill([5], 0.8 * share * np.abs(outputs(one, batch)).max()))
    assert check_equivalence(one, other, [], batch).difference > 0
    bias.assign_add(tf.fill([5], 0.8 * share * np.abs(outputs(one, batch)).max()))
    with pytest.raises(ReszooError, match="does not compute what"):
        check_equivalence(one, other, [], batch)


def test_a_model_without_its_classifier_grows() -> None:
    old = build(BASIC, input_shape=(9, 9, 3), top=False)
    randomize(old, 0)
    new = grow(old, BASIC.replace(**DEEPER))
    np.testing.assert_array_equal(
        outputs(new, images((4, 9, 9, 3))), outputs(old, images((4, 9, 9, 3)))
    )


def test_a_model_of_any_input_size_grows() -> None:
    old = build(BASIC, input_shape=(None, None, 3), classes=5)
    assert grow(old, BASIC.replace(**DEEPER)).growth.exact


def test_a_grown_model_is_saved_and_grown_again(tmp_path: Path) -> None:
    old = trained("resnet8", side=8)
    grow(old, "resnet14").save(tmp_path / "net.keras")
    again = grow(keras.models.load_model(tmp_path / "net.keras"), "resnet26")
    np.testing.assert_array_equal(
        outputs(again, images((4, 8, 8, 3))), outputs(old, images((4, 8, 8, 3)))
    )


def test_the_identity_is_no_accident() -> None:
    """Were a new block left as it is built, the outputs would differ: what `check` refuses."""
    old, deep = trained(BASIC), build(BASIC.replace(**DEEPER), input_shape=(9, 9, 3), classes=5)
    transfer_weights(old, deep, BASIC.replace(**DEEPER))
    batch = images((4, 9, 9, 3))
    np.testing.assert_array_equal(outputs(deep, batch), outputs(old, batch))
    deep.get_layer("stage1_block4_bn2").gamma.assign(tf.ones(6))
    assert np.abs(outputs(deep, batch) - outputs(old, batch)).max() > 1e-3


DEEP = {"depths": (3, 1)}
PLAIN = {**DEEP, "shortcut": "none"}
REJECTED: list[tuple[Any, Any, str]] = [
    ("resnet20", "resnet8", "resnet8 has no stage1_block2, but resnet20 has"),
    ("resnet8", "resnet8", "has no block that resnet8 lacks"),
    ("resnet8", "plain14", "stage1_block1_add: only the shallower model has it"),
    ("plain8", "resnet14", "stage1_block1_add: only the deeper model has it"),
    ("resnet8", "resnet14_v2", "resnet14_v2 is not a deeper resnet8"),
    ("resnet8", "wrn16_2", "is not a deeper resnet8"),
    ("resnet8", "resnet14_", "no model 'resnet14_'"),
    (
        BASIC,
        BASIC.replace(depths=(2, 2), shortcut="B", name="b"),
        "fields that tiny was built with",
    ),
    (BASIC, BASIC.replace(depths=(2, 1, 1), widths=(6, 12, 24)), "grow only adds blocks"),
    (BASIC, BASIC.replace(**DEEP, activation="tanh"), "cannot be grown: tanh changes the input"),
    (BASIC, BASIC.replace(**DEEP, gate="exclusive"), "cannot be grown: a gate never passes"),
    (BASIC, BASIC.replace(**DEEP, shortcut_scale=0.5), "shortcut is scaled by 0.5"),
    (BASIC, BASIC.replace(**DEEP, order="relu_before_add"), "use rezero=true"),
    (
        BASIC,
        BASIC.replace(**DEEP, shortcut="none", norm="group", norm_groups=2),
        "norm 'group' changes the input of a block",
    ),
    (
        BASIC,
        BASIC.replace(**DEEP, order="pre", norm="scaled_weight"),
        "norm 'scaled_weight' scales inputs by the number of blocks before them",
    ),
    (BASIC, BOTTLENECK.replace(**PLAIN), "a plain bottleneck cannot carry its input"),
    (BASIC, BASIC.replace(**PLAIN, order="pre"), "rectifies the input of a plain block"),
    (BASIC, BASIC.replace(**DEEP, shortcut="C", order="pre"), "rectifies the input of shortcut"),
    (BASIC, BASIC.replace(**PLAIN, se_ratio=0.5), "squeeze-and-excitation"),
]


@pytest.mark.parametrize(("net", "to", "message"), REJECTED)
def test_impossible_growth_is_rejected_in_one_line(net: Any, to: Any, message: str) -> None:
    old = build(net, input_shape=(16, 16, 3))
    with pytest.raises(ReszooError, match=message) as refused:
        grow(old, to)
    assert "\n" not in str(refused.value)


def test_only_models_of_the_zoo_grow() -> None:
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    for wrong in (other, None, "resnet8"):
        with pytest.raises(ReszooError, match="reszoo.stack"):
            grow(wrong, "resnet14")


@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.sampled_from(["A", "B"]),
    st.sampled_from(["post", "pre", "relu_pre"]),
)
def test_any_growth_of_depths_is_exact(
    depths: tuple[int, int], more: tuple[int, int], shortcut: str, order: str
) -> None:
    net = BASIC.replace(depths=depths, shortcut=shortcut, order=order)
    to = net.replace(depths=tuple(a + b for a, b in zip(depths, more, strict=True)))
    old = trained(net, side=8)
    if not sum(more):
        with pytest.raises(ReszooError, match="has no block that"):
            grow(old, to)
        return
    new = grow(old, to)
    np.testing.assert_array_equal(
        outputs(new, images((2, 8, 8, 3))), outputs(old, images((2, 8, 8, 3)))
    )
    assert len(new.growth.added) == sum(more)
