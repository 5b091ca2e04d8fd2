"""What an experiment leaves: one JSON record in its folder, from which report and figures can be made again."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reszoo.errors import ReszooError
from reszoo.files import check_output, write_json
from reszoo.training.run import environment

NAME = "record.json"


def write_record(
    folder: str | os.PathLike[str],
    lab: str,
    *,
    settings: Mapping[str, Any],
    results: Mapping[str, Any],
) -> dict[str, Any]:
    """Write `folder`/record.json, whole or not at all, and return what it holds.

    lab: the experiment's name, which chooses its page. settings: what was asked for; results: what was measured, both plain
    values for JSON (NaN and infinity become null). Versions, platform, commit and the command line are added.
    """
    record = {
        "lab": lab,
        "command": shlex.join(["reszoo", *sys.argv[1:]])
        if Path(sys.argv[0]).stem == "reszoo"
        else "",
        "settings": settings,
        "results": results,
        "environment": environment(),
    }
    plain: dict[str, Any] = _plain(record)
    write_json(Path(folder) / NAME, plain)
    return plain


def read_record(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the record of an experiment's folder. Raises ReszooError when there is none or it cannot be read."""
    path = Path(folder) / NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReszooError(
            f"{folder} holds no {NAME}: give the folder of a finished `reszoo lab` command"
        ) from None
    except (ValueError, OSError) as error:
        raise ReszooError(f"{path} cannot be read: it was changed or damaged ({error})") from None
    if not isinstance(record, dict) or not {"lab", "settings", "results"} <= set(record):
        raise ReszooError(f"{path} is no record of `reszoo lab`")
    return record


def claim(folder: str | os.PathLike[str], lab: str, settings: Mapping[str, Any]) -> Path:
    """Make an experiment's folder, or take up one that was begun with the same settings; return it.

    Raises ReszooError when the folder holds something else, or the experiment under other settings.
    """
    folder = Path(folder)
    check_output(folder, "--out")
    mark = folder / "settings.json"
    asked = _plain({"lab": lab, **settings})
    if mark.is_file():
        try:
            before = json.loads(mark.read_text(encoding="utf-8"))
        except ValueError:
            raise ReszooError(f"{mark} is not JSON; it was changed or damaged") from None
        if before != asked:
            keys = [
                key for key in asked.keys() | before.keys() if before.get(key) != asked.get(key)
            ]
            key = min(keys)
            raise ReszooError(
                f"{folder} was begun with {key} = {before.get(key)!r}, not {asked.get(key)!r}; "
                "give the same settings to resume it, or another --out"
            )
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ReszooError(
            f"{folder} exists and holds no experiment of `reszoo lab {lab}`; give another --out"
        )
    write_json(mark, asked)
    return folder


def _plain(value: Any) -> Any:
    """Return `value` with tuples, NumPy numbers and arrays as JSON has them; what is no finite number becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return str(value) if isinstance(value, Path) else value
