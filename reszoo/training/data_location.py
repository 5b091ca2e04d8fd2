"""Where the images of a run lie: moved data, missing data, and the command that resumes."""

from __future__ import annotations

import os
from pathlib import Path

from reszoo.commands import format_resume
from reszoo.config.data import DataConfig
from reszoo.config.overrides import Overrides, parse_overrides
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import resolve_data
from reszoo.data.catalog import name_data
from reszoo.errors import ReszooError
from reszoo.files import expand_user
from reszoo.references import is_reference
from reszoo.types import JsonObject
from reszoo.weights.files import is_file_name


def name_images(
    recipe: Recipe | str | Path, overrides: Overrides, data: str
) -> tuple[Recipe | str | Path, Overrides]:
    """Return a recipe and its overrides with another `data.name`, which may be a folder's path."""
    if isinstance(recipe, Recipe):
        named = resolve_data(recipe.data.replace(name=name_data(data)))
        return recipe.replace(data=named), overrides
    return recipe, {**parse_overrides(overrides), "data.name": name_data(data)}


def relocate(data: DataConfig, place: str) -> DataConfig:
    """Return `[data]` with the location of the same images replaced.

    Args:
        data: The table of a run.
        place: `folder:PATH` or PATH; for a dataset of TensorFlow Datasets, the folder in which
            prepared datasets lie now.

    Raises:
        ReszooError: If `place` is not a folder.
    """
    own_folder = data.name.startswith("folder:")
    place = name_data(place) if own_folder else place
    fixed = data.name in ("digits", "synthetic") or is_reference(data.name)
    prepared = not own_folder and not fixed
    if prepared and place != data.name and not place.startswith("folder:"):
        if not expand_user(place).exists():  # an archive of CIFAR may be a file
            raise ReszooError(
                f"data: {place} is invalid; expected the folder in which {data.name} is prepared "
                "now. Example: --data /data/tensorflow_datasets"
            )
        return data.replace(dir=place)
    return data if place == data.name else data.replace(name=place)


def missing(data: DataConfig) -> str:
    """Return the part of a message that says which data of `[data]` is missing, or ""."""
    from reszoo.data.catalog import data_home, is_prepared
    from reszoo.data.cifar import find_cifar

    kind, colon, path = data.name.partition(":")
    if colon and kind == "folder" and not expand_user(path).is_dir():
        return f"data.name: {data.name} does not exist"
    if data.dir and not colon:
        home = data_home(data.dir)
        if not is_prepared(data.name, home) and not find_cifar(data.name, home):
            return f"data.dir: {data.dir} holds no prepared {data.name}"
    return ""


def advice_on_data(command: str, run_dir: str | os.PathLike[str], data: DataConfig) -> str:
    """Return the advice how to resume with moved data.

    Args:
        command: "train" or "tune".
        run_dir: The folder of the run or search.
        data: Its table `[data]`.
    """
    resume = format_resume(command, run_dir, "--data", placeholder(data))
    return f"if the same images lie elsewhere now, resume with: {resume}"


def placeholder(data: DataConfig) -> str:
    """Return the placeholder for the location of the data in an example of a command."""
    return "folder:PATH" if data.name.startswith("folder:") else "FOLDER"


def location(data: DataConfig) -> str:
    """Return where the images of a table `[data]` lie, as `relocate` takes it."""
    return location_of(data.to_dict())


def location_of(data: JsonObject) -> str:
    """Return the value of --data for a table `[data]`."""
    return str(data["dir"] if data.get("dir") else data["name"])


def same_but_location(before: JsonObject, after: JsonObject) -> bool:
    """Return whether two tables `[data]` differ at most in the location of the images."""
    return {**before, "name": "", "dir": ""} == {**after, "name": "", "dir": ""}


def ignore_location(before: JsonObject, after: JsonObject) -> None:
    """Copy the location of the images from the tables `after` to the tables `before`."""
    for key in ("name", "dir"):
        before["data"][key] = after["data"][key]


def ignore_start(before: JsonObject, after: JsonObject) -> None:
    """Copy the paths of the files that training starts from, where both recipes name a file."""
    ours, theirs = before["model"].get("weights", ""), after["model"].get("weights", "")
    if is_file_name(ours) and is_file_name(theirs):
        before["model"]["weights"] = theirs
    if before["train"].get("grow_from") and after["train"].get("grow_from"):
        before["train"]["grow_from"] = after["train"]["grow_from"]
