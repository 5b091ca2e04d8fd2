"""The run folder: everything a run was and became, readable without the code that made it."""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reszoo.errors import ReszooError
from reszoo.files import write_json, write_text
from reszoo.lazy import on_tensorflow, tf
from reszoo.training.recipe import Recipe, load_recipe
from reszoo.versions import module_versions

if TYPE_CHECKING:
    import keras

    from reszoo.data.config import DataConfig
    from reszoo.data.pipeline import Pipeline
    from reszoo.data.preprocessing import Preprocessing


class Run:
    """A folder with recipe.toml, run.json, history.json and .csv, checkpoints/, tensorboard/, model.keras, test.json."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | os.PathLike[str], recipe: Recipe) -> Run:
        """Start a folder. Raises ReszooError when it is there and not empty."""
        run = cls(path)
        run.refuse_occupied()
        run.path.mkdir(parents=True, exist_ok=True)
        write_text(run.path / "recipe.toml", recipe.to_toml())
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Open a folder that a run left. Raises ReszooError when it is none."""
        run = cls(path)
        if not run.path.is_dir():
            raise ReszooError(f"no run folder {run.path}")
        if not (run.path / "recipe.toml").is_file():
            raise ReszooError(f"{run.path} is no run folder: it holds no recipe.toml")
        return run

    def refuse_occupied(self) -> None:
        """Raise ReszooError when the folder is there and not empty, or is a file."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ReszooError(
                f"run folder {self.path} exists; add --resume to go on with it, or give another --run-dir"
            )

    def refuse_other(self, recipe: Recipe) -> None:
        """Raise ReszooError unless the folder's recipe decides the same run as `recipe`."""
        before, after = self.recipe.to_dict(), recipe.to_dict()
        for table in after:
            if table not in ("name", "description") and before.get(table) != after[table]:
                raise ReszooError(
                    f"{self.path} ran with another [{table}] than the recipe given; resume it with its own: "
                    f"reszoo train --resume --run-dir {self.path}"
                )

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe, as it ran."""
        return load_recipe(str(self.path / "recipe.toml"))

    @property
    def meta(self) -> dict[str, Any]:
        """What run.json says: spec, data, preprocessing, seed, versions, devices, parameters, status."""
        return self._json("run.json")

    @property
    def history(self) -> list[dict[str, Any]]:
        """A row for each evaluated epoch; accuracies from 0 to 1, losses in nats."""
        return self._json("history.json")

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes' names, in the order of the net's outputs."""
        return tuple(self.meta["data"]["class_names"])

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the net's input."""
        from reszoo.data.preprocessing import Preprocessing

        return Preprocessing.from_dict(self.meta["preprocessing"])

    def load_model(self) -> keras.Model:
        """Return the trained net. Raises ReszooError when the run has not finished or the file cannot be read."""
        import keras

        from reszoo.nets.settings import fixed_settings  # `reszoo.nets` registers the layers

        path = self.path / "model.keras"
        if not path.is_file():
            raise ReszooError(
                f"{self.path} holds no trained net yet; finish it with: reszoo train --resume --run-dir {self.path}"
            )
        try:
            with fixed_settings():
                return keras.models.load_model(path, compile=False)
        except (OSError, ValueError, KeyError) as error:
            raise ReszooError(f"{path} cannot be read (truncated, or not a Keras model)") from error

    def open_pipeline(self, batch_size: int | None = None, data: DataConfig | None = None) -> Pipeline:
        """Open the run's data, or other data, for evaluation."""
        from reszoo.data.pipeline import open_pipeline

        recipe = self.recipe
        return open_pipeline(
            data or recipe.data,
            recipe.augment,
            batch_size=batch_size or recipe.train.batch_size,
            seed=recipe.train.seed,
            transforms=recipe.model.transforms,
        )

    def write_meta(self, **values: Any) -> None:
        """Put `values` into run.json, keeping what else it says."""
        path = self.path / "run.json"
        known = self.meta if path.is_file() else {}
        write_json(path, {**known, **values})

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write history.json, history.csv and the TensorBoard log, which are all the same rows."""
        write_json(self.path / "history.json", list(history))
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(key for row in history for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_text(self.path / "history.csv", text.getvalue())

    def _json(self, name: str) -> Any:
        path = self.path / name
        try:
            return json.loads(path.read_text())
        except FileNotFoundError as error:
            raise ReszooError(f"{self.path} holds no {name}; the run stopped before it began to train") from error
        except ValueError as error:
            raise ReszooError(f"{path} is not JSON; it was changed or damaged") from error


class TensorBoard:
    """Scalars for TensorBoard, a file for each process that trained; rows from before a resume are written anew.

    TensorFlow writes them; under Keras' other backends there are none.
    """

    def __init__(self, run: Run, history: Sequence[Mapping[str, Any]]) -> None:
        folder = run.path / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = tf.summary.create_file_writer(str(folder)) if on_tensorflow() else None
        for row in history:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one row of the history."""
        if self._writer is None:
            return
        with self._writer.as_default():
            for key, value in row.items():
                if key not in ("step", "epoch"):
                    tf.summary.scalar(key, value, step=row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def environment() -> dict[str, Any]:
    """Return what the process runs on: versions, platform, and the commit of the working directory if it is in git."""
    import keras

    backend = keras.config.backend()
    versions = module_versions("reszoo") | {"python": platform.python_version()}
    return {
        "versions": versions | module_versions(backend, "keras", "numpy"),
        "backend": backend,
        "platform": platform.platform(),
        "git": _commit(),
        "started": now(),
    }


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _commit() -> str | None:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
