"""The rows of published weights: true to the nets, found by every name, refused in one line that names the field."""

from __future__ import annotations

import re

import pytest

from reszoo import ReszooError, count, list_weights, spec
from reszoo.weights.layouts import LAYOUTS
from reszoo.weights.published import differences, find_compatible, find_weights, published


@pytest.mark.parametrize("weights", published(), ids=lambda row: f"{row.model}-{row.tag}")
def test_a_row_has_all_values_and_a_model_that_its_layout_supports(weights) -> None:  # type: ignore[no-untyped-def]
    net = spec(weights.model)
    assert net.name == weights.model and not differences(net, weights)
    assert not LAYOUTS[weights.layout].find_mismatch(net)
    assert find_weights(net, weights.tag) is weights and weights in find_compatible(net)
    assert len(weights.class_names) == len(weights.class_ids) == net.default_classes
    assert 50 < weights.top1 < 100 and (weights.top5 is None or weights.top1 < weights.top5 < 100)
    assert weights.license in ("BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "CC-BY-NC-4.0")
    assert (
        weights.transforms.resize == 0
        or weights.transforms.resize >= weights.transforms.image_size[0]
    )
    if weights.card:  # in the package; tests/weights/test_packaged.py
        (file,) = weights.files
        assert file.url == f"package:{weights.tag}.safetensors"
        assert re.fullmatch("sha256:[0-9a-f]{64}", file.digest)
        return
    assert weights.source.startswith("https://") and weights.files
    for file in weights.files:
        assert re.fullmatch(r"https://[a-z.]+(/[\w.-]+)+", file.url)
        assert (file.digest == "hub") == bool(
            re.match(r"https://huggingface.co/timm/[^/]+/resolve/main/", file.url)
        )
        if weights.layout == "kerasio":  # of a file in a commit
            assert re.fullmatch("sha256:[0-9a-f]{64}", file.digest)
            continue
        digits = re.search(r"-([0-9a-f]{8})\.(pth|th)$", file.url)
        assert not digits or file.digest.startswith(f"sha256:{digits[1]}")
        assert digits or file.digest == "hub" or file.digest.startswith("md5:")


@pytest.mark.smoke
def test_published_weights_are_listed() -> None:
    assert len(published()) == len({(row.model, row.tag) for row in published()})
    assert sum(not row.card for row in published()) == 122
    assert [row.tag for row in list_weights("resnet18")][:2] == [
        "torchvision/IMAGENET1K_V1",
        "timm/a1_in1k",
    ]
    assert {row.model for row in list_weights("resnet50")} == {"resnet50_v1_5"}  # by its other name
    assert {row.model for row in list_weights("resnet5*")} == {
        "resnet50_v1_5", "resnet50_d", "resnet50_gn", "resnet50_keras", "resnet50_v2_keras",
        "resnet56",
    }  # fmt: skip
    assert list_weights("plain*") == []


@pytest.mark.parametrize(  # the publishers' own tables, typed from features.md's sources
    ("net", "tag", "top1", "parameters"),
    [
        ("resnet18", "IMAGENET1K_V1", 69.758, 11_689_512),
        ("resnet50", "IMAGENET1K_V1", 76.13, 25_557_032),
        ("resnet50", "imagenet", 80.858, 25_557_032),
        ("wide_resnet50_2", "torchvision/IMAGENET1K_V1", 78.468, 68_883_240),
        ("resnet50", "a1_in1k", 81.24, 25_557_032),
        ("resnet50_gn", "a1h_in1k", 81.216, 25_557_032),
        ("nf_resnet50", "imagenet", 80.658, 25_557_032),
        ("resnet56", "cifar10", 93.39, 853_018),
        ("resnet152_v2_keras", "keras", 78.0, 60_236_904),
    ],
)
def test_figures_are_the_publishers(net: str, tag: str, top1: float, parameters: int) -> None:
    weights = find_weights(spec(net), tag)
    assert weights.top1 == pytest.approx(top1, abs=0.005)
    assert weights.parameters == parameters or net.endswith("keras")


def test_the_keras_models_have_their_published_parameters() -> None:
    """keras.io's table: 25.6, 44.7, 60.4 million for both kinds; the exact numbers with moving statistics are model.summary()'s."""
    millions = {"50": (25.6, 25.6), "101": (44.7, 44.7), "152": (60.4, 60.4)}
    for depth, both in millions.items():
        for name, expected in zip(
            (f"resnet{depth}_keras", f"resnet{depth}_v2_keras"), both, strict=True
        ):
            size = count(name)
            assert round((size.parameters + size.state) / 1e6, 1) == expected


@pytest.mark.parametrize(
    ("net", "fields", "tag", "says"),
    [
        (
            "resnet50_v1",
            {},
            "imagenet",
            "belong to resnet50_v1_5: stride_at is 'conv1' here and 'conv2' there; build 'r",
        ),
        (
            "resnet50",
            {},
            "keras",
            "belong to resnet50_keras: stride_at .*; bias is 'none' here and 'all' there; bn_eps",
        ),
        ("resnet18", {"shortcut": "A"}, "IMAGENET1K_V1", "shortcut is 'A' here and 'B' there"),
        ("resnet8", {}, "cifar10", "belong to resnet20: depths is"),
        ("resnet56", {}, "imagenet", "resnet56 has no weights 'imagenet'; it has akamaster"),
        ("resnet50", {}, "IMAGENET1K_V9", "did you mean 'imagenet1k_v"),
        ("resnet50", {}, "imagnet", "did you mean 'imagenet'"),
        (
            "nf_resnet50",
            {"branch_scale": 0.5},
            "imagenet",
            "branch_scale is 0.5 here and 0.2 there",
        ),
        ("plain20", {}, "nothing", "plain20 has no published weights; `reszoo list --weights`"),
    ],
)
def test_mismatches_are_rejected_by_field(net: str, fields: dict, tag: str, says: str) -> None:
    with pytest.raises(ReszooError, match=says) as caught:
        find_weights(spec(net, **fields), tag)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 420


@pytest.mark.parametrize("field", ["drop_path", "dropout", "zero_gamma"])
def test_fields_of_training_alone_do_not_matter(field: str) -> None:
    net = spec("resnet50", **{field: True if field == "zero_gamma" else 0.1})
    assert find_weights(net, "imagenet").model == "resnet50_v1_5"
