"""Checkpoints: all arrays and records of a run in one file, which is written whole or not at all.

The format is NumPy's `.npz`, in which each array has a checksum. The records are JSON inside it.
Nothing is unpickled.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reszoo.errors import ReszooError
from reszoo.files import atomic_path
from reszoo.types import Array, JsonObject

KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        path: Its file.
        arrays: Its arrays by name.
        meta: Its records.
    """

    path: Path
    arrays: dict[str, Array]
    meta: JsonObject


def save(path: Path, arrays: Mapping[str, Array], meta: JsonObject) -> None:
    """Write a checkpoint, whole or not at all."""
    contents: JsonObject = {f"array/{name}": array for name, array in arrays.items()}
    contents["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    with atomic_path(path) as part, open(part, "wb") as file:
        np.savez(file, **contents)


def load(path: Path, content: bytes | None = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: Its file.
        content: What the file holds, if it was read on another host.

    Raises:
        ReszooError: If the file is truncated, or not a checkpoint.
    """
    try:
        with (
            open(path, "rb") if content is None else io.BytesIO(content) as opened,
            np.load(opened, allow_pickle=False) as file,
        ):
            arrays = {
                name.removeprefix("array/"): file[name]
                for name in file.files
                if name.startswith("array/")
            }
            meta = json.loads(file["meta"].tobytes().decode())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        line = f"checkpoint {path} cannot be read (truncated, or not a checkpoint)"
        raise ReszooError(line) from error
    return Checkpoint(path, arrays, meta)


def step_path(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return folder / f"step-{step:08d}.npz"


def steps(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first."""
    found = folder.glob("step-*.npz")
    return sorted(path for path in found if re.fullmatch(r"step-\d{8,}\.npz", path.name))


def prune(folder: Path) -> None:
    """Remove all checkpoints but the newest, and one to fall back on."""
    for path in steps(folder)[:-KEEP]:
        path.unlink(missing_ok=True)


def newest(folder: Path, report: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint that can be read, or None if there is none.

    Args:
        folder: The folder of the checkpoints.
        report: Called with one line per checkpoint that cannot be read.

    Raises:
        ReszooError: If there are checkpoints, and none can be read.
    """
    found = steps(folder)
    for path in reversed(found):
        try:
            return load(path)
        except ReszooError as error:
            report(f"{error}; falling back to the one before")
    if found:
        raise ReszooError(
            f"none of the {len(found)} checkpoints in {folder} can be read; start again in another "
            "--run-dir"
        )
    return None
