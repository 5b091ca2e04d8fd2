"""Record finished runs of a recipe with several seeds: `python tests/bench runs OUT.json RUN [RUN ...]`."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from _shared import tidy, trained_on

SAME = ("recipe", "model", "steps", "precision", "parameters", "data")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--add-to", metavar="RECORD", help="earlier record, whose rows come first")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the runs trained on, and their test errors in percent."""
    import reszoo
    from reszoo.machine import describe_machine

    def error(accuracy: float) -> float:
        return round(100 * (1 - accuracy), 3)

    runs = [reszoo.Run.open(path) for path in args.runs]
    rows = []
    for run in runs:
        test = json.loads((run.path / "test.json").read_text(encoding="utf-8"))
        last = run.history[-1]
        flip = run.path / "evaluation-1-crop-flip.json"  # of `reszoo evaluate RUN --flip`
        rows.append(
            {
                "seed": run.meta["seed"],
                "test_error": error(test["top1"]),
                "test_error_flip": error(json.loads(flip.read_text())["top1"])
                if flip.exists()
                else None,
                "test_loss": test["loss"],
                "validation_error": error(last["val_accuracy"]) if "val_accuracy" in last else None,
                "training_error": error(last["accuracy"]),
                "seconds": run.meta["seconds"],
                "devices": trained_on(run.meta),
                "versions": run.meta["versions"],
                # Runs from before run.json named it must be recorded where they ran.
                "machine": run.meta.get("machine") or describe_machine(),
            }
        )
    first, keys = runs[0].meta, ("name", "examples", "fingerprint")
    found = {
        "recipe": first["recipe"],
        "model": first["spec"]["name"],
        "steps": first["steps"],
        "precision": runs[0].recipe.train.precision,
        "parameters": first["parameters"],
        "data": {key: first["data"][key] for key in keys},
    }
    if args.add_to:
        rows = earlier_rows(Path(args.add_to), found) + rows
    errors = [row["test_error"] for row in rows]
    return found | {
        "rows": rows,
        "test_error_mean": round(statistics.mean(errors), 3),
        "test_error_deviation": round(statistics.stdev(errors), 3) if len(errors) > 1 else None,
    }


def earlier_rows(path: Path, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a record that must be of the same recipe, precision and data."""
    earlier = json.loads(path.read_text(encoding="utf-8"))
    for key in SAME:
        own = tidy(found[key])
        if earlier.get(key, own) != own:
            raise SystemExit(f"{path}: {key} is {earlier[key]}, not {own} as of these runs")
    return [{"machine": earlier["machine"]} | row for row in earlier["rows"]]
