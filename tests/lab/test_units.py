"""Models cut into units compute what the whole models compute."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import reszoo
from reszoo import ReszooError
from reszoo.lab.units import cut_model
from tests.models.helpers import BASIC, BOTTLENECK, images, randomize


@pytest.mark.parametrize(
    ("fields", "units"),
    [
        ({}, ["stage1_block1", "stage1_block2", "stage2_block1"]),
        ({"order": "pre"}, ["stage1_block1", "stage1_block2", "stage2_block1"]),
        ({"order": "bn_after_add"}, ["stage1_block1", "stage1_block2", "stage2_block1"]),
        ({"shortcut": "none"}, [f"stage1_block1_relu{layer}" for layer in (1, 2)]),
    ],
)
def test_the_units_one_after_another_are_the_model(
    fields: dict[str, str], units: list[str]
) -> None:
    for spec in (BASIC.replace(**fields), BOTTLENECK):
        model = reszoo.build(spec, input_shape=(8, 8, 3))
        randomize(model, 0)
        cut = cut_model(model)
        x = cut.stem(images((3, 8, 8, 3)))
        for unit in cut.units:
            before, x = x, unit(x)
            if unit.is_block:
                shortcut, branch = unit.split(before)
                np.testing.assert_array_equal(unit.join(shortcut + branch), x)
        expected = model(images((3, 8, 8, 3)), training=False)
        np.testing.assert_array_equal(cut.head(x), expected)
    cut = cut_model(reszoo.build(BASIC.replace(**fields), input_shape=(8, 8, 3)))
    assert [unit.name for unit in cut.units][: len(units)] == units
    assert cut.is_residual == ("shortcut" not in fields)
    assert [unit.keeps_shape for unit in cut.units if unit.stage == "stage2"][0] is False


def test_a_deleted_block_is_a_block_whose_last_scale_is_zero() -> None:
    model = reszoo.build(BASIC, input_shape=(8, 8, 3))
    randomize(model, 1)
    for name in ("stage1_block2", "stage2_block1"):
        cut = cut_model(model)
        x = cut.stem(images((3, 8, 8, 3)))
        units = {unit.name: unit for unit in cut.units}
        for unit in cut.units[: list(units).index(name)]:
            x = unit(x)
        deleted = units[name].delete(x)
        norm = model.get_layer(f"{name}_bn2")
        norm.gamma.assign(0 * norm.gamma)
        norm.beta.assign(0 * norm.beta)
        np.testing.assert_array_equal(deleted, units[name](x))


def test_models_that_are_no_chain_of_blocks_are_rejected() -> None:
    inputs = keras.Input((4,))
    with pytest.raises(ReszooError, match="no blocks that can be cut"):
        cut_model(keras.Model(inputs, keras.layers.Dense(2)(inputs)))
