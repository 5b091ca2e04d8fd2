"""Specs: what is refused and in which words, round trips, and the plain twin."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from reszoo import ReszooError, Spec, count, spec

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

# (base, fields, words that the one line must hold: the field at fault and what to type instead)
REFUSED: tuple[tuple[Spec, dict[str, Any], tuple[str, ...]], ...] = (
    # Types and choices.
    (BASIC, {"block": "basics"}, ("block: ", '"basic", "bottleneck"', "did you mean 'basic'?")),
    (BASIC, {"stem": "big"}, ("stem: ", '"cifar", "imagenet", "deep"')),
    (BASIC, {"shortcut": "D"}, ("shortcut: ", '"none", "A", "B", "C"')),
    (BASIC, {"shortcut": None}, ("shortcut: ", '"none", "A", "B", "C"')),
    (BASIC, {"order": ["pre"]}, ("order: ", '"post", "bn_after_add"')),
    (BASIC, {"pad_at": "start"}, ("pad_at: ", '"both", "end"')),
    (BASIC, {"shrink": "avg_pool"}, ("shrink: ", "did you mean 'avgpool'?")),
    (BASIC, {"gate": "exclusiv"}, ("gate: ", "did you mean 'exclusive'?")),
    (BASIC, {"stride_at": 2}, ("stride_at: ", '"conv1", "conv2"')),
    (BASIC, {"name": ""}, ("name: ", "text that is not empty")),
    (BASIC, {"name": 7}, ("name: ", "text")),
    (BASIC, {"depths": 3}, ("depths: ", "a list of at least 1, each an integer >= 1")),
    (BASIC, {"depths": ()}, ("depths: ", "each an integer >= 1")),
    (BASIC, {"depths": "33"}, ("depths: ", "each an integer >= 1")),
    (BASIC, {"depths": (1, 1.5)}, ("depths: ", "each an integer >= 1")),
    (BASIC, {"widths": (4, True)}, ("widths: ", "each an integer >= 1")),
    (BASIC, {"stem_width": 4.0}, ("stem_width: ", "an integer >= 1")),
    (BASIC, {"stem_width": "4"}, ("stem_width: ", "an integer >= 1")),
    (BOTTLENECK, {"groups": True}, ("groups: ", "an integer >= 1")),
    (BASIC, {"zero_gamma": 1}, ("zero_gamma: ", "true or false")),
    (BASIC, {"rezero": "yes"}, ("rezero: ", "true or false")),
    (BASIC, {"dropout": "0.5"}, ("dropout: ", "a number")),
    (BASIC, {"dropout": True}, ("dropout: ", "a number")),
    (BASIC, {"drop_path": float("nan")}, ("drop_path: ", "a number")),
    (BASIC, {"gate_bias": None}, ("gate_bias: ", "a number")),
    # Ranges.
    (BASIC, {"depths": (1, 1, 1)}, ("depths has 3 stages, widths 2", "the same number")),
    (BASIC, {"depths": (1, 0)}, ("depths: ", ">= 1")),
    (BASIC, {"widths": (-4, 8)}, ("widths: ", ">= 1")),
    (BASIC, {"stem_width": 0}, ("stem_width: ", ">= 1")),
    (BASIC, {"stem": "deep", "stem_width": 1}, ("stem_width is 1", "stem='deep'", "at least 2")),
    (BOTTLENECK, {"groups": 0}, ("groups: ", ">= 1")),
    (BOTTLENECK, {"group_width": -4}, ("group_width: ", ">= 1")),
    (BASIC, {"dropout": 1.0}, ("dropout: ", ">= 0 and < 1")),
    (BASIC, {"shortcut_dropout": -0.1}, ("shortcut_dropout: ", ">= 0 and < 1")),
    (BASIC, {"drop_path": 1}, ("drop_path: ", ">= 0 and < 1")),
    (BASIC, {"se_ratio": 16}, ("se_ratio: ", ">= 0 and <= 1")),
    (BASIC, {"se_ratio": -0.5}, ("se_ratio: ", ">= 0 and <= 1")),
    (BASIC, {"branch_scale": 0}, ("branch_scale: ", "> 0")),
    (BASIC, {"branch_scale": float("inf")}, ("branch_scale: ", "> 0")),
    (BASIC, {"shortcut_scale": 0}, ("shortcut_scale: ",)),
    (BASIC, {"shortcut_scale": float("inf")}, ("shortcut_scale: ", "> 0")),
    (BASIC, {"gate": "exclusive", "gate_bias": float("-inf")}, ("gate_bias: ", "a number")),
    # Pairs, each silently wrong if it were let through.
    (
        BASIC,
        {"shortcut": "none", "zero_gamma": True},
        ("zero_gamma would silence", "give shortcut='A', 'B' or 'C'"),
    ),
    (
        BASIC,
        {"shortcut": "none", "rezero": True},
        ("rezero would silence", "give shortcut='A', 'B' or 'C'"),
    ),
    (
        BASIC,
        {"shortcut": "none", "drop_path": 0.5},
        ("drop_path would silence", "give shortcut='A', 'B' or 'C'"),
    ),
    (
        BASIC,
        {"shortcut": "none", "shortcut_scale": 0.5},
        ("shortcut='none'", "shortcut_scale", "drop them"),
    ),
    (
        BASIC,
        {"shortcut": "none", "shortcut_dropout": 0.5},
        ("shortcut='none'", "shortcut_dropout", "drop them"),
    ),
    (BASIC, {"shortcut": "none", "gate": "exclusive"}, ("shortcut='none'", "gate", "drop them")),
    (
        BASIC,
        {"shortcut": "none", "branch_scale": 0.5},
        ("branch_scale", "shortcut='none'", "drop it"),
    ),
    (BASIC, {"shortcut": "none", "pad_at": "end"}, ("pad_at", "shortcut='A'", "shortcut='none'")),
    (BASIC, {"shortcut": "none", "shrink": "avgpool"}, ("shrink='avgpool'", "give 'B' or 'C'")),
    (BASIC, {"zero_gamma": True, "rezero": True}, ("zero_gamma and rezero", "choose one")),
    (BASIC, {"zero_gamma": True, "order": "pre"}, ("order='pre'", "zero_gamma", "use rezero=true")),
    (
        BASIC,
        {"zero_gamma": True, "order": "bn_after_add"},
        ("order='bn_after_add'", "zero_gamma", "use rezero=true"),
    ),
    (BASIC, {"zero_gamma": True, "order": "relu_before_add"}, ("zero_gamma", "use rezero=true")),
    (BASIC, {"rezero": True, "branch_scale": 0.5}, ("rezero", "drop branch_scale")),
    (BASIC, {"gate_bias": -3}, ("gate_bias needs gate='exclusive' or gate='shortcut_only'",)),
    (BASIC, {"shortcut": "B", "pad_at": "end"}, ("pad_at", "this net has shortcut='B'")),
    (
        BASIC,
        {"shrink": "avgpool"},
        ("shrink='avgpool'", "shortcut='A' has none", "give 'B' or 'C'"),
    ),
    (BASIC, {"groups": 2}, ("groups and group_width", "block='basic'", "change widths")),
    (BASIC, {"group_width": 128}, ("groups and group_width", "block='basic'", "change widths")),
    (BASIC, {"stride_at": "conv2"}, ("stride_at", "basic block always strides in conv1")),
    (
        BOTTLENECK,
        {"depths": (1,), "widths": (16,), "stride_at": "conv2"},
        ("one stage", "stride_at"),
    ),
    (BOTTLENECK, {"depths": (1,), "widths": (16,), "shrink": "avgpool"}, ("one stage", "shrink")),
    (BOTTLENECK, {"group_width": 6}, ("group_width 6", "widths [16, 32]", "must be whole")),
    (
        BASIC,
        {"stem_width": 6},
        ("shortcut='A' cannot pad to fewer channels ([6, 4, 8])", "give 'B'"),
    ),
    (
        BASIC,
        {"widths": (8, 4)},
        ("shortcut='A' cannot pad to fewer channels ([4, 8, 4])", "give 'B'"),
    ),
    # Names of fields.
    (BASIC, {"shortcuts": "B"}, ("no field 'shortcuts'", "did you mean 'shortcut'")),
    (BASIC, {"xyz": 1}, ("no field 'xyz'", "the fields are name, block, depths")),
)


@pytest.mark.parametrize(("base", "fields", "words"), REFUSED, ids=[str(row[1]) for row in REFUSED])
def test_refused_in_one_line_that_says_what_to_type(
    base: Spec, fields: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ReszooError) as caught:
        base.replace(**fields)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    if "name" not in fields:
        assert message.startswith("tiny: ")


def test_each_refusal_stands_alone() -> None:
    """The table above is only worth something if each pair's halves are fine by themselves."""
    for base, fields, _ in REFUSED:
        if len(fields) == 2 and set(fields) != {"gate", "gate_bias"}:
            for key, value in fields.items():
                if (key, value) not in (("shrink", "avgpool"), ("stem_width", 1)):
                    base.replace(**{key: value})


