"""The search itself: from a space to a folder of trials, a report, and a recipe to train by."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras_tuner
import tensorflow as tf

from reszoo.commands import format_resume
from reszoo.config.overrides import Overrides
from reszoo.config.resolve import resolve_data, resolve_recipe
from reszoo.data.fingerprint import difference
from reszoo.data.pipeline import open_pipeline
from reszoo.errors import ReszooError
from reszoo.files import check_output, check_outside, expand_user
from reszoo.reporting.reporter import Reporter
from reszoo.training.data_location import advice_on_data, missing, relocated
from reszoo.training.devices import check_devices
from reszoo.training.run import environment
from reszoo.tuning import environment as parts
from reszoo.tuning.knobs import Choice, Knob
from reszoo.tuning.oracles import make_oracle
from reszoo.tuning.plan import Plan, read_plan
from reszoo.tuning.progress import Progress
from reszoo.tuning.report import report
from reszoo.tuning.results import read_results
from reszoo.tuning.space import Space, load_space
from reszoo.tuning.trial import prune
from reszoo.tuning.tuner import Tuner, work
from reszoo.weights.formats import is_file_name


def tune(
    space: str | Path | Space | None = None,
    *,
    overrides: Overrides = (),
    run_dir: str | Path | None = None,
    resume: bool = False,
    data: str | None = None,
    workers: int = 1,
    devices: str = "auto",
    reporter: Reporter | None = None,
    **search: Any,
) -> dict[str, Any]:
    """Search a space (a name, a file, or one loaded) and leave a folder of trials with a report; return the results.

    overrides: `table.key=value` on the base recipe. run_dir: a new or empty folder; tune/NAME when left out. resume: resume
    the search in run_dir; the space may then be left out. data: with resume, where the same images lie now.
    workers: processes on this machine, sharing its cores and GPUs.
    devices: of each trial, as `reszoo train --devices`. search: fields of the space's table [search], such as
    tuner="grid", trials=20, max_params=500_000. The test set is never read. reporter: reports progress; by default to
    standard output.

    With KerasTuner's variables in the environment this process is the chief or a worker of a search on several machines
    that share run_dir; a worker returns {}.
    Raises ReszooError for input that cannot work, before anything is written, and where trials fail one after another.
    """
    reporter = reporter or Reporter()
    search = {key: value for key, value in search.items() if value is not None}
    part = parts.part(os.environ)
    if part == "worker":
        work(search_folder(space, run_dir), devices)
        return {}
    if workers < 1:
        raise ReszooError(f"workers is {workers}, but must be at least 1")
    if workers > 1 and part == "chief":
        raise ReszooError(
            "a chief by KerasTuner's variables starts no workers; start them where they are to run"
        )
    check_devices(devices)
    folder = search_folder(space, run_dir)
    if data is not None and not resume:
        raise ReszooError(
            f"data: {data} is for resuming a search whose images lie elsewhere now. For a new search: --set data.name={data}"
        )
    plan = (
        _resumed(folder, space, overrides, search, data)
        if resume
        else _new(folder, space, overrides, search)
    )
    folder.mkdir(parents=True, exist_ok=True)
    with _sole(folder), contextlib.nullcontext() if resume else _unless_begun(folder):
        if resume:
            known = read_results(folder)
            plan.write(folder, environment=known["environment"], command=known["command"])
        else:
            made = environment()
            versions = {**made["versions"], "keras-tuner": keras_tuner.__version__}
            plan.write(folder, environment={**made, "versions": versions}, command=_command())
        progress = Progress(folder, reporter)
        oracle = make_oracle(plan, folder, progress.end_trial)
        progress.start(oracle, plan)
        try:
            with parts.interruptible():
                # The oracle writes its state as trials begin and end, and here nothing else does: what Ctrl-C breaks off halfway
                # is better forgotten.
                if part == "chief" or workers > 1:
                    _lead(oracle, plan, folder, part, workers, devices, reporter)
                else:
                    Tuner(plan, folder, oracle, devices).search()
        except KeyboardInterrupt:
            reporter.line(f"stopped; resume with: {format_resume('tune', folder)}")
            raise
        oracle.save()
        results = read_results(folder)
        reporter.line(f"report: {report(folder)}")
        if oracle.given_up:  # and checkpoints are kept: it may be resumed
            raise ReszooError(
                f"{oracle.failures()} trials in a row failed, the last because {_last_reason(results)}; "
                f"resume with: {format_resume('tune', folder)}"
            )
        if not results["trials"]:
            reason = (
                results["refused"][0]["reason"] if results["refused"] else "there is nothing to try"
            )
            raise ReszooError(
                f"nothing in {plan.space.name} may be tried; the first refused: {reason}"
            )
        if results["best"] is None:
            raise ReszooError(
                f"no trial of {folder} could be scored, the last because {_last_reason(results)}"
            )
        prune(folder, [results["best"]])
    return results


def search_folder(space: str | Path | Space | None, run_dir: str | Path | None = None) -> Path:
    """Return where a search lies: `run_dir`, or by default tune/NAME. Raises ReszooError without either."""
    if run_dir is not None:
        return Path(run_dir)
    if space is None:
        raise ReszooError("which space? Give its name, or the folder of a search to resume")
    return Path("tune") / (space.name if isinstance(space, Space) else Path(space).stem)


def _new(folder: Path, space: Any, overrides: Overrides, search: Mapping[str, Any]) -> Plan:
    if space is None:
        raise ReszooError("which space? Give its name")
    check_output(folder, "search folder")
    # A search killed as it began may have left its lock, or half a file.
    if folder.exists() and (
        not folder.is_dir()
        or any(path.name[0] != "." and path.name != "lock" for path in folder.iterdir())
    ):
        raise ReszooError(f"{folder} exists; add --resume to resume it, or give another --run-dir")
    loaded = _loaded(space, overrides, search)
    if loaded.base.data.name.startswith("folder:"):
        check_outside(folder, loaded.base.data.name.removeprefix("folder:"), "search folder")
    plan = _planned(loaded)
    plan.check()
    return plan


def _loaded(space: str | Path | Space, overrides: Overrides, search: Mapping[str, Any]) -> Space:
    if not isinstance(space, Space):
        space = load_space(space, overrides, **search)
    elif search:
        space = dataclasses.replace(space, search=space.search.replace(**search))
    return dataclasses.replace(
        space, base=resolve_recipe(space.base), knobs=tuple(map(_resolve_knob, space.knobs))
    )


def _resolve_knob(knob: Knob) -> Knob:
    """Return a knob whose options name files of weights by their whole path, as a base recipe's are."""
    if not isinstance(knob, Choice):
        return knob
    key = "model.weights"
    options = {
        label: {**sets, key: str(expand_user(sets[key]).resolve())}
        if is_file_name(str(sets.get(key, "")))
        else sets
        for label, sets in knob.options.items()
    }
    return dataclasses.replace(knob, options=options)


