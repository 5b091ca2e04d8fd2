"""The start of a run: its folder, new or to resume, and the files that training starts from."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from pathlib import Path

import keras

from reszoo.config.recipe import Recipe
from reszoo.config.resolve import ResolvedRecipe, resolve_data, resolve_recipe
from reszoo.data.fingerprint import difference
from reszoo.data.own_augmentation import load_changes
from reszoo.errors import ChangedDataError, ReszooError
from reszoo.files import check_output, check_outside
from reszoo.images.preprocessing import Preprocessing
from reszoo.training import checkpoint
from reszoo.training.callback_checks import class_name
from reszoo.training.data_location import (
    advice_on_data,
    ignore_location,
    ignore_start,
    missing,
    relocate,
)
from reszoo.training.protocols import Pipeline, Stepper
from reszoo.training.run import Run
from reszoo.training.workers import Workers
from reszoo.weights.files import is_file_name, local_file


def find_run(
    recipe: Recipe,
    *,
    run_dir: str | Path | None,
    resume: bool,
    data: str | None,
    model: object = None,
    workers: Workers,
) -> tuple[Run, ResolvedRecipe]:
    """Return the run to train, whose folder does not exist yet if it is new, and its recipe.

    The arguments are those of `Trainer.prepare`, and the workers, of which only worker 0 needs the
    folder. The recipe is resolved; it names the present location of the data.

    Raises:
        ReszooError: If the folder cannot hold the run, holds another run, or a file or run that
            training starts from does not exist.
    """
    if data is not None and not resume:
        raise ReszooError(
            f"data: {data} is only for resuming a run whose images were moved. "
            f"For a new run: --set data.name={data}"
        )
    recipe = resolve_recipe(recipe)
    if not workers.first:
        if data is not None:
            recipe = recipe.replace(data=resolve_data(relocate(recipe.data, data)))
        return Run(run_dir or "runs", writes=False), recipe
    if not resume:
        check_start(recipe)
        return _new_run(recipe, run_dir), recipe
    if run_dir is None:
        raise ReszooError("resume: no run is given; expected its folder as run_dir")
    run = Run.open(run_dir)
    check_output(run.path, "run folder")
    if data is not None:
        recipe = recipe.replace(data=resolve_data(relocate(run.recipe.data, data)))
    started = has_checkpoint(run)
    run.reject_other(recipe, moved=data is not None, started=started)
    if (run.path / "run.json").is_file():
        _check_backend(run)
    check_model_source(run, model)
    if not started:
        check_start(recipe)
    if why := missing(recipe.data):
        raise ReszooError(f"{why}; {advice_on_data('train', run.path, recipe.data)}")
    if workers.count == 1:  # several find the size anew, all the same
        recipe = recipe.replace(data=run.keep_size(recipe.data))
    return run, recipe


def default_folder(recipe: Recipe) -> Path:
    """Return runs/NAME-TIME, where a run without a given folder lies."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{_file_name(recipe.name)}-{stamp}"


def _new_run(recipe: Recipe, run_dir: str | Path | None) -> Run:
    run = Run(run_dir or default_folder(recipe))
    run.reject_occupied()
    if recipe.data.name.startswith("folder:"):
        check_outside(run.path, recipe.data.name.removeprefix("folder:"), "run folder")
    return run


def _check_backend(run: Run) -> None:
    before = run.meta.get("backend", "tensorflow")
    if before != "tensorflow":
        raise ReszooError(
            f"{run.path} was trained on {before}; expected a run on tensorflow, because reszoo no "
            f"longer trains on {before}. Finish it with reszoo 0.1, or train it anew: "
            f"reszoo train {run.path / 'recipe.toml'}"
        )


def _file_name(name: str) -> str:
    """Return a recipe's name as a short file name without slashes."""
    return re.sub(r"[^\w.+-]+", "-", name).lstrip("-.")[:80] or "run"


def check_start(recipe: Recipe) -> None:
    """Raise ReszooError if a file or run that training starts from does not exist."""
    if is_file_name(recipe.model.weights):
        try:
            local_file(recipe.model.weights)
        except ReszooError as error:
            raise ReszooError(f"model.weights: {error}") from None
    if recipe.train.grow_from:
        Run.open(recipe.train.grow_from)


