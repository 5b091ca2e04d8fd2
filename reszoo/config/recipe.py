"""A recipe: which model is trained on what and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from reszoo.config import tomlfile
from reszoo.config.data import Augmentation, AugmentConfig, DataConfig, NoCrop
from reszoo.config.model import ModelConfig, Published
from reszoo.config.optimizer import SGD, Optimizer, OptimizerConfig
from reszoo.config.schedule import Schedule, ScheduleConfig
from reszoo.config.training import FinetuneConfig, TrainConfig
from reszoo.errors import ReszooError
from reszoo.validation.messages import contradiction
from reszoo.validation.table import Table
from reszoo.weights.transforms import Transforms, fit_transforms

TABLES: dict[str, type[Table]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "augment": Augmentation,
    "train": TrainConfig,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "finetune": FinetuneConfig,
    "published": Published,
}
"""The tables of a recipe by name, with the common class where there are alternatives."""


class Recipe(Table):
    """Everything that decides a run."""

    name: str = Field(
        "unnamed", description="For people; a packaged recipe is named after its file."
    )
    description: str = Field("", description="For people.")
    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = Field(NoCrop(), discriminator="crop")
    train: TrainConfig
    optimizer: OptimizerConfig = Field(SGD(), discriminator="name")
    schedule: ScheduleConfig = Field(discriminator="kind")
    finetune: FinetuneConfig = FinetuneConfig()
    published: Published | None = None

    TABLE: ClassVar[str] = ""

    def __init__(self, /, **tables: Any) -> None:
        model, data = tables.get("model"), tables.get("data")
        if isinstance(model, Mapping):
            tables["model"] = model = ModelConfig(**model)
        if isinstance(model, ModelConfig) and model.transforms and isinstance(data, Mapping):
            tables["data"] = fill_from_transforms(data, model.transforms)
        for key in ("augment", "optimizer", "schedule"):
            if isinstance(tables.get(key), Mapping):
                tables[key] = TABLES[key].of(**tables[key])
        super().__init__(**tables)

    def check(self) -> None:
        """Raise ReszooError for tables that contradict each other."""
        self._check_weights()
        if self.data.on_device and self.augment.crop not in ("none", "pad"):
            raise contradiction(
                "data.on_device",
                True,
                f'false with augment.crop = "{self.augment.crop}", which crops images of their own size',
                "data.on_device=false",
            )
        for key in ("dropout", "shortcut_dropout", "drop_path"):
            if self.train.jit and getattr(self.model.spec, key):
                raise contradiction(
                    "train.jit",
                    True,
                    f"false with model.{key}, because XLA draws other random numbers",
                    "train.jit=false",
                )
        self._check_finetune()

    def _check_weights(self) -> None:
        given = self.data.normalize
        if self.model.published and given != "weights":
            raise contradiction(
                "data.normalize",
                given,
                f'"weights" with model.weights = "{self.model.weights}", which were trained on inputs normalized their own way',
                "data.normalize=weights",
            )
        if given == "weights" and not self.model.published:
            raise contradiction(
                "data.normalize",
                given,
                "published weights in model.weights with it",
                "model.weights=imagenet",
            )
        if self.model.weights and self.train.grow_from:
            raise contradiction(
                "train.grow_from",
                self.train.grow_from,
                "no model.weights with it; give one of them",
                "model.weights=''",
            )

    def _check_finetune(self) -> None:
        *below, last, _ = self.places
        allowed = ("none", *below, last, "all")
        if self.finetune.freeze not in allowed:
            raise contradiction(
                "finetune.freeze",
                self.finetune.freeze,
                f"one of {', '.join(map(repr, allowed))} with model {self.model.spec.name}",
                f"finetune.freeze={last}",
            )
        if self.finetune.freeze == last:
            self.finetune.reject_alone()
        if self.train.epochs and self.finetune.probe_epochs >= self.train.epochs:
            raise contradiction(
                "finetune.probe_epochs",
                self.finetune.probe_epochs,
                f"less than train.epochs = {self.train.epochs:g}, so that the rest learns after the classifier",
                "finetune.probe_epochs=0",
            )

    @property
    def places(self) -> tuple[str, ...]:
        """The places of the model from its images to its classes: "stem", "stage1", ..., "head"."""
        return (
            "stem",
            *(f"stage{number}" for number, _ in enumerate(self.model.spec.depths, 1)),
            "head",
        )

    @property
    def frozen(self) -> tuple[str, ...]:
        """The places that are frozen for the whole run, from the stem on; usually none."""
        place = self.finetune.freeze
        if place == "all":
            return self.places[:-1]
        return self.places[: self.places.index(place) + 1] if place != "none" else ()

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the number of updates of the whole training, at least 1."""
        return self.train.steps or max(1, round(self.train.epochs * steps_per_epoch))

    def probe_steps(self, steps_per_epoch: int) -> int:
        """Return the number of updates at the start in which only the classifier learns; 0 without a probe.

        Raises:
            ReszooError: If no step is left for the rest of the model.
        """
        epochs, total = self.finetune.probe_epochs, self.total_steps(steps_per_epoch)
        steps = max(1, round(epochs * steps_per_epoch)) if epochs else 0
        if steps >= total:
            raise ReszooError(
                f"finetune.probe_epochs: {epochs:g} ({steps} steps) is invalid; expected less than the training "
                f"({total} steps), so that the rest learns after the classifier. With {steps_per_epoch} steps per epoch, "
                f"give less than {total / steps_per_epoch:.3g}"
            )
        return steps

    def batches(self, batch_size: int | None = None) -> dict[str, Any]:
        """Return the other arguments with which a dataset is opened: batch_size, seed and transforms."""
        return {
            "batch_size": batch_size or self.train.batch_size,
            "seed": self.train.seed,
            "transforms": self.model.transforms,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as the tables of its TOML file, with every key except those that are None."""
        return {
            key: value for key in type(self).model_fields if (value := self._plain(key)) is not None
        }

    def _plain(self, key: str) -> Any:
        value = getattr(self, key)
        return value.to_dict() if isinstance(value, Table) else value

    def to_toml(self) -> str:
        """Return the recipe as TOML from which `load_recipe` reads an equal one."""
        return tomlfile.write(self.to_dict())


def fill_from_transforms(data: Mapping[str, Any], transforms: Transforms) -> dict[str, Any]:
    """Return the table [data] with missing keys as published weights need them: size, crop, channels, normalization."""
    size = data.get("image_size", list(transforms.image_size))
    filled: dict[str, Any] = {
        "normalize": "weights",
        "channels": len(transforms.mean),
        "image_size": size,
    }
    if data.get("name") != "synthetic" and isinstance(size, list | tuple) and len(size) == 2:
        fitted = fit_transforms(transforms, (*size, len(transforms.mean)))
        filled |= {"resize": fitted.resize, "interpolation": fitted.interpolation}
    return filled | dict(data)
