"""Scoring a trained net, on its own data or on other data of the same classes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reszoo.config.data import DataConfig, NoCrop
from reszoo.data.pipeline import open_dataset
from reszoo.errors import ChangedDataError, ReszooError
from reszoo.evaluation.plots import confusion
from reszoo.evaluation.scores import Scores, evaluate_model
from reszoo.evaluation.source import Named, open_source
from reszoo.files import check_output, check_outside, write_json, write_text
from reszoo.images.preprocessing import Preprocessing
from reszoo.keywords import explain_keywords
from reszoo.lazy import tf
from reszoo.models.settings import fixed_settings
from reszoo.reporting.page import base_name
from reszoo.training.devices import open_strategy

BATCH = 64
LONGEST_SLUG = 120  # bytes of a file name that a dataset's name may take
SPLITS = ("train", "validation", "test")


@explain_keywords
@fixed_settings()
def evaluate(
    net: Named,
    *,
    data: str | None = None,
    split: str = "test",
    batch_size: int | None = None,
    devices: str = "auto",
    out: str | os.PathLike[str] | None = None,
    weights: str | None = None,
) -> Scores:
    """Score a trained net on every example of a split and write the scores as `write_scores` does.

    net: a run or its folder, a net's name, whose published `weights` (by default its first) are taken, or a model built with
    such; the latter two need `data`.

    data: a set's name or `folder:PATH` in place of the run's own. Its images are prepared as those the net was trained on,
    with their mean and deviation, and its classes must be the net's, by name and order (ImageNet's may be called by their
    WordNet numbers). batch_size: at most so many images at once (the recipe's or 64 by default); it changes no score.
    devices: as `reszoo train --devices`.
    out: the folder to write to, by default the run's own; scores of published weights are written only where one is given.
    Raises ReszooError for a net that is none of these or not finished, a set or split that is not there, or other classes.
    """
    source = open_source(net, weights)
    if split not in SPLITS:
        raise ReszooError(f"no split '{split}'; there are {', '.join(SPLITS)}")
    if batch_size is not None and batch_size < 1:
        raise ReszooError(f"the batch size must be at least 1, got {batch_size}")
    preprocessing, run = source.preprocessing, source.run
    own = run.recipe.data if run else None
    if data is None and own is None:
        raise ReszooError(
            f"{source.name}: on which images? Give data, such as folder:PATH with a folder for each class"
        )
    folder = out or (run and run.path)
    if folder:
        check_output(Path(folder) / "test.json", "scores")
        if (given := data or (own.name if own else "")).startswith("folder:"):
            check_outside(folder, given.removeprefix("folder:"), "folder of the scores")
    other = None if own and data in (None, own.name) else other_data(str(data), own, preprocessing)
    if run:
        run.refuse_unfinished()
    strategy = open_strategy(devices)
    if run:
        try:
            pipeline = run.open_pipeline(batch_size, other)
        except ChangedDataError:
            if data is None:
                raise
            other = other_data(
                data, own, preprocessing
            )  # the same location, named on purpose: other data
            pipeline = run.open_pipeline(batch_size, other)
    else:
        assert other is not None
        pipeline = open_dataset(other, NoCrop(), batch_size=batch_size or BATCH, seed=0)
    with strategy.scope():
        model = source.load()
    found = pipeline.info.class_names
    if found != source.class_ids:
        refuse_other_classes(pipeline.info.name, found, source.class_names)
    # The net's own numbers, not those of the set to be scored or of files that may have changed since.
    pipeline.preprocessing = preprocessing
    try:
        scores = evaluate_model(
            model, pipeline.evaluation(split), classes=len(source.class_names), strategy=strategy
        )
    except tf.errors.OpError as error:
        raise pipeline.explain(error) or error from error
    tag = "-".join(
        ([] if other is None else [_slug(other.name)]) + ([] if split == "test" else [split])
    )
    title = f"{base_name(source.name)}: {base_name(pipeline.info.name)}, {split}, error {scores.error:.2f} %"
    if folder:
        write_scores(scores, source.class_names, folder, tag=tag, title=title)
    return scores


def write_scores(
    scores: Scores,
    class_names: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    tag: str = "",
    title: str = "",
) -> None:
    """Write test.json, confusion.json, confusion.png and confusion.svg into `folder`; with a `tag`, as evaluation-TAG.json and so on.

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


def other_data(name: str, own: DataConfig | None, preprocessing: Preprocessing) -> DataConfig:
    """Return how to open the set `name` at the size and in the channels of a net trained on `own`, if that is known."""
    downloaded = not name.startswith("folder:") and name not in ("digits", "synthetic")
    values: dict[str, Any] = {
        "name": name,
        "dir": own.dir if own and downloaded else "",
        "image_size": preprocessing.image_size,
        "channels": preprocessing.channels,
        "normalize": "unit",
        "on_corrupt": own.on_corrupt if own and name.startswith("folder:") else "error",
    }
    if name != "synthetic":
        values |= {"resize": preprocessing.resize, "interpolation": preprocessing.interpolation}
    return DataConfig(**values)


def refuse_other_classes(name: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise ReszooError unless the classes of the set `name` are the net's, in the same order."""
    if len(found) != len(wanted):
        raise ReszooError(f"{name} has {len(found)} classes, but the net tells {len(wanted)} apart")
    for number, (theirs, ours) in enumerate(zip(found, wanted, strict=True)):
        if theirs != ours:
            raise ReszooError(
                f"class {number} of {name} is '{theirs}', but the net was trained to call it '{ours}'"
            )


def _slug(name: str) -> str:
    """Return a dataset's name as a part of a file name; of a long one the end, and a digest of the whole."""
    slug = re.sub(r"[^\w.]+", "-", name).strip("-.")
    if len(slug.encode()) <= LONGEST_SLUG:
        return slug
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{slug.encode()[-LONGEST_SLUG:].decode(errors='ignore').strip('-.')}-{digest}"
