"""Which SavedModel of a folder is served; light, so that a wrong folder is told before TensorFlow is loaded."""

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
    """Return the highest numbered version in the folder `out`, as TensorFlow Serving would; a SavedModel itself is version 1.

    Raises ReszooError where there is none.
    """
    folder = Path(out)
    if not folder.is_dir():
        raise ReszooError(f"no folder {folder}; give one that `reszoo export NET OUT` wrote")
    numbered = [
        Version(path.parent, int(path.parent.name))
        for path in folder.glob(f"*/{FILE}")
        if path.parent.name.isascii() and path.parent.name.isdigit() and len(path.parent.name) < 20
    ]
    if numbered:
        return max(numbered, key=lambda version: version.number)
    if (folder / FILE).is_file():
        return Version(folder, 1)
    for name, what in OTHERS.items():
        if (folder / name).is_file():
            raise ReszooError(
                f"{folder} is {what} export, and a SavedModel is served: reszoo export NET OUT"
            )
    inner = folder / "export"
    hint = (
        f"did you mean {inner}?"
        if list(inner.glob(f"*/{FILE}"))
        else "`reszoo export NET OUT` writes one"
    )
    raise ReszooError(f"{folder} holds no SavedModel (1/{FILE}); {hint}")
