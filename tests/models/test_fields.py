"""Every field changes the net in the way it says, or is refused; and so does every pair of fields."""

from __future__ import annotations

import itertools
import math
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reszoo import ReszooError, Spec, build, count

from .helpers import BASIC, BOTTLENECK, by_name, images, mostly_slow, randomize, shapes
from .oracle import forward

B = BOTTLENECK.replace(shortcut="B")
GATED = BASIC.replace(gate="exclusive")
SIZE = (9, 8, 3)

# What changes when one field alone does, the first that holds: "weights" (their names or shapes), "inference" (outputs under
# equal weights), "training" (outputs in training mode under equal weights), "start" (the values weights start from).
CASES: dict[str, tuple[tuple[Spec, Any, str], ...]] = {
    "name": ((BASIC, "other", "name"),),
    "block": ((BASIC, "bottleneck", "weights"),),
    "depths": ((BASIC, (1, 1), "weights"), (BASIC, (1, 2), "weights")),
    "widths": ((BASIC, (6, 13), "weights"),),
    "expansions": ((BOTTLENECK, (4, 2), "weights"),),
    "stem": (
        (BASIC, "imagenet", "weights"),
        (BASIC, "deep", "weights"),
        (BASIC.replace(stem="deep"), "rs", "weights"),
        (BASIC.replace(order="pre", stem="imagenet"), "bare", "weights"),
    ),
    "stem_width": ((BASIC, 5, "weights"),),
    "shortcut": ((BASIC, "none", "inference"), (BASIC, "B", "weights"), (BASIC, "C", "weights")),
    "pad_at": ((BASIC, "end", "inference"), (BOTTLENECK, "end", "inference")),
    "padding": (
        (BASIC, "same", "inference"),
        (B.replace(stride_at="conv2"), "same", "inference"),
        (BASIC.replace(stem="imagenet"), "same", "inference"),
    ),
    "shrink": ((BASIC.replace(shortcut="B"), "avgpool", "inference"), (B, "avgpool", "inference")),
    "shrink_at": ((BASIC.replace(shortcut="B"), "last", "inference"), (B, "last", "inference")),
    "blur": ((BASIC, True, "inference"), (B.replace(stem="imagenet"), True, "inference")),
    "shortcut_bn": ((BASIC.replace(shortcut="B"), False, "weights"), (B, False, "weights")),
    "shortcut_from": ((B.replace(order="pre"), "input", "inference"),),
    "shortcut_scale": ((BASIC, 0.5, "inference"), (B, 2.0, "inference")),
    "branch_scale": ((BASIC, 0.5, "inference"), (B, 2.0, "inference")),
    "gate": (
        (BASIC, "exclusive", "weights"),
        (BASIC, "shortcut_only", "weights"),
        (GATED, "shortcut_only", "inference"),
    ),
    "gate_bias": ((GATED, -3.0, "start"),),
    "shortcut_dropout": ((BASIC, 0.5, "training"), (B, 0.5, "training")),
    "order": (
        (BASIC, "pre", "weights"),
        (BASIC.replace(shortcut="B"), "bn_after_add", "weights"),
        *((BASIC, order, "inference") for order in ("bn_after_add", "relu_before_add", "relu_pre")),
    ),
    "stride_at": ((B, "conv2", "inference"),),
    "groups": ((B, 2, "weights"),),
    "group_width": ((B, 128, "weights"),),
    "se_ratio": ((BASIC, 0.5, "weights"), (B, 0.25, "weights")),
    "zero_gamma": ((BASIC, True, "start"), (B, True, "start")),
    "rezero": ((BASIC, True, "weights"),),
    "bias": ((BASIC, "all", "weights"), (B.replace(order="pre"), "unnormed", "weights")),
    "norm": (
        (BASIC.replace(widths=(32, 32), stem_width=32), "group", "weights"),
        (BASIC, "none", "weights"),
        (BASIC.replace(order="pre", norm="none"), "scaled_weight", "weights"),
    ),
    "norm_groups": ((BASIC.replace(norm="group", norm_groups=2), 1, "inference"),),
    "activation": ((BASIC, "tanh", "inference"), (BASIC.replace(order="pre"), "tanh", "inference")),
    "initialization": (
        (BASIC.replace(norm="none"), "fixup", "weights"),
        (BASIC, "delta_orthogonal", "start"),
    ),
    "bn_epsilon": (
        (BASIC, 0.1, "inference"),
        (BASIC.replace(norm="group", norm_groups=2), 0.1, "inference"),
        (BASIC.replace(norm="scaled_weight", order="pre"), 0.1, "inference"),
    ),
    "dropout": ((BASIC, 0.5, "training"), (B, 0.5, "training")),
    "head_dropout": ((BASIC, 0.5, "training"),),
    "head_bias": ((BASIC, -2.0, "start"),),
    "drop_path": ((BASIC, 0.5, "training"),),
}


