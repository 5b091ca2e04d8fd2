"""Every weight of every family learns, and nets that start as their shortcuts start as exactly that."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo import Spec, build, spec

from .helpers import BASIC, BOTTLENECK, images, mostly_slow, randomize
from .test_fields import CASES

# One small model of each family: the named row with fewer blocks and channels.
THIN: dict[str, Any] = {"depths": (2, 1, 1, 1), "widths": (8, 8, 16, 16), "stem_width": 8}
THINNED = "resnet50_d resnet18 plain18 resnet18_v2 resnet50_v1 resnet50 resnet50_v2 wide_resnet50_2"
FAMILIES = [
    spec("plain8"),
    spec("resnet8_v2"),
    spec("resnext50_32x4d", **{**THIN, "widths": (16, 16, 32, 32)}),
    spec("se_resnet50", **{**THIN, "se_ratio": 0.25}),
    *(spec(name, **THIN) for name in THINNED.split()),
    spec("resnet8"),
    spec("resnet56_sd", depths=(2, 1, 1)),
    spec("wrn10_1"),
    spec("resnet164", depths=(2, 1, 1)),
    spec("resnet164_v2", depths=(2, 1, 1)),
    spec("resnext29_8x64d", depths=(1, 1, 1), widths=(8, 8, 16), group_width=16, stem_width=8),
]
# Fields that change which weights there are or what stands before them.
OFTEN = ("shortcut", "gate", "order", "zero_gamma", "rezero", "bias", "shrink_at", "stem")
FIELDS = [
    base.replace(**{field: value, "name": value if field == "name" else f"{field}={value}"})
    for field, cases in sorted(CASES.items(), key=lambda item: item[0] not in OFTEN)
    for base, value, _ in cases
]
OFTEN_CASES = sum(len(CASES[field]) for field in OFTEN)


def gradients(model: keras.Model, seed: int) -> list[np.ndarray[Any, Any]]:
    """Return d loss / d weight for each trained weight, on random images with random labels, in training mode."""
    batch, labels = images((16, *model.input_shape[1:]), seed), np.arange(16) % 5
    with tf.GradientTape() as tape:
        logits = model(batch, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    return [
        np.asarray(value)
        for value in tape.gradient(loss, [weight.value for weight in model.trainable_variables])
    ]


def without_gradient(net: Spec, seed: int = 0) -> list[str]:
    """Return the weights whose gradient is zero in every entry.

    A branch that starts at zero (zero_gamma, rezero) hides the weights behind its last scale from the loss: at first only the scale
    has a gradient. It moves in the first step, so the rule is asked of the gradients after a step.
    """
    keras.utils.set_random_seed(seed)
    side = max(12, net.total_stride + 1)
    model = build(net, input_shape=(side, side, 3), classes=5)
    found = gradients(model, seed)
    # With Fixup the classifier learns first, then the last kernels, then the rest.
    for _ in range(2 if net.initialization == "fixup" else int(net.zero_gamma or net.rezero)):
        hidden = [
            weight.path
            for weight, value in zip(model.trainable_variables, found, strict=True)
            if not value.any()
        ]
        assert hidden, "a branch that starts at zero should hide its weights at first"
        for weight, value in zip(model.trainable_variables, found, strict=True):
            weight.assign_sub(0.5 * value)
        found = gradients(model, seed + 1)
    assert all(np.isfinite(value).all() for value in found)
    return [
        weight.path
        for weight, value in zip(model.trainable_variables, found, strict=True)
        if not value.any()
    ]


@pytest.mark.parametrize("net", mostly_slow(FAMILIES, 5), ids=lambda net: net.name)
def test_every_weight_of_a_family_has_a_gradient(net: Spec) -> None:
    assert without_gradient(net) == []


@pytest.mark.parametrize("net", mostly_slow(FIELDS, OFTEN_CASES), ids=lambda net: net.name)
def test_every_weight_has_a_gradient_with_each_field(net: Spec) -> None:
    assert without_gradient(net) == []


def test_the_check_finds_a_frozen_weight() -> None:
    """A convolution in front of a scale that stays at zero must be found."""
    net = BASIC.replace(depths=(1,), widths=(6,), zero_gamma=True)
    model = build(net, input_shape=(8, 8, 3), classes=5)
    zero = [
        weight.path
        for weight, value in zip(model.trainable_variables, gradients(model, 0), strict=True)
        if not value.any()
    ]
    assert "stage1_block1_conv1/kernel" in zero and "stage1_block1_bn2/gamma" not in zero


@pytest.mark.parametrize("base", [BASIC, BOTTLENECK], ids=["basic", "bottleneck"])
@pytest.mark.parametrize(
    ("start", "order"),
    [("zero_gamma", "post"), ("zero_gamma", "relu_pre")]
    + [("rezero", order) for order in ("post", "relu_before_add", "relu_pre", "pre")],
)
@pytest.mark.parametrize("training", [False, True])
def test_a_branch_at_zero_leaves_the_shortcuts_exactly(
    base: Spec, start: str, order: str, training: bool
) -> None:
    """With option A the stages then only subsample the stem's map and pad its channels: bit for bit.

    In full pre-activation a shortcut that changes the shape reads the normalised map, so there one stage is asked only.
    """
    stages = {"depths": (3,), "widths": base.widths[:1]} if order == "pre" else {"depths": (2, 2)}
    net = base.replace(**{start: True, "order": order, "shortcut": "A", **stages})
    model = build(net, input_shape=(9, 8, 3))
    last = [layer.name for layer in model.layers if re.match(r"stage\d_block", layer.name)][-1]
    both = keras.Model(
        model.input, [model.get_layer("stem_relu1").output, model.get_layer(last).output]
    )
    expected, out = (np.asarray(value) for value in both(images((4, 9, 8, 3)), training=training))
    assert expected.any()
    for stage in range(len(net.depths)):
        new = net.out_channels(stage) - expected.shape[-1]
        expected = np.pad(expected, [(0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)])
        expected = expected[:, ::2, ::2] if stage else expected
    np.testing.assert_array_equal(out, expected)


@pytest.mark.smoke
@pytest.mark.parametrize("base", [BASIC, BOTTLENECK], ids=["basic", "bottleneck"])
def test_a_zero_gamma_model_with_projections_equals_its_projections(base: Spec) -> None:
    """With option C every block is relu(bn(1x1 convolution)), whatever its branch holds."""
    model = build(base.replace(zero_gamma=True, shortcut="C"), input_shape=(9, 8, 3))
    batch = images((4, 9, 8, 3))
    before = np.asarray(model(batch, training=False))
    assert before.std() > 0
    for layer in model.layers:
        if (
            isinstance(layer, keras.layers.Conv2D)
            and "_block" in layer.name
            and "shortcut" not in layer.name
        ):
            layer.kernel.assign(images(tuple(layer.kernel.shape), 3))
    np.testing.assert_array_equal(np.asarray(model(batch, training=False)), before)
    randomize(model, 0)
    assert np.abs(np.asarray(model(batch, training=False)) - before).max() > 0.1
