"""A run that is grown from another starts where that one ended: weights, averages, optimizer slots, outputs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reszoo import Recipe, Run
from reszoo.errors import ReszooError
from reszoo.trainer import train
from reszoo.training import checkpoint

TABLES: dict[str, Any] = {
    "name": "small",
    "model": {"name": "resnet8"},
    "data": {"name": "digits", "validation": 60, "examples": 120},
    "train": {"steps": 6, "batch_size": 40, "export": False, "deterministic": True},
    "optimizer": {"name": "adam"},
    "schedule": {"kind": "constant", "rate": 0.01},
}


def recipe(**tables: Any) -> Recipe:
    return Recipe(
        **(
            {
                key: {**value, **tables.get(key, {})} if isinstance(value, dict) else value
                for key, value in TABLES.items()
            }
        )
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert train(recipe(), run_dir=folder, quiet=True).finished
    return folder


def newest(folder: Path) -> checkpoint.Checkpoint:
    found = checkpoint.newest(Run(folder).checkpoints, print)
    assert found is not None
    return found


def test_a_grown_run_goes_on_from_weights_slots_and_outputs(small: Path, tmp_path: Path) -> None:
    grown = recipe(
        model={"name": "resnet14"},
        train={"grow_from": str(small), "steps": 1},
        schedule={"rate": 1e-30},
    )
    assert train(grown, run_dir=tmp_path / "grown", quiet=True).finished
    run = Run.open(tmp_path / "grown")
    told = run.meta["grown_from"]
    assert told["net"] == "resnet8" and told["step"] == 6 and told["difference"] == 0
    assert told["added"] == ["stage1_block2", "stage2_block2", "stage3_block2"]
    old, new = Run.open(small).load_model(), run.load_model()
    before = {weight.path: weight.numpy() for weight in old.trainable_weights}
    after = {weight.path: weight.numpy() for weight in new.trainable_weights}
    assert set(before) < set(after)
    for path, value in before.items():  # a step at a rate of almost nothing
        np.testing.assert_array_equal(after[path], value)
    # Adam's slots after one more step are beta m + (1 - beta) g: with those of the old run gone they would be (1 - beta) g.
    moments = {
        name: slot_arrays(folder, name)
        for name, folder in (("old", small), ("new", tmp_path / "grown"))
    }
    assert told["slots"] == len(moments["old"]) == 2 * len(before)
    for name, value in moments["old"].items():
        if name.endswith("_velocity") and value.any():
            assert (moments["new"][name] >= 0.998 * value).all(), name  # v = 0.999 v + 0.001 g^2
    assert (
        int(newest(tmp_path / "grown").arrays["optimizer/0"]) == 7
    )  # and the count by which Adam weighs them


def slot_arrays(folder: Path, which: str) -> dict[str, np.ndarray]:
    """The optimizer's arrays of a checkpoint, by the name Keras gives each slot."""
    import keras

    optimizer = keras.optimizers.Adam()
    optimizer.build(Run.open(folder).load_model().trainable_variables)
    arrays = newest(folder).arrays
    return {
        v.path.split("/")[-1]: arrays[f"optimizer/{i}"]
        for i, v in enumerate(optimizer.variables)
        if i > 1
    }


def test_another_optimizer_starts_its_slots_anew(small: Path, tmp_path: Path) -> None:
    grown = recipe(
        model={"name": "resnet14"},
        optimizer={"name": "sgd"},
        train={"grow_from": str(small), "steps": 1, "ema": 0.5},
    )
    assert train(grown, run_dir=tmp_path / "grown", quiet=True).finished
    assert Run.open(tmp_path / "grown").meta["grown_from"]["slots"] == 0


@pytest.mark.slow
def test_a_grown_run_is_resumed_without_its_source(small: Path, tmp_path: Path) -> None:
    """From its own checkpoint, to the bit; and from its source anew when it was stopped before the first one."""
    source = shutil.copytree(small, tmp_path / "source")
    grown = recipe(model={"name": "resnet14"}, train={"grow_from": str(source), "ema": 0.5})
    assert train(grown, run_dir=tmp_path / "whole", quiet=True).finished
    assert train(grown, run_dir=tmp_path / "broken", quiet=True).finished
    (tmp_path / "broken" / "checkpoints" / "step-00000006.npz").unlink()
    shutil.rmtree(tmp_path / "broken" / "checkpoints")
    (tmp_path / "broken" / "model.keras").unlink()
    assert train(grown, run_dir=tmp_path / "broken", resume=True, quiet=True).finished
    shutil.rmtree(source)
    (tmp_path / "broken" / "checkpoints" / "step-00000006.npz").unlink()
    assert train(grown, run_dir=tmp_path / "broken", resume=True, quiet=True).finished
    one, other = newest(tmp_path / "whole"), newest(tmp_path / "broken")
    assert one.arrays.keys() == other.arrays.keys()
    assert [
        name for name in one.arrays if not np.array_equal(one.arrays[name], other.arrays[name])
    ] == []


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"model": {"name": "resnet8"}}, "has no block that resnet8 lacks"),
        ({"model": {"name": "plain14"}}, "is not a deeper resnet8"),
        (
            {"model": {"name": "resnet14"}, "data": {"image_size": [16, 16]}},
            r"maps \(8, 8, 1\) to \(10,\)",
        ),
    ],
)
def test_a_run_that_cannot_be_grown_leaves_nothing(
    small: Path, tmp_path: Path, tables: dict[str, Any], message: str
) -> None:
    grown = recipe(**tables, train={"grow_from": str(small)})
    with pytest.raises(ReszooError, match=message):
        train(grown, run_dir=tmp_path / "grown", quiet=True)
    assert not (tmp_path / "grown").exists()


def test_the_source_must_be_a_finished_run(tmp_path: Path) -> None:
    grown = recipe(model={"name": "resnet14"}, train={"grow_from": str(tmp_path / "nothing")})
    with pytest.raises(ReszooError, match="no run folder"):
        train(grown, run_dir=tmp_path / "grown", quiet=True)
    assert not (tmp_path / "grown").exists()
