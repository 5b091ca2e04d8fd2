"""Models that an experiment trains on digits before it measures them, and trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reszoo.config.model import ModelConfig
from reszoo.errors import ReszooError
from reszoo.lab.degradation import base_recipe
from reszoo.lab.runs import train_all
from reszoo.lab.trained import TrainedModel, open_trained
from reszoo.reporting.reporter import Reporter
from reszoo.training.run import Run
from reszoo.types import JsonObject

MODELS = ("plain20", "resnet20", "resnet56", "resnet56_v2")


def open_or_train(
    names: Sequence[str],
    folder: Path,
    *,
    data: str,
    budget: int,
    devices: str,
    reporter: Reporter,
) -> dict[str, TrainedModel]:
    """Load trained models, and train those first that are only named, on digits.

    Args:
        names: As `open_trained`, or names of models.
        folder: Of the runs of named models.
        data: The dataset of published weights.
        budget: Steps of training; 0: the recipe's.
        devices: Of the training.
        reporter: Reports the training.

    Returns:
        The models by name, or by the last part of a run's folder.
    """
    own = [name for name in names if "@" not in name and not Path(name).is_dir()]
    runs = train_named(own, folder, budget=budget, devices=devices, reporter=reporter)
    found = {}
    for name in names:
        key = Path(name).name.replace(".", "_")
        if key in found:
            raise ReszooError(f"models: two are called {key}; rename a run's folder")
        found[key] = open_trained([str(runs[name].path) if name in runs else name], data)[0]
    return found


def train_named(
    names: Sequence[str], folder: Path, *, budget: int, devices: str, reporter: Reporter
) -> dict[str, Run]:
    """Train models on digits in `folder`, and return the runs by name; as `open_or_train`."""
    base = base_recipe("digits", budget)
    plan = {name: base.replace(name=f"lab_{name}", model=ModelConfig(name=name)) for name in names}
    return train_all(folder, plan, devices=devices, reporter=reporter)


def model_kind(model: TrainedModel) -> str:
    """Return "plain", "residual", or "preactivation" for a residual model of that order."""
    return "preactivation" if model.spec.order == "pre" and model.kind != "plain" else model.kind


def deepest_measures(models: JsonObject) -> JsonObject:
    """Return the measures of the deepest model of each kind, by kind."""
    ordered = sorted(models.values(), key=lambda model: int(model["depth"]))
    return {model["kind"]: model["measures"] for model in ordered}
