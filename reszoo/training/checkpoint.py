"""Checkpoints: every array of a run and what it knows of itself, in one file that is whole or not there.

The format is NumPy's `.npz`, each array with its checksum, and the rest as JSON inside it; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reszoo.errors import ReszooError
from reszoo.files import atomic_path

KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """Arrays by name, and `meta`, plain values for JSON."""

    path: Path
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


def save(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    contents: dict[str, Any] = {f"array/{name}": array for name, array in arrays.items()}
    contents["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    with atomic_path(path) as part, open(part, "wb") as file:
        np.savez(file, **contents)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises ReszooError when the file is truncated or something else."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {
                name.removeprefix("array/"): file[name]
                for name in file.files
                if name.startswith("array/")
            }
            meta = json.loads(file["meta"].tobytes().decode())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ReszooError(
            f"checkpoint {path} cannot be read (truncated, or not a checkpoint)"
        ) from error
    return Checkpoint(path, arrays, meta)


def step_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}.npz"


def steps(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first."""
    return sorted(
        path for path in folder.glob("step-*.npz") if re.fullmatch(r"step-\d{8,}\.npz", path.name)
    )


def prune(folder: Path) -> None:
    """Remove all but the newest checkpoints: the last, and one to fall back on."""
    for path in steps(folder)[:-KEEP]:
        path.unlink(missing_ok=True)


def newest(folder: Path, notice: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint that can be read, or None when there is none; each broken one is told to `notice`.

    Raises ReszooError when there are checkpoints and all are broken.
    """
    found = steps(folder)
    for path in reversed(found):
        try:
            return load(path)
        except ReszooError as error:
            notice(f"{error}; falling back to the one before")
    if found:
        raise ReszooError(
            f"none of the {len(found)} checkpoints in {folder} can be read; start again in another --run-dir"
        )
    return None