def check_model_source(run: Run, model: object) -> None:
    """Raise ReszooError if a run resumes without the given model of its start, or with another."""
    given = run.meta.get("given_model") if (run.path / "run.json").is_file() else None
    if given and model is None:
        raise ReszooError(
            f"{run.path} trains {given}, a model made elsewhere than by its recipe; resume it by "
            "the command or the program that started it"
        )
    if model is not None and not given:
        raise ReszooError(f"{run.path} trains its recipe's model; resume it without another model")


def check_data(run: Run, recipe: Recipe, pipeline: Pipeline, resume: bool) -> None:
    """Raise ReszooError for data on which the run cannot resume, select or probe.

    Args:
        run: The run folder.
        recipe: The recipe.
        pipeline: Its data.
        resume: Whether the run resumes, and its data must be the same.
    """
    info = pipeline.info
    if resume:
        try:
            run.reject_other_data(info)
        except ChangedDataError as error:
            advice = advice_on_data("train", run.path, recipe.data)
            raise ChangedDataError(f"{error}; {advice}") from None
    if recipe.train.select == "best" and not info.examples["validation"]:
        raise ReszooError(
            f'train.select: "best" is invalid; expected "last", because {info.name} holds out no '
            "validation images. Example: --set data.validation=5000"
        )
    if recipe.train.patience and not info.examples["validation"]:
        raise ReszooError(
            f"train.patience: {recipe.train.patience} is invalid; expected 0, because {info.name} "
            "holds out no validation images. Example: --set data.validation=5000"
        )
    steps = pipeline.steps_per_epoch
    recipe.probe_steps(steps)  # rejects a probe longer than the run
    total = recipe.total_steps(steps)
    for step in (0, total - 1):  # rejects a schedule of the user that fails
        recipe.schedule.rate_at(
            step,
            total_steps=total,
            steps_per_epoch=steps,
            batch_size=recipe.train.batch_size,
        )
    load_changes(recipe.augment, info.input_shape)  # rejects augmentation that fails


def unite(
    workers: Workers,
    recipe: Recipe,
    pipeline: Pipeline,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Compare what the workers train, and give all of them worker 0's preprocessing.

    Raises:
        ReszooError: If a worker has another recipe, other data or other callbacks.
    """
    if workers.count == 1:
        return
    found = workers.exchange(
        {
            "recipe": recipe.to_dict(),
            "data": pipeline.info.to_dict(),
            "preprocessing": pipeline.preprocessing.to_dict(),
            "callbacks": [class_name(callback) for callback in callbacks],
        }
    )
    first = found[0]
    for index, other in enumerate(found[1:], 1):
        ignore_location(first["recipe"], other["recipe"])
        ignore_start(first["recipe"], other["recipe"])
        for table, before in first["recipe"].items():
            if before != other["recipe"].get(table):
                raise ReszooError(
                    f"worker {index} has another [{table}] than worker 0; expected the same "
                    "recipe. Give all workers the same recipe and the same --set"
                )
        if first["callbacks"] != other["callbacks"]:
            raise ReszooError(
                f"callbacks: worker {index} has {other['callbacks']}; expected those of worker 0, "
                f"{first['callbacks']}. Give all workers the same callbacks"
            )
        if why := difference(first["data"], other["data"]):
            raise ReszooError(
                f"data.name: {pipeline.info.name} of worker {index} is not the data of worker 0: "
                f"{why}"
            )
    pipeline.preprocessing = Preprocessing.from_dict(first["preprocessing"])


def stored_bytes(model: keras.Model, stepper: Stepper) -> int:
    """Return about how many bytes a run writes: its checkpoints, and three copies of the model."""
    weights = sum(math.prod(variable.shape) for variable in model.variables)
    others = sum(math.prod(variable.shape) for variable in stepper.state().values())
    needed: int = 4 * ((checkpoint.KEEP + 1) * (weights + others) + 3 * weights)
    return needed


def has_checkpoint(run: Run) -> bool:
    """Return whether the run has a checkpoint from which it can resume."""
    return bool(checkpoint.steps(run.checkpoints))
