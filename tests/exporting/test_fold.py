"""Folding: the same function with fewer operations, wherever a batch norm alone reads a convolution."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from reszoo.exporting.fold import fold
from reszoo.models.build import build

RNG = np.random.default_rng(3)


def lively(model: keras.Model) -> keras.Model:
    """Give a net statistics, scales and offsets that are not those of a fresh one, a negative and a zero scale among them."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.moving_mean.shape[0]
            values = [RNG.normal(0, 0.3, size), RNG.uniform(0.5, 2, size)]
            if layer.center:
                values.insert(0, RNG.normal(0, 0.2, size))
            if layer.scale:
                scale = RNG.uniform(0.5, 1.5, size)
                scale[:2] = (-0.7, 0)
                values.insert(0, scale)
            layer.set_weights(values)
    return model


# Blocks of two convolutions, three stages of one: the stem's batch norm, two a block (one before each convolution in
# pre-activation, the first of which is the stem's, and one at the end).
CASES: list[tuple[str, dict[str, Any], int, int]] = [
    ("resnet8", {}, 7, 0),
    ("plain8", {}, 7, 0),
    ("resnet8", {"shortcut": "B"}, 9, 0),  # two projections
    ("resnet8", {"order": "relu_pre"}, 7, 0),
    ("resnet8", {"order": "relu_before_add"}, 7, 0),
    ("resnet8", {"order": "bn_after_add"}, 4, 3),  # a block's last stands after the sum
    ("resnet8_v2", {}, 4, 3),  # stem, and between a block's convolutions; not those that read a sum
    ("resnet8", {"se_ratio": 0.25, "bias": "all"}, 7, 0),
    ("resnext29_8x64d", {"widths": (8, 8, 8), "depths": (1, 1, 1)}, 13, 0),  # grouped
    ("resnet18", {"input_shape": (40, 33, 3), "shortcut": "B", "widths": (4, 8, 8, 16), "stem_width": 4}, 20, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "fields", "removed", "kept"), CASES, ids=[f"{case[0]} {case[1]}" for case in CASES]
)
def test_a_folded_model_computes_the_same_with_the_batch_norms_gone(
    name: str, fields: dict[str, Any], removed: int, kept: int
) -> None:
    net = lively(build(name, **fields))
    before = [value.copy() for value in net.get_weights()]
    found = fold(net)
    assert (len(found.removed), len(found.kept)) == (removed, kept)
    left = [
        layer.name
        for layer in found.model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert left == list(found.kept) and sorted([*found.removed, *found.kept]) == sorted(
        fold(net, norms=False).kept
    )
    images = RNG.normal(size=(3, *net.input_shape[1:])).astype(np.float32)
    own, theirs = net(images, training=False).numpy(), found.model(images, training=False).numpy()
    assert np.abs(own - theirs).max() < 3e-6 * np.abs(own).max()
    assert all(np.array_equal(a, b) for a, b in zip(before, net.get_weights(), strict=True))


def test_a_folded_convolution_is_the_affine_map_by_hand() -> None:
    inputs = keras.Input((1, 1, 1))
    conv = keras.layers.Conv2D(1, 1, name="c")
    norm = keras.layers.BatchNormalization(epsilon=0.5, name="n")
    net = keras.Model(inputs, norm(conv(inputs)))
    conv.set_weights([np.full((1, 1, 1, 1), 2.0), np.array([3.0])])
    norm.set_weights([np.array([5.0]), np.array([7.0]), np.array([11.0]), np.array([3.5])])
    # y = 5 * (2x + 3 - 11) / sqrt(3.5 + 0.5) + 7 = 5x - 13
    kernel, bias = fold(net).model.get_layer("c").get_weights()
    assert kernel.item() == 5 and bias.item() == -13


def test_convolutions_that_are_read_twice_activated_or_shared_are_not_folded() -> None:
    inputs = keras.Input((4, 4, 2))
    twice = keras.layers.Conv2D(2, 1, name="twice")(inputs)
    after = keras.layers.BatchNormalization(name="reads_what_another_reads")(twice)
    activated = keras.layers.Conv2D(2, 1, activation="relu", name="activated")(
        keras.layers.add([twice, after])
    )
    behind = keras.layers.BatchNormalization(name="behind_an_activation")(activated)
    shared = keras.layers.Conv2D(2, 1, name="shared")
    one = keras.layers.BatchNormalization(name="one")(shared(behind))
    other = keras.layers.BatchNormalization(name="other")(shared(one))
    shown = keras.layers.Conv2D(2, 1, name="shown")(other)
    net = lively(
        keras.Model(inputs, [shown, keras.layers.BatchNormalization(name="of_an_output")(shown)])
    )
    found = fold(net)
    assert found.removed == () and len(found.kept) == 5
    images = RNG.normal(size=(2, 4, 4, 2)).astype(np.float32)
    for own, theirs in zip(net(images), found.model(images), strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-6)


def test_a_channels_first_convolution_is_left_as_it_is() -> None:
    """There the last axis is the width, not the channels."""
    inputs = keras.Input((2, 4, 4))
    x = keras.layers.Conv2D(4, 1, data_format="channels_first")(inputs)
    net = keras.Model(inputs, keras.layers.BatchNormalization(axis=-1, name="over_the_width")(x))
    found = fold(net)
    assert (found.removed, found.kept) == ((), ("over_the_width",))


@pytest.mark.parametrize(("center", "scale"), [(True, False), (False, True), (False, False)])
def test_a_batch_norm_without_offset_or_scale_folds_too(center: bool, scale: bool) -> None:
    inputs = keras.Input((4, 4, 2))
    norm = keras.layers.BatchNormalization(center=center, scale=scale)
    net = lively(keras.Model(inputs, norm(keras.layers.Conv2D(3, 3, use_bias=False)(inputs))))
    images = RNG.normal(size=(2, 4, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(net(images), fold(net).model(images), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"shortcut": "A"},
        {"shortcut": "C", "order": "pre"},
        {"se_ratio": 0.25},
        {"rezero": True},
        {"drop_path": 0.3, "dropout": 0.2},
        {"shortcut_scale": 0.5, "branch_scale": 0.5},
        {"gate": "exclusive"},
        {"shortcut_dropout": 0.5},
    ],
    ids=str,
)
def test_a_float32_copy_has_the_outputs_of_the_model(fields: dict[str, Any]) -> None:
    model = {"classes": 4, "input_shape": (16, 16, 3), **fields}
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = build("resnet8", **model)
    keras.config.set_dtype_policy("float32")
    plain = build("resnet8", **model)
    rng = np.random.default_rng(0)
    plain.set_weights([rng.uniform(0.1, 0.3, w.shape) for w in plain.get_weights()])
    mixed.set_weights(plain.get_weights())
    images = rng.normal(size=(2, 16, 16, 3)).astype("float32")
    copy = fold(mixed, norms=False).model
    assert {layer.compute_dtype for layer in copy._flatten_layers()} == {"float32"}
    np.testing.assert_allclose(copy(images), plain(images, training=False), rtol=1e-5)
