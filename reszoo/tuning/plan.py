"""What a search folder says before its first trial: the space, the data, and which trials are out of the question."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reszoo.commands import format_resume
from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.tuning.space import Space
from reszoo.zoo.count import Count, count

NAME = "search.json"
FACTOR = 3  # of hyperband: the best third goes on, to three times the training (arXiv 1603.06560)
RUNGS = 3  # at most, so that the shortest trial has a 27th of the training
GRID = 10_000  # combinations of a grid, at most: more would not end in anybody's time
FREE = ("trials", "max_failures")  # settings under which a search may go on other than it began


@dataclass(frozen=True)
class Plan:
    """A space on its data.

    data: name, input_shape (height, width, channels), classes, examples. epochs: the length of the base recipe's training.
    """

    space: Space
    data: Mapping[str, Any]
    epochs: float

    @property
    def units(self) -> int:
        """The parts in which hyperband counts a whole training: the largest power of three, up to 27, that its epochs hold."""
        return int(FACTOR ** min(RUNGS, int(math.log(max(self.epochs, 1), FACTOR) + 1e-9)))

    def check(self) -> None:
        """Raise ReszooError where the data or the training cannot be searched."""
        if not self.data["examples"].get("validation"):
            raise ReszooError(
                f"{self.data['name']} holds no images out to choose by; set data.validation in the space or by --set"
            )
        if self.space.search.tuner == "hyperband" and self.units == 1:
            raise ReszooError(
                f"hyperband needs trainings of at least {FACTOR} epochs to cut short, but this one has {self.epochs:.3g}"
            )
        if self.space.search.tuner == "grid" and (size := self.space.size) > GRID:
            raise ReszooError(
                f"the grid has {size:,} combinations, more than {GRID:,}; take fewer, or another tuner"
            )

    def measured(self, recipe: Recipe) -> Count:
        """Return what a recipe's net is made of and costs for one image of the data at hand."""
        height, width, channels = self.data["input_shape"]
        size = recipe.data.image_size or (height, width)
        return _count(
            recipe.model.spec, (*size, recipe.data.channels or channels), self.data["classes"]
        )

    def refusal(self, values: Mapping[str, Any]) -> str:
        """Return why values are not tried, by arithmetic alone: a contradiction, or a net over budget; else ""."""
        search = self.space.search
        try:
            net = self.measured(self.space.recipe(values))
        except ReszooError as error:
            return str(error)
        for what, cost, most in (
            ("parameters", net.parameters, search.max_params),
            ("multiply-adds", net.multiply_adds, search.max_macs),
        ):
            if most and cost > most:
                return f"{cost:,} {what}, more than {most:,}"
        return ""

    def write(self, folder: Path, **more: Any) -> None:
        """Write the plan into a search folder, with `more` to be kept beside it."""
        write_json(
            folder / NAME,
            {**self.space.to_dict(), "data": dict(self.data), "epochs": self.epochs, **more},
        )

    def refuse_other(self, asked: Space, folder: Path) -> None:
        """Raise ReszooError unless `asked` decides the same trials as this plan, that of `folder`."""
        before, after = self.space.to_dict(), asked.to_dict()
        parts = {"space": "space", "recipe": "base recipe", "search": "search settings"}
        for part, words in parts.items():
            changed = [
                key
                for key in {**before[part], **after[part]}
                if before[part].get(key) != after[part].get(key)
            ]
            if part == "search":
                changed = [key for key in changed if key not in FREE]
            if changed:
                raise ReszooError(
                    f"{folder} began with another {words} ({changed[0]}); give another --run-dir, or resume with its own: "
                    f"{format_resume('tune', folder)}"
                )


@functools.lru_cache(maxsize=4096)
def _count(spec: Any, shape: tuple[int, int, int], classes: int) -> Count:
    return count(spec, shape, classes)


def read_plan(folder: Path) -> Plan:
    """Return the plan of a search folder. Raises ReszooError when there is none or it cannot be read."""
    path = folder / NAME
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        data = dict(told["data"])
        height, width, channels = data["input_shape"]
        data["input_shape"] = (int(height), int(width), int(channels))
        str(data["name"]), int(data["classes"]), dict(data["examples"])
        return Plan(Space.from_dict(told), data, float(told["epochs"]))
    except FileNotFoundError:
        raise ReszooError(f"{folder} holds no search: it has no {NAME}") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ReszooError(f"{path} cannot be read: it was changed or damaged ({error})") from None