def test_a_spec_is_a_value() -> None:
    again = Spec(**BASIC.model_dump())
    assert again == BASIC and hash(again) == hash(BASIC) and {again: 1}[BASIC] == 1
    with pytest.raises(ValidationError, match="frozen"):
        BASIC.shortcut = "B"  # type: ignore[misc]
    assert BASIC.replace(depths=[1, 1]) == BASIC  # a list, as it comes from TOML or JSON
    assert isinstance(BASIC.replace(shortcut_scale=2).shortcut_scale, float)


def test_error_names_what_is_missing_or_unknown() -> None:
    fields = BASIC.to_dict()
    with pytest.raises(ReszooError, match="tiny: shortcutt: unknown key; did you mean 'shortcut'"):
        Spec(**{**fields, "shortcutt": "A"})
    del fields["block"], fields["stem"]
    with pytest.raises(
        ReszooError, match="tiny: block: missing; expected one of .basic., .bottleneck."
    ):
        Spec(**fields)
    with pytest.raises(ReszooError, match="Spec: name: missing; expected text"):
        Spec(**{})


FIELDS = st.fixed_dictionaries(
    {
        "name": st.just("drawn"),
        "block": st.sampled_from(["basic", "bottleneck"]),
        "stem": st.sampled_from(["cifar", "imagenet", "deep"]),
        "stem_width": st.integers(1, 20),
        "shortcut": st.sampled_from(["none", "A", "B", "C"]),
        "stages": st.lists(
            st.tuples(st.integers(1, 3), st.integers(1, 70)), min_size=1, max_size=4
        ),
    },
    optional={
        "pad_at": st.sampled_from(["both", "end"]),
        "shrink": st.sampled_from(["stride", "avgpool"]),
        "shortcut_scale": st.floats(0.1, 2),
        "branch_scale": st.floats(0.1, 2),
        "gate": st.sampled_from(["none", "exclusive", "shortcut_only"]),
        "gate_bias": st.floats(-8, 0),
        "shortcut_dropout": st.floats(0, 1),
        "order": st.sampled_from(["post", "bn_after_add", "relu_before_add", "relu_pre", "pre"]),
        "stride_at": st.sampled_from(["conv1", "conv2"]),
        "groups": st.integers(0, 4),
        "group_width": st.sampled_from([4, 32, 64, 128]),
        "se_ratio": st.floats(0, 1),
        "zero_gamma": st.booleans(),
        "rezero": st.booleans(),
        "dropout": st.floats(0, 1),
        "drop_path": st.floats(0, 1),
    },
)


