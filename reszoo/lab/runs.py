"""Run folders of an experiment: finished runs are used, stopped ones resume."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from reszoo.config.recipe import Recipe
from reszoo.config.resolve import resolve_recipe
from reszoo.errors import ReszooError
from reszoo.evaluation.evaluate import evaluate
from reszoo.reporting.reporter import Reporter
from reszoo.trainer import Trainer
from reszoo.training.memory import release_memory
from reszoo.training.run import Run
from reszoo.training.setup import ModelSource


def train_all(
    folder: str | os.PathLike[str],
    plan: Mapping[str, Recipe],
    *,
    devices: str = "auto",
    reporter: Reporter,
    models: Mapping[str, ModelSource] | None = None,
) -> dict[str, Run]:
    """Train each recipe of `plan` in `folder`/NAME, in order, and return the runs.

    Besides the test scores each run gets evaluation-train.json, the scores of its final model on
    all training images without augmentation. `models` has models that the recipe does not make, by
    NAME, as in `Trainer.prepare`.

    Raises:
        ReszooError: For a folder with a run of another recipe, before anything is trained.
        KeyboardInterrupt: When a signal stopped a run.
    """
    runs = {name: _find_run(Path(folder) / name, recipe) for name, recipe in plan.items()}
    waiting = sum(not is_finished(run) for run in runs.values())
    begun, trained = time.monotonic(), 0
    for number, (name, run) in enumerate(runs.items(), 1):
        if not is_finished(run):
            _train(run, plan[name], devices, reporter, (models or {}).get(name))
            trained += 1
        if not (run.path / "evaluation-train.json").is_file():
            evaluate(run, split="train", devices=devices)
            release_memory()
        left = (time.monotonic() - begun) / 60 * (waiting / trained - 1) if trained else 0
        reporter.line(
            f"{number}/{len(plan)} {name}: training error {error_percent(run, 'train'):.2f} %, "
            f"test error {error_percent(run):.2f} %, {run.meta.get('seconds', 0):.0f} s"
            + (f"; about {left:.0f} min left" if left else "")
        )
    return runs


def open_trainer(
    path: Path, recipe: Recipe, devices: str, model: ModelSource | None = None
) -> Trainer:
    """Return a trainer of the run in `path`, new or resumed; `model` as in `Trainer.prepare`."""
    begun = (path / "recipe.toml").is_file()
    try:
        return Trainer.prepare(
            recipe, run_dir=path, resume=begun, devices=devices, quiet=True, model=model
        )
    except ReszooError as error:
        raise ReszooError(f"{path}: {error}") from None


def fit(trainer: Trainer, reporter: Reporter, until: int = 0) -> None:
    """Train to the end, or to step `until`. Raises KeyboardInterrupt when a signal stops it."""
    path = trainer.run.path
    try:
        trainer.fit(until)
    except ReszooError as error:
        raise ReszooError(f"{path}: {error}") from None
    if trainer.loop.stopping.signalled:
        reporter.line(f"stopped in {path.name}; the same command resumes there")
        raise KeyboardInterrupt


def error_percent(run: Run, split: str = "test") -> float:
    """Return the top-1 error in percent of a finished run on its "test" or "train" images."""
    name = "test.json" if split == "test" else f"evaluation-{split}.json"
    return 100 * (1 - float(json.loads((run.path / name).read_text())["top1"]))


def is_finished(run: Run) -> bool:
    """Return whether a run came to its end."""
    return (run.path / "run.json").is_file() and run.meta.get("status") == "finished"


def error_curves(run: Run) -> dict[str, list[float]]:
    """Return a run's curves as lists over the rows of its history.

    "steps", and "training_error" (augmented images) and "validation_error" in percent; NaN where a
    row has none.
    """

    def column(key: str) -> list[float]:
        return [float(row.get(key, np.nan)) for row in run.history]

    return {
        "steps": column("step"),
        "training_error": [100 * (1 - value) for value in column("accuracy")],
        "validation_error": [100 * (1 - value) for value in column("val_accuracy")],
    }


def _find_run(path: Path, recipe: Recipe) -> Run:
    run = Run(path)
    if (path / "recipe.toml").is_file():
        try:
            run.reject_other(resolve_recipe(recipe))
        except ReszooError as error:
            reason = str(error).split(";")[0]
            raise ReszooError(f"{reason}; move it away, or give another --out") from None
    else:
        run.reject_occupied()
    return run


def _train(
    run: Run, recipe: Recipe, devices: str, reporter: Reporter, model: ModelSource | None
) -> None:
    try:
        trainer = open_trainer(run.path, recipe, devices, model)
        fit(trainer, reporter)
        trainer.finish()
    finally:
        release_memory()
