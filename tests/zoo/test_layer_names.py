"""Layer names read back against the models that carry them."""

from __future__ import annotations

import pytest

import reszoo
from reszoo.zoo.layer_names import BlockLayer, parse_block_layer, parse_layer_group


@pytest.mark.parametrize("name", ["resnet20", "resnet50_v1_5", "wrn16_4"])
def test_every_layer_of_a_block_is_counted_once_in_its_stage(name: str) -> None:
    model, spec = reszoo.build(name, classes=3), reszoo.spec(name)
    found = [parse_block_layer(layer.name) for layer in model.layers]
    blocks = {(each.stage, each.block) for each in found if each}
    assert blocks == {
        (stage, block)
        for stage, depth in enumerate(spec.depths, 1)
        for block in range(1, depth + 1)
    }
    assert {parse_layer_group(layer.name) for layer in model.layers} - {""} == {
        "stem", "head", *(f"stage{number}" for number, _ in enumerate(spec.depths, 1))
    }  # fmt: skip


def test_parts_of_a_name() -> None:
    layer = parse_block_layer("stage12_block3_shortcut_bn")
    assert layer == BlockLayer(12, 3, "shortcut_bn")
    assert (layer.stage_name, layer.block_name) == ("stage12", "stage12_block3")
    for other in ("head_bn", "stem_conv1", "stage1_block", "mystage1_block1_conv1", "block1_conv1"):
        assert parse_block_layer(other) is None
    assert [
        parse_layer_group(name) for name in ("mystem_conv", "conv1", "headless", "head_bn/gamma")
    ] == ["", "", "", "head"]
