"""Which model of a checkpoint is meant, under whatever prefix, and what is said about the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reszoo.errors import ReszooError
from reszoo.weights.candidates import (
    find_candidates,
    group_names,
    is_auxiliary,
    select_model,
    strip_wrappers,
    tokens,
)

SIGN, OTHER = "layer1.0.conv1.weight", "fc.bias"


def model(prefix: str = "", value: float = 0.0) -> dict[str, np.ndarray]:
    return {f"{prefix}{SIGN}": np.full(2, value), f"{prefix}{OTHER}": np.full(3, value)}


def chosen(values: dict[str, np.ndarray], **arguments: Any) -> float:
    """The value by which a model of `model` is told from another."""
    selected = select_model(values, **arguments)
    assert selected.names.keys() == {SIGN, OTHER}
    return float(values[selected.names[OTHER]][0])


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.", "net.", "model.model.", "state_dict.model.", "params.", "backbone.", "encoder.", "0.",
     "module.encoder_q.", "state_dict.module.backbone.", "a.b.c.d.", "my_own_net."],
)  # fmt: skip
def test_any_prefix_is_found_and_stripped(prefix: str) -> None:
    selected = select_model(model(prefix), others=["epoch"])
    assert selected.prefix == prefix and selected.ignored == ("epoch",)
    assert selected.names == {SIGN: prefix + SIGN, OTHER: prefix + OTHER}


def test_a_tensor_beside_the_prefix_is_ignored_and_one_behind_it_is_not() -> None:
    selected = select_model(model("net.") | {"x.weight": np.zeros(1), "net.x.weight": np.zeros(1)})
    assert selected.ignored == ("x.weight",) and "x.weight" in selected.names


@pytest.mark.parametrize(
    "sign", ["stem_conv1/kernel", "conv1_conv/kernel", "stages.0.0.conv1.gain"]
)
def test_a_keras_model_inside_another_is_found(sign: str) -> None:
    selected = select_model({f"outer/inner/{sign}": np.zeros(1), "dense/kernel": np.zeros(1)})
    assert selected.names == {sign: f"outer/inner/{sign}"} and selected.ignored == ("dense/kernel",)


def test_a_name_that_merely_ends_like_a_known_one_is_not_a_model() -> None:
    assert find_candidates([f"my_{SIGN}", f"x{SIGN}"]) == []


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("_orig_mod.module.x.weight", "module.x.weight"),
        ("layer1._orig_mod.0.conv1.weight", SIGN),
        ("_fsdp_wrapped_module.layer1._fsdp_wrapped_module.0.conv1.weight", SIGN),
        ("layer1.0._checkpoint_wrapped_module.conv1.weight", SIGN),
        ("_forward_module.x", "x"),
    ],
)
def test_prefixes_of_wrappers_are_removed_from_names(name: str, plain: str) -> None:
    assert strip_wrappers([name]) == {plain: name}


def test_names_that_would_become_equal_stay_as_they_are() -> None:
    names = ["_orig_mod.x", "x"]
    assert strip_wrappers(names) == {name: name for name in names}


@pytest.mark.parametrize(
    ("raw", "averaged"),
    [
        ("state_dict.", "state_dict_ema."),
        ("model.", "model_ema.module."),
        ("model.", "ema."),
        ("state_dict.model.", "state_dict.model_ema.module."),
        ("model.", "ema_state_dict."),
        ("online_model.", "ema_model."),
        ("state_dict.net.", "callbacks.EMACallback.weights."),
        ("", "ema."),
        ("model.", "swa_model.module."),
        ("current_model_state.model.", "state_dict.model."),  # Lightning's WeightAveraging
        ("state_dict.model.", "callbacks.StochasticWeightAveraging.average_model_state."),
    ],
)
def test_averaged_weights_are_preferred_to_raw_ones_and_reported(raw: str, averaged: str) -> None:
    for values in (model(raw, 1) | model(averaged, 2), model(averaged, 2) | model(raw, 1)):
        assert chosen(values) == 2
        assert chosen(values, entry="raw") == 1
        (line,) = select_model(values).describe("a.pth")
        assert line.startswith(
            f"a.pth: loaded the averaged weights '{averaged[:-1]}', not the raw ones"
        )
        assert f"'{raw[:-1] or '(no prefix)'}'" in line and "#raw" in line


@pytest.mark.parametrize("name", ["n_averaged", "state_dict.n_averaged"])
def test_an_averaged_model_is_known_by_its_count(name: str) -> None:
    prefix = name.removesuffix("n_averaged") + "module."
    selected = select_model(model(prefix) | {name: np.array(3)})
    assert selected.averaged and not select_model(model(prefix)).averaged
    assert selected.describe("a.pth") == [
        f"a.pth: loaded the averaged weights under '{prefix}'; ignored {name}"
    ]
    with pytest.raises(
        ReszooError,
        match=f"'#raw' is invalid; the file holds averaged weights only: '{prefix[:-1]}'",
    ):
        select_model(model(prefix) | {name: np.array(3)}, entry="raw")


def test_two_models_are_rejected_with_both_names_unless_one_is_named() -> None:
    values = model("teacher.backbone.", 1) | model("student.backbone.", 2)
    with pytest.raises(
        ReszooError,
        match=r"several models \('teacher.backbone', 'student.backbone'\).*FILE#student.backbone",
    ):
        select_model(values)
    assert chosen(values, entry="teacher") == 1 and chosen(values, entry="student.backbone") == 2
    with pytest.raises(
        ReszooError,
        match="'#pupil' is invalid; the file holds 'teacher.backbone', 'student.backbone'",
    ):
        select_model(values, entry="pupil")
    with pytest.raises(ReszooError, match="several models"):
        select_model(values, entry="backbone")
    with pytest.raises(ReszooError, match="several models"):
        select_model(values, entry="raw")


def test_the_same_weights_under_two_names_are_one_model() -> None:
    assert chosen(model("model.", 1) | model("backbone.", 1)) == 1
    with pytest.raises(ReszooError, match="several models"):
        select_model(
            model("model.", 1) | model("backbone.", 1) | {"backbone.extra.weight": np.zeros(1)}
        )


def test_mocos_query_encoder_is_taken() -> None:
    values = (
        model("module.encoder_q.", 1)
        | model("module.encoder_k.", 2)
        | {"module.queue": np.zeros(4)}
    )
    assert chosen(values) == 1 and chosen(values, entry="encoder_k") == 2
    lines = select_model(values).describe("a.pth")
    assert "query encoder 'module.encoder_q'" in lines[0] and "ignored module.queue" in lines[1]


def test_ignored_entries_are_named_and_counted() -> None:
    beside = {
        "state_dict.criterion.weight": 1,
        "state_dict.train_acc.tp": 1,
        "state_dict.decoder.a": 1,
        "state_dict.decoder.b": 1,
    }
    values = model("state_dict.model.") | {name: np.zeros(1) for name in beside}
    values |= {f"optimizer_states.0.state.{i}.exp_avg": np.zeros(1) for i in range(60)}
    (line,) = select_model(values, others=["epoch", "args"]).describe("last.ckpt")
    assert line == (
        "last.ckpt: loaded the weights under 'state_dict.model.'; ignored state_dict.criterion.weight, "
        "state_dict.train_acc.tp, state_dict.decoder.* (2 tensors), optimizer_states.* (60 tensors) and 2 more"
    )
    assert select_model(model()).describe("a.pth") == []


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("criterion.weight", True), ("loss_fn.weight", True), ("train_acc.tp", True), ("val_accuracy.total", True),
        ("n_averaged", True), ("metrics.0.tp", True), ("conv1.weight", False), ("fc.weight", False), ("layer4.0.x", False),
        ("conv2.weight", False), ("attnpool.positional_embedding", False), ("mean", False), ("accent.weight", False),
    ],
)  # fmt: skip
def test_only_losses_and_metrics_are_ignored_among_layers(name: str, beside: bool) -> None:
    """Another tensor beside the layers may change what the model computes, so that it must be an error."""
    assert is_auxiliary(name) is beside
    assert (name in select_model(model() | {name: np.zeros(1)}).names) is not beside


def test_counts_are_reported_only_with_other_ignored_entries() -> None:
    count = {"bn1.num_batches_tracked": np.array(1)}
    assert select_model(model() | count).describe("a.pth") == []
    (line,) = select_model(model() | count, others=["epoch"]).describe("a.pth")
    assert line == "a.pth: loaded the weights; ignored epoch, num_batches_tracked"


def test_names_are_split_into_tokens_and_grouped() -> None:
    assert tokens("EMACallback.ema_model") == ["ema", "callback", "ema", "model"]
    assert group_names(["a.b", "a.c", "d"], "") == ["a.* (2 tensors)", "d"]


def test_an_entry_of_a_file_without_known_names_is_rejected() -> None:
    with pytest.raises(
        ReszooError, match="'#x' is invalid; the file holds no model whose names are known"
    ):
        select_model({"a": np.zeros(1)}, entry="x")
    assert select_model({"a": np.zeros(1)}).names == {"a": "a"}
