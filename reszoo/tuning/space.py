"""A space: the recipes a search may try, as a base recipe and knobs on its keys. Standard library only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reszoo.config import tomlfile
from reszoo.config.load import load_recipe, recipe_folder
from reszoo.config.overrides import Overrides, apply_overrides, check_value, parse_overrides
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import ResolvedRecipe, resolve_recipe
from reszoo.errors import ReszooError, did_you_mean
from reszoo.tuning.config import SearchConfig
from reszoo.tuning.knobs import Choice, Knob, Range, read_knobs, rounded
from reszoo.zoo.catalog import spec as find_spec

Values = Mapping[str, Any]

# A score must mean the same in every trial, and its seeds are the search's.
FIXED = {
    "data.name": "every trial is scored on the same images",
    "data.dir": "every trial is scored on the same images",
    "data.validation": "every trial is scored on the same images",
    "train.seed": "the search's seed and executions choose it",
    "train.select": "it decides what a score is",
    "train.grow_from": "trials start by themselves",
}


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a search may try: knobs over a base recipe, and how to search if nothing else is asked for."""

    name: str
    base: ResolvedRecipe
    knobs: tuple[Knob, ...]
    search: SearchConfig
    description: str = ""

    def active(self, values: Values) -> dict[str, Any]:
        """Return the values of the knobs that act, in their order: those whose conditions earlier ones meet."""
        found: dict[str, Any] = {}
        for knob in self.knobs:
            if all(found.get(name) in allowed for name, allowed in knob.when.items()):
                found[knob.name] = values[knob.name]
        return found

    def canonical(self, values: Values) -> dict[str, Any]:
        """Return values for every knob, numbers rounded, and those of knobs that do not act at their default.

        Sets of values that differ only in what does not act are equal then, and one trial.
        """
        tidy = {
            knob.name: rounded(values[knob.name])
            if isinstance(knob, Range) and not knob.whole
            else values[knob.name]
            for knob in self.knobs
        }
        active = self.active(tidy)
        return {knob.name: active.get(knob.name, knob.default) for knob in self.knobs}

    def recipe(self, values: Values, name: str | None = None) -> Recipe:
        """Return the recipe that values make. Raises ReszooError where they contradict each other."""
        active = self.active(values)
        given = {
            key: value
            for knob in self.knobs
            if knob.name in active
            for key, value in knob.sets(active[knob.name]).items()
        }
        return Recipe(
            **{**apply_overrides(self.base.to_dict(), given), "name": name or self.base.name}
        )

    @property
    def size(self) -> int:
        """How many combinations there are, conditions left aside. Raises ReszooError for a range without end."""
        return math.prod(
            len(knob.options) if isinstance(knob, Choice) else knob.size for knob in self.knobs
        )

    def product(self) -> Iterator[dict[str, Any]]:
        """Yield every combination once, canonical, the last knob turning fastest. Raises ReszooError for an endless range."""
        every = [
            list(knob.options) if isinstance(knob, Choice) else knob.steps() for knob in self.knobs
        ]
        names = [knob.name for knob in self.knobs]
        seen: set[str] = set()
        for combination in itertools.product(*every):
            values = self.canonical(dict(zip(names, combination, strict=True)))
            if (key := repr(values)) not in seen:
                seen.add(key)
                yield values

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, from which `from_dict` makes an equal space."""
        return {
            "name": self.name,
            "description": self.description,
            "recipe": self.base.to_dict(),
            "space": {knob.name: knob.to_dict() for knob in self.knobs},
            "search": self.search.to_dict(),
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Space:
        """Return the space that `to_dict` told of. Raises ReszooError for a knob or a value that cannot be meant."""
        return cls(
            name=told["name"],
            description=told.get("description", ""),
            base=resolve_recipe(Recipe(**told["recipe"])),
            knobs=read_knobs(told["space"]),
            search=SearchConfig(**told["search"]),
        )


def space_folder() -> Path:
    """Return the folder of the packaged spaces, inside that of the recipes."""
    return recipe_folder() / "spaces"


def space_names() -> list[str]:
    """Return the names of the packaged spaces."""
    return sorted(path.stem for path in space_folder().glob("*.toml"))


def find_space(name_or_path: str | Path) -> Path:
    """Return the file of a packaged space or of a path; what ends in .toml or has a folder in it is a path.

    Raises ReszooError for a name that no packaged space has, with the nearest ones.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml" or len(path.parts) != 1:
        return path
    if path.name not in space_names():
        known = ", ".join(space_names())
        near = (
            did_you_mean(path.name, space_names())
            or f"; there are {known}, and a file's name ends in .toml"
        )
        raise ReszooError(f"no space '{path.name}'{near}")
    return space_folder() / f"{path.name}.toml"


