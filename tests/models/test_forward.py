"""Nets against an implementation in NumPy that shares no code with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reszoo import Spec, build, spec

from .helpers import BASIC, BOTTLENECK, by_name, images, randomize
from .oracle import STEPS, forward

ORDERS = ("post", "bn_after_add", "relu_before_add", "relu_pre", "pre")


def agrees(net: Spec, size: tuple[int, int, int] = (9, 8, 3), seed: int = 0) -> None:
    """Compare logits under random weights to 1e-4 of the largest."""
    model = build(net, input_shape=size, classes=5)
    randomize(model, seed)
    batch = images((3, *size), seed)
    expected = forward(net, by_name(model), batch)
    actual = np.asarray(model(batch, training=False))
    assert np.ptp(expected, axis=0).max() > 1e-3, "the images should matter to the logits"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_the_five_orders_are_those_of_the_oracle() -> None:
    assert {order for _, order in STEPS} == set(ORDERS)


@pytest.mark.parametrize("shortcut", ["none", "A", "B", "C"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("base", [BASIC, BOTTLENECK], ids=["basic", "bottleneck"])
def test_orders_and_shortcuts(base: Spec, order: str, shortcut: str) -> None:
    agrees(base.replace(order=order, shortcut=shortcut))


BRANCHES: tuple[tuple[Spec, dict[str, Any]], ...] = (
    (BASIC, {"pad_at": "end"}),
    (BASIC, {"widths": (5, 8), "stem_width": 2}),  # an odd number of zero channels
    (BOTTLENECK, {"pad_at": "end"}),
    (BOTTLENECK, {"stride_at": "conv2"}),
    (BOTTLENECK, {"stride_at": "conv2", "groups": 2, "group_width": 64, "shortcut": "B"}),
    (BOTTLENECK, {"widths": (4, 8), "groups": 4, "group_width": 16, "shortcut": "B"}),
    (
        BOTTLENECK,
        {"widths": (4, 8), "groups": 2, "group_width": 32, "stride_at": "conv2", "order": "pre"},
    ),
    (BOTTLENECK, {"group_width": 128, "order": "pre", "shortcut": "B"}),
    (BASIC, {"se_ratio": 0.5}),
    (BOTTLENECK, {"se_ratio": 0.25, "shortcut": "B", "stride_at": "conv2"}),
    (BASIC, {"se_ratio": 0.5, "order": "pre"}),
    (BASIC, {"se_ratio": 0.5, "order": "relu_before_add"}),
    (BASIC, {"se_ratio": 0.5, "shortcut": "none"}),
    (BASIC, {"gate": "exclusive"}),
    (BASIC, {"gate": "shortcut_only", "shortcut": "B"}),
    (BASIC, {"gate": "exclusive", "order": "pre", "shortcut": "C"}),
    (BOTTLENECK, {"gate": "shortcut_only", "order": "bn_after_add"}),
    (BASIC, {"shortcut_scale": 0.5}),
    (BASIC, {"branch_scale": 0.5}),
    (BASIC, {"shortcut_scale": 0.25, "branch_scale": 2.0, "shortcut": "B", "gate": "exclusive"}),
    (BASIC, {"rezero": True}),
    (BOTTLENECK, {"rezero": True, "order": "pre", "shortcut": "B"}),
    (BASIC, {"zero_gamma": True}),
    (BASIC, {"dropout": 0.5, "shortcut_dropout": 0.5, "drop_path": 0.5}),  # nothing in inference
    (BASIC, {"shrink": "avgpool", "shortcut": "B"}),
    (BASIC, {"blur": True, "shortcut": "B"}),
    (BASIC, {"shrink": "avgpool", "shortcut": "C", "order": "pre"}),
    (
        BASIC,
        {"depths": (1, 2, 1), "widths": (4, 6, 6), "stem_width": 4},
    ),  # a stage that shrinks without growing
    (BASIC, {"depths": (2,), "widths": (8,)}),
)


@pytest.mark.parametrize(
    ("base", "fields"), BRANCHES, ids=[f"{net.block}-{fields}" for net, fields in BRANCHES]
)
def test_fields(base: Spec, fields: dict[str, Any]) -> None:
    agrees(base.replace(**fields), (7, 10, 2))


@pytest.mark.parametrize(
    ("base", "fields"),
    [
        (BASIC, {"stem": "imagenet"}),
        (BASIC, {"stem": "imagenet", "order": "pre"}),
        (BASIC, {"stem": "deep", "stem_width": 4}),
        (BASIC, {"stem": "rs", "stem_width": 4, "blur": True}),
        (BOTTLENECK, {"stem": "imagenet", "shortcut": "B", "stride_at": "conv2", "blur": True}),
        (
            BOTTLENECK,
            {
                "stem": "deep",
                "stem_width": 5,
                "shortcut": "B",
                "shrink": "avgpool",
                "stride_at": "conv2",
            },
        ),
        (BOTTLENECK, {"stem": "imagenet", "stem_width": 3, "shortcut": "B", "order": "relu_pre"}),
    ],
)
def test_stems(base: Spec, fields: dict[str, Any]) -> None:
    agrees(base.replace(**fields), (17, 22, 2))


@pytest.mark.parametrize("name", ["resnet8", "plain8", "resnet8_v2", "wrn10_1"])
def test_models_by_name(name: str) -> None:
    agrees(spec(name), (12, 12, 3))


@pytest.mark.parametrize(
    "name",
    [
        "resnet50_v1",
        "resnet50",
        "resnet50_v2",
        "resnet50_d",
        "resnext50_32x4d",
        "se_resnet50",
        "resnet18",
        "plain18",
    ],
)
def test_imagenet_models_with_one_block_per_stage(name: str) -> None:
    net = spec(name)
    agrees(net.replace(depths=(1, 1, 1, 1), widths=(16, 16, 16, 32), stem_width=8), (33, 35, 3))
