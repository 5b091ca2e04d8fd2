"""From an experiment's record alone to its figures and its page."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from reszoo.errors import ReszooError
from reszoo.lab.page import Section, write_page
from reszoo.lab.record import read_record

# Each module's `present(record)` returns (title, one sentence of what was found, sections).
LABS = {name: f"reszoo.lab.{name}" for name in ("degradation", "constructed", "drift", "identity", "responses")}


def report(folder: str | os.PathLike[str]) -> Path:
    """Write report.html and the figures of the experiment whose record.json lies in `folder`; return the page.

    The same record gives the same files. Raises ReszooError for a folder without a record of `reszoo lab`.
    """
    record = read_record(folder)
    title, lead, sections = _presented(record)
    return write_page(Path(folder), title, lead, sections, _foot(record))


def finding(record: dict[str, Any]) -> str:
    """Return in a sentence or two what an experiment found, computed from its record."""
    return _presented(record)[1]


def _presented(record: dict[str, Any]) -> tuple[str, str, list[Section]]:
    if record["lab"] not in LABS:
        raise ReszooError(f"no experiment is called {record['lab']!r}; there are {', '.join(LABS)}")
    try:
        return importlib.import_module(LABS[record["lab"]]).present(record)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ReszooError(
            f"the record of {record['lab']} lacks what a page needs ({error!r}); run its command again"
        ) from error


def _foot(record: dict[str, Any]) -> list[str]:
    made = record.get("environment", {})
    versions = ", ".join(f"{name} {version}" for name, version in made.get("versions", {}).items())
    lines = [f"Made by: {record['command']}"] if record.get("command") else []
    return [*lines, f"{made.get('started', '')}; {versions}; {made.get('platform', '')}. Rebuilt from record.json."]
