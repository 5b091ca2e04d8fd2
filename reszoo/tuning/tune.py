"""The search itself: from a space to a folder of trials, a report, and a recipe to train by."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import io
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_tuner
import tensorflow as tf
from keras_tuner.src.engine.base_tuner import BaseTuner

from reszoo.data.pipeline import open_pipeline
from reszoo.errors import ReszooError
from reszoo.files import write_text
from reszoo.session import anchored
from reszoo.training.recipe import Recipe
from reszoo.training.run import environment
from reszoo.tuning import environment as parts
from reszoo.tuning.config import SearchConfig
from reszoo.tuning.oracles import OBJECTIVE, ORACLES, make_oracle
from reszoo.tuning.plan import NAME, Plan, read_plan
from reszoo.tuning.report import report
from reszoo.tuning.results import best_trial, read_results
from reszoo.tuning.space import Space, load_space
from reszoo.tuning.telling import Telling
from reszoo.tuning.trial import folder_of, prune, read_record, run_trial

Tell = Callable[[str], None]
WAIT_SECONDS = 60.0  # that a worker waits for the chief to write the plan


class Tuner(BaseTuner):
    """KerasTuner's tuner, its trials trained by the ordinary engine; it owns no model code.

    devices: as `reszoo train --devices`, for each trial.
    """

    def __init__(self, plan: Plan, folder: Path, oracle: keras_tuner.Oracle, devices: str = "auto") -> None:
        self.plan, self.folder, self.devices = plan, folder, devices
        self._idle = False
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of files that it reloads
            super().__init__(oracle, directory=str(folder), project_name="")

    def pre_create_trial(self) -> None:
        """Wait a little before asking again, when the last answer was that there is nothing to do yet."""
        if self._idle:
            time.sleep(0.5)
        self._idle = True

    def on_trial_begin(self, trial: Any) -> None:
        """Note that there is something to do."""
        self._idle = False

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Train a trial up to its share, and return its score. Raises FailedTrialError with the reason why it has none."""
        values = trial.hyperparameters.values
        units = self.plan.units if "tuner/epochs" in values else 1
        record = run_trial(
            self.plan,
            self.folder,
            trial.trial_id,
            {name: value for name, value in values.items() if not name.startswith("tuner/")},
            share=values.get("tuner/epochs", 1) / units,
            continues=values.get("tuner/trial_id"),
            devices=self.devices,
            worker=self.tuner_id,
        )
        if record["status"] == "failed":
            raise keras_tuner.errors.FailedTrialError(record["reason"])
        log_hparams(folder_of(self.folder, trial.trial_id), record)
        return {OBJECTIVE: record["score"]}

    def save(self) -> None:
        """Nothing: the oracle keeps the state."""

    def _get_tuner_fname(self) -> str:
        return str(self.folder / "none")  # never there, so that nothing is reloaded here


