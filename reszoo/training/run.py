"""The run folder: the records and results of a run, readable without the code that wrote them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reszoo.commands import format_resume
from reszoo.config.load import load_recipe
from reszoo.config.recipe import Recipe
from reszoo.errors import ChangedDataError, ReszooError
from reszoo.files import check_output, write_json, write_text
from reszoo.old_keys import rename_run_keys
from reszoo.training.data_location import (
    ignore_location,
    ignore_start,
    location,
    location_of,
    missing,
    placeholder,
    same_but_location,
)
from reszoo.training.environment import now
from reszoo.training.metrics import append_metrics, parse_file, read_metrics, write_metrics
from reszoo.types import JsonObject

if TYPE_CHECKING:
    import keras

    from reszoo.config.data import DataConfig
    from reszoo.data.info import DataInfo
    from reszoo.data.pipeline import Pipeline
    from reszoo.images.preprocessing import Preprocessing


class Run:
    """The folder of a run.

    It holds recipe.toml, run.json, metrics.jsonl, history.csv, train.log, checkpoints/ and
    tensorboard/; when the run has finished, also model.keras and test.json.

    Args:
        path: The folder.
        writes: Whether this process may write; on several hosts only worker 0 may. Others neither
            need the folder nor read it.
    """

    def __init__(self, path: str | os.PathLike[str], *, writes: bool = True) -> None:
        self.path, self.writes = Path(path), writes

    @classmethod
    def create(cls, path: str | os.PathLike[str], recipe: Recipe) -> Run:
        """Make the folder of a new run.

        Raises:
            ReszooError: If it exists and is not empty.
        """
        run = cls(path)
        run.reject_occupied()
        run.path.mkdir(parents=True, exist_ok=True)
        write_text(run.path / "recipe.toml", recipe.to_toml())
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Open the folder of a run.

        Raises:
            ReszooError: If it is not a run folder.
        """
        run = cls(path)
        if not run.path.is_dir():
            raise ReszooError(f"no run folder {run.path}")
        if not (run.path / "recipe.toml").is_file():
            raise ReszooError(f"{run.path} is not a run folder: it does not hold recipe.toml")
        return run

    @property
    def is_occupied(self) -> bool:
        """Whether the folder is a file, or not empty."""
        return self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))

    def reject_occupied(self) -> None:
        """Raise ReszooError if the folder is not empty, is a file, or cannot be written."""
        check_output(self.path, "run folder")
        if self.is_occupied:
            raise ReszooError(
                f"run folder {self.path} exists; add --resume to resume it, or give another "
                "--run-dir"
            )

    def reject_other(self, recipe: Recipe, *, moved: bool = False, started: bool = False) -> None:
        """Raise ReszooError if `recipe` describes another run than the folder's recipe.

        Args:
            recipe: The recipe that was given, with absolute paths.
            moved: Whether the data lies elsewhere now; its location is then not compared.
            started: Whether a checkpoint exists. The files that training started from are then not
                needed, and their paths are not compared.
        """
        before, after = self.recipe.to_dict(), recipe.to_dict()
        if moved:
            ignore_location(before, after)
        if started:
            ignore_start(before, after)
        for table in after:
            if table in ("name", "description") or before.get(table) == after[table]:
                continue
            if table == "data" and same_but_location(before[table], after[table]):
                old, new = location_of(before[table]), location_of(after[table])
                raise ReszooError(
                    f"{self.path} was trained on {old}, not {new}; if the same images lie there "
                    f"now, resume with: {format_resume('train', self.path, '--data', new)}"
                )
            raise ReszooError(
                f"{self.path} was trained with another [{table}] than the recipe given; resume "
                f"with its own recipe: {format_resume('train', self.path)}"
            )

    def reject_other_data(self, info: DataInfo, *, counts: bool = True) -> None:
        """Raise ChangedDataError unless the run was trained on the data that `info` describes.

        Class names, counts and digests are compared with those in run.json. A run of version 0.1
        recorded no digests.

        Args:
            info: The data that was found.
            counts: Whether to compare the number of images, which `data.validation` and
                `data.examples` change.
        """
        if not (self.path / "run.json").is_file():
            return
        from reszoo.data.fingerprint import difference

        before, found = self.meta["data"], info.to_dict()
        if not counts:
            found["examples"] = before["examples"]
        if why := difference(before, found):
            raise ChangedDataError(
                f"data.name: {info.name} is not the data that {self.path} was trained on: {why}"
            )

    def keep_size(self, data: DataConfig) -> DataConfig:
        """Return the run's `[data]` with the image size that was found when the run started."""
        if data.image_size or not data.name.startswith("folder:"):
            return data
        known = (self.path / "run.json").is_file()
        return data.replace(image_size=self.preprocessing.image_size) if known else data

    def relocate(self, info: DataInfo, data: DataConfig) -> None:
        """Record in recipe.toml and run.json where the run's data lies now.

        The list `moved` in run.json keeps the earlier locations.
        """
        before = self.recipe
        if (before.data.name, before.data.dir) != (data.name, data.dir):
            moved = {"from": location(before.data), "to": location(data), "at": now()}
            there = before.data.replace(name=data.name, dir=data.dir)
            write_text(self.path / "recipe.toml", before.replace(data=there).to_toml())
            self.write_meta(moved=[*self.meta.get("moved", []), moved])
        known = {"name": info.name, "fingerprint": dict(info.fingerprint)}
        self.write_meta(data=self.meta["data"] | known)

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe, as it ran."""
        return load_recipe(str(self.path / "recipe.toml"))

    @property
    def meta(self) -> JsonObject:
        """The object in run.json: spec, data, preprocessing, seed, versions, devices, status."""
        return rename_run_keys(parse_file(self.path / "run.json", json.loads))

    @property
    def history(self) -> list[JsonObject]:
        """One row per evaluated epoch; accuracies from 0 to 1, losses in nats."""
        return read_metrics(self.path)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names, in the order of the model's outputs."""
        return tuple(self.meta["data"]["class_names"])

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the model's input."""
        from reszoo.images.preprocessing import Preprocessing

        return Preprocessing.from_dict(self.meta["preprocessing"])

    def load_model(self) -> keras.Model:
        """Return the trained model.

        Raises:
            ReszooError: If the run has not finished, or the file cannot be read.
        """
        import keras

        from reszoo.models.settings import fixed_settings  # `reszoo.models` registers the layers

        path = self.path / "model.keras"
        self.reject_unfinished()
        if self.recipe.model.is_own:
            self.recipe.model.load_object("name")  # registers the layers of its module
        try:
            with fixed_settings():
                return keras.models.load_model(path, compile=False)
        except (OSError, ValueError, KeyError) as error:
            raise ReszooError(f"{path} cannot be read (truncated, or not a Keras model)") from error

    def reject_unfinished(self) -> None:
        """Raise ReszooError if the run has no trained model yet."""
        if not (self.path / "model.keras").is_file():
            raise ReszooError(
                f"{self.path} holds no trained model yet; resume with: "
                f"{format_resume('train', self.path)}"
            )

    def open_pipeline(
        self,
        batch_size: int | None = None,
        data: DataConfig | None = None,
        *,
        whole: bool = False,
    ) -> Pipeline:
        """Open data for evaluation.

        Args:
            batch_size: Images per batch; None for the recipe's.
            data: Other data; None for the run's own.
            whole: Whether images keep their own size, and no normalization is computed.

        Raises:
            ChangedDataError: If the run's own data is not the data that the run was trained on.
            ReszooError: If the data cannot be opened.
        """
        from reszoo.config.data import InceptionCrop
        from reszoo.data.pipeline import open_dataset

        recipe = self.recipe
        advice = (
            "to use other images, give data (--data). If the run's own images lie elsewhere now: "
            f"{format_resume('train', self.path, '--data', placeholder(recipe.data))}"
        )
        if data is None and (why := missing(recipe.data)):
            raise ReszooError(f"{why}; {advice}")
        settings, augment = recipe.batches(batch_size), recipe.augment
        own = self.keep_size(recipe.data)
        if whole:
            augment = InceptionCrop()  # crops out of larger images, which are therefore kept
            size = self.preprocessing.image_size
            own = own.replace(image_size=size, normalize="unit")
        pipeline = open_dataset(data or own, augment, **settings)
        if data is not None:
            return pipeline
        try:
            self.reject_other_data(pipeline.info)
        except ChangedDataError as error:
            raise ChangedDataError(f"{error}; {advice}") from None
        return pipeline

    def write_meta(self, **values: Any) -> None:
        """Set keys of run.json; other keys stay."""
        if not self.writes:
            return
        path = self.path / "run.json"
        known = self.meta if path.is_file() else {}
        write_json(path, {**known, **values})

    def write_history(self, history: Sequence[JsonObject]) -> None:
        """Write the rows with which training starts or resumes."""
        if self.writes:
            write_metrics(self.path, history)

    def append_history(self, history: Sequence[JsonObject]) -> None:
        """Add the last row of `history` to the files."""
        if self.writes:
            append_metrics(self.path, history)