def _planned(space: Space) -> Plan:
    """Open the data of a space once, for what must be known of it."""
    base = space.base
    pipeline = open_pipeline(base)
    info = pipeline.info
    told = {
        "name": info.name,
        "input_shape": list(info.input_shape),
        "classes": info.classes,
        "class_names": list(info.class_names),
        "examples": info.examples,
        "fingerprint": dict(info.fingerprint),
    }
    return Plan(space, told, base.total_steps(pipeline.steps_per_epoch) / pipeline.steps_per_epoch)


def _resumed(
    folder: Path, space: Any, overrides: Overrides, search: Mapping[str, Any], data: str | None
) -> Plan:
    """Return the plan of a search to resume; only how many trials, how many may fail, and the data's location can change.

    Raises ReszooError where the data is not the data that the search began with.
    """
    plan = read_plan(folder)
    if space is not None:
        asked = _loaded(space, overrides, {**plan.space.search.to_dict(), **search})
        plan.refuse_other(asked, folder)
    elif overrides:
        raise ReszooError(
            "--set changes the recipe that trials follow; a search resumes with its own"
        )
    settings = plan.space.search
    for key, value in search.items():
        if key not in ("trials", "max_failures") and getattr(settings, key) != value:
            raise ReszooError(
                f"{folder} was begun with {key} = {getattr(settings, key)!r}, not {value!r}; leave it out"
            )
    free = {key: search[key] for key in ("trials", "max_failures") if key in search}
    if free:
        settings = settings.replace(**free)
    base = plan.space.base
    if data is not None:
        base = base.replace(data=resolve_data(relocated(base.data, data)))
    advice = advice_on_data("tune", folder, base.data)
    if why := missing(base.data):
        raise ReszooError(f"{why}; {advice}")
    begun = dataclasses.replace(plan.space, search=settings, base=base)
    found = _planned(begun)
    if why := difference(plan.data, found.data):
        raise ReszooError(
            f"data.name: {base.data.name} is not the data that {folder} began with: {why}; {advice}"
        )
    return dataclasses.replace(plan, space=begun, data=found.data)


def _lead(
    oracle: Any,
    plan: Plan,
    folder: Path,
    part: parts.Part,
    workers: int,
    devices: str,
    reporter: Reporter,
) -> None:
    """Be the chief: of workers started here, or of those that others start."""
    from reszoo.tuning.workers import Chief

    if part == "chief":
        address = f"{os.environ[parts.IP]}:{os.environ[parts.PORT]}"
        if not os.environ[parts.IP].startswith("127.") and os.environ[parts.IP] != "localhost":
            reporter.line(
                f"listening on {address} without authentication: whoever reaches it can take part in the search"
            )
        Chief(oracle, folder, address=address, reporter=reporter).run()
        return
    gpus = [str(index) for index, _ in enumerate(tf.config.list_physical_devices("GPU"))]
    Chief(
        oracle,
        folder,
        workers=workers,
        arguments=["--run-dir", str(folder.resolve()), "--devices", devices],
        cores=sorted(os.sched_getaffinity(0)),
        gpus=gpus if devices in ("auto", "gpu") else [],
        reporter=reporter,
    ).run()


def _last_reason(results: Mapping[str, Any]) -> str:
    return str(
        [trial.get("reason") for trial in results["trials"] if trial["status"] == "failed"][-1]
    )


@contextlib.contextmanager
def _unless_begun(folder: Path) -> Iterator[None]:
    """Take a new search's folder away again where its first trial could not even begin."""
    try:
        yield
    except (ReszooError, OSError):
        if not (folder / "trials").exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _command() -> str:
    return (
        shlex.join(["reszoo", *sys.argv[1:]])
        if Path(sys.argv[0]).stem in ("reszoo", "__main__")
        else ""
    )


@contextlib.contextmanager
def _sole(folder: Path) -> Iterator[None]:
    """Keep a second search out of the folder. Raises ReszooError when one is there."""
    with open(folder / "lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ReszooError(f"another search is at work in {folder}") from None
        yield
