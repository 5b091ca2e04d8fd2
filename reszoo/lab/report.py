"""Figures and report of an experiment, from its record alone."""

from __future__ import annotations

import dataclasses
import importlib
import os
from pathlib import Path

from reszoo.errors import ReszooError
from reszoo.lab.record import read_record
from reszoo.reporting.page import Page, provenance, write_page
from reszoo.types import JsonObject

# Modules whose `make_page(record)` returns the report of an experiment.
PAGES = {
    "ablation": "reszoo.lab.ablation_page",
    "degradation": "reszoo.lab.degradation",
    "constructed": "reszoo.lab.constructed",
    "depth": "reszoo.lab.depth",
    "drift": "reszoo.lab.drift_page",
    "growth": "reszoo.lab.growth",
    "identity": "reszoo.lab.identity_page",
    "inference": "reszoo.lab.inference_page",
    "landscape": "reszoo.lab.landscape_page",
    "lesion": "reszoo.lab.lesion_page",
    "linear": "reszoo.lab.linear",
    "propagation": "reszoo.lab.propagation_page",
    "resemblance": "reszoo.lab.resemblance_page",
    "responses": "reszoo.lab.responses",
    "sizes": "reszoo.lab.sizes",
    "undertraining": "reszoo.lab.undertraining",
}


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write report.html and the figures of the experiment in `folder`; return the report's path.

    The same record gives the same files.

    Raises:
        ReszooError: If the folder holds no record of `reszoo lab`.
    """
    record = read_record(folder)
    foot = provenance(record.get("command", ""), record.get("environment", {}), "record.json")
    return write_page(Path(folder), dataclasses.replace(_make_page(record), foot=foot))


def finding(record: JsonObject) -> str:
    """Return what an experiment found: one sentence computed from its record."""
    return _make_page(record).finding


def _make_page(record: JsonObject) -> Page:
    lab = record["lab"]
    if lab not in PAGES:
        raise ReszooError(f"lab: {lab!r} is invalid; expected one of {', '.join(PAGES)}")
    try:
        page: Page = importlib.import_module(PAGES[lab]).make_page(record)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ReszooError(
            f"the record of {lab} is incomplete ({error!r}); run its command again"
        ) from error
    return page
