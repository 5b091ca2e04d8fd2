"""Search spaces: the recipes that a search may try, as a base recipe and hyperparameters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from reszoo.config import tomlfile
from reszoo.config.load import find_file, load_recipe, recipe_folder
from reszoo.config.overrides import Overrides, apply_overrides, check_value, parse_overrides
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import ResolvedRecipe, resolve_recipe
from reszoo.errors import ReszooError
from reszoo.tuning.config import SearchConfig
from reszoo.tuning.hyperparameters import Choice, Hyperparameter, Value, read_hyperparameters
from reszoo.types import JsonObject
from reszoo.validation.table import AS_TUPLE, Table
from reszoo.zoo.catalog import spec as find_spec

Values: TypeAlias = Mapping[str, Value]
"""Values of hyperparameters by name."""

# A score must mean the same in every trial, and the search sets the seeds.
FIXED = {
    "data.name": "every trial is scored on the same images",
    "data.dir": "every trial is scored on the same images",
    "data.labels": "every trial is scored on the same images",
    "data.multi_label": "every trial is scored on the same images",
    "data.validation": "every trial is scored on the same images",
    "train.seed": "search.seed and search.executions set it",
    "train.select": "it decides what a score is",
    "train.grow_from": "trials start from new weights",
    "published.metric": "it does not change the training",
    "published.value": "it does not change the training",
    "published.source": "it does not change the training",
}


class SpaceFile(Table):
    """The file of a search space."""

    description: str = ""
    recipe: str = Field(min_length=1, examples=["quickstart"])
    set: Annotated[tuple[str, ...], AS_TUPLE] = Field((), examples=[["train.epochs=10"]])
    search: SearchConfig = SearchConfig()
    space: JsonObject = Field(min_length=1)


@dataclass(frozen=True, kw_only=True)
class Space:
    """A base recipe, the hyperparameters over it, and the settings of a search."""

    name: str
    base: ResolvedRecipe
    hyperparameters: tuple[Hyperparameter, ...]
    search: SearchConfig
    description: str = ""

    def active(self, values: Values) -> dict[str, Value]:
        """Return the values of the hyperparameters whose conditions are met."""
        found: dict[str, Value] = {}
        for each in self.hyperparameters:
            if all(found.get(name) in allowed for name, allowed in each.when.items()):
                found[each.name] = values[each.name]
        return found

    def canonical(self, values: Values) -> dict[str, Value]:
        """Return values of all hyperparameters, with the default for each inactive one.

        Values that give the same recipe are equal then.
        """
        active = self.active(values)
        return {each.name: active.get(each.name, each.default) for each in self.hyperparameters}

    def recipe(self, values: Values, name: str | None = None) -> Recipe:
        """Return the recipe of values. Raises ReszooError if they contradict each other."""
        active, overrides = self.active(values), JsonObject()
        for each in self.hyperparameters:
            if each.name in active:
                overrides |= each.overrides(active[each.name])
        tables = apply_overrides(self.base.to_dict(), overrides)
        return Recipe(**{**tables, "name": name or self.base.name})

    def product(self) -> Iterator[dict[str, Value]]:
        """Yield every combination once, canonical; the last hyperparameter changes fastest.

        Raises:
            ReszooError: For a range without a step.
        """
        names = [each.name for each in self.hyperparameters]
        seen = set()
        for row in itertools.product(*(each.all_values() for each in self.hyperparameters)):
            values = self.canonical(dict(zip(names, row, strict=True)))
            if (key := tuple(values.values())) not in seen:
                seen.add(key)
                yield values

    def to_dict(self) -> JsonObject:
        """Return plain values for JSON, from which `from_dict` makes an equal space."""
        return {
            "name": self.name,
            "description": self.description,
            "recipe": self.base.to_dict(),
            "space": {each.name: _without_name(each) for each in self.hyperparameters},
            "search": self.search.to_dict(),
        }

    @classmethod
    def from_dict(cls, tables: JsonObject) -> Space:
        """Return the space of `to_dict`. Raises ReszooError for an invalid value."""
        return cls(
            name=tables["name"],
            description=tables.get("description", ""),
            base=resolve_recipe(Recipe(**tables["recipe"])),
            hyperparameters=read_hyperparameters(tables["space"]),
            search=SearchConfig(**tables["search"]),
        )


def _without_name(each: Hyperparameter) -> JsonObject:
    return {key: value for key, value in each.to_dict().items() if key != "name"}


def space_folder() -> Path:
    """Return the folder of the packaged spaces, inside that of the recipes."""
    return recipe_folder() / "spaces"


def space_names() -> list[str]:
    """Return the names of the packaged spaces."""
    return sorted(path.stem for path in space_folder().glob("*.toml"))


def load_space(name_or_path: str | Path, overrides: Overrides = (), **search: Any) -> Space:
    """Return a packaged space by name, or that of a TOML file.

    Args:
        name_or_path: Name of a packaged space, or a TOML file.
        overrides: Values of keys of the base recipe.
        search: Fields of `SearchConfig` that replace the file's; None does not.

    Raises:
        ReszooError: In one line, for an invalid file, a hyperparameter that no recipe can have or
            that would change what trials are scored on, or an override of a key that is searched.
    """
    path = find_file(name_or_path, "space", space_names(), space_folder(), "reszoo tune --help")
    changes = parse_overrides(overrides)
    tables = tomlfile.read(path)
    asked = {key: value for key, value in search.items() if value is not None}
    try:
        if isinstance(tables.get("search", {}), Mapping):
            tables["search"] = SearchConfig(**{**tables.get("search", {}), **asked})
        file = SpaceFile(**tables)
        hyperparameters = read_hyperparameters(file.space)
        _check(hyperparameters)
    except ReszooError as error:
        raise ReszooError(f"{name_or_path}: {error}") from None
    searched = set().union(*map(_keys, hyperparameters))
    if both := [key for key in changes if key in searched]:
        raise ReszooError(f"{both[0]}: {path.stem} searches it; expected no override of it")
    beside = path.parent / file.recipe
    recipe = beside if file.recipe.endswith(".toml") and beside.is_file() else file.recipe
    return Space(
        name=path.stem,
        base=load_recipe(recipe, {**parse_overrides(file.set), **changes}),
        hyperparameters=hyperparameters,
        search=file.search,
        description=file.description,
    )


def _check(hyperparameters: tuple[Hyperparameter, ...]) -> None:
    """Raise ReszooError for a recipe key that is unknown, fixed, set twice or of another type."""
    for each in hyperparameters:
        try:
            for key, value in _settings(each):
                if key in FIXED:
                    raise ReszooError(f"{key}: cannot be searched, because {FIXED[key]}")
                check_value(key, value)
                if key == "model.name":
                    find_spec(value)
        except ReszooError as error:
            raise ReszooError(f"space.{each.name}: {error}") from None
    for one, other in itertools.combinations(hyperparameters, 2):
        both = _keys(one) & _keys(other)
        if both and not _exclusive(hyperparameters, one, other):
            raise ReszooError(
                f"space.{one.name} and space.{other.name} both set {min(both)}; expected it in "
                "one of them, or conditions that exclude each other"
            )


def _settings(each: Hyperparameter) -> Iterator[tuple[str, Any]]:
    """Yield recipe keys with the values that are tested before a search."""
    some = each.options if isinstance(each, Choice) else (each.low, each.high, each.value_at(0.37))
    for value in some:
        yield from each.overrides(value).items()


def _keys(each: Hyperparameter) -> set[str]:
    return {key for key, _ in _settings(each)}


def _exclusive(
    hyperparameters: tuple[Hyperparameter, ...], one: Hyperparameter, other: Hyperparameter
) -> bool:
    """Return whether two hyperparameters are never active at once."""
    first, second = (_conditions(hyperparameters, each) for each in (one, other))
    return any(not first[name] & second[name] for name in first.keys() & second.keys())


def _conditions(
    hyperparameters: tuple[Hyperparameter, ...], each: Hyperparameter
) -> dict[str, set[str]]:
    found = {name: set(labels) for name, labels in each.when.items()}
    for earlier in (other for other in hyperparameters if other.name in each.when):
        for name, labels in _conditions(hyperparameters, earlier).items():
            found[name] = found.get(name, labels) & labels
    return found