def load_space(name_or_path: str | Path, overrides: Overrides = (), **search: Any) -> Space:
    """Return a packaged space by name, or that of a TOML file.

    overrides: `table.key=value`, on the base recipe. search: fields of `SearchConfig` in place of the file's; None is none.
    Raises ReszooError in one line for a missing or unknown key, a knob that a recipe has no key for, one whose value has the wrong
    type or that would change what trials are scored on, a condition on a knob that does not stand before it, or an
    override of a key that is searched.
    """
    path = find_space(name_or_path)
    tables = tomlfile.read(path)
    try:
        known = ("description", "recipe", "set", "search", "space")
        for key in tables:
            if key not in known:
                raise ReszooError(
                    f"no key {key}{did_you_mean(key, known) or '; a space has ' + ', '.join(known)}"
                )
        if not isinstance(tables.get("recipe"), str):
            raise ReszooError(
                'recipe is missing: name the recipe that trials follow, such as recipe = "quickstart"'
            )
        if not isinstance(tables.get("search", {}), Mapping):
            raise ReszooError("search must be a table, under [search]")
        if not isinstance(tables.get("space"), Mapping) or not tables["space"]:
            raise ReszooError("the table [space] is missing or empty: it says what is searched")
        given = tables.get("set", [])
        if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
            raise ReszooError('set must be a list of overrides, such as set = ["train.epochs=10"]')
        knobs = read_knobs(tables["space"])
    except ReszooError as error:
        raise ReszooError(f"{name_or_path}: {error}") from None
    searched = {key for knob in knobs for key in _keys(knob)}
    changes = parse_overrides(overrides)
    for key in changes:
        if key in searched:
            raise ReszooError(
                f"{key}: it is searched by {path.stem}, so an override is invalid; remove it"
            )
    recipe = tables["recipe"]
    beside = path.parent / recipe
    file = beside if recipe.endswith(".toml") and beside.is_file() else recipe
    base = load_recipe(file, {**parse_overrides(given), **changes})
    asked = {key: value for key, value in search.items() if value is not None}
    try:
        settings = SearchConfig(**{**tables.get("search", {}), **asked})
        space = Space(
            name=path.stem,
            base=base,
            knobs=knobs,
            search=settings,
            description=str(tables.get("description", "")),
        )
        _check_keys(space)
    except ReszooError as error:
        raise ReszooError(f"{name_or_path}: {error}") from None
    return space


def _check_keys(space: Space) -> None:
    """Raise ReszooError where a knob sets a key that there is not, must not, that another sets, or that cannot hold it."""
    for one, other in itertools.combinations(space.knobs, 2):
        if _together(space, one, other) and (both := sorted(_keys(one) & _keys(other))):
            raise ReszooError(
                f"space.{one.name} and space.{other.name} both set {both[0]}; leave it to one of them, or to each under "
                "conditions that exclude each other"
            )
    for knob in space.knobs:
        # Between the ends of a range too, where a key that takes whole numbers shows.
        values = (
            list(knob.options)
            if isinstance(knob, Choice)
            else [knob.low, knob.high, *knob.between()]
        )
        for value in values:
            sets = knob.sets(value)
            for key in sets:
                if key in FIXED:
                    raise ReszooError(f"space.{knob.name}: {key} cannot be searched: {FIXED[key]}")
                if key.startswith("published."):
                    raise ReszooError(f"space.{knob.name}: {key} changes nothing that is trained")
            try:
                for key, setting in sets.items():
                    check_value(key, setting)
                if "model.name" in sets:
                    find_spec(sets["model.name"])
            except ReszooError as error:
                raise ReszooError(f"space.{knob.name}: {error}") from None


def _together(space: Space, one: Knob, other: Knob) -> bool:
    """Return whether two knobs can act at once, by their conditions and those of the knobs these name."""
    asked = [_conditions(space, knob) for knob in (one, other)]
    return all(asked[0][name] & asked[1][name] for name in asked[0].keys() & asked[1].keys())


def _conditions(space: Space, knob: Knob) -> dict[str, set[str]]:
    found = {name: set(labels) for name, labels in knob.when.items()}
    for earlier in (each for each in space.knobs if each.name in knob.when):
        for name, labels in _conditions(space, earlier).items():
            found[name] = found.get(name, labels) & labels
    return found


def _keys(knob: Knob) -> set[str]:
    sets = knob.options.values() if isinstance(knob, Choice) else [knob.sets(knob.low)]
    return {key for each in sets for key in each}