@settings(max_examples=300, deadline=None)
@given(FIELDS)
def test_any_fields_are_refused_in_a_line_or_count_and_come_back(drawn: dict[str, Any]) -> None:
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
    assert counted.parameters > 0 and counted.multiply_adds > 0
    assert counted.depth == (3 if made.stem == "deep" else 1) + 1 + sum(made.depths) * (
        2 + (made.block != "basic")
    )
    assert 0 < made.survival(sum(made.depths) - 1) <= made.survival(0) <= 1


def test_drop_path_rises_linearly_to_the_last_block() -> None:
    dropped = [1 - spec("resnet56_sd").survival(index) for index in range(27)]
    assert dropped[-1] == 0.5
    assert dropped == pytest.approx([0.5 * (index + 1) / 27 for index in range(27)])


@pytest.mark.parametrize(
    "name", ["resnet20", "resnet110_v2", "resnet34", "resnet50_v1_5", "wrn16_4", "resnext50_32x4d"]
)
def test_a_plain_twin_differs_in_its_shortcut_and_name_only(name: str) -> None:
    net = spec(name)
    twin = net.plain_twin()
    assert twin.shortcut == "none" and twin.name != net.name and "plain" in twin.name
    assert twin.replace(shortcut=net.shortcut, name=net.name) == net


def test_plain_twins_are_the_plain_nets() -> None:
    for plain in ("plain20", "plain1202", "plain18", "plain34", "plain20_v2"):
        assert spec(plain.replace("plain", "resnet")).plain_twin() == spec(plain)
        assert spec(plain).plain_twin() == spec(plain)


def test_a_net_that_needs_its_shortcut_has_no_plain_twin() -> None:
    with pytest.raises(ReszooError, match="drop_path would silence"):
        spec("resnet56_sd").plain_twin()


def test_channels_and_strides() -> None:
    net = spec("resnext50_32x4d")
    assert [net.out_channels(stage) for stage in range(4)] == [256, 512, 1024, 2048]
    assert [net.inner_channels(stage) for stage in range(4)] == [
        128,
        256,
        512,
        1024,
    ]  # arXiv 1611.05431, table 1
    assert (net.total_stride, net.default_input_shape, net.default_classes) == (
        32,
        (224, 224, 3),
        1000,
    )
    small = spec("resnet20")
    assert (small.total_stride, small.default_input_shape, small.default_classes) == (
        4,
        (32, 32, 3),
        10,
    )
