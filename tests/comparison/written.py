"""Run folders written by hand: what a finished run leaves, with chosen scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from reszoo.config.recipe import Recipe
from reszoo.config.resolve import resolve_recipe
from reszoo.data.fingerprint import of_arrays
from reszoo.training.metrics import write_metrics
from reszoo.training.run import Run

TABLES: dict[str, Any] = {
    "model": {"name": "resnet8"},
    "data": {"name": "digits", "validation": 100},
    "train": {"epochs": 3, "batch_size": 32, "export": False},
    "schedule": {"kind": "constant", "rate": 0.05},
}


def make_recipe(name: str = "small", **tables: dict[str, Any]) -> Recipe:
    return Recipe(name=name, **{key: TABLES[key] | tables.get(key, {}) for key in TABLES})


def write_run(
    folder: Path, recipe: Recipe, error: float | None, *, seed: int = 0, digest: str = "a"
) -> Run:
    """Write a run with a test error in percent; None writes one that was stopped after a row."""
    recipe = resolve_recipe(recipe.replace(train=recipe.train.replace(seed=seed)))
    run = Run.create(folder, recipe)
    image, label = np.full((1, 8, 8, 1), ord(digest), np.uint8), np.zeros(1, np.int32)
    identity = of_arrays({split: (image, label) for split in ("train", "test")})
    data = {"name": recipe.data.name, "examples": {"test": 360}, "fingerprint": identity}
    status = "stopped" if error is None else "finished"
    run.write_meta(status=status, data=data, parameters=1234, seconds=2.5)
    final = 50.0 if error is None else error
    rows = [
        {"epoch": epoch, "step": 7 * epoch, "rate": 0.05, "loss": 1.0, "val_loss": 1.1}
        | {"accuracy": 1 - final / 100 * 2 / epoch, "val_accuracy": 1 - final / 100 * 3 / epoch}
        for epoch in (1, 2, 3)[: 1 if error is None else 3]
    ]
    write_metrics(folder, rows)
    if error is not None:
        scores = {"test": "1-crop", "examples": 360, "top1": 1 - error / 100, "top5": None}
        scores |= {"loss": 0.5, "balanced_accuracy": 0.6, "per_class": [1.0], "not_finite": 0}
        (folder / "test.json").write_text(json.dumps(scores))
    return run
