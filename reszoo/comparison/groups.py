"""Runs to compare: found in folders, and grouped by their recipes without the seed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reszoo.comparison.seeds import is_finished, read_scores
from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError, did_you_mean
from reszoo.reporting.reporter import Reporter
from reszoo.training.run import Run
from reszoo.types import JsonObject

SAME = (
    "name",
    "description",
    "published",
    "train.seed",
    # How a run is carried out, which does not change what is trained:
    "train.checkpoint_every",
    "train.checkpoint_gradients",
    "train.deterministic",
    "train.export",
    "train.jit",
    "train.worker_timeout",
    "data.on_device",
    # The fingerprint of the images takes the place of their location:
    "data.dir",
    "data.name",
)
"""Recipe keys in which runs of one group may differ, because they do not name what is compared."""

IMAGES = "images"  # the key of a digest of the images
LABEL_KEYS = 2  # that distinguish recipes of one name


@dataclass(frozen=True)
class ComparedRun:
    """What a comparison reads of a run.

    Attributes:
        run: The run folder.
        name: The name of its recipe.
        settings: The values of its recipe by key, without those of `SAME`.
        data: What its data is called.
        seed: Its seed.
        meta: The content of run.json.
        history: The rows of its metrics.
        scores: What `read_scores` returns, or an empty table for an unfinished run.
    """

    run: Run
    name: str
    settings: dict[str, str]
    data: str
    seed: int
    meta: JsonObject
    history: list[JsonObject]
    scores: dict[str, float]

    @property
    def epochs(self) -> int:
        """How many epochs were trained up to the last evaluation."""
        return int(self.history[-1]["epoch"]) if self.history else 0

    @property
    def images(self) -> dict[str, str]:
        """What identifies the images of each split, wherever they lie; in old runs the data's name.

        It is empty for a run that stopped before it read its data.
        """
        data = self.meta.get("data", {})
        known: dict[str, str] = data.get("fingerprint", {}).get("splits", {})
        return known or {split: data["name"] for split in data.get("examples", {})}


@dataclass(frozen=True)
class Group:
    """Runs of one recipe with several seeds.

    Attributes:
        label: The recipe's name; if another group has it too, with the first keys that differ.
        settings: The recipe keys in which the groups differ, with this group's values.
        runs: The runs, by seed.
    """

    label: str
    settings: dict[str, str]
    runs: tuple[ComparedRun, ...]

    def values(self, score: str) -> dict[int, float]:
        """Return a score by seed; of several runs with one seed, their mean."""
        found: dict[int, list[float]] = {}
        for run in self.runs:
            if score in run.scores:
                found.setdefault(run.seed, []).append(run.scores[score])
        return {seed: float(np.mean(values)) for seed, values in found.items()}

    def curve(self, key: str) -> tuple[list[int], list[list[float]]]:
        """Return epochs, and of each run 100 * (1 - accuracy); NaN if it has none.

        The epochs are those that every run evaluated that came so far, so that a mean over the runs
        is of the same runs everywhere but at the end.

        Args:
            key: The accuracy in the history, such as "val_accuracy".
        """
        rows = [{row["epoch"]: row.get(key) for row in run.history} for run in self.runs]
        epochs = [
            epoch
            for epoch in sorted({epoch for each in rows for epoch in each})
            if all(epoch in each or epoch > max(each, default=0) for each in rows)
        ]
        return epochs, [
            [np.nan if value is None else 100 * (1 - value) for value in map(each.get, epochs)]
            for each in rows
        ]


def find_runs(paths: Iterable[str | os.PathLike[str]]) -> list[Run]:
    """Return the runs in folders: a run, or the runs in a folder, such as those of several seeds.

    A folder without runs is skipped with a line on standard error.

    Raises:
        ReszooError: If a path does not exist, or no run is found.
    """
    found: dict[Path, Run] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise ReszooError(f"{path}: does not exist; expected a run folder, or a folder of runs")
        inside = [path] if (path / "recipe.toml").is_file() else sorted(path.glob("*/"))
        runs = [Run(each) for each in inside if (each / "recipe.toml").is_file()]
        if not runs and path.is_dir():
            Reporter(stderr=True).line(f"{path}: holds no run, skipped")
        found |= {run.path.resolve(): run for run in runs}
    if not found:
        raise ReszooError(
            "runs: none is found; expected run folders, or folders of runs. Example: "
            "reszoo compare runs/*"
        )
    return list(found.values())


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group runs by their recipes, in the order in which the recipes come first.

    Raises:
        ReszooError: If a run stopped before training, or a file of it cannot be read.
    """
    grouped: dict[str, list[ComparedRun]] = {}
    for run in map(_read, runs):
        key = json.dumps([run.settings, run.images], sort_keys=True)
        grouped.setdefault(key, []).append(run)
    groups = [sorted(each, key=lambda run: run.seed) for each in grouped.values()]
    known = [_named_settings(group[0]) for group in groups]
    differing = _differing_keys(known)
    names = [group[0].name for group in groups]
    found: list[Group] = []
    for group, name, own_settings in zip(groups, names, known, strict=True):
        settings = {key: own_settings.get(key, "-") for key in differing}
        label = name
        if names.count(name) > 1:
            others = [each for each, other in zip(known, names, strict=True) if other == name]
            own = [key for key in differing if len({each.get(key) for each in others}) > 1]
            label = " ".join([name, *(f"{key}={settings[key]}" for key in own[:LABEL_KEYS])])
        if same := sum(other.label.startswith(label) for other in found):
            label = f"{label} ({same + 1})"
        found.append(Group(label, settings, tuple(group)))
    return found


def check_score(groups: Sequence[Group], score: str) -> None:
    """Raise ReszooError if no run has a score of this name."""
    known = dict.fromkeys(key for group in groups for run in group.runs for key in run.scores)
    if known and score not in known:
        near = did_you_mean(score, known) or f"; expected one of {', '.join(known)}"
        raise ReszooError(f"score: {score!r} is not a score of these runs{near}")


def _read(run: Run) -> ComparedRun:
    recipe = run.recipe
    return ComparedRun(
        run,
        recipe.name or run.path.name,
        _settings(recipe),
        recipe.data.name,
        recipe.train.seed,
        run.meta,
        run.history,
        read_scores(run) if is_finished(run) else {},
    )


def _named_settings(run: ComparedRun) -> dict[str, str]:
    """Return the settings of a run, with the name of its data and what identifies the images."""
    digest = hashlib.sha256(json.dumps(run.images, sort_keys=True).encode()).hexdigest()
    return {**run.settings, "data.name": run.data, IMAGES: digest[:8]}


def _differing_keys(known: Sequence[dict[str, str]]) -> list[str]:
    """Return the keys in which settings differ; of other images their name, if it differs."""
    keys = dict.fromkeys(key for settings in known for key in settings)
    differing = [key for key in keys if len({each.get(key, "-") for each in known}) > 1]
    hidden = IMAGES if IMAGES in differing and "data.name" in differing else "data.name"
    return [key for key in differing if key != hidden]


def _settings(recipe: Recipe) -> dict[str, str]:
    found = {}
    for table, values in recipe.to_dict().items():
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            name = f"{table}.{key}" if key else table
            if name not in SAME and table not in SAME:
                found[name] = value if isinstance(value, str) else json.dumps(value)
    if recipe.train.select == "last" and not recipe.train.patience:
        found.pop("train.evaluate_every", None)  # only selection and early stopping depend on it
    return found
