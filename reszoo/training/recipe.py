"""Recipes: one TOML file says which net is trained on what and how. Loading and writing them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reszoo.data.config import AugmentConfig, DataConfig
from reszoo.errors import ReszooError, did_you_mean
from reszoo.training import tomlfile
from reszoo.training.config import FinetuneConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from reszoo.training.fields import Checked, convert, hints, read_table
from reszoo.training.overrides import flag, override
from reszoo.weights.formats import is_file_name
from reszoo.weights.published import Weights, find_weights
from reszoo.weights.transforms import Transforms, fit_transforms
from reszoo.zoo.catalog import spec
from reszoo.zoo.spec import Spec


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A net by name, with some fields of its spec changed, and the weights it starts from.

    weights: published ones by tag or data, or a file of weights, as for `build`; "" for fresh ones.
    Raises ReszooError where the zoo has no such net or the net no such weights.
    """

    name: str
    weights: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", convert(self.name, str, "model.name"))
        object.__setattr__(self, "weights", convert(self.weights, str, "model.weights"))
        object.__setattr__(self, "fields", {key: _frozen(value) for key, value in self.fields.items()})
        self.spec()
        _ = self.published

    @property
    def published(self) -> Weights | None:
        """The published weights that training starts from, if it does."""
        if not self.weights or is_file_name(self.weights):
            return None
        try:
            return find_weights(self.spec(), self.weights)
        except ReszooError as error:
            raise ReszooError(f"model.weights: {error}") from None

    @property
    def transforms(self) -> Transforms | None:
        """How images must be prepared for those weights."""
        return self.published.transforms if self.published else None

    def spec(self) -> Spec:
        """Return the net's spec."""
        try:
            return spec(self.name, **self.fields)
        except ReszooError as error:
            raise ReszooError(f"model: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Published(Checked):
    """The published figure to weigh a run against: which error, in percent, and where it stands."""

    TABLE = "published"

    metric: str
    value: float
    source: str

    def check(self) -> None:
        self.refuse_unless(0 <= self.value <= 100, "value", "an error in percent, from 0 to 100")


TABLES: dict[str, type] = {
    "data": DataConfig,
    "augment": AugmentConfig,
    "train": TrainConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "finetune": FinetuneConfig,
    "published": Published,
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run. `name` and `description` are for people."""

    name: str
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    schedule: ScheduleConfig
    description: str = ""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    published: Published | None = None

    def __post_init__(self) -> None:
        given = self.data.normalize
        if self.model.published and given != "weights":
            raise ReszooError(
                f"data.normalize is '{given}', but model.weights '{self.model.weights}' were trained on inputs normalised "
                'their own way: leave it out, or give data.normalize = "weights"'
            )
        if given == "weights" and not self.model.published:
            raise ReszooError("data.normalize is 'weights', but model.weights names no published weights; give some")
        if self.model.weights and self.train.grow_from:
            raise ReszooError("model.weights and train.grow_from both say where weights come from; give one of them")
        if self.data.on_device and self.augment.crop not in ("none", "pad"):
            raise ReszooError(
                f'data.on_device: true is invalid; expected false with augment.crop = "{self.augment.crop}", which crops images of '
                "their own size. Example: --set data.on_device=false"
            )
        random = [key for key in ("dropout", "shortcut_dropout", "drop_path") if getattr(self.model.spec(), key)]
        if self.train.jit and random:
            raise ReszooError(
                f"train.jit: true is invalid; expected false with model.{random[0]}, because XLA draws other random numbers. "
                "Example: --set train.jit=false"
            )
        *below, last, _ = self.places
        stops = ("none", *below, last, "all")
        if self.finetune.freeze not in stops:
            raise ReszooError(
                f"finetune.freeze is {self.finetune.freeze!r}, but {self.model.spec().name} has {', '.join(map(repr, stops))}"
            )
        if self.finetune.freeze == last:
            self.finetune.refuse_alone()
        if self.train.epochs and self.finetune.probe_epochs >= self.train.epochs:
            raise ReszooError(
                f"finetune.probe_epochs is {self.finetune.probe_epochs:g}, but must be below train.epochs "
                f"({self.train.epochs:g}), for the rest to learn after the classifier"
            )

    @property
    def places(self) -> tuple[str, ...]:
        """The net's places from its images to its classes: "stem", "stage1", ..., "head"."""
        return ("stem", *(f"stage{number}" for number, _ in enumerate(self.model.spec().depths, 1)), "head")

    @property
    def frozen(self) -> tuple[str, ...]:
        """The places that are frozen for the whole run, from the stem on; in general none."""
        place = self.finetune.freeze
        if place == "all":
            return self.places[:-1]
        return self.places[: self.places.index(place) + 1] if place != "none" else ()

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the number of updates of the whole training, at least 1."""
        return self.train.steps or max(1, round(self.train.epochs * steps_per_epoch))

    def probe_steps(self, steps_per_epoch: int) -> int:
        """Return the number of updates, from the first, in which the classifier learns alone; 0 without a probe.

        Raises ReszooError when they leave no step for the rest.
        """
        epochs, total = self.finetune.probe_epochs, self.total_steps(steps_per_epoch)
        steps = max(1, round(epochs * steps_per_epoch)) if epochs else 0
        if steps >= total:
            raise ReszooError(
                f"finetune.probe_epochs is {epochs:g}, which is {steps} steps, but must be shorter than the training "
                f"({total} steps), for the rest to learn after the classifier; with {steps_per_epoch} steps to an epoch "
                f"give less than {total / steps_per_epoch:.3g}"
            )
        return steps

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as the tables of its TOML file, every field spelt out except those that are None."""
        tables: dict[str, Any] = {"name": self.name, "description": self.description}
        weights = {"weights": self.model.weights} if self.model.weights else {}
        tables["model"] = {"name": self.model.name, **weights, **self.model.fields}
        for key in TABLES:
            if (config := getattr(self, key)) is not None:
                values = dataclasses.asdict(config)
                tables[key] = {name: value for name, value in values.items() if value is not None}
        return tables

    def to_toml(self) -> str:
        """Return the recipe as TOML that `load_recipe` reads back to an equal one."""
        return tomlfile.write(self.to_dict())

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> Recipe:
        """Return the recipe that the tables of a TOML file state.

        Raises ReszooError in one line for an unknown or missing table or key (with the nearest right one), a wrong type
        (with the type wanted and an example), an impossible value or two that contradict each other.
        """
        known = list(hints(cls))
        for key in tables:
            if key not in known:
                raise ReszooError(f"no table [{key}]{did_you_mean(key, known) or '; a recipe has ' + ', '.join(known)}")
        for key in ("model", "data", "train", "schedule"):
            if key not in tables:
                raise ReszooError(f"the table [{key}] is missing")
        parts: dict[str, Any] = {
            key: convert(tables.get(key, default), str, key)
            for key, default in (("name", "unnamed"), ("description", ""))
        }
        model = tables["model"]
        if not isinstance(model, Mapping) or "name" not in model:
            raise ReszooError('model.name is missing: give a net, such as "resnet20", under [model]')
        fields = {key: value for key, value in model.items() if key not in ("name", "weights")}
        parts["model"] = ModelConfig(name=model["name"], weights=model.get("weights", ""), fields=fields)
        for key, config in TABLES.items():
            if key in tables:
                table = tables[key]
                if key == "data" and isinstance(table, Mapping) and (transforms := parts["model"].transforms):
                    table = as_weights_want(table, transforms)
                parts[key] = read_table(config, table, key)
        return cls(**parts)


def as_weights_want(data: Mapping[str, Any], transforms: Transforms) -> dict[str, Any]:
    """Return the `[data]` table with what it leaves out as published weights want it: size, crop, channels, normalisation."""
    size = data.get("image_size", list(transforms.image_size))
    filled: dict[str, Any] = {"normalize": "weights", "channels": len(transforms.mean), "image_size": size}
    if data.get("name") != "synthetic" and isinstance(size, list | tuple) and len(size) == 2:
        fitted = fit_transforms(transforms, (*size, len(transforms.mean)))
        filled |= {"resize": fitted.resize, "interpolation": fitted.interpolation}
    return filled | dict(data)


def recipe_folder() -> Path:
    """Return the folder of the packaged recipes: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the packaged recipes, numbers in them in their order."""
    names = (path.stem for path in recipe_folder().glob("*.toml"))
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def list_recipes() -> list[Recipe]:
    """Return the packaged recipes."""
    return [load_recipe(name) for name in recipe_names()]


def find_recipe(name_or_path: str | Path) -> Path:
    """Return the file of a packaged recipe or of a path; what ends in .toml or has a folder in it is a path.

    Raises ReszooError for a name that no packaged recipe has, with the nearest ones.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml" or len(path.parts) != 1:
        return path
    names = recipe_names()
    if path.name not in names:
        hint = did_you_mean(path.name, names) or "; `reszoo recipes` lists them, and a file's name ends in .toml"
        raise ReszooError(f"no recipe '{path.name}'{hint}")
    return recipe_folder() / f"{path.name}.toml"


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a packaged recipe by name, or that of a TOML file, with `overrides` applied.

    overrides: `table.key=value` each, the value in TOML syntax (a word that is none is text). Giving train.steps drops the
        file's train.epochs, and the other way round; giving schedule.kind, optimizer.name or augment.crop drops what the
        file says for another kind.

    Raises ReszooError in one line that begins with the file or the override at fault.
    """
    path = find_recipe(name_or_path)
    tables = {"name": path.stem} | tomlfile.read(path)
    recipe = _stating(str(name_or_path), tables)
    if not overrides:
        return recipe
    flags = " ".join(map(flag, overrides))
    return _stating(f"{name_or_path} with {flags}", override(tables, overrides, TABLES))


def _stating(where: str, tables: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.from_dict(tables)
    except ReszooError as error:
        raise ReszooError(f"{where}: {error}") from None


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