def test_every_field_has_a_case() -> None:
    assert set(CASES) == set(Spec.model_fields)


def change(before: Spec, after: Spec) -> str:
    """Return the first thing in which two nets differ."""
    first, second = (
        build(before, input_shape=SIZE, classes=5),
        build(after, input_shape=SIZE, classes=5),
    )
    if shapes(first) != shapes(second):
        return "weights"
    starts = [
        [
            (value == 0).mean() if name.endswith("kernel") else value.mean()
            for name, value in by_name(model).items()
        ]
        for model in (first, second)
    ]
    for model in (first, second):
        randomize(model, 1)
    batch = images((16, *SIZE), 1)
    outputs = [
        [np.asarray(model(batch, training=learning)) for model in (first, second)]
        for learning in (False, True)
    ]
    if not np.allclose(*outputs[0], atol=1e-4):
        return "inference"
    if not np.allclose(*outputs[1], atol=1e-4):
        return "training"
    return "nothing" if starts[0] == starts[1] else "start"


FIRST = [(field, *cases[0]) for field, cases in CASES.items()]
OTHERS = [(field, *case) for field, cases in CASES.items() for case in cases[1:]]


@pytest.mark.parametrize(
    ("field", "base", "value", "what"), mostly_slow([*FIRST, *OTHERS], len(FIRST)), ids=str
)
def test_a_field_changes_the_model(field: str, base: Spec, value: Any, what: str) -> None:
    assert getattr(base, field) != value
    after = base.replace(**{field: value})
    if what == "name":
        assert (build(base, input_shape=SIZE).name, build(after, input_shape=SIZE).name) == (
            "tiny",
            "other",
        )
        return
    assert change(base, after) == what


def test_an_unchanged_model_counts_as_unchanged() -> None:
    assert change(BASIC, BASIC.replace(name="same")) == "nothing"


def test_initial_values_follow_the_fields() -> None:
    zeroed = by_name(build(BASIC.replace(zero_gamma=True), input_shape=SIZE))
    last = [name for name in zeroed if "block" in name and name.endswith("bn2/gamma")]
    assert len(last) == 3
    for name, value in zeroed.items():
        if name.endswith("gamma"):
            assert (value == (0 if name in last else 1)).all(), name
    gated = by_name(build(GATED.replace(gate_bias=-3.0), input_shape=SIZE))
    assert {value.mean() for name, value in gated.items() if name.endswith("gate_conv/bias")} == {
        -3.0
    }
    assert {
        value.mean()
        for name, value in by_name(build(BASIC.replace(rezero=True))).items()
        if "alpha" in name
    } == {0.0}


def test_convolutions_start_with_he_initialization() -> None:
    """arXiv 1502.01852, equation 10: normal, of variance 2 / fan_in, so with tails beyond two deviations."""
    weights = by_name(
        build(BASIC.replace(depths=(1,), widths=(128,), stem_width=64), input_shape=SIZE)
    )
    kernel = weights["stage1_block1_conv2/kernel"] * math.sqrt(9 * 128 / 2)
    assert abs(kernel.std() - 1) < 0.01 and abs(kernel.mean()) < 0.01
    assert abs((np.abs(kernel) > 2).mean() - 0.0455) < 0.002
    assert (weights["stage1_block1_conv1/kernel"].std() * math.sqrt(9 * 64 / 2)) == pytest.approx(
        1, abs=0.02
    )


# Pairs: the usual fault is an option that another one switches off unnoticed.

