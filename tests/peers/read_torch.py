"""Run by the peer's Python, which has PyTorch and no TensorFlow: reszoo reads PyTorch's own files, and refuses what would run code."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from reszoo.errors import ReszooError
from reszoo.weights.checkpoint import read_arrays


class Evil:
    """Unpickled freely it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), "w"))


def refused(path: Path) -> str:
    try:
        read_arrays(path)
    except ReszooError as error:
        return str(error)
    raise AssertionError(f"{path} was read")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tensors = {
        "module.layer1.0.conv1.weight": torch.arange(6.0).reshape(2, 3).half(),
        "module.fc.bias": torch.tensor(3),
    }
    for name, held in (
        ("flat.pth", tensors),
        ("nested.th", {"epoch": 3, "state_dict": tensors}),
        ("model.pt", {"model": tensors, "optimizer": {}}),
    ):
        torch.save(held, folder / name)
        arrays = read_arrays(folder / name)
        assert (
            arrays.keys() == {"layer1.0.conv1.weight", "fc.bias"}
            and arrays["layer1.0.conv1.weight"].dtype == np.float32
        ), name
        np.testing.assert_array_equal(arrays["layer1.0.conv1.weight"], np.arange(6).reshape(2, 3))
    mark = folder / "ran"
    torch.save({"state_dict": tensors, "more": Evil(mark)}, folder / "evil.pth")
    (folder / "plain.pth").write_bytes(pickle.dumps(Evil(mark)))
    (folder / "cut.pth").write_bytes((folder / "flat.pth").read_bytes()[:-100])
    torch.save([1, 2], folder / "list.pth")
    torch.save({}, folder / "empty.pth")
    for name in ("evil.pth", "plain.pth", "cut.pth", "list.pth", "empty.pth"):
        print(refused(folder / name).replace(str(folder), "DIR"))
    assert not mark.exists(), "something in a weights file was run"
    assert not {"tensorflow", "keras"} & set(sys.modules)
