"""One trial: its executions as ordinary run folders, trained by the ordinary engine, and the record they leave."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from reszoo.config.recipe import Recipe
from reszoo.config.resolve import resolve_recipe
from reszoo.errors import ReszooError
from reszoo.files import atomic_dir, write_json, write_text
from reszoo.lab.grid import release
from reszoo.trainer import Trainer
from reszoo.training import checkpoint
from reszoo.training.data_location import location
from reszoo.training.run import Run
from reszoo.tuning.plan import Plan

RECORD = "trial.json"
ENDED = ("completed", "failed")
SCORED = {
    "score": float,
    "share": float,
    "scores": list,
    "seeds": list,
    "values": dict,
}  # of a completed trial
OWNER = "owner"
LOOK_EVERY = 25  # steps between looks at whether the trial is still ours
ATTEMPTS = 10  # starts from the same step after which a trial counts as deadly to its process, and not merely unlucky


class Stopped(KeyboardInterrupt):
    """A signal stopped the training at a checkpoint."""


class Taken(KeyboardInterrupt):
    """Another worker was given this trial: this process was thought dead."""


def folder_of(search: Path, trial_id: str) -> Path:
    """Return the folder of a trial in that of its search."""
    return search / "trials" / trial_id


def read_record(folder: Path) -> dict[str, Any]:
    """Return what a trial's record says, nothing where there is none yet. Raises ReszooError for a damaged one."""
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        needed = SCORED if record["status"] == "completed" else {}
        if wrong := [key for key, kind in needed.items() if not isinstance(record[key], kind)]:
            raise ValueError(f"{wrong[0]} is {record[wrong[0]]!r}")
        if not isinstance(record.get("continues"), str | None):
            raise ValueError(f"continues is {record['continues']!r}")
        return dict(record)
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError) as error:
        raise ReszooError(f"{path} cannot be read: it was changed or damaged ({error})") from None


def run_trial(
    plan: Plan,
    search: Path,
    trial_id: str,
    values: Mapping[str, Any],
    *,
    share: float = 1.0,
    continues: str | None = None,
    devices: str = "auto",
    worker: str = "tuner0",
) -> dict[str, Any]:
    """Train a trial's executions up to `share` of the whole training; leave and return its record.

    continues: the trial from whose checkpoints this one goes on. What is there already is used: a finished trial is not
    run again, one that was broken off goes on from its newest checkpoint. A trial that fails, for whatever reason, is
    recorded as failed with that reason.
    Raises Stopped when a signal came, Taken when another process has this trial by now.
    """
    folder = folder_of(search, trial_id)
    record = read_record(folder)
    if record.get("status") in ENDED:
        return record
    recipe = resolve_recipe(plan.space.recipe(values))
    net = plan.measured(recipe)
    search_of = plan.space.search
    seeds = [search_of.seed + number for number in range(search_of.executions)]
    record = {
        "trial": trial_id,
        "values": plan.space.active(values),
        "continues": continues,
        "share": float(share),
        "status": "running",
        "reason": "",
        "seeds": seeds,
        "depth": net.depth,
        "parameters": net.parameters,
        "multiply_adds": net.multiply_adds,
        "worker": worker,
        "attempts": [
            *record.get("attempts", []),
            [_reached(folder / f"seed{seed}") for seed in seeds],
        ],
    }
    write_json(folder / RECORD, record)
    token = f"{worker} {os.getpid()} {uuid.uuid4().hex}"
    write_text(folder / OWNER, token)
    latest = record["attempts"][-ATTEMPTS:]
    if len(latest) == ATTEMPTS and all(reached == latest[0] for reached in latest):
        reason = (
            f"its process died {ATTEMPTS - 1} times at step {sum(latest[0])}, perhaps out of memory"
        )
        return _close(folder, {**record, "status": "failed", "reason": reason})
    try:
        parts = [
            _execute(recipe.replace(train=recipe.train.replace(seed=seed)), folder / f"seed{seed}",
                     share, folder_of(search, continues) / f"seed{seed}" if continues else None, devices, _Fence(folder, token))
            for seed in seeds
        ]  # fmt: skip
    except ReszooError as error:
        return _close(folder, {**record, "status": "failed", "reason": str(error)})
    except Exception as error:  # whatever a net or the machine does wrong, the search goes on
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        return _close(folder, {**record, "status": "failed", "reason": reason})
    scores = [part["score"] for part in parts]
    return _close(
        folder,
        {
            **record,
            "status": "completed",
            "scores": scores,
            "score": sum(scores) / len(scores),
            "training": [part["training"] for part in parts],
            "steps": parts[0]["steps"],
            "trained_steps": sum(part["trained_steps"] for part in parts),
            "seconds": round(sum(part["seconds"] for part in parts), 2),
        },
    )


