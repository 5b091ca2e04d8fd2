"""One trial: its executions as normal run folders, and its record."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import keras

from reszoo.config.recipe import Recipe
from reszoo.config.resolve import resolve_recipe
from reszoo.config.schedule import validation_score
from reszoo.errors import ReszooError
from reszoo.files import atomic_dir, write_json, write_text
from reszoo.trainer import Trainer
from reszoo.training import checkpoint
from reszoo.training.data_location import location
from reszoo.training.memory import release_memory
from reszoo.training.run import Run
from reszoo.tuning.plan import Plan
from reszoo.tuning.records import ENDED, RECORD, Trial, folder_of, read_record
from reszoo.tuning.space import Values

OWNER = "owner"
CHECK_EVERY = 25  # steps between checks that the trial still belongs to this process
ATTEMPTS = 10  # starts from the same step after which a trial is failed: it kills its process


class Stopped(KeyboardInterrupt):
    """A signal stopped the training at a checkpoint."""


class Reassigned(KeyboardInterrupt):
    """Another worker has this trial, because this process was thought to be dead."""


class Execution(TypedDict):
    """What one run of a trial reached."""

    score: float
    training: float | None
    steps: int
    trained_steps: int
    seconds: float


def run_trial(
    plan: Plan,
    search: Path,
    trial_id: str,
    values: Values,
    *,
    share: float = 1.0,
    continues: str | None = None,
    devices: str = "auto",
    worker: str = "tuner0",
) -> Trial:
    """Train a trial's executions up to `share` of the training; write and return its record.

    A trial that has ended is not run again; an interrupted one resumes from its newest checkpoint.
    A trial that fails, for any reason, is recorded as failed with that reason.

    Args:
        plan: The plan of the search.
        search: The search folder.
        trial_id: The trial's id.
        values: Values of the hyperparameters.
        share: Where to stop, as a part of the whole training.
        continues: The trial from whose checkpoints this one starts.
        devices: As `reszoo train --devices`.
        worker: The name of this worker, for the record.

    Raises:
        Stopped: If a signal came.
        Reassigned: If another process has this trial by now.
    """
    folder = folder_of(search, trial_id)
    known = read_record(folder)
    if known and known["status"] in ENDED:
        return known
    recipe, settings = resolve_recipe(plan.space.recipe(values)), plan.space.search
    cost = plan.count(recipe)
    seeds = [settings.seed + number for number in range(settings.executions)]
    runs = [folder / f"seed{seed}" for seed in seeds]
    reached = [_reached(run) for run in runs]
    record: Trial = {
        "trial": trial_id,
        "values": plan.space.active(values),
        "continues": continues,
        "share": float(share),
        "status": "running",
        "reason": "",
        "seeds": seeds,
        "depth": cost.depth,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "worker": worker,
        "attempts": [*(known.get("attempts", []) if known else []), reached],
    }
    write_json(folder / RECORD, record)
    token = f"{worker} {os.getpid()} {uuid.uuid4().hex}"
    write_text(folder / OWNER, token)
    if record["attempts"][-ATTEMPTS:] == [reached] * ATTEMPTS:
        reason = (
            f"its process died {ATTEMPTS - 1} times at step {sum(reached)}, perhaps out of memory"
        )
        return _fail(folder, record, reason)
    executions = []
    try:
        for seed, run in zip(seeds, runs, strict=True):
            own = recipe.replace(train=recipe.train.replace(seed=seed))
            source = folder_of(search, continues) / run.name if continues else None
            executions.append(_execute(own, run, share, source, devices, _Owned(folder, token)))
    except Exception as error:  # whatever fails in a model or on the machine, the search continues
        first = next(iter(str(error).strip().splitlines()), "")
        known_cause = isinstance(error, ReszooError)
        return _fail(folder, record, first if known_cause else f"{type(error).__name__}: {first}")
    scores = [each["score"] for each in executions]
    record |= {
        "status": "completed",
        "scores": scores,
        "score": sum(scores) / len(scores),
        "training": [each["training"] for each in executions],
        "steps": executions[0]["steps"],
        "trained_steps": sum(each["trained_steps"] for each in executions),
        "seconds": round(sum(each["seconds"] for each in executions), 2),
    }
    write_json(folder / RECORD, record)
    return record


def _fail(folder: Path, record: Trial, reason: str) -> Trial:
    record |= {"status": "failed", "reason": reason}
    write_json(folder / RECORD, record)
    return record


def _execute(
    recipe: Recipe,
    path: Path,
    share: float,
    source: Path | None,
    devices: str,
    owned: keras.callbacks.Callback,
) -> Execution:
    """Train one run up to `share` of its training, from the checkpoint of `source` if any."""
    if path.is_dir() and not (path / "recipe.toml").is_file():
        shutil.rmtree(path)  # a kill came before the run had started
    if source and not path.is_dir():
        with atomic_dir(path) as part:
            shutil.copytree(source, part, dirs_exist_ok=True)
    first_step = Run(source).history[-1]["step"] if source else 0
    seconds_before = Run(source).meta["seconds"] if source else 0.0
    place, started = location(recipe.data), (path / "recipe.toml").is_file()
    moved = place if started and location(Run(path).recipe.data) != place else None
    try:
        trainer = Trainer.prepare(
            recipe,
            run_dir=path,
            resume=started,
            data=moved,
            devices=devices,
            callbacks=[owned],
            quiet=True,
        )
        loop = trainer.loop
        epoch = trainer.pipeline.steps_per_epoch
        until = min(loop.total, -(-round(share * loop.total) // epoch) * epoch)
        trainer.fit(until)
        if loop.stopping.signalled or loop.step < until:
            raise Stopped  # the trial resumes from what was reached
        accuracies = [validation_score(row) or 0.0 for row in loop.history]
        return {
            "score": max(accuracies) if recipe.train.select == "best" else accuracies[-1],
            "training": loop.history[-1]["accuracy"],
            "steps": loop.step,
            "trained_steps": loop.step - first_step,
            "seconds": loop.state.seconds - seconds_before,
        }
    finally:
        release_memory()


def _reached(run: Path) -> int:
    """Return the step of a run's newest checkpoint, 0 without one."""
    found = checkpoint.steps(run / "checkpoints")
    return int(found[-1].stem.partition("-")[2]) if found else 0


class _Owned(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops a run whose trial was handed to another process."""

    ignores_model = True  # read by reszoo.training.callbacks

    def __init__(self, folder: Path, token: str) -> None:
        super().__init__()
        self._path, self._token, self._steps = folder / OWNER, token, 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Check now and then who owns the trial."""
        self._steps += 1
        if self._steps % CHECK_EVERY == 0 and self._path.read_text(encoding="utf-8") != self._token:
            raise Reassigned


def prune_checkpoints(search: Path, keep: Sequence[str]) -> None:
    """Remove the checkpoints of all ended trials except those to keep, by id."""
    for path in (search / "trials").glob("*/seed*/checkpoints"):
        folder = path.parents[1]
        record = read_record(folder)
        if folder.name not in keep and record and record["status"] in ENDED:
            shutil.rmtree(path, ignore_errors=True)
