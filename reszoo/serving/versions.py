"""Which SavedModel of a folder is served. Standard library only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from reszoo.errors import ReszooError

FILE = "saved_model.pb"
OTHERS = {"model.tflite": "a LiteRT", "model.onnx": "an ONNX"}


@dataclass(frozen=True)
class Version:
    """A SavedModel's folder and its number."""

    path: Path
    number: int


def find_version(out: str | os.PathLike[str]) -> Version:
    """Return the highest version in a folder, as TensorFlow Serving; a SavedModel is version 1.

    Raises:
        ReszooError: There is none.
    """
    folder = Path(out)
    names = (path.parent for path in folder.glob(f"*/{FILE}"))
    numbers = {int(path.name): path for path in names if path.name.isdecimal()}
    if numbers:
        return Version(numbers[max(numbers)], max(numbers))
    if (folder / FILE).is_file():
        return Version(folder, 1)
    example = "Example: reszoo export MODEL OUT"
    if not folder.is_dir():
        raise ReszooError(f"{folder} does not exist; expected an exported folder. {example}")
    for name, what in OTHERS.items():
        if (folder / name).is_file():
            raise ReszooError(f"{folder} is {what} export; expected a SavedModel. {example}")
    inner = folder / "export"
    hint = f"did you mean {inner}?" if list(inner.glob(f"*/{FILE}")) else example
    raise ReszooError(f"{folder} holds no SavedModel (1/{FILE}); {hint}")