def log_hparams(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a trial for TensorBoard's HParams page, into `folder`/tensorboard."""
    from tensorboard.plugins.hparams import api

    writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
    with writer.as_default():
        api.hparams(dict(record["values"]), trial_id=record["trial"])
        tf.summary.scalar(OBJECTIVE, record["score"], step=record["steps"])
    writer.close()


def tune(
    space: str | Path | Space | None = None,
    *,
    overrides: Sequence[str] = (),
    run_dir: str | Path | None = None,
    resume: bool = False,
    workers: int = 1,
    devices: str = "auto",
    tell: Tell = print,
    **search: Any,
) -> dict[str, Any]:
    """Search a space (a name, a file, or one loaded) and leave a folder of trials with a report; return the results.

    overrides: `table.key=value` on the base recipe. run_dir: a new or empty folder; tune/NAME when left out. resume: go on
    with the search in run_dir; the space may then be left out. workers: processes on this machine, sharing its cores and GPUs.
    devices: of each trial, as `reszoo train --devices`. search: fields of the space's table [search], such as
    tuner="grid", trials=20, max_params=500_000. The test set is never read.

    With KerasTuner's variables in the environment this process is the chief or a worker of a search on several machines
    that share run_dir; a worker returns {}.
    Raises ReszooError for input that cannot work, before anything is written, and where trials fail one after another.
    """
    search = {key: value for key, value in search.items() if value is not None}
    part = parts.part(os.environ)
    if part == "worker":
        work(search_folder(space, run_dir), devices)
        return {}
    if workers < 1:
        raise ReszooError(f"workers is {workers}, but must be at least 1")
    folder = search_folder(space, run_dir)
    plan = _resumed(folder, space, overrides, search) if resume else _new(folder, space, overrides, search)
    folder.mkdir(parents=True, exist_ok=True)
    with _sole(folder):
        if resume:
            known = read_results(folder)
            plan.write(folder, environment=known["environment"], command=known["command"])
        else:
            plan.write(folder, environment=environment(), command=_command())
        telling = Telling(folder, tell)
        oracle = make_oracle(plan, folder, telling.ended)
        telling.begin(oracle, plan)
        try:
            with parts.interruptible():
                if part == "chief" or workers > 1:
                    _lead(oracle, plan, folder, part, workers, devices, tell)
                else:
                    Tuner(plan, folder, oracle, devices).search()
        except KeyboardInterrupt:
            tell(f"stopped; go on with: reszoo tune --resume --run-dir {folder}")
            raise
        finally:
            oracle.save()
        results = _conclude(folder, tell)
        if oracle.given_up:
            reason = read_record(folder_of(folder, oracle.end_order[-1]))["reason"]
            raise ReszooError(
                f"{oracle.failures()} trials in a row failed, the last because {reason}; "
                f"the search goes on with: reszoo tune --resume --run-dir {folder}"
            )
        if not results["trials"]:
            reason = results["refused"][0]["reason"] if results["refused"] else "there is nothing to try"
            raise ReszooError(f"nothing in {plan.space.name} may be tried; the first refused: {reason}")
    return results


def work(folder: Path, devices: str = "auto") -> None:
    """Run trials of the search in `folder` that the chief, named by KerasTuner's variables, hands out.

    Raises ReszooError when the folder holds no search after a minute.
    """
    from reszoo.tuning.workers import alive

    begun = time.monotonic()
    while not (folder / NAME).is_file() and time.monotonic() - begun < WAIT_SECONDS:
        time.sleep(0.5)
    plan = read_plan(folder)
    with parts.interruptible(), alive(os.environ):
        Tuner(plan, folder, ORACLES[plan.space.search.tuner](plan, folder), devices).search()


def best_recipe(folder: str | Path, name: str = "best") -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe of a search's best trial, and that trial's record. Raises ReszooError while there is none."""
    folder = Path(folder)
    plan, best = read_plan(folder), best_trial(read_results(folder)["trials"])
    if best is None:
        raise ReszooError(f"{folder} holds no finished trial yet")
    values = {knob.name: best["values"].get(knob.name, knob.default) for knob in plan.space.knobs}
    recipe = anchored(plan.space.recipe(values, name))
    return dataclasses.replace(
        recipe,
        description=f"The best of a search of {plan.space.name}",
        train=dataclasses.replace(recipe.train, seed=best["seeds"][0]),
    ), best


def export_recipe(folder: str | Path, path: str | Path) -> Path:
    """Write the recipe of a search's best trial to a TOML file that `reszoo train` takes; return its path.

    Raises ReszooError while there is no finished trial, and for a file whose name does not end in .toml.
    """
    path = Path(path)
    check_export(path)
    recipe, best = best_recipe(folder, path.stem)
    scores = ", ".join(f"{100 * score:.2f} %" for score in best["scores"])
    part = "" if best["share"] == 1 else f", after {100 * best['share']:.0f} % of the training"
    lines = [
        f"# Trial {best['trial']}, the best of a search of {read_plan(Path(folder)).space.name}.",
        "#",
        f"#     reszoo train {path.name if path.parent == Path() else path}",
        "#",
        f"# Measured in the search: {scores} validation accuracy (seeds {', '.join(map(str, best['seeds']))}){part}; "
        f"{best['parameters']:,} parameters.",
        "",
    ]
    write_text(path, "\n".join(lines) + "\n" + recipe.to_toml())
    return path


def check_export(path: Path) -> None:
    """Raise ReszooError for a path that no recipe can be written to."""
    if path.suffix != ".toml":
        raise ReszooError(f"{path}: a recipe's file name ends in .toml")
    if path.is_dir():
        raise ReszooError(f"{path} is a folder")


def search_folder(space: str | Path | Space | None, run_dir: str | Path | None = None) -> Path:
    """Return where a search lies: `run_dir`, or by default tune/NAME. Raises ReszooError without either."""
    if run_dir is not None:
        return Path(run_dir)
    if space is None:
        raise ReszooError("which space? Give its name, or the folder of a search to go on with")
    return Path("tune") / (space.name if isinstance(space, Space) else Path(space).stem)


def _new(folder: Path, space: Any, overrides: Sequence[str], search: Mapping[str, Any]) -> Plan:
    if space is None:
        raise ReszooError("which space? Give its name")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ReszooError(f"{folder} exists; add --resume to go on with it, or give another --run-dir")
    plan = _planned(_loaded(space, overrides, search))
    plan.check()
    return plan


def _loaded(space: str | Path | Space, overrides: Sequence[str], search: Mapping[str, Any]) -> Space:
    if not isinstance(space, Space):
        space = load_space(space, overrides, **search)
    elif search:
        space = dataclasses.replace(space, search=dataclasses.replace(space.search, **search))
    return dataclasses.replace(space, base=anchored(space.base))


def _planned(space: Space) -> Plan:
    """Open the data of a space once, for what must be known of it."""
    base = space.base
    pipeline = open_pipeline(
        base.data, base.augment, batch_size=base.train.batch_size, seed=0, transforms=base.model.transforms
    )
    info = pipeline.info
    told = {
        "name": info.name,
        "input_shape": list(info.input_shape),
        "classes": info.classes,
        "examples": info.examples,
    }
    return Plan(space, told, base.total_steps(pipeline.steps_per_epoch) / pipeline.steps_per_epoch)


def _resumed(folder: Path, space: Any, overrides: Sequence[str], search: Mapping[str, Any]) -> Plan:
    """Return the plan of a search to go on with; only how many trials, and how many may fail, can have changed."""
    plan = read_plan(folder)
    if space is not None:
        asked = _loaded(space, overrides, {**plan.space.search.to_dict(), **search})
        plan.refuse_other(asked, folder)
    elif overrides:
        raise ReszooError("--set changes the recipe that trials follow; a search goes on with its own")
    settings = plan.space.search
    for key, value in search.items():
        if key not in ("trials", "max_failures") and getattr(settings, key) != value:
            raise ReszooError(
                f"{folder} was begun with {key} = {getattr(settings, key)!r}, not {value!r}; leave it out"
            )
    free = {key: search[key] for key in ("trials", "max_failures") if key in search}
    if free:
        settings = SearchConfig(**{**settings.to_dict(), **free})
    return dataclasses.replace(plan, space=dataclasses.replace(plan.space, search=settings))


def _lead(oracle: Any, plan: Plan, folder: Path, part: parts.Part, workers: int, devices: str, tell: Tell) -> None:
    """Be the chief: of workers started here, or of those that others start."""
    from reszoo.tuning.workers import Chief

    if part == "chief":
        address = f"{os.environ[parts.IP]}:{os.environ[parts.PORT]}"
        if not os.environ[parts.IP].startswith("127.") and os.environ[parts.IP] != "localhost":
            tell(f"listening on {address} without authentication: whoever reaches it can take part in the search")
        Chief(oracle, folder, address=address, tell=tell).run()
        return
    gpus = [str(index) for index, _ in enumerate(tf.config.list_physical_devices("GPU"))]
    Chief(
        oracle,
        folder,
        workers=workers,
        arguments=["--run-dir", str(folder.resolve()), "--devices", devices],
        cores=sorted(os.sched_getaffinity(0)),
        gpus=gpus if devices in ("auto", "gpu") else [],
        tell=tell,
    ).run()


def _conclude(folder: Path, tell: Tell) -> dict[str, Any]:
    """Write the report, drop checkpoints that nobody will go on from, and return the results."""
    results = read_results(folder)
    page = report(folder)
    prune(folder, [results["best"]] if results["best"] else [])
    tell(f"report: {page}")
    return results


def _command() -> str:
    return shlex.join(["reszoo", *sys.argv[1:]]) if Path(sys.argv[0]).stem in ("reszoo", "__main__") else ""


@contextlib.contextmanager
def _sole(folder: Path) -> Iterator[None]:
    """Keep a second search out of the folder. Raises ReszooError when one is there."""
    with open(folder / "lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ReszooError(f"another search is at work in {folder}") from None
        yield
