"""The folder of an experiment, and the JSON record from which its report is made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reszoo.errors import ReszooError
from reszoo.files import check_output, write_json
from reszoo.old_keys import LAB, rename_keys
from reszoo.training.environment import command_line, environment
from reszoo.types import JsonMapping, JsonObject

NAME = "record.json"


def write_record(
    folder: str | os.PathLike[str],
    lab: str,
    *,
    settings: JsonMapping,
    results: JsonMapping,
) -> JsonObject:
    """Write `folder`/record.json and return what it holds.

    Args:
        folder: The folder of the experiment.
        lab: The experiment's name, which chooses its report.
        settings: What was asked for.
        results: What was measured. NaN and infinity become null.
    """
    record: JsonObject = _plain(
        {
            "lab": lab,
            "command": command_line(),
            "settings": settings,
            "results": results,
            "environment": environment(),
        }
    )
    write_json(Path(folder) / NAME, record)
    return record


def read_record(folder: str | os.PathLike[str]) -> JsonObject:
    """Return the record of an experiment's folder.

    Raises:
        ReszooError: If there is none, or it cannot be read.
    """
    path = Path(folder) / NAME
    record = read_json(path, LAB)
    if record is None:
        raise ReszooError(
            f"{folder} holds no {NAME}; expected the folder of a finished `reszoo lab` command"
        )
    if not isinstance(record, dict) or not {"lab", "settings", "results"} <= set(record):
        raise ReszooError(f"{path} is not a record of `reszoo lab`")
    return record


def claim_folder(folder: str | os.PathLike[str], lab: str, settings: JsonMapping) -> Path:
    """Make an experiment's folder, or reopen one that was begun with the same settings.

    Raises:
        ReszooError: If the folder holds something else, or the experiment with other settings.
    """
    folder = Path(folder)
    check_output(folder, "--out")
    asked = _plain({"lab": lab, **settings})
    before = read_json(folder / "settings.json")
    if before is None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ReszooError(
                f"{folder} exists and is not a folder of `reszoo lab {lab}`; give another --out"
            )
        write_json(folder / "settings.json", asked)
    elif before != asked:
        key = min(key for key in asked | before if before.get(key) != asked.get(key))
        raise ReszooError(
            f"{folder} was begun with {key} = {before.get(key)!r}, not {asked.get(key)!r}; "
            "give the same settings to resume it, or another --out"
        )
    return folder


def check_count(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise ReszooError unless `value` is an integer of at least `least` and at most `most`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        limit = f">= {least}" if most is None else f"from {least} to {most}"
        raise ReszooError(f"{name}: {value!r} is invalid; expected an integer {limit}")


def read_json(path: Path, names: Mapping[str, str] | None = None) -> Any:
    """Return a JSON file's content, None without a file.

    Args:
        path: The file.
        names: New names for keys, by their old names.

    Raises:
        ReszooError: If the file is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, object_hook=lambda found: rename_keys(found, names or {}))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise ReszooError(
            f"{path} is not readable JSON; it was changed or damaged ({error}). Delete it and run "
            "the same command again"
        ) from None


def _plain(value: Any) -> Any:
    """Return `value` as JSON has it: lists and numbers without NumPy, None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return str(value) if isinstance(value, Path) else value
