"""Recipes by name or file: finding, listing and loading them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from reszoo.config import tomlfile
from reszoo.config.overrides import Overrides, apply_overrides, parse_overrides
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import ResolvedRecipe, resolve_recipe
from reszoo.errors import ReszooError, did_you_mean
from reszoo.types import JsonMapping, JsonObject
from reszoo.validation.messages import show


def recipe_folder() -> Path:
    """Return the folder of the packaged recipes, in the package or at the top of a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the packaged recipes, with numbers in them in numeric order."""

    def order(name: str) -> list[int | str]:
        parts = re.split(r"(\d+)", name)
        return [int(part) if part.isdigit() else part for part in parts]

    return sorted((path.stem for path in recipe_folder().glob("*.toml")), key=order)


def list_recipes() -> list[Recipe]:
    """Return the packaged recipes."""
    return [load_recipe(name) for name in recipe_names()]


def find_file(
    name_or_path: str | Path, kind: str, names: Collection[str], folder: Path, listing: str
) -> Path:
    """Return a packaged TOML file by name, or a path; a path ends in .toml or contains a folder.

    Args:
        name_or_path: One of `names`, or a path.
        kind: What the file is, for the message: "recipe" or "space".
        names: The packaged files in `folder`, without suffix.
        folder: Where they are.
        listing: The command that lists them, for the message.

    Raises:
        ReszooError: For the name of no packaged file, with the nearest ones.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml" or len(path.parts) != 1:
        return path
    if path.name not in names:
        hint = f"; expected one that `{listing}` lists, or a file that ends in .toml"
        raise ReszooError(f"no {kind} '{path.name}'{did_you_mean(path.name, names) or hint}")
    return folder / f"{path.name}.toml"


def find_recipe(name_or_path: str | Path) -> Path:
    """Return the file of a packaged recipe or of a path."""
    return find_file(name_or_path, "recipe", recipe_names(), recipe_folder(), "reszoo recipes")


def load_recipe(name_or_path: str | Path, overrides: Overrides = ()) -> ResolvedRecipe:
    """Return a recipe with overrides applied and paths absolute.

    A file that says `extends = "NAME"`, or names a file relative to its own folder, states only
    what differs from that recipe. Its keys replace those of the other recipe as overrides do.

    Args:
        name_or_path: Name of a packaged recipe, or a TOML file.
        overrides: Values by key, such as {"train.epochs": 2}, or texts such as "train.epochs=2"
            with the value in TOML syntax. train.steps replaces the file's train.epochs and the
            reverse. schedule.kind, optimizer.name, augment.crop and finetune.freeze drop the file's
            keys that belong to another choice.

    Raises:
        ReszooError: For a file or an override that is not valid, in one line.
    """
    path = find_recipe(name_or_path)
    changes = parse_overrides(overrides)
    tables = apply_overrides({"name": path.stem, **_read(path)}, changes)
    return resolve_recipe(validate_recipe(tables, str(name_or_path), changes))


def _read(path: Path, children: tuple[Path, ...] = ()) -> JsonObject:
    """Return the tables of a recipe's file, merged into those of the recipe that it extends.

    Args:
        path: The file.
        children: The files that extend it, for the message on a cycle.
    """
    tables = tomlfile.read(path)
    extends = tables.pop("extends", None)
    if extends is None:
        return tables
    start = f"{path}: extends: {show(extends)} is invalid"
    if not isinstance(extends, str) or not extends:
        raise ReszooError(
            f'{start}; expected the name or file of a recipe. Example: extends = "quickstart"'
        )
    try:
        parent = path.parent / find_recipe(extends)
    except ReszooError as error:
        raise ReszooError(f"{path}: extends: {error}") from None
    below = (*children, path.resolve())
    if parent.resolve() in below:
        raise ReszooError(f"{start}; expected a recipe that does not extend {path.name} itself")
    if not parent.is_file():
        raise ReszooError(f"{start}; no file {parent}")
    base = _read(parent, below)
    base = {key: value for key, value in base.items() if key not in ("name", "description")}
    own = {key: value for key, value in tables.items() if not isinstance(value, Mapping)}
    changes = {
        f"{table}.{key}": value
        for table, values in tables.items()
        if isinstance(values, Mapping)
        for key, value in values.items()
    }
    return apply_overrides(base | own, changes)


def validate_recipe(tables: JsonMapping, where: str, changes: JsonMapping) -> Recipe:
    """Return the recipe that tables state.

    Args:
        tables: The tables of a recipe.
        where: Where they come from, for messages.
        changes: The overrides among them, for messages.

    Raises:
        ReszooError: In one line. It names the file, except for the value of an override.
    """
    try:
        return Recipe(**tables)
    except ReszooError as error:
        key = str(error).partition(":")[0]
        if key in changes or (
            key == "model" and any(each.startswith("model.") for each in changes)
        ):
            raise
        flags = " ".join(f"--set {name}={show(value)}" for name, value in changes.items())
        raise ReszooError(f"{where}{f' with {flags}' if flags else ''}: {error}") from None
