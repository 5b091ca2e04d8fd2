"""From an experiment's record alone to its figures and its page."""

from __future__ import annotations

import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any

from reszoo.errors import ReszooError
from reszoo.lab.record import read_record
from reszoo.reporting.page import Page, provenance, write_page

# The module of each experiment; its `present(record)` returns the page.
LABS = {
    name: f"reszoo.lab.{name}"
    for name in ("degradation", "constructed", "drift", "identity", "responses")
}


def report(folder: str | os.PathLike[str]) -> Path:
    """Write report.html and the figures of the experiment in `folder` from its record.json; return the page's path.

    The same record gives the same files.

    Raises:
        ReszooError: the folder holds no record of `reszoo lab`.
    """
    record = read_record(folder)
    foot = provenance(record.get("command", ""), record.get("environment", {}), "record.json")
    return write_page(Path(folder), dataclasses.replace(_present(record), foot=foot))


def finding(record: dict[str, Any]) -> str:
    """Return what an experiment found: one sentence computed from its record."""
    return _present(record).finding


def _present(record: dict[str, Any]) -> Page:
    if record["lab"] not in LABS:
        raise ReszooError(f"no experiment is called {record['lab']!r}; there are {', '.join(LABS)}")
    try:
        page: Page = importlib.import_module(LABS[record["lab"]]).present(record)
        return page
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ReszooError(
            f"the record of {record['lab']} lacks what a page needs ({error!r}); run its command again"
        ) from error
