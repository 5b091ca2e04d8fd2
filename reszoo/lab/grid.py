"""Many runs of ordinary recipes in one folder: those that are there are used, those that were broken off go on."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np

from reszoo.config.recipe import Recipe
from reszoo.config.resolve import resolve_recipe
from reszoo.errors import ReszooError
from reszoo.evaluation.evaluate import evaluate
from reszoo.trainer import train
from reszoo.training.run import Run

Tell = Callable[[str], None]


def run_all(
    folder: str | os.PathLike[str],
    plan: Mapping[str, Recipe],
    *,
    devices: str = "auto",
    tell: Tell = print,
) -> dict[str, Run]:
    """Train each recipe of `plan` in `folder`/NAME by the ordinary engine, in order, and score it; return the runs.

    A finished run of the same recipe is used as it is, one that was broken off goes on from its checkpoint. Besides the test scores
    each run gets those over all its training images without augmentation, the net as it ends (evaluation-train.json).
    Raises ReszooError for a folder that ran another recipe, KeyboardInterrupt when a signal stopped a run.
    """
    # All at first: nothing is to be found wrong after hours of training.
    opened = {name: _usable(Path(folder) / name, recipe) for name, recipe in plan.items()}
    runs: dict[str, Run] = {}
    begun, trained = time.monotonic(), 0
    for number, (name, recipe) in enumerate(plan.items(), 1):
        run = opened[name]
        place = f"{number}/{len(plan)} {name}"
        if not finished(run):
            _train(run, recipe, devices, tell)
            trained += 1
        if not (run.path / "evaluation-train.json").is_file():
            evaluate(run, split="train", devices=devices)
            release()
        left = sum(not finished(opened[later]) for later in list(plan)[number:])
        pace = (
            f"; about {(time.monotonic() - begun) / trained * left / 60:.0f} min left"
            if trained and left
            else ""
        )
        scores = f"training error {error(run, 'train'):.2f} %, test error {error(run):.2f} %"
        tell(f"{place}: {scores}, {run.meta.get('seconds', 0):.0f} s{pace}")
        runs[name] = run
    return runs


def error(run: Run, split: str = "test") -> float:
    """Return the top-1 error in percent of a finished run's net on its "test" or "train" images."""
    name = "test.json" if split == "test" else f"evaluation-{split}.json"
    return 100 * (1 - float(json.loads((run.path / name).read_text())["top1"]))


def finished(run: Run) -> bool:
    """Return whether a run came to its end."""
    return (run.path / "run.json").is_file() and run.meta.get("status") == "finished"


def release() -> None:
    """Give back what the last net holds, so that a long plan needs no more memory than its largest net."""
    policy = keras.config.dtype_policy()
    keras.backend.clear_session()  # resets the dtype policy too
    keras.config.set_dtype_policy(policy)
    gc.collect()


def curve(run: Run, *keys: str) -> dict[str, list[float]]:
    """Return columns of a run's history by key, such as "step" and "val_accuracy"; a row without one gives NaN."""
    return {key: [float(row.get(key, np.nan)) for row in run.history] for key in keys}


def _usable(path: Path, recipe: Recipe) -> Run:
    run = Run(path)
    if (path / "recipe.toml").is_file():
        try:
            run.refuse_other(resolve_recipe(recipe))
        except ReszooError as reason:
            raise ReszooError(
                f"{str(reason).split(';')[0]}; move it away, or give another --out"
            ) from None
    else:
        run.refuse_occupied()
    return run


def _train(run: Run, recipe: Recipe, devices: str, tell: Tell) -> None:
    begun = (run.path / "recipe.toml").is_file()
    try:
        result = train(recipe, run_dir=run.path, resume=begun, devices=devices, quiet=True)
    except ReszooError as reason:
        raise ReszooError(f"{run.path}: {reason}") from None
    finally:
        release()
    if not result.finished:
        tell(f"stopped in {run.path.name}; the same command goes on from there")
        raise KeyboardInterrupt