def _close(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    write_json(folder / RECORD, record)
    return record


def _execute(
    recipe: Recipe,
    path: Path,
    share: float,
    source: Path | None,
    devices: str,
    fence: keras.callbacks.Callback,
) -> dict[str, Any]:
    """Train one run as far as `share`, and return what it says of itself there."""
    if path.is_dir() and not (path / "recipe.toml").is_file():
        shutil.rmtree(path)  # killed before the run had begun
    if source is not None and not path.is_dir():
        with atomic_dir(path) as part:
            shutil.copytree(source, part, dirs_exist_ok=True)
    started = Run(source).history[-1]["step"] if source is not None else 0
    before = Run(source).meta["seconds"] if source is not None else 0.0
    begun = (path / "recipe.toml").is_file()
    now = location(recipe.data)
    moved = now if begun and location(Run(path).recipe.data) != now else None
    try:
        trainer = Trainer.prepare(
            recipe,
            run_dir=path,
            resume=begun,
            data=moved,
            devices=devices,
            callbacks=[fence],
            quiet=True,
        )
        until = _until(trainer, share)
        trainer.fit(until)
        if trainer.loop.signalled or trainer.loop.step < until:
            raise Stopped  # what was reached is kept, and is the trial's when it is taken up again
        row = trainer.loop.history[-1]
        held = [row["val_accuracy"] for row in trainer.loop.history]
        return {
            "score": max(held) if recipe.train.select == "best" else held[-1],
            "training": row["accuracy"],
            "steps": trainer.loop.step,
            "trained_steps": trainer.loop.step - started,
            "seconds": trainer.loop.seconds - before,
        }
    finally:
        release()


def _until(trainer: Trainer, share: float) -> int:
    """Return the step at which `share` of the training is done, at the end of an epoch."""
    total, epoch = trainer.loop.total, trainer.pipeline.steps_per_epoch
    return min(total, -(-round(share * total) // epoch) * epoch)


def _reached(path: Path) -> int:
    """Return the step of a run's newest checkpoint, 0 without one."""
    found = checkpoint.steps(path / "checkpoints")
    return int(found[-1].stem.partition("-")[2]) if found else 0


class _Fence(keras.callbacks.Callback):
    """Stops a run whose trial was handed to another process."""

    ignores_model = True  # read by reszoo.training.callbacks

    def __init__(self, folder: Path, token: str) -> None:
        super().__init__()
        self._path, self._token, self._steps = folder / OWNER, token, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at who owns the trial, every so many steps."""
        self._steps += 1
        if self._steps % LOOK_EVERY == 0 and self._path.read_text(encoding="utf-8") != self._token:
            raise Taken


def prune(search: Path, keep: Sequence[str]) -> None:
    """Remove the checkpoints of all ended trials but those to `keep`, by id: they are most of what a search weighs."""
    for path in (search / "trials").glob("*/seed*/checkpoints"):
        trial = path.parents[1]
        if trial.name not in keep and read_record(trial).get("status") in ENDED:
            shutil.rmtree(path, ignore_errors=True)
