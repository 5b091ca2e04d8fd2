"""A run whose training images have other sizes than those of the evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reszoo.config.recipe import Recipe
from reszoo.trainer import Trainer
from reszoo.zoo.count import count


@pytest.mark.parametrize("resumed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sizes_of_the_training_images_change_by_epoch(tmp_path: Path, resumed: bool) -> None:
    """The run states both sizes, evaluates and saves a model at the whole one, and resumes."""
    recipe = Recipe(
        name="tiny",
        model={"name": "resnet8", "depths": [1], "widths": [8], "stem_width": 8},
        data={
            "name": "digits",
            "validation": 96,
            "examples": 128,
            "train_sizes": [[0, 4], [0.5, 8]],
        },
        augment={"crop": "pad", "pad": 1},
        train={"epochs": 2, "batch_size": 32, "export": False},
        schedule={"kind": "constant", "rate": 0.05},
    )
    whole = Trainer.prepare(recipe, run_dir=tmp_path / "whole", quiet=True)
    assert whole.fit()
    assert [row["train_size"] for row in whole.run.history] == [4, 8]
    assert whole.model.input_shape == (None, 8, 8, 1)
    meta = whole.run.meta
    assert meta["preprocessing"]["image_size"] == [8, 8]
    costs = [count(recipe.model.spec, (side, side, 1), 10).macs for side in (4, 8)]
    assert (meta["train_macs"], meta["macs"]) == (round(sum(costs) / 2), costs[1])
    log = (whole.run.path / "train.log").read_text()
    mean, whole_macs = (f"{macs / 1e6:.4g} million MACs" for macs in (meta["train_macs"], costs[1]))
    assert f"images: 4x4 to 8x8, on average {mean}; evaluation: 8x8, {whole_macs}\n" in log
    assert " at 4 px  validation loss" in log
    if not resumed:
        return
    broken = Trainer.prepare(recipe, run_dir=tmp_path / "broken", quiet=True)
    assert not broken.fit(until=3)
    again = Trainer.prepare(recipe, run_dir=tmp_path / "broken", resume=True, quiet=True)
    assert again.fit()
    for one, other in zip(whole.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.run.history[-1]["val_loss"] == again.run.history[-1]["val_loss"]
