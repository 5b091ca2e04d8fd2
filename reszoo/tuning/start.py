"""The plan with which a search starts or resumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from reszoo.commands import format_resume
from reszoo.config.overrides import Overrides
from reszoo.config.resolve import resolve_data, resolve_recipe
from reszoo.data.fingerprint import difference
from reszoo.data.pipeline import open_pipeline
from reszoo.errors import ReszooError
from reszoo.files import check_output, check_outside, expand_user
from reszoo.training.data_location import advice_on_data, missing, relocate
from reszoo.tuning.hyperparameters import Choice, Hyperparameter
from reszoo.tuning.plan import CHANGEABLE, Plan, read_plan
from reszoo.tuning.space import Space, load_space
from reszoo.types import JsonMapping
from reszoo.weights.files import is_file_name

SpaceSource = str | Path | Space


def new_plan(folder: Path, space: SpaceSource, overrides: Overrides, search: JsonMapping) -> Plan:
    """Return the plan of a new search. Raises ReszooError for an unusable folder or data."""
    check_output(folder, "search folder")
    # A search that was killed at its start may have left its lock, or a part of a file.
    left = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if any(name[0] != "." and name != "lock" for name in left) or folder.is_file():
        raise ReszooError(f"{folder} exists; add --resume to resume it, or give another --run-dir")
    resolved = resolve_space(space, overrides, search)
    if resolved.base.data.name.startswith("folder:"):
        check_outside(folder, resolved.base.data.name.removeprefix("folder:"), "search folder")
    plan = open_plan(resolved)
    plan.check()
    return plan


def resumed_plan(
    folder: Path,
    space: SpaceSource | None,
    overrides: Overrides,
    search: JsonMapping,
    data: str | None,
) -> Plan:
    """Return the plan of a search to resume; CHANGEABLE settings and the data's place can change.

    Raises:
        ReszooError: For other changes, or if the data is not the data that the search started with.
    """
    plan = read_plan(folder)
    settings = plan.space.search
    if space is not None:
        plan.check_same(resolve_space(space, overrides, {**settings.to_dict(), **search}), folder)
    elif overrides:
        raise ReszooError("--set: expected no overrides with --resume; a search keeps its recipe")
    for key, value in search.items():
        if key not in CHANGEABLE and getattr(settings, key) != value:
            raise ReszooError(
                f"search.{key}: {value!r} is invalid; {folder} started with "
                f"{getattr(settings, key)!r}. Leave it out"
            )
    settings = settings.replace(**{key: search[key] for key in CHANGEABLE if key in search})
    base = plan.space.base
    if data is not None:
        base = base.replace(data=resolve_data(relocate(base.data, data)))
    advice = advice_on_data("tune", folder, base.data)
    if why := missing(base.data):
        raise ReszooError(f"{why}; {advice}")
    resumed = open_plan(dataclasses.replace(plan.space, search=settings, base=base))
    if why := difference(plan.data, resumed.data):
        raise ReszooError(
            f"data.name: {base.data.name} is not the data that {folder} started with: {why}; "
            f"{advice}"
        )
    return dataclasses.replace(resumed, epochs=plan.epochs)


def resolve_space(space: SpaceSource, overrides: Overrides, search: JsonMapping) -> Space:
    """Return a space with settings replaced and all paths absolute."""
    if not isinstance(space, Space):
        space = load_space(space, overrides, **search)
    elif search:
        space = dataclasses.replace(space, search=space.search.replace(**search))
    return dataclasses.replace(
        space,
        base=resolve_recipe(space.base),
        hyperparameters=tuple(map(_resolve_weights, space.hyperparameters)),
    )


def open_plan(space: Space) -> Plan:
    """Return the plan of a space, for which its data is opened once."""
    pipeline = open_pipeline(space.base)
    info, steps = pipeline.info, pipeline.steps_per_epoch
    data = {
        "name": info.name,
        "input_shape": list(info.input_shape),
        "classes": info.classes,
        "class_names": list(info.class_names),
        "examples": info.examples,
        "fingerprint": dict(info.fingerprint),
    }
    return Plan(space, data, space.base.total_steps(steps) / steps)


def _resolve_weights(each: Hyperparameter) -> Hyperparameter:
    """Return a hyperparameter whose options name weight files by absolute paths."""
    if not isinstance(each, Choice):
        return each
    key = "model.weights"
    options = {
        label: {**sets, key: str(expand_user(sets[key]).resolve())}
        if is_file_name(str(sets.get(key, "")))
        else sets
        for label, sets in each.options.items()
    }
    return each.replace(options=options)


def default_folder(space: SpaceSource | None, run_dir: str | Path | None = None) -> Path:
    """Return the folder of a search: `run_dir`, or tune/NAME. Raises ReszooError without either."""
    if run_dir is not None:
        return Path(run_dir)
    if space is None:
        raise ReszooError(
            "space: missing; expected a space, or with --resume the folder of a search"
        )
    return Path("tune") / (space.name if isinstance(space, Space) else Path(space).stem)


def how_to_resume(folder: Path) -> str:
    """Return the advice at the end of a message."""
    return f"resume with: {format_resume('tune', folder)}"
