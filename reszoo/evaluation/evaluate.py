"""Scoring the net of a finished run, on its own data or on other data of the same classes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from reszoo.data.config import DataConfig
from reszoo.data.preprocessing import Preprocessing
from reszoo.errors import ReszooError
from reszoo.evaluation.plots import confusion
from reszoo.evaluation.scores import Scores, evaluate_model
from reszoo.files import write_json, write_text
from reszoo.training.devices import open_strategy
from reszoo.training.run import Run

SPLITS = ("train", "validation", "test")


def evaluate(
    run: Run | str | os.PathLike[str],
    *,
    data: str | None = None,
    split: str = "test",
    batch_size: int | None = None,
    devices: str = "auto",
    out: str | os.PathLike[str] | None = None,
) -> Scores:
    """Score a run's net on every example of a split and write the scores as `write_scores` does.

    data: a set's name or `folder:PATH` in place of the run's own. Its images are prepared as the run's were, with the
    mean and deviation of the set trained on, and its classes must be the run's, by name and order. batch_size: at most
    so many images at once (the recipe's by default); it changes no score. devices: as `reszoo train --devices`.
    out: the folder to write to, by default the run's own.
    Raises ReszooError for a folder that is no finished run, a set or split that is not there, or other classes.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if split not in SPLITS:
        raise ReszooError(f"no split '{split}'; there are {', '.join(SPLITS)}")
    if batch_size is not None and batch_size < 1:
        raise ReszooError(f"the batch size must be at least 1, got {batch_size}")
    strategy = open_strategy(devices)
    with strategy.scope():
        model = run.load_model()
    own, preprocessing = run.recipe.data, run.preprocessing
    other = None if data is None or data == own.name else other_data(data, own, preprocessing)
    pipeline = run.open_pipeline(batch_size, other)
    refuse_other_classes(pipeline.info.name, pipeline.info.class_names, run.class_names)
    # The run's own numbers, not those of the set to be scored or of files that may have changed since.
    pipeline.preprocessing = preprocessing
    try:
        scores = evaluate_model(model, pipeline.evaluation(split), classes=len(run.class_names), strategy=strategy)
    except tf.errors.OpError as error:
        raise pipeline.explain(error) or error from error
    tag = "-".join(([] if other is None else [_slug(other.name)]) + ([] if split == "test" else [split]))
    title = f"{run.recipe.name}: {pipeline.info.name}, {split}, error {scores.error:.2f} %"
    write_scores(scores, run.class_names, run.path if out is None else out, tag=tag, title=title)
    return scores


def write_scores(
    scores: Scores, class_names: Sequence[str], folder: str | os.PathLike[str], *, tag: str = "", title: str = ""
) -> None:
    """Write test.json, confusion.json and confusion.png into `folder`; with a `tag`, as evaluation-TAG.json and so on.

    confusion.json holds the class names and the matrix (a row a true class), a row on a line.
    """
    folder = Path(folder)
    suffix = f"-{tag}" if tag else ""
    write_json(folder / (f"evaluation{suffix}.json" if tag else "test.json"), scores.to_dict())
    rows = ",\n    ".join(json.dumps(row) for row in scores.confusion)
    names = json.dumps(list(class_names), ensure_ascii=False)
    text = f'{{\n  "class_names": {names},\n  "matrix": [\n    {rows}\n  ]\n}}\n'
    write_text(folder / f"confusion{suffix}.json", text)
    confusion(scores.confusion, class_names, folder / f"confusion{suffix}.png", title=title)


def other_data(name: str, own: DataConfig, preprocessing: Preprocessing) -> DataConfig:
    """Return how to open the set `name` at the size and in the channels of a net trained on `own`."""
    downloaded = not name.startswith("folder:") and name not in ("digits", "synthetic")
    return DataConfig(
        name=name,
        dir=own.dir if downloaded else "",
        image_size=preprocessing.image_size,
        resize=0 if name == "synthetic" else preprocessing.resize,
        channels=preprocessing.channels,
        normalize="unit",
        on_corrupt=own.on_corrupt if name.startswith("folder:") else "error",
    )


def refuse_other_classes(name: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise ReszooError unless the classes of the set `name` are the net's, in the same order."""
    if len(found) != len(wanted):
        raise ReszooError(f"{name} has {len(found)} classes, but the net tells {len(wanted)} apart")
    for number, (theirs, ours) in enumerate(zip(found, wanted, strict=True)):
        if theirs != ours:
            raise ReszooError(f"class {number} of {name} is '{theirs}', but the net was trained to call it '{ours}'")


def _slug(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name).strip("-.")