VALUES: dict[str, tuple[Any, ...]] = {
    "depths": ((2, 1),),
    "widths": ((8, 8),),
    "expansions": ((3, 2),),
    "padding": ("same",),
    "shortcut_bn": (False,),
    "shortcut_from": ("input",),
    "stem": ("imagenet", "deep", "rs", "bare"),
    "stem_width": (3,),
    "shortcut": ("none", "B", "C"),
    "pad_at": ("end",),
    "shrink": ("avgpool",),
    "shrink_at": ("last",),
    "blur": (True,),
    "shortcut_scale": (0.5,),
    "branch_scale": (0.5,),
    "gate": ("exclusive", "shortcut_only"),
    "gate_bias": (-3.0,),
    "shortcut_dropout": (0.3,),
    "order": ("bn_after_add", "relu_before_add", "relu_pre", "pre"),
    "stride_at": ("conv2",),
    "groups": (2,),
    "group_width": (128,),
    "se_ratio": (0.5,),
    "zero_gamma": (True,),
    "rezero": (True,),
    "bias": ("unnormed", "all"),
    "norm": ("group", "none", "scaled_weight"),
    "norm_groups": (2,),
    "activation": ("tanh",),
    "initialization": ("fixup", "delta_orthogonal"),
    "bn_epsilon": (0.1,),
    "dropout": (0.3,),
    "head_dropout": (0.3,),
    "head_bias": (-2.0,),
    "drop_path": (0.3,),
}
SMALLEST = BASIC.replace(depths=(1, 1), widths=(4, 8), stem_width=4)


def test_pairs_are_of_every_field() -> None:
    assert set(VALUES) == set(Spec.model_fields) - {"name", "block"}


def builds_as_it_counts_and_computes(net: Spec) -> None:
    """Build a net: as many weights as counted, and the oracle's outputs; so no field was dropped on the way."""
    side = max(7, net.total_stride + 1)
    model = build(net, input_shape=(side, 8 if side == 7 else side, 2), classes=3)
    randomize(model, 2)
    weights = by_name(model)
    trained = sum(value.size for name, value in weights.items() if "/moving_" not in name)
    assert trained == count(net, model.input_shape[1:], 3).parameters, net
    batch = images((2, *model.input_shape[1:]), 2)
    expected = forward(net, weights, batch)
    np.testing.assert_allclose(
        np.asarray(model(batch, training=False)),
        expected,
        rtol=0,
        atol=1e-4 * np.abs(expected).max(),
        err_msg=str(net),
    )


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(
            one, other, marks=[] if {one, other} == {"shortcut", "order"} else pytest.mark.slow
        )
        for one, other in itertools.combinations(VALUES, 2)
    ],
)
def test_pairs_build_or_are_rejected(first: str, second: str, block: str) -> None:
    for one, other in itertools.product(VALUES[first], VALUES[second]):
        groups = {"norm_groups": 2} if "group" in (one, other) else {}
        try:
            net = SMALLEST.replace(**groups | {"block": block, first: one, second: other})
        except ReszooError:
            continue
        builds_as_it_counts_and_computes(net)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.fixed_dictionaries(
        {"block": st.sampled_from(["basic", "bottleneck"])},
        optional={field: st.sampled_from(values) for field, values in VALUES.items()},
    )
)
def test_any_number_of_fields_together_build_or_are_rejected(drawn: dict[str, Any]) -> None:
    try:
        net = SMALLEST.replace(**drawn)
    except ReszooError:
        return
    builds_as_it_counts_and_computes(net)


def test_dropped_branches_leave_the_shortcut_and_kept_ones_are_scaled_up() -> None:
    """arXiv 1603.09382: in training a branch is there or not for each example; in expectation it is the branch."""
    net = BASIC.replace(depths=(1,), widths=(6,), drop_path=0.5, order="relu_pre")
    model = build(net, input_shape=SIZE)
    add = model.get_layer("stage1_block1_add")
    parts = keras.Model(model.input, [*add.input, model.get_layer("stage1_block1_bn2").output])
    shortcut, dropped, branch = (
        np.asarray(part) for part in parts(images((64, *SIZE), 3), training=True)
    )
    kept = np.array([bool(example.any()) for example in dropped])
    assert 0 < kept.sum() < 64
    np.testing.assert_allclose(dropped[kept], branch[kept] * 2, rtol=1e-5)
    assert shortcut.any()
