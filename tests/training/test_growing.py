"""A grown run starts with the weights, averages, optimizer slots and outputs of its source."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from reszoo import Recipe, Run
from reszoo.errors import ReszooError
from reszoo.trainer import Trainer, train
from reszoo.training import checkpoint


def recipe(**tables: dict[str, Any]) -> Recipe:
    base: dict[str, dict[str, Any]] = {
        "model": {"name": "resnet8"},
        "data": {"name": "digits", "validation": 60, "examples": 120},
        "train": {"steps": 6, "batch_size": 40, "export": False, "deterministic": True},
        "optimizer": {"name": "adam"},
        "schedule": {"kind": "constant", "rate": 0.01},
    }
    return Recipe(name="small", **{key: base[key] | tables.get(key, {}) for key in base})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert train(recipe(), run_dir=folder, quiet=True).finished
    return folder


def newest(folder: Path) -> dict[str, np.ndarray]:
    return checkpoint.load(checkpoint.steps(Run(folder).checkpoints)[-1]).arrays


def test_a_grown_run_starts_from_weights_slots_and_outputs(small: Path, tmp_path: Path) -> None:
    grown = recipe(
        model={"name": "resnet14"},
        train={"grow_from": str(small), "steps": 1},
        schedule={"rate": 1e-30},
    )
    assert train(grown, run_dir=tmp_path / "grown", quiet=True).finished
    run = Run.open(tmp_path / "grown")
    record = run.meta["grown_from"]
    assert record["model"] == "resnet8" and record["step"] == 6 and record["difference"] == 0
    assert record["added"] == ["stage1_block2", "stage2_block2", "stage3_block2"]
    before, after = (
        {weight.path: weight.numpy() for weight in each.load_model().trainable_weights}
        for each in (Run.open(small), run)
    )
    assert set(before) < set(after)
    for path, value in before.items():  # a step at a learning rate of almost nothing
        np.testing.assert_array_equal(after[path], value)
    # Adam's slots after one more step are beta m + (1 - beta) g; empty ones would be (1 - beta) g.
    old, new = (slot_arrays(folder) for folder in (small, tmp_path / "grown"))
    assert record["slots"] == len(old) == 2 * len(before)
    for name, value in old.items():
        if name.endswith("_velocity") and value.any():
            assert (new[name] >= 0.998 * value).all(), name  # v = 0.999 v + 0.001 g^2
    # The count of updates, by which Adam weighs its slots.
    assert int(newest(tmp_path / "grown")["optimizer/0"]) == 7


def slot_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The optimizer's arrays of a checkpoint, by the name Keras gives each slot."""
    optimizer = keras.optimizers.Adam()
    optimizer.build(Run.open(folder).load_model().trainable_variables)
    arrays, named = newest(folder), enumerate(optimizer.variables)
    return {v.path.split("/")[-1]: arrays[f"optimizer/{i}"] for i, v in named if i > 1}


def test_another_optimizer_starts_with_empty_slots(small: Path, tmp_path: Path) -> None:
    grown = recipe(
        model={"name": "resnet14"},
        optimizer={"name": "sgd"},
        train={"grow_from": str(small), "steps": 1, "ema": 0.5},
    )
    trainer = Trainer.prepare(grown, run_dir=tmp_path / "grown", quiet=True)
    assert trainer.run.meta["grown_from"]["slots"] == 0


@pytest.mark.slow
def test_a_grown_run_is_resumed_without_its_source(small: Path, tmp_path: Path) -> None:
    """From its own checkpoint, to the bit; without one, from its source again."""
    source = shutil.copytree(small, tmp_path / "source")
    grown = recipe(model={"name": "resnet14"}, train={"grow_from": str(source), "ema": 0.5})
    assert train(grown, run_dir=tmp_path / "whole", quiet=True).finished
    assert train(grown, run_dir=tmp_path / "broken", quiet=True).finished
    shutil.rmtree(tmp_path / "broken" / "checkpoints")
    (tmp_path / "broken" / "model.keras").unlink()
    assert train(grown, run_dir=tmp_path / "broken", resume=True, quiet=True).finished
    shutil.rmtree(source)
    (tmp_path / "broken" / "checkpoints" / "step-00000006.npz").unlink()
    assert train(grown, run_dir=tmp_path / "broken", resume=True, quiet=True).finished
    one, other = newest(tmp_path / "whole"), newest(tmp_path / "broken")
    assert one.keys() == other.keys()
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"model": {"name": "resnet8"}}, "has no block that resnet8 lacks"),
        ({"model": {"name": "plain14"}}, "is not a deeper resnet8"),
        (
            {"model": {"name": "resnet14"}, "data": {"image_size": [16, 16]}},
            r"maps \(8, 8, 1\) to \(10,\)",
        ),
        ({"train": {"grow_from": "/nothing/here"}}, "no run folder"),
    ],
)
def test_a_run_that_cannot_be_grown_leaves_nothing(
    small: Path, tmp_path: Path, tables: dict[str, Any], message: str
) -> None:
    grown = recipe(**({"train": {"grow_from": str(small)}} | tables))
    with pytest.raises(ReszooError, match=message):
        train(grown, run_dir=tmp_path / "grown", quiet=True)
    assert not (tmp_path / "grown").exists()
