"""Specifications: invalid values and conflicts, round trips, and the plain twin."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from reszoo import ReszooError, Spec, count, spec
from reszoo.zoo.conflicts import CONFLICTS

BASIC = Spec(
    name="tiny",
    block="basic",
    depths=(1, 1),
    widths=(4, 8),
    stem="cifar",
    stem_width=4,
    shortcut="A",
)  # every other field at its default
BOTTLENECK = BASIC.replace(block="bottleneck", shortcut="B", widths=(16, 32))
NAN, INF = float("nan"), float("inf")

# Field, values that it rejects, and what the message must say.
INVALID: list[tuple[str, list[Any], str]] = [
    ("block", ["basics", None], '"basic", "bottleneck"'),
    ("stem", ["big"], '"cifar", "imagenet", "deep", "rs"'),
    ("shortcut", ["D", None], '"none", "A", "B", "C"'),
    ("order", [["pre"]], '"post", "bn_after_add"'),
    ("pad_at", ["start"], '"both", "end"'),
    ("shrink", ["avg_pool"], "did you mean 'avgpool'?"),
    ("gate", ["exclusiv"], "did you mean 'exclusive'?"),
    ("stride_at", [2], '"conv1", "conv2"'),
    ("name", ["", 7], "text that is not empty"),
    ("depths", [3, (), "33", (1, 1.5), (1, 0)], "a list of at least 1, each an integer >= 1"),
    ("widths", [(4, True), (-4, 8)], "each an integer >= 1"),
    ("stem_width", [4.0, "4", 0], "an integer >= 1"),
    ("groups", [True, 0], "an integer >= 1"),
    ("group_width", [-4], "an integer >= 1"),
    ("zero_gamma", [1], "true or false"),
    ("rezero", ["yes"], "true or false"),
    ("dropout", ["0.5", True, 1.0], "a number >= 0 and < 1"),
    ("shortcut_dropout", [-0.1], "a number >= 0 and < 1"),
    ("drop_path", [NAN, 1], "a number >= 0 and < 1"),
    ("se_ratio", [16, -0.5], "a number >= 0 and <= 1"),
    ("branch_scale", [0, INF], "a number > 0"),
    ("shortcut_scale", [0, INF], "a number > 0"),
    ("gate_bias", [None, -INF], "a number"),
]


def rejected(base: Spec, **fields: Any) -> str:
    """Return the message with which a change is rejected."""
    with pytest.raises(ReszooError) as caught:
        base.replace(**fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [(field, value, expected) for field, values, expected in INVALID for value in values],
    ids=str,
)
def test_an_invalid_value_is_rejected_with_what_is_expected(
    field: str, value: Any, expected: str
) -> None:
    message = rejected(BASIC, **{field: value})
    assert f"{field}: " in message and expected in message
    assert field == "name" or message.startswith("tiny: ")


# Base, changes, and the field at fault. Each pair would be wrong or without effect.
TOGETHER: list[tuple[Spec, dict[str, Any], str]] = [
    (BASIC, {"shortcut": "none", "zero_gamma": True}, "zero_gamma=True"),
    (BASIC, {"shortcut": "none", "rezero": True}, "rezero=True"),
    (BASIC, {"shortcut": "none", "drop_path": 0.5}, "drop_path=0.5"),
    (BASIC, {"shortcut": "none", "shortcut_scale": 0.5}, "shortcut_scale=0.5"),
    (BASIC, {"shortcut": "none", "shortcut_dropout": 0.5}, "shortcut_dropout=0.5"),
    (BASIC, {"shortcut": "none", "gate": "exclusive"}, "gate='exclusive'"),
    (BASIC, {"shortcut": "none", "branch_scale": 0.5}, "branch_scale=0.5"),
    (BASIC, {"shortcut": "none", "pad_at": "end"}, "pad_at='end'"),
    (BASIC, {"shortcut": "B", "pad_at": "end"}, "pad_at='end'"),
    (BASIC, {"shortcut": "C", "pad_at": "end"}, "pad_at='end'"),
    (BASIC, {"shortcut": "none", "shrink": "avgpool"}, "shrink='avgpool'"),
    (BASIC, {"shrink": "avgpool"}, "shrink='avgpool'"),
    (BASIC, {"shortcut_bn": False}, "shortcut_bn=False"),
    (BASIC, {"shortcut": "B", "order": "pre", "shortcut_bn": False}, "shortcut_bn=False"),
    (BASIC, {"shortcut_from": "input"}, "shortcut_from='input'"),
    (BASIC.replace(shortcut="B"), {"shortcut_from": "input"}, "shortcut_from='input'"),
    (BASIC, {"expansions": (2, 2)}, "expansions=(2, 2)"),
    (BASIC, {"shrink_at": "last"}, "shrink_at='last'"),
    (BOTTLENECK, {"shrink_at": "last", "shrink": "avgpool"}, "shrink='avgpool'"),
    (BASIC, {"blur": True, "padding": "same"}, "blur=True"),
    (BASIC, {"blur": True, "depths": (1,), "widths": (4,)}, "blur=True"),
    (BASIC, {"rezero": True, "zero_gamma": True}, "zero_gamma=True"),
    (BASIC, {"norm": "scaled_weight"}, "norm='scaled_weight'"),
    (BASIC, {"norm": "none", "zero_gamma": True}, "zero_gamma=True"),
    (BASIC, {"norm": "none", "order": "bn_after_add"}, "order='bn_after_add'"),
    (BASIC, {"norm": "none", "bn_epsilon": 0.1}, "bn_epsilon=0.1"),
    (BASIC, {"norm_groups": 8}, "norm_groups=8"),
    (BASIC, {"order": "pre", "norm": "scaled_weight", "activation": "tanh"}, "activation='tanh'"),
    (BASIC, {"initialization": "fixup"}, "initialization='fixup'"),
    (BASIC, {"initialization": "fixup", "norm": "none", "rezero": True}, "rezero=True"),
    (BASIC, {"rezero": True, "branch_scale": 0.5}, "branch_scale=0.5"),
    (BASIC, {"order": "pre", "zero_gamma": True}, "zero_gamma=True"),
    (BASIC, {"order": "bn_after_add", "zero_gamma": True}, "zero_gamma=True"),
    (BASIC, {"order": "relu_before_add", "zero_gamma": True}, "zero_gamma=True"),
    (BASIC, {"gate_bias": -3.0}, "gate_bias=-3.0"),
    (BASIC, {"stem": "bare"}, "stem='bare'"),
    (BASIC, {"order": "relu_pre", "stem": "bare"}, "stem='bare'"),
    (BASIC, {"bias": "unnormed"}, "bias='unnormed'"),
    (BASIC, {"order": "relu_before_add", "bias": "unnormed"}, "bias='unnormed'"),
    (BASIC, {"groups": 2}, "groups=2"),
    (BASIC, {"group_width": 128}, "group_width=128"),
    (BASIC, {"stride_at": "conv2"}, "stride_at='conv2'"),
    (BOTTLENECK, {"depths": (1,), "widths": (16,), "stride_at": "conv2"}, "stride_at='conv2'"),
    (BOTTLENECK, {"depths": (1,), "widths": (16,), "shrink": "avgpool"}, "shrink='avgpool'"),
    (BOTTLENECK, {"depths": (1,), "widths": (16,), "shrink_at": "last"}, "shrink_at='last'"),
]
ALONE = [
    (BASIC, {"depths": (1, 1, 1)}, "depths=(1, 1, 1)", "as many numbers as widths = [4, 8]"),
    (BASIC, {"stem": "deep", "stem_width": 1}, "stem_width=1", "at least 2 with stem='deep'"),
    (BOTTLENECK, {"expansions": (2,)}, "expansions=(2,)", "as many numbers as widths = [16, 32]"),
    (BOTTLENECK, {"padding": "same"}, "padding='same'", "only 1x1 convolutions have stride 2"),
    (BOTTLENECK, {"group_width": 6}, "group_width=6", "to be whole for widths [16, 32]"),
    (BASIC, {"stem_width": 6}, "shortcut='A'", "cannot remove channels ([6, 4, 8])"),
    (BASIC, {"widths": (8, 4)}, "shortcut='A'", "cannot remove channels ([4, 8, 4])"),
]


@pytest.mark.parametrize(
    ("base", "fields", "fault"), TOGETHER, ids=[str(row[1]) for row in TOGETHER]
)
def test_fields_that_contradict_each_other_are_rejected(
    base: Spec, fields: dict[str, Any], fault: str
) -> None:
    assert f"tiny: {fault} is invalid with " in rejected(base, **fields)
    if len(fields) == 2 and not fault.startswith(("shrink=", "stem=", "bias=")):  # fine alone
        for key, value in fields.items():
            base.replace(**{key: value})


def test_every_conflict_is_tested() -> None:
    tested = {fault.partition("=")[0] for _, _, fault in TOGETHER}
    assert {name for fields, *_ in CONFLICTS for name in fields.split()} == tested


@pytest.mark.parametrize(("base", "fields", "fault", "expected"), ALONE)
def test_sizes_that_do_not_fit_are_rejected(
    base: Spec, fields: dict[str, Any], fault: str, expected: str
) -> None:
    message = rejected(base, **fields)
    assert f"tiny: {fault} is invalid; expected " in message and expected in message


@pytest.mark.smoke
def test_unknown_and_missing_fields_are_named() -> None:
    assert "no field 'shortcuts'; did you mean 'shortcut'" in rejected(BASIC, shortcuts="B")
    assert "no field 'xyz': the fields are name, block, depths" in rejected(BASIC, xyz=1)
    fields = BASIC.to_dict()
    with pytest.raises(ReszooError, match="tiny: shortcutt: unknown key; did you mean 'shortcut'"):
        Spec(**{**fields, "shortcutt": "A"})
    del fields["block"], fields["stem"]
    with pytest.raises(ReszooError, match="tiny: block: missing; expected one of .basic., .bott"):
        Spec(**fields)
    with pytest.raises(ReszooError, match="Spec: name: missing; expected text"):
        Spec(**{})


@pytest.mark.smoke
def test_a_spec_is_a_value() -> None:
    again = Spec(**BASIC.model_dump())
    assert again == BASIC and hash(again) == hash(BASIC) and {again: 1}[BASIC] == 1
    with pytest.raises(ValidationError, match="frozen"):
        BASIC.shortcut = "B"  # type: ignore[misc]
    assert BASIC.replace(depths=[1, 1]) == BASIC  # a list, as it comes from TOML or JSON
    assert isinstance(BASIC.replace(shortcut_scale=2).shortcut_scale, float)


def _choices(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


STAGES = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 70)), min_size=1, max_size=4)
FIELDS = st.fixed_dictionaries(
    {
        "name": st.just("drawn"),
        "block": _choices("basic", "bottleneck"),
        "stem": _choices("cifar", "imagenet", "deep", "rs"),
        "stem_width": st.integers(1, 20),
        "shortcut": _choices("none", "A", "B", "C"),
        "stages": STAGES,
    },
    optional={
        "pad_at": _choices("both", "end"),
        "shrink": _choices("stride", "avgpool"),
        "blur": st.booleans(),
        "head_dropout": st.floats(0, 1),
        "shortcut_scale": st.floats(0.1, 2),
        "branch_scale": st.floats(0.1, 2),
        "gate": _choices("none", "exclusive", "shortcut_only"),
        "gate_bias": st.floats(-8, 0),
        "shortcut_dropout": st.floats(0, 1),
        "order": _choices("post", "bn_after_add", "relu_before_add", "relu_pre", "pre"),
        "stride_at": _choices("conv1", "conv2"),
        "groups": st.integers(0, 4),
        "group_width": _choices(4, 32, 64, 128),
        "se_ratio": st.floats(0, 1),
        "zero_gamma": st.booleans(),
        "rezero": st.booleans(),
        "norm": _choices("batch", "group", "none", "scaled_weight"),
        "norm_groups": _choices(1, 2, 32),
        "initialization": _choices("he", "delta_orthogonal", "fixup"),
        "activation": _choices("relu", "tanh"),
        "dropout": st.floats(0, 1),
        "drop_path": st.floats(0, 1),
    },
)


@settings(max_examples=300, deadline=None)
@given(FIELDS)
def test_any_fields_are_rejected_in_a_line_or_count_and_come_back(drawn: dict[str, Any]) -> None:
    stages = drawn.pop("stages")
    drawn |= {"depths": [depth for depth, _ in stages], "widths": [width for _, width in stages]}
    try:
        made = Spec(**drawn)
    except ReszooError as error:
        assert "\n" not in str(error) and str(error).startswith("drawn: ")
        return
    back = Spec(**json.loads(json.dumps(made.to_dict())))
    assert back == made and hash(back) == hash(made)
    counted = count(made, (made.total_stride + 1, made.total_stride, 3))
    assert counted.parameters > 0 and counted.macs > 0
    per_block = 2 if made.block == "basic" else 3
    assert (
        counted.depth == {"deep": 3, "rs": 4}.get(made.stem, 1) + 1 + sum(made.depths) * per_block
    )
    assert 0 < made.survival(sum(made.depths) - 1) <= made.survival(0) <= 1


def test_drop_path_rises_linearly_to_the_last_block() -> None:
    dropped = [1 - spec("resnet56_sd").survival(index) for index in range(27)]
    assert dropped[-1] == 0.5
    assert dropped == pytest.approx([0.5 * (index + 1) / 27 for index in range(27)])


@pytest.mark.smoke
def test_a_plain_twin_differs_in_its_shortcut_and_name_only() -> None:
    for name in ("resnet20", "resnet110_v2", "resnet34", "resnet50_v1_5", "wrn16_4"):
        model = spec(name)
        twin = model.plain_twin()
        assert twin.shortcut == "none" and twin.name != model.name and "plain" in twin.name
        assert twin.replace(shortcut=model.shortcut, name=model.name) == model
    for plain in ("plain20", "plain1202", "plain18", "plain34", "plain20_v2"):
        assert spec(plain.replace("plain", "resnet")).plain_twin() == spec(plain)
        assert spec(plain).plain_twin() == spec(plain)
    with pytest.raises(ReszooError, match="drop_path=0.5 is invalid with shortcut='none'"):
        spec("resnet56_sd").plain_twin()


@pytest.mark.smoke
def test_channels_strides_and_defaults() -> None:
    model, small = spec("resnext50_32x4d"), spec("resnet20")
    assert [model.out_channels(stage) for stage in range(4)] == [256, 512, 1024, 2048]
    # arXiv 1611.05431, table 1
    assert [model.inner_channels(stage) for stage in range(4)] == [128, 256, 512, 1024]
    assert (model.total_stride, model.default_input_shape) == (32, (224, 224, 3))
    assert (small.total_stride, small.default_input_shape) == (4, (32, 32, 3))
    assert (model.default_classes, small.default_classes) == (1000, 10)
