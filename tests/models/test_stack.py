"""Stacking on a backbone: the same outputs to the bit, blocks that learn, a backbone left alone, refusals in one line."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reszoo
from reszoo import ReszooError, build
from reszoo.models.equivalence import check_equivalence
from reszoo.models.graph import can_be_negative, cut_layers
from reszoo.models.stack import stack

from .helpers import images, mostly_slow, randomize
from .test_gradients import gradients

L = keras.layers


def vgg_like(activation: str | None = "softmax") -> keras.Model:
    """Two convolutions with rectifiers of their own, a pool, and a flattened head with dropout."""
    x = inputs = keras.Input((8, 8, 3), name="images")
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="conv1")(x)
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="conv2")(x)
    x = L.MaxPooling2D(name="pool")(x)
    x = L.Dropout(0.5, name="dropout")(L.Flatten(name="flatten")(x))
    return keras.Model(inputs, L.Dense(5, activation=activation, name="dense")(x), name="vgg_like")


def branched() -> keras.Model:
    """A shared layer, an Add, a model used as a layer, an operation of keras.ops, a keyword argument and two outputs."""
    inputs = keras.Input((9, 8, 3), name="pictures")
    inner_in = keras.Input((9, 8, 4))
    inner = keras.Model(inner_in, L.Conv2D(4, 1, name="inside")(inner_in), name="inner")
    shared = L.Conv2D(4, 3, padding="same", name="shared")
    x = L.Conv2D(4, 1, name="first")(inputs)
    a, b = shared(x), shared(keras.ops.tanh(x))
    x = L.Add(name="sum")([a, b, inner(x)])
    x = L.BatchNormalization(name="norm")(x, training=False)
    x = L.LeakyReLU(name="leaky")(x)
    pooled = L.GlobalAveragePooling2D(name="gap")(x)
    return keras.Model(
        inputs, {"class": L.Dense(5, name="out")(pooled), "size": L.Dense(1, name="size")(pooled)}
    )


def sequential() -> keras.Model:
    layers = [
        keras.Input((8, 8, 3)),
        L.Conv2D(4, 3, name="conv"),
        L.ReLU(name="relu"),
        L.GlobalMaxPooling2D(),
        L.Dense(5),
    ]
    return keras.Sequential(layers, name="row")


CASES: dict[str, tuple[Any, str]] = {
    "vgg": (vgg_like, "pool"),
    "v1": (lambda: build("resnet8", input_shape=(16, 16, 3)), "stage3_block1_relu2"),
    "v2": (lambda: build("resnet8_v2", input_shape=(16, 16, 3)), "head_relu"),
    "branched": (branched, "leaky"),
    "sequential": (sequential, "relu"),
}


def outputs(model: Any, batch: Any, training: bool = False) -> list[Any]:
    return [np.asarray(value) for value in keras.tree.flatten(model(batch, training=training))]


def places(model: keras.Model) -> list[str]:
    """Return the layers of a stacked net after which blocks stand: those whose output a block's Add takes in first."""
    adds = [
        layer
        for layer in model.layers
        if layer.name.startswith("stack") and layer.name.endswith("_add")
    ]
    return [add.input[0]._keras_history.operation.name for add in adds]


