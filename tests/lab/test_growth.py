"""Doubled models, and equal cost of the ways to the deepest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import reszoo
from reszoo.errors import ReszooError
from reszoo.lab import growth as lab
from reszoo.lab.growth import double_blocks, growth, plan_ways
from reszoo.models.build import build
from tests.models.helpers import BASIC, images, randomize


def branches(model: keras.Model, batch: Any, blocks: int) -> list[Any]:
    """Return what the branches of stage 1 make of the map that enters it."""
    x = np.asarray(keras.Model(model.input, model.get_layer("stem_relu1").output)(batch))
    found = []
    for block in range(1, blocks + 1):
        conv1, bn1, conv2, bn2 = (
            model.get_layer(f"stage1_block{block}_{part}")
            for part in ("conv1", "bn1", "conv2", "bn2")
        )
        inner = np.maximum(bn1(conv1(x), training=False), 0)
        found.append(np.asarray(bn2(conv2(inner), training=False)))
    return found


def test_doubled_branches_are_halves_and_blocks_that_change_shape_stay() -> None:
    spec = BASIC.replace(depths=(2, 2), widths=(4, 8), stem_width=4)
    model = build(spec, input_shape=(8, 8, 3), classes=5)
    randomize(model, 0)
    deep = double_blocks(model, spec)
    batch = images((2, 8, 8, 3), 0)
    first, second = branches(model, batch, 2)
    doubled = branches(deep, batch, 4)
    for found, whole in zip(doubled, (first, first, second, second), strict=True):
        np.testing.assert_allclose(found, whole / 2, rtol=1e-4, atol=1e-5)
    # Stage 2 begins with the block that strides, which stays, and one that does nothing.
    ends = [deep.get_layer(f"stage2_block{number}_relu2").output for number in (1, 2, 3)]
    outputs = [np.asarray(each) for each in keras.Model(deep.input, ends)(batch)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.allclose(outputs[1], outputs[2])
    mine, theirs = (each.get_layer("stage2_block1_bn2").gamma for each in (deep, model))
    np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ReszooError, match="cannot be doubled"):
        double_blocks(model, spec.replace(order="pre"))


def test_ways_cost_as_planned() -> None:
    plan = plan_ways("digits", 2, 3, 300, [])
    cost = {
        way: sum(each.train.steps * reszoo.count(each.model.spec).macs for each in recipes)
        for way, recipes in plan.items()
    }
    assert [each.model.spec.depths[0] for each in plan["copied"]] == [2, 4, 8]
    assert [each.train.steps for each in plan["copied"]] == [100] * 3
    assert cost["zero"] == cost["copied"] == pytest.approx(cost["equal"], rel=0.01)
    assert cost["scratch"] > 1.6 * cost["copied"]


def test_growth_leaves_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are not trained: those of other tests show that training works."""
    trained = []

    class Pretended:
        def __init__(self, path: Path) -> None:
            self.path, self.recipe = path, None
            self.meta: dict[str, Any] = {
                "steps": 0, "seconds": 2.0, "data": {"input_shape": [8, 8, 1]},
            }  # fmt: skip

        history = [{"step": 2, "val_accuracy": 0.5}, {"step": 4, "val_accuracy": 0.75}]

    def pretend(run: Any, recipe: Any, before: Any, *_: object) -> None:
        trained.append(
            (recipe.model.spec.depths[0], recipe.train.seed, before and before.path.name)
        )
        run.recipe, run.meta["steps"] = recipe, recipe.train.steps

    monkeypatch.setattr(lab, "Run", Pretended)
    monkeypatch.setattr(lab, "is_finished", lambda run: False)
    monkeypatch.setattr(lab, "_train", pretend)
    errors = {"scratch": 3.0, "equal": 5.0, "zero": 4.0, "copied": 2.5}
    monkeypatch.setattr(lab, "error_percent", lambda run: errors[run.path.name.split("-")[0]])
    record = growth(tmp_path / "out", cycles=2, seeds=2, budget=8, quiet=True)
    found = record["results"]["measures"]
    assert found["copied_against_scratch"] == -0.5 and found["zero_against_equal"] == -1.0
    assert 0.15 < found["macs_saved"] < 0.3  # half of the steps cost about half
    assert found["seconds_saved"] == -1
    assert trained[-2:] == [(2, 1, None), (4, 1, "copied-14-seed1")]
    assert (tmp_path / "out/growth.png").is_file()


@pytest.mark.slow
def test_growth_trains(tmp_path: Path) -> None:
    options: dict[str, Any] = {"cycles": 2, "seeds": 1, "budget": 8, "quiet": True}
    record = growth(tmp_path / "out", overrides=["data.validation=30"], **options)
    assert [row["layers"] for row in record["results"]["ways"]][2:] == [[14, 26]] * 2
    assert record["results"]["measures"]["macs_saved"] == pytest.approx(0.23, abs=0.05)
