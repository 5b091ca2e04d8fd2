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
from reszoo.images.preprocessing import Preprocessing
from reszoo.types import JsonMapping, JsonObject
from reszoo.validation.table import Table

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
        "unnamed", description="Name for people. A packaged recipe is named after its file."
    )
    description: str = Field("", description="One line for people.")
    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = Field(NoCrop(), discriminator="crop")
    train: TrainConfig
    optimizer: OptimizerConfig = SGD()
    schedule: ScheduleConfig
    finetune: FinetuneConfig = FinetuneConfig()
    published: Published | None = None

    TABLE: ClassVar[str] = ""

    def __init__(self, /, **tables: Any) -> None:
        model, data = tables.get("model"), tables.get("data")
        if isinstance(model, Mapping):
            tables["model"] = model = ModelConfig(**model)
        train = tables.get("train")
        loss = train.get("loss") if isinstance(train, Mapping) else getattr(train, "loss", "")
        if loss == "bce" and isinstance(data, Mapping):
            tables["data"] = data = {"multi_label": True, **data}
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
            crop = f'augment.crop = "{self.augment.crop}"'
            expected = f"false with {crop}, which crops images before they are resized"
            raise self.data.contradiction("on_device", expected, False)
        for key, used in (
            ("policy", self.augment.policy != "none"),
            ("color_jitter", any(self.augment.color_jitter)),
            ("extra", bool(self.augment.extra)),
        ):
            if self.data.on_device and used:
                expected = f"false with augment.{key}, which changes images on the CPU"
                raise self.data.contradiction("on_device", expected, False)
        random = ("dropout", "shortcut_dropout", "head_dropout", "drop_path")
        for key in () if self.model.is_own else random:
            if self.train.jit and getattr(self.model.spec, key):
                expected = f"false with model.{key}, because XLA draws other random numbers"
                raise self.train.contradiction("jit", expected, False)
        if self.train.class_weights == "balanced" and self.data.sampler == "balanced":
            expected = '"none" with data.sampler = "balanced", which balances the classes already'
            raise self.train.contradiction("class_weights", expected, "none")
        if (self.train.loss == "bce") > self.data.multi_label:
            raise self.data.contradiction("multi_label", 'true with train.loss = "bce"', True)
        if self.data.multi_label and not (self.train.loss == "bce" or ":" in self.train.loss):
            expected = '"bce" or your own function with data.multi_label = true'
            raise self.train.contradiction("loss", expected, "bce")
        own_loss, weighted = self.train.loss != "bce", self.train.class_weights != "none"
        if self.data.multi_label and own_loss and weighted:
            expected = '"none" with data.multi_label = true and your own loss'
            raise self.train.contradiction("class_weights", expected, "none")
        self._check_finetune()

    def _check_weights(self) -> None:
        weights, given = self.model.weights, self.data.normalize
        if self.model.published and given != "weights":
            expected = f'"weights" with model.weights = "{weights}", as these were trained'
            raise self.data.contradiction("normalize", expected, "weights")
        if given == "weights" and not self.model.published:
            expected = "published weights in model.weights with it"
            raise self.data.contradiction("normalize", expected, "model.weights=imagenet")
        if self.train.grow_from and self.data.train_sizes:
            expected = "no data.train_sizes with it, because growing compares models of one size"
            raise self.train.contradiction("grow_from", expected, "data.train_sizes=[]")
        if weights and self.train.grow_from:
            expected = "no model.weights with it; give one of them"
            raise self.train.contradiction("grow_from", expected, "model.weights=''")

    def _check_finetune(self) -> None:
        if self.model.is_own:  # it has no stages; frozen layers are those that it froze
            for key in FinetuneConfig.model_fields:
                if getattr(self.finetune, key) != FinetuneConfig.model_fields[key].default:
                    expected = f'the default with model.name = "{self.model.name}"'
                    raise self.finetune.contradiction(key, expected)
            if self.train.grow_from:
                expected = f'"" with model.name = "{self.model.name}"'
                raise self.train.contradiction("grow_from", expected)
            if self.data.train_sizes:
                expected = f'[] with model.name = "{self.model.name}"'
                raise self.data.contradiction("train_sizes", expected)
            return
        *below, last, _ = self.layer_groups
        allowed = ("none", *below, last, "all")
        if self.finetune.freeze not in allowed:
            shown = ", ".join(map(repr, allowed))
            expected = f"one of {shown} with model {self.model.spec.name}"
            raise self.finetune.contradiction("freeze", expected, last)
        if self.finetune.freeze == last:
            self.finetune.reject_alone()
        if self.train.epochs and self.finetune.probe_epochs >= self.train.epochs:
            expected = (
                f"less than train.epochs = {self.train.epochs:g}, so that all layers learn after it"
            )
            raise self.finetune.contradiction("probe_epochs", expected, 0)

    @property
    def layer_groups(self) -> tuple[str, ...]:
        """The layer groups of the model from input to output: "stem", "stage1", ..., "head"."""
        stages = (f"stage{number}" for number, _ in enumerate(self.model.spec.depths, 1))
        return ("stem", *stages, "head")

    @property
    def frozen_groups(self) -> tuple[str, ...]:
        """The layer groups that are frozen for the whole run, from the stem on; usually none."""
        last = self.finetune.freeze
        if last == "none":
            return ()
        groups = self.layer_groups
        if last == "all":
            return groups[:-1]
        return groups[: groups.index(last) + 1]

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the number of updates of the whole training, at least 1."""
        return self.train.steps or max(1, round(self.train.epochs * steps_per_epoch))

    def train_sizes(
        self, steps_per_epoch: int, image_size: tuple[int, int]
    ) -> dict[int, tuple[int, int]]:
        """Return height and width of the training images by the first step that has them.

        Args:
            steps_per_epoch: Updates in one epoch; the size changes at its start.
            image_size: Height and width in evaluation.
        """
        total, found = self.total_steps(steps_per_epoch), {0: self.data.train_size(0, image_size)}
        for step in range(0, total, steps_per_epoch):
            size = self.data.train_size(step / total, image_size)
            if size != found[max(found)]:
                found[step] = size
        return found

    def probe_steps(self, steps_per_epoch: int) -> int:
        """Return the number of updates in which only the classifier learns; 0 without a probe.

        Raises:
            ReszooError: If no step is left for the rest of the model.
        """
        epochs, total = self.finetune.probe_epochs, self.total_steps(steps_per_epoch)
        steps = max(1, round(epochs * steps_per_epoch)) if epochs else 0
        if steps >= total:
            raise ReszooError(
                f"finetune.probe_epochs: {epochs:g} ({steps} steps) is invalid; expected less than "
                f"{total / steps_per_epoch:.3g} epochs, the whole training ({total} steps)"
            )
        return steps

    def batches(self, batch_size: int | None = None) -> JsonObject:
        """Return the arguments of `open_dataset` that do not depend on the dataset."""
        small = not self.model.is_own and self.model.spec.stem == "cifar"
        sizes = {"train_sizes": self.train_sizes} if self.data.train_sizes else {}
        return {
            **sizes,
            "batch_size": batch_size or self.train.batch_size,
            "seed": self.train.seed,
            "transforms": self.model.transforms,
            "largest": 64 if small else 224,
        }

    def to_dict(self) -> JsonObject:
        """Return the tables of the TOML file, with every key that is not None."""
        values = {key: getattr(self, key) for key in type(self).model_fields}
        return {
            key: value.to_dict() if isinstance(value, Table) else value
            for key, value in values.items()
            if value is not None
        }

    def to_toml(self) -> str:
        """Return the recipe as TOML from which `load_recipe` reads an equal one."""
        return tomlfile.write(self.to_dict())


def fill_from_transforms(data: JsonMapping, transforms: Preprocessing) -> JsonObject:
    """Return the table [data] with missing keys as published weights need them."""
    size = data.get("image_size", list(transforms.image_size))
    filled: JsonObject = {
        "normalize": "weights",
        "channels": transforms.channels,
        "image_size": size,
    }
    if data.get("name") != "synthetic" and isinstance(size, list | tuple) and len(size) == 2:
        fitted = transforms.fit((*size, transforms.channels))
        filled |= {"resize": fitted.resize, "interpolation": fitted.interpolation}
    return filled | dict(data)
