"""The metrics of a run: metrics.jsonl, one JSON object per row, and the same in history.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from reszoo.errors import ReszooError
from reszoo.files import write_text
from reszoo.types import JsonObject

T = TypeVar("T")


def read_metrics(folder: Path) -> list[JsonObject]:
    """Return the rows of a run; a last line that was not written to its end is skipped.

    Runs of version 0.1 have history.json instead.

    Raises:
        ReszooError: If the run has no metrics, or a line is not JSON.
    """
    path, old = folder / "metrics.jsonl", folder / "history.json"
    if not path.is_file() and old.is_file():
        return parse_file(old, json.loads)
    return parse_file(path, lambda text: [json.loads(line) for line in text.split("\n")[:-1]])


def parse_file(path: Path, parse: Callable[[str], T]) -> T:
    """Return the content of a JSON file in a run folder.

    Args:
        path: The file.
        parse: From its text to its content.

    Raises:
        ReszooError: If the file does not exist or is not JSON.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReszooError(
            f"{path.parent} does not hold {path.name}; the run stopped before training"
        ) from error
    except ValueError as error:
        raise ReszooError(f"{path} is not JSON; it is damaged") from error


def write_metrics(folder: Path, rows: Sequence[JsonObject]) -> None:
    """Write the rows with which training starts or resumes. Others are removed."""
    write_text(folder / "metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "history.json").unlink(missing_ok=True)
    _write_csv(folder, rows)


def append_metrics(folder: Path, rows: Sequence[JsonObject]) -> None:
    """Append the last row in one write, so that a killed process leaves whole lines."""
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write(json.dumps(rows[-1]).encode() + b"\n")
    _write_csv(folder, rows)


def _write_csv(folder: Path, rows: Sequence[JsonObject]) -> None:
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "history.csv", text.getvalue())
