"""A whole search: from a space to a folder of trials and a report."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_tuner
import tensorflow as tf

from reszoo.config.overrides import Overrides
from reszoo.errors import ReszooError
from reszoo.reporting.reporter import Reporter
from reszoo.signals import interrupt_on
from reszoo.training.devices import check_devices
from reszoo.training.environment import command_line, environment
from reszoo.tuning.environment import IP, PORT, Role, find_role
from reszoo.tuning.oracle import Oracle, make_oracle
from reszoo.tuning.plan import Plan
from reszoo.tuning.progress import Progress
from reszoo.tuning.report import report
from reszoo.tuning.results import read_results
from reszoo.tuning.start import (
    SpaceSource,
    default_folder,
    how_to_resume,
    new_plan,
    resumed_plan,
)
from reszoo.tuning.trial import prune_checkpoints
from reszoo.tuning.tuner import Tuner, work
from reszoo.types import JsonObject


def tune(
    space: SpaceSource | None = None,
    *,
    overrides: Overrides = (),
    run_dir: str | Path | None = None,
    resume: bool = False,
    data: str | None = None,
    workers: int = 1,
    devices: str = "auto",
    reporter: Reporter | None = None,
    **search: Any,
) -> JsonObject:
    """Search a space, leave a folder of trials with a report, and return the results.

    The test split is never read. With KerasTuner's variables in the environment this process is the
    chief or a worker of a search on several machines that share run_dir.

    Args:
        space: A space, its name or its file; with `resume` it can be left out.
        overrides: Keys of the base recipe to change, as {"train.epochs": 2} or ["train.epochs=2"].
        run_dir: A new or empty folder; tune/NAME by default.
        resume: Resume the search in run_dir.
        data: With `resume`, where the same images lie now.
        workers: Processes on this machine, which share its cores and GPUs.
        devices: Of each trial, as `reszoo train --devices`.
        reporter: Reports progress; by default to standard output.
        search: Fields of the table [search], such as tuner="grid", trials=20, max_params=500_000.

    Returns:
        What report.json holds; {} on a worker.

    Raises:
        ReszooError: For input that cannot work, before anything is written; and if trials fail one
            after another.
    """
    reporter = reporter or Reporter()
    search = {key: value for key, value in search.items() if value is not None}
    role, folder = find_role(os.environ), default_folder(space, run_dir)
    if role == "worker":
        work(folder, devices)
        return {}
    if workers < 1 or (workers > 1 and role == "chief"):
        expected = "an integer >= 1" if workers < 1 else "1 on a chief by KerasTuner's variables"
        raise ReszooError(f"workers: {workers} is invalid; expected {expected}")
    check_devices(devices)
    if data is not None and not resume:
        raise ReszooError(
            f"data: {data} is for resuming a search whose images lie elsewhere now. For a new "
            f"search: --set data.name={data}"
        )
    if resume:
        plan = resumed_plan(folder, space, overrides, search, data)
    elif space is None:
        raise ReszooError("space: missing; expected the name of a space or a .toml file")
    else:
        plan = new_plan(folder, space, overrides, search)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder), contextlib.nullcontext() if resume else _remove_if_empty(folder):
        plan.write(folder, **_provenance(folder, resume))
        progress = Progress(folder, reporter)
        oracle = make_oracle(plan, folder, progress.end_trial)
        progress.start(oracle, plan)
        try:
            # The oracle saves its state when a trial starts and ends, and nothing in between.
            with interrupt_on(signal.SIGTERM):
                _search(oracle, plan, folder, role, workers, devices, reporter)
        except KeyboardInterrupt:
            reporter.line(f"stopped; {how_to_resume(folder)}")
            raise
        oracle.save()
        results = read_results(folder)
        reporter.line(f"report: {report(folder)}")
        _check_success(results, oracle, folder)
        prune_checkpoints(folder, [results["best"]])
    return results


def _search(
    oracle: Oracle,
    plan: Plan,
    folder: Path,
    role: Role,
    workers: int,
    devices: str,
    reporter: Reporter,
) -> None:
    """Run all trials: in this process, by workers started here, or by workers that others start."""
    if role == "alone" and workers == 1:
        Tuner(plan, folder, oracle, devices).search()
        return
    from reszoo.tuning.workers import Chief

    if role == "chief":
        ip, address = os.environ[IP], f"{os.environ[IP]}:{os.environ[PORT]}"
        if not ip.startswith("127.") and ip != "localhost":
            reporter.line(
                f"listening on {address} without authentication: everyone who reaches it can join"
            )
        Chief(oracle, folder, address=address, reporter=reporter).run()
        return
    gpus = [str(index) for index, _ in enumerate(tf.config.list_physical_devices("GPU"))]
    Chief(
        oracle,
        folder,
        workers=workers,
        arguments=["--run-dir", str(folder.resolve()), "--devices", devices],
        gpus=gpus if devices in ("auto", "gpu") else [],
        reporter=reporter,
    ).run()


def _check_success(results: JsonObject, oracle: Oracle, folder: Path) -> None:
    """Raise ReszooError if trials failed one after another, or no trial has a score."""
    failed = [trial["reason"] for trial in results["trials"] if trial["status"] == "failed"]
    if oracle.given_up:
        raise ReszooError(
            f"{oracle.failures()} trials in a row failed, the last one because {failed[-1]}; "
            f"{how_to_resume(folder)}"
        )
    if not results["trials"]:
        reasons = [row["reason"] for row in results["rejected"]] or ["the space is empty"]
        raise ReszooError(f"{results['name']}: every trial is rejected; the first: {reasons[0]}")
    if results["best"] is None:
        raise ReszooError(
            f"{folder}: no trial has a score; the last one failed because {failed[-1]}"
        )


def _provenance(folder: Path, resume: bool) -> JsonObject:
    """Return how the search was started, as it is stored in search.json."""
    if resume:
        before = read_results(folder)
        return {key: before[key] for key in ("environment", "command")}
    made = environment()
    versions = {**made["versions"], "keras-tuner": keras_tuner.__version__}
    return {"environment": {**made, "versions": versions}, "command": command_line()}


@contextlib.contextmanager
def _remove_if_empty(folder: Path) -> Iterator[None]:
    """Remove a new search's folder if its first trial could not start."""
    try:
        yield
    except (ReszooError, OSError):
        if not (folder / "trials").exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock a search folder. Raises ReszooError if another search has locked it."""
    with open(folder / "lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ReszooError(f"{folder}: another search is running in it") from None
        yield
