"""A recipe with absolute paths: what a run stores, and what everything after loading takes."""

from __future__ import annotations

from reszoo.config.data import DataConfig
from reszoo.config.recipe import Recipe
from reszoo.files import expand_user
from reszoo.validation.table import check_utf8
from reszoo.weights.files import is_file_name


class ResolvedRecipe(Recipe):
    """A recipe that means the same from every folder: its paths are absolute."""


def resolve_recipe(recipe: Recipe) -> ResolvedRecipe:
    """Return the recipe with its paths absolute, so that its run can be resumed from anywhere.

    Raises:
        ReszooError: If a path is not UTF-8, because a TOML file cannot hold it.
    """
    if isinstance(recipe, ResolvedRecipe):
        return recipe
    model, train = recipe.model, recipe.train
    if is_file_name(model.weights):
        model = model.replace(weights=_absolute("model.weights", model.weights))
    if train.grow_from:
        train = train.replace(grow_from=_absolute("train.grow_from", train.grow_from))
    tables = {name: getattr(recipe, name) for name in Recipe.model_fields}
    return ResolvedRecipe(
        **{**tables, "model": model, "data": resolve_data(recipe.data), "train": train}
    )


def resolve_data(data: DataConfig) -> DataConfig:
    """Return the table [data] with its paths absolute.

    Raises:
        ReszooError: If a path is not UTF-8.
    """
    kind, colon, path = data.name.partition(":")
    if colon and kind == "folder":
        data = data.replace(name=f"folder:{_absolute('data.name', path)}")
    return data.replace(dir=_absolute("data.dir", data.dir)) if data.dir else data


def _absolute(key: str, path: str) -> str:
    found = str(expand_user(path).resolve())
    check_utf8(key, found)
    return found