@pytest.mark.parametrize(
    ("case", "block"),
    mostly_slow(
        [(case, block) for block in ("basic", "bottleneck") for case in CASES], len(CASES) + 1
    ),
)
def test_outputs_are_the_same_to_the_bit(case: str, block: str) -> None:
    make, place = CASES[case]
    backbone = make()
    randomize(backbone, 1)
    before = [weight.numpy() for weight in backbone.weights]
    stacked = stack(backbone, blocks=2, block=block)
    batch = images((5, *backbone.inputs[0].shape[1:]), 2)
    for one, other in zip(outputs(backbone, batch), outputs(stacked, batch), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.any()
    assert places(stacked)[0] == place
    assert stacked.growth.exact and stacked.growth.difference == 0
    assert stacked.growth.added == ("stack_block1", "stack_block2")
    # The backbone keeps its weights, and the copy has its own.
    for weight in stacked.weights:
        if "seed" not in weight.path:
            weight.assign(np.ones(weight.shape))
    assert all(
        (old == new.numpy()).all() for old, new in zip(before, backbone.weights, strict=True)
    )


@pytest.mark.parametrize("order", ["post", "pre"])
def test_outputs_are_the_same_in_training_too(order: str) -> None:
    backbone = build("resnet8", input_shape=(16, 16, 3))
    batch = images((6, 16, 16, 3))
    stacked = stack(backbone, order=order)
    np.testing.assert_array_equal(
        outputs(stacked, batch, True)[0], outputs(backbone, batch, True)[0]
    )


def test_every_new_weight_learns_by_the_second_step() -> None:
    for block, order in (("basic", "post"), ("bottleneck", "pre")):
        keras.utils.set_random_seed(0)
        stacked = stack(vgg_like(None), block=block, order=order)
        names = [weight.path for weight in stacked.trainable_variables]
        first = gradients(stacked, 0)
        learning = {name for name, value in zip(names, first, strict=True) if value.any()}
        last = 2 if block == "basic" else 3
        scale = f"bn{last}/gamma" if order == "post" else f"conv{last}/kernel"
        assert {f"stack_block{i}_{scale}" for i in (1, 2)} <= learning
        assert "stack_block1_conv1/kernel" not in learning
        for weight, value in zip(stacked.trainable_variables, first, strict=True):
            weight.assign_sub(0.5 * value)
        assert [
            name
            for name, value in zip(names, gradients(stacked, 1), strict=True)
            if not value.any()
        ] == []


def test_a_cut_that_can_be_negative_is_rejected_or_gets_pre_activation() -> None:
    net = build("resnet8_v2", input_shape=(16, 16, 3))
    with pytest.raises(ReszooError, match=r"'stage2_block1_add' can be negative.*order='pre'"):
        stack(net, at="stage2_block1_add", order="post")
    stacked = stack(net, at="stage2_block1_add")
    names = [layer.name for layer in stacked.layers]
    assert "stack_block2_bn1" in names and "stack_block2_relu3" not in names
    assert [name for name in names if name.startswith("stack_block1")][-1] == "stack_block1_add"
    post = stack(net, at="stage2_block1_relu2")
    assert [layer.name for layer in post.layers if layer.name.startswith("stack_block1")][
        -1
    ] == "stack_block1_relu2"


def test_a_post_activation_block_on_a_negative_map_would_be_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Were the graph misread, the check of the outputs would refuse the net."""
    monkeypatch.setattr("reszoo.models.stack.can_be_negative", lambda tensor: False)
    net = build("resnet8_v2", input_shape=(16, 16, 3))
    randomize(
        net, 0
    )  # with fresh statistics the normalisation and ReLU that follow hide the block's own
    with pytest.raises(
        ReszooError, match="does not compute what resnet8_v2 computes: outputs differ"
    ):
        stack(net, at="stage2_block1_add", order="post")


def test_a_stacked_model_can_be_stacked_again_and_saved(tmp_path: Path) -> None:
    backbone = vgg_like()
    again = stack(stack(backbone, blocks=1), blocks=2, at="conv1")
    assert again.growth.added == ("stack2_block1", "stack2_block2")
    batch = images((3, 8, 8, 3))
    np.testing.assert_array_equal(outputs(again, batch)[0], outputs(backbone, batch)[0])
    randomize(again, 3)
    again.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(outputs(loaded, batch)[0], outputs(again, batch)[0])


def test_frozen_layers_stay_frozen_and_new_ones_are_trained() -> None:
    backbone = vgg_like()
    backbone.trainable = False
    stacked = stack(backbone, blocks=1)
    assert all(weight.path.startswith("stack_") for weight in stacked.trainable_variables)
    assert len(stacked.trainable_variables) == 6


def test_half_precision_stays_half_precision() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    backbone = build("resnet8", input_shape=(8, 8, 3))
    keras.config.set_dtype_policy("float32")
    stacked = stack(backbone)
    assert stacked.get_layer("stack_block1_conv1").compute_dtype == "float16"
    assert keras.config.dtype_policy().name == "float32"


def test_free_sizes_are_checked_on_images_of_96_pixels() -> None:
    assert stack(build("resnet8", input_shape=(None, None, 3))).growth.exact


def test_the_default_position_is_outside_branches_and_larger_than_one_pixel() -> None:
    """At 32x32 the fourth stage of an ImageNet net has one pixel, its first 1x1 convolution four, but in a branch."""
    net = build(
        "resnet50", input_shape=(32, 32, 3), widths=(4, 4, 8, 8), stem_width=4, depths=(1, 1, 1, 1)
    )
    stacked = stack(net, blocks=1)
    assert places(stacked) == ["stage3_block1_relu3"]
    assert "stage1_block1_conv1" not in [layer.name for layer in cut_layers(net)]


def subclassed() -> keras.Model:
    class Own(keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs

    return Own(name="own")


SIX = [keras.Input((8, 8, 3)), L.Conv2D(6, 3, name="six"), L.Flatten()]
FIRST = [keras.Input((4, 8, 8)), L.ReLU(), L.MaxPooling2D(data_format="channels_first")]
REFUSALS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "subclassed": (subclassed, {}, "backbone: a Own is invalid; expected a functional model"),
    "unbuilt": (lambda: keras.Sequential([L.Dense(3)]), {}, "a Sequential that is not built"),
    "no model": (lambda: "resnet20", {}, "backbone: a str is invalid"),
    "misspelt": (vgg_like, {"at": "conv_2"}, "no layer 'conv_2'; did you mean 'conv2'"),
    "unknown": (vgg_like, {"at": "zzz"}, "the last map is that of 'pool'"),
    "flat": (vgg_like, {"at": "dense"}, r"'dense' is invalid, because its output is \(None, 5\)"),
    "input": (vgg_like, {"at": "images"}, "because it is the input. Example: at='pool'"),
    "used twice": (branched, {"at": "shared"}, "'shared' is invalid, because .* uses it 2 times"),
    "blocks": (vgg_like, {"blocks": 0}, "blocks: 0 is invalid; expected an integer >= 1"),
    "half a block": (vgg_like, {"blocks": 1.5}, "blocks: 1.5 is invalid"),
    "true blocks": (vgg_like, {"blocks": True}, "blocks: True is invalid"),
    "block": (vgg_like, {"block": "bottlneck"}, "did you mean 'bottleneck'"),
    "order": (vgg_like, {"order": "after"}, "order: 'after' is invalid; expected 'auto' or 'post'"),
    "narrow": (
        lambda: keras.Sequential(SIX),
        {"block": "bottleneck"},
        "'six' has 6 channels, which 4 does not divide",
    ),
    "no map": (lambda: keras.Sequential([keras.Input((8,)), L.Dense(3)]), {}, "has no layer with"),
    "channels first": (lambda: keras.Sequential(FIRST), {}, "puts channels first"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_impossible_settings_are_rejected_in_one_line(case: str) -> None:
    make, given_, reason = REFUSALS[case]
    with pytest.raises(ReszooError, match=reason) as caught:
        stack(make(), **given_)
    assert "\n" not in str(caught.value)


@settings(max_examples=25, deadline=None)
@given(
    blocks=st.one_of(st.integers(-3, 0), st.floats(), st.text(), st.none(), st.booleans()),
    at=st.one_of(
        st.text(), st.integers(), st.sampled_from(["dense", "flatten", "images", "dropout"])
    ),
    word=st.text().filter(lambda text: text not in ("auto", "pre", "post", "basic", "bottleneck")),
)
def test_any_bad_input_is_rejected(blocks: Any, at: Any, word: str) -> None:
    for bad in ({"blocks": blocks}, {"at": at}, {"block": word}, {"order": word}):
        with pytest.raises(ReszooError):
            stack(small_net(), **bad)


@functools.cache
def small_net() -> keras.Model:
    return vgg_like()


def random_net(random: np.random.Generator) -> keras.Model:
    """A chain and a few branches of layers drawn at random, their outputs all of one shape."""
    choices: list[Any] = [
        lambda x: L.Conv2D(
            4,
            3,
            padding="same",
            activation=random.choice(["relu", "linear", "elu", "softplus", "tanh"]),
        )(x),
        lambda x: L.ReLU()(x),
        lambda x: L.ReLU(negative_slope=0.1)(x),
        lambda x: L.Activation(str(random.choice(["relu6", "sigmoid", "gelu", "linear", "silu"])))(
            x
        ),
        lambda x: L.MaxPooling2D(2, 1, padding="same")(x),
        lambda x: L.AveragePooling2D(2, 1, padding="same")(x),
        lambda x: L.BatchNormalization()(x),
        lambda x: L.Dropout(0.5)(x),
        lambda x: L.Softmax()(x),
        lambda x: keras.ops.relu(x),
        lambda x: keras.ops.abs(x),
        lambda x: x - 0.5,
        lambda x: L.Cropping2D(1)(L.ZeroPadding2D(1)(x)),
        lambda x: L.Cropping2D(((0, 6), (0, 6)))(
            L.UpSampling2D(2, interpolation=str(random.choice(["bicubic", "bilinear"])))(x)
        ),
    ]
    merges = [L.Add, L.Multiply, L.Maximum, L.Minimum, L.Average, L.Subtract]
    inputs = keras.Input((6, 6, 4))
    made = [inputs]
    for _ in range(12):
        x = made[random.integers(len(made))]
        if random.random() < 0.3:
            made.append(
                merges[random.integers(len(merges))]()([x, made[random.integers(len(made))]])
            )
        else:
            made.append(choices[random.integers(len(choices))](x))
    return keras.Model(inputs, made[1:])


def test_maps_marked_positive_are_never_negative() -> None:
    told = 0
    for seed in range(12):
        net = random_net(np.random.default_rng(seed))
        randomize(net, seed)
        for training in (False, True):
            for tensor, value in zip(
                net.outputs, outputs(net, 3 * images((8, 6, 6, 4), seed), training), strict=True
            ):
                if not can_be_negative(tensor):
                    assert value.min() >= 0, (seed, tensor._keras_history.operation)
                    told += 1
    assert told > 60  # not all of them are called negative


def test_the_layer_decides_which_maps_can_be_negative() -> None:
    x = keras.Input((6, 6, 4))
    positive = L.ReLU()(x)
    for tensor in (
        L.Concatenate()([positive, L.MaxPooling2D(1)(positive)]),
        L.Dropout(0.1)(L.ZeroPadding2D(1)(positive)),
        L.Maximum()([x, positive]),
        L.Activation("linear")(positive),
        keras.Sequential([keras.Input((6, 6, 4)), L.Conv2D(2, 1, activation="relu")])(x),
        L.DepthwiseConv2D(3, activation="relu6")(x),
    ):
        assert not can_be_negative(tensor)
    for tensor in (
        x,
        L.LeakyReLU()(x),
        L.Add()([positive, x]),
        L.ReLU(negative_slope=0.1)(x),
        L.GaussianNoise(1)(positive),
    ):
        assert can_be_negative(tensor)


def test_check_finds_a_difference_and_numbers_that_are_none() -> None:
    one, other = vgg_like(None), vgg_like(None)
    with pytest.raises(ReszooError, match="outputs differ by up to"):
        check_equivalence(one, other, ["a"])
    other.set_weights(one.get_weights())
    assert check_equivalence(one, other, ["a"], images((70, 8, 8, 3))).exact
    # Beyond one batch, too: the last image alone differs.
    batch = np.zeros((70, 8, 8, 3), np.float32)
    batch[-1] = 1
    other.get_layer("conv1").kernel.assign(2 * one.get_layer("conv1").kernel)
    assert check_equivalence(one, other, ["a"], batch[:69]).exact
    with pytest.raises(ReszooError, match="outputs differ"):
        check_equivalence(one, other, ["a"], batch)
    other.set_weights(one.get_weights())
    other.get_layer("dense").bias.assign(np.full(5, np.nan))
    with pytest.raises(ReszooError, match="differ by up to nan"):
        check_equivalence(one, other, ["a"])


@pytest.mark.slow
def test_vgg16_of_keras() -> None:
    backbone = keras.applications.VGG16(
        weights=None, input_shape=(32, 32, 3), include_top=False, pooling="avg"
    )
    stacked = reszoo.stack(backbone)
    assert stacked.growth.exact and places(stacked)[0] == "block5_conv3"
