"""The plan of a search: its space on its data, and its budgets."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path

from reszoo.commands import format_resume
from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.tuning.space import Space, Values
from reszoo.types import JsonObject
from reszoo.zoo.count import Count, count
from reszoo.zoo.spec import Spec

NAME = "search.json"
FACTOR = 3  # of hyperband: a third continues, to three times the training (arXiv 1603.06560)
ROUNDS = 3  # at most after the first, so that the shortest trial has a 27th of the training
LARGEST_GRID = 10_000  # combinations
CHANGEABLE = ("trials", "max_failures")  # settings that a resumed search may change


@dataclass(frozen=True)
class Plan:
    """A space on its data.

    Attributes:
        space: The space.
        data: name, input_shape (height, width, channels), classes, examples of each split.
        epochs: Length of the base recipe's training.
    """

    space: Space
    data: JsonObject
    epochs: float

    @property
    def units(self) -> int:
        """The units of a training in hyperband: the largest power of 3 that its epochs hold."""
        return int(FACTOR ** min(ROUNDS, int(math.log(max(self.epochs, 1), FACTOR) + 1e-9)))

    def check(self) -> None:
        """Raise ReszooError if the data or the training cannot be searched."""
        search = self.space.search
        if not self.data["examples"].get("validation"):
            raise ReszooError(
                f"data.validation: {self.data['name']} has no validation images, which score "
                "trials; expected an integer >= 1. Example: --set data.validation=300"
            )
        if search.tuner == "hyperband" and self.units == 1:
            raise ReszooError(
                f"train.epochs: {self.epochs:.3g} is invalid; expected at least {FACTOR} epochs "
                "with search.tuner = hyperband"
            )
        if search.tuner == "grid":
            size = math.prod(each.size for each in self.space.hyperparameters)
            if size > LARGEST_GRID:
                raise ReszooError(
                    f"search.tuner: the grid has {size:,} combinations; expected at most "
                    f"{LARGEST_GRID:,}, or another tuner"
                )

    def count(self, recipe: Recipe) -> Count:
        """Return depth, parameters and MACs of a recipe's model for one image of the data."""
        height, width, channels = self.data["input_shape"]
        size = recipe.data.image_size or (height, width)
        shape = (*size, recipe.data.channels or channels)
        return _count(recipe.model.spec, shape, self.data["classes"])

    def reason_against(self, values: Values) -> str:
        """Return why values are rejected, by a contradiction or a budget; "" if they are not."""
        search = self.space.search
        try:
            cost = self.count(self.space.recipe(values))
        except ReszooError as error:
            return str(error)
        for name, found, most in (
            ("parameters", cost.parameters, search.max_params),
            ("MACs", cost.macs, search.max_macs),
        ):
            if most and found > most:
                return f"{found:,} {name}, more than {most:,}"
        return ""

    def write(self, folder: Path, **more: object) -> None:
        """Write the plan into a search folder, with further keys."""
        plan = {**self.space.to_dict(), "data": self.data, "epochs": self.epochs}
        write_json(folder / NAME, {**plan, **more})

    def check_same(self, asked: Space, folder: Path) -> None:
        """Raise ReszooError unless `asked` gives the same trials as this plan, that of `folder`."""
        before, after = self.space.to_dict(), asked.to_dict()
        for table, name in (("space", "space"), ("recipe", "base recipe"), ("search", "search")):
            one, other = before[table], after[table]
            changed = [key for key in {**one, **other} if one.get(key) != other.get(key)]
            changed = [key for key in changed if table != "search" or key not in CHANGEABLE]
            if changed:
                raise ReszooError(
                    f"{folder} started with another {name} ({changed[0]}); give another "
                    f"--run-dir, or resume without changes: {format_resume('tune', folder)}"
                )


@functools.lru_cache(maxsize=4096)
def _count(spec: Spec, shape: tuple[int, int, int], classes: int) -> Count:
    return count(spec, shape, classes)


def read_plan(folder: Path) -> Plan:
    """Return the plan of a search folder. Raises ReszooError if it is missing or damaged."""
    path = folder / NAME
    try:
        tables = json.loads(path.read_text(encoding="utf-8"))
        data = dict(tables["data"])
        height, width, channels = map(int, data["input_shape"])
        data |= {"input_shape": (height, width, channels), "classes": int(data["classes"])}
        data |= {"name": str(data["name"]), "examples": dict(data["examples"])}
        return Plan(Space.from_dict(tables), data, float(tables["epochs"]))
    except FileNotFoundError:
        raise ReszooError(f"{folder}: not a search folder; it has no {NAME}") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ReszooError(f"{path} is damaged: {error}") from None
