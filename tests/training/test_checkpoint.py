"""Checkpoint files: what is read back, and what is never unpickled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reszoo.errors import ReszooError
from reszoo.training import checkpoint


class Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_arrays_and_meta_are_read_back(tmp_path: Path) -> None:
    arrays = {"model/0/a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3)}
    checkpoint.save(tmp_path / "x.npz", arrays, {"step": 7, "history": [{"loss": 0.5}]})
    read = checkpoint.load(tmp_path / "x.npz")
    assert (
        read.meta == {"step": 7, "history": [{"loss": 0.5}]} and read.arrays.keys() == arrays.keys()
    )
    for name, array in arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array, strict=True)


@pytest.mark.parametrize("place", ["array/model/0/kernel", "meta"])
def test_a_pickled_object_is_rejected_and_not_unpickled(place: str, tmp_path: Path) -> None:
    """All else in the file is as a checkpoint has it."""
    trap = tmp_path / "unpickled"
    meta = np.frombuffer(json.dumps({"net": "resnet8", "step": 1}).encode(), np.uint8)
    contents = {"array/model/1/bias": np.zeros(3), "meta": meta}
    np.savez(
        tmp_path / "step-00000001.npz", **contents | {place: np.array([Touch(trap)], dtype=object)}
    )
    with pytest.raises(ReszooError, match="step-00000001.npz cannot be read"):
        checkpoint.load(tmp_path / "step-00000001.npz")
    assert not trap.exists()
    with np.load(tmp_path / "step-00000001.npz", allow_pickle=True) as file:
        file[place]
    assert trap.exists()  # the trap works
