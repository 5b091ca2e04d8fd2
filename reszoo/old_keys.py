"""Today's names for JSON keys that version 0.1 wrote. `tuning.records` has aliases instead."""

from __future__ import annotations

from collections.abc import Mapping

from reszoo.types import JsonObject

ORACLE = {"refused": "rejected"}
LAB = {"net": "model", "nets": "models", "multiply_adds": "macs"}
CARD = {
    "net": "model",
    "multiply_adds": "macs",
    "normalisations": "batch_norms",
    "licence": "license",
}


def rename_keys(record: JsonObject, names: Mapping[str, str]) -> JsonObject:
    """Return `record` with new names for the keys that `names` lists."""
    return {names.get(key, key): value for key, value in record.items()}


def rename_run_keys(meta: JsonObject) -> JsonObject:
    """Return the content of a run.json with today's names."""
    meta = rename_keys(meta, {"multiply_adds": "macs"})
    for key, names in (("weights", {"licence": "license"}), ("grown_from", {"net": "model"})):
        if isinstance(meta.get(key), dict):
            meta[key] = rename_keys(meta[key], names)
    return meta
