"""Where a run starts: its folder, new or to resume, and the files that training starts from."""

from __future__ import annotations

import datetime
import math
import re
from pathlib import Path

import keras

from reszoo.config.recipe import Recipe
from reszoo.config.resolve import ResolvedRecipe, resolve_data
from reszoo.errors import ReszooError
from reszoo.files import check_output, check_outside
from reszoo.training import checkpoint
from reszoo.training.data_location import relocated
from reszoo.training.run import Run
from reszoo.training.step import Stepper
from reszoo.weights.formats import is_file_name, local_file


def find_run(
    recipe: ResolvedRecipe, run_dir: str | Path | None, resume: bool, data: str | None
) -> tuple[Run, ResolvedRecipe]:
    """Return the folder to train in, not made yet when the run is new, and the recipe with the data's present location."""
    if not resume:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        run = Run(run_dir or Path("runs") / f"{_file_name(recipe.name)}-{stamp}")
        run.refuse_occupied()
        if recipe.data.name.startswith("folder:"):
            check_outside(run.path, recipe.data.name.removeprefix("folder:"), "run folder")
        return run, recipe
    if run_dir is None:
        raise ReszooError("resume: no run is given; expected its folder as run_dir")
    run = Run.open(run_dir)
    check_output(run.path, "run folder")
    if data is not None:
        recipe = recipe.replace(data=resolve_data(relocated(run.recipe.data, data)))
    run.refuse_other(recipe, moved=data is not None, started=has_checkpoint(run))
    if (run.path / "run.json").is_file():
        before = run.meta.get("backend", "tensorflow")
        if before != "tensorflow":
            raise ReszooError(
                f"{run.path} was trained on {before}; expected a run on tensorflow, because reszoo no longer trains on "
                f"{before}. Finish it with reszoo 0.1, or train it anew: reszoo train {run.path / 'recipe.toml'}"
            )
    return run, recipe


def _file_name(name: str) -> str:
    """Return a recipe's name as a part of a file name: without slashes, and short."""
    return re.sub(r"[^\w.+-]+", "-", name).lstrip("-.")[:80] or "run"


def check_start(recipe: Recipe) -> None:
    """Raise ReszooError where a file or run that training starts from is not there."""
    if is_file_name(recipe.model.weights):
        try:
            local_file(recipe.model.weights)
        except ReszooError as error:
            raise ReszooError(f"model.weights: {error}") from None
    if recipe.train.grow_from:
        Run.open(recipe.train.grow_from)


def check_model_source(run: Run, model: object) -> None:
    """Raise ReszooError if a begun run of a given model resumes without one, or the other way around."""
    given = run.meta.get("given_model") if (run.path / "run.json").is_file() else None
    if given and model is None:
        raise ReszooError(
            f"{run.path} trains {given}, a model made elsewhere than by its recipe; resume it by the "
            "command or the program that started it"
        )
    if model is not None and not given:
        raise ReszooError(f"{run.path} trains its recipe's model; resume it without another model")


def stored_bytes(model: keras.Model, stepper: Stepper) -> int:
    """Return about how much a run writes: the checkpoints that are kept and one more, and the model three times."""
    own = sum(math.prod(variable.shape) for variable in model.variables)
    held = sum(math.prod(variable.shape) for variable in stepper.state().values())
    return 4 * ((checkpoint.KEEP + 1) * (own + held) + 3 * own)


def has_checkpoint(run: Run) -> bool:
    """Return whether the run has a checkpoint from which it can resume."""
    return bool(checkpoint.steps(run.checkpoints))
