"""Evaluate a trained model on its own dataset or on another dataset of the same classes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reszoo.config.data import DataConfig, InceptionCrop, NoCrop
from reszoo.data.batches import Batch
from reszoo.data.catalog import name_data
from reszoo.data.pipeline import Pipeline, open_dataset
from reszoo.errors import ChangedDataError, ReszooError
from reszoo.evaluation.evaluator import Evaluator
from reszoo.evaluation.plots import draw_confusion
from reszoo.evaluation.report import list_files, write_predictions, write_report
from reszoo.evaluation.rows import COLUMNS
from reszoo.evaluation.scores import Scores
from reszoo.evaluation.source import Named, Source, open_source
from reszoo.evaluation.views import MeanOfViews, Probabilities, evaluate_scales, load_views
from reszoo.files import check_output, check_outside, expand_user, write_json, write_text
from reszoo.images.preprocessing import Preprocessing
from reszoo.images.views import Views
from reszoo.keywords import explain_keywords
from reszoo.lazy import tf
from reszoo.models.settings import fixed_settings
from reszoo.references import is_reference
from reszoo.reporting.page import base_name
from reszoo.reporting.reporter import Reporter
from reszoo.training.devices import open_strategy
from reszoo.types import JsonObject

if TYPE_CHECKING:
    import keras

BATCH = 64
LONGEST_TAG = 120  # bytes of a file name that a dataset's name may take
SPLITS = ("train", "validation", "test")


@explain_keywords
@fixed_settings()
def evaluate(
    model: Named,
    *,
    data: str | None = None,
    split: str = "test",
    batch_size: int | None = None,
    devices: str = "auto",
    out: str | os.PathLike[str] | None = None,
    weights: str | None = None,
    crops: int = 1,
    flip: bool = False,
    scales: Sequence[int] = (),
    crop_ratio: float | None = None,
    interpolation: str | None = None,
    predictions: bool = False,
) -> Scores:
    """Evaluate a trained model on every example of a split, and write the scores.

    Of several views of an image, the probabilities are averaged.

    Args:
        model: A run or its folder, a model name with published weights, or a model built with them.
        data: A dataset name or a folder of images; by default the run's own dataset. Its images are
            prepared as in training, with the mean and deviation of the training dataset. Its class
            names and their order must be the model's; ImageNet's may be WordNet numbers.
        split: "train", "validation" or "test".
        batch_size: Images at once, >= 1; by default the recipe's or 64. It changes no score.
        devices: "auto", "cpu", "gpu:0,1" or "cpu:2", as for `train`.
        out: The folder for the files of `write_scores`; by default the run's. Scores of published
            weights are written only if it is given.
        weights: Which published weights, for a model name; by default the model's first.
        crops: 1: the center crop. 10: the corners, the center, and their mirror images; small
            images are padded by 4 zero pixels first.
        flip: Whether each view's mirror image is evaluated too.
        scales: Lengths of the shorter side at which whole images are evaluated, on one device;
            the model is applied as a convolution.
        crop_ratio: Side of the crop / shorter side of the resized image; by default as in training.
        interpolation: "bilinear" or "bicubic"; by default as in training.
        predictions: Whether to also write predictions.csv, and evaluation.html with the most
            confident mistakes.

    Returns:
        The scores.

    Raises:
        ReszooError: The model is unknown or not trained to its end, the dataset or split is
            missing, or the classes differ.
    """
    source = open_source(model, weights)
    run = source.run
    own = run.recipe.data if run else None
    if split not in SPLITS:
        raise ReszooError(f"split: {split!r} is invalid; expected train, validation or test")
    if batch_size is not None and batch_size < 1:
        raise ReszooError(f"batch_size: {batch_size} is invalid; expected an integer >= 1")
    views = Views(
        crops=crops,
        flip=flip,
        scales=tuple(scales),
        crop_ratio=crop_ratio,
        interpolation=interpolation,
    )
    preprocessing = views.adapt(source.preprocessing)
    data = name_data(data) if data else None
    name = data or (own.name if own else "")
    if not name:
        raise ReszooError(
            f"data: none is given, and {source.name} has no images of its own; expected a dataset "
            "name or a folder with one folder per class. Example: folder:PATH"
        )
    folder = out or (run and run.path)
    if predictions and not folder:
        raise ReszooError(f"out: none is given, and {source.name} has no folder; expected a folder")
    if folder:
        check_output(Path(folder) / "test.json", "scores")
        if name.startswith("folder:"):
            check_outside(folder, name.removeprefix("folder:"), "folder of the scores")
    if run:
        run.reject_unfinished()
    strategy = open_strategy(devices)
    plain = views == Views()
    pipeline, is_own = _open_data(source, data, batch_size, whole=not plain)
    with strategy.scope():
        loaded = source.load()
    if pipeline.info.class_names != source.class_ids:
        _check_classes(pipeline.info.name, pipeline.info.class_names, source.class_names)
    pipeline.preprocessing = preprocessing  # not that of the dataset to evaluate
    classes, several = len(source.class_names), source.multi_label
    tested: keras.Model | MeanOfViews | Probabilities = loaded
    try:
        if plain:
            batches: Iterable[Batch] = pipeline.evaluation(split)
        else:
            size = batch_size or (run.recipe.train.batch_size if run else BATCH)
            examples = pipeline.dataset.split(split)
            batches = load_views(examples, preprocessing, views, batch_size=size)
            tested = MeanOfViews(loaded, multi_label=several)
            if views.scales:
                pixels = size * math.prod(preprocessing.image_size)
                batches = evaluate_scales(loaded, batches, pixels=pixels, multi_label=several)
                tested = Probabilities(classes)
        evaluator = Evaluator(
            tested,
            classes=classes,
            strategy=strategy,
            probabilities=predictions and classes <= COLUMNS,
            best=predictions and classes > COLUMNS,
            multi_label=several,
        )
        results = evaluator.rows(batches)
    except tf.errors.OpError as error:
        raise pipeline.explain(error) or error from error
    names = source.class_names
    scores = evaluator.compute(results)
    scores = dataclasses.replace(scores, test=str(views), class_names=names)
    if folder:
        tags = ([] if is_own else [_to_tag(name)]) + ([] if split == "test" else [split])
        tags += [] if plain else [_to_tag(scores.test)]
        where = f"{base_name(source.name)}: {base_name(pipeline.info.name)}, {split}"
        where += "" if plain else f", {scores.test}"
        title = f"{where}, error {scores.error:.2f} %"
        tag = "-".join(tags)
        write_scores(scores, names, folder, tag=tag, title=title)
        if predictions:
            suffix, examples = f"-{tag}" if tag else "", pipeline.dataset.split(split)
            table = Path(folder) / f"predictions{suffix}.csv"
            page = Path(folder) / f"evaluation{suffix}.html"
            write_predictions(table, results, list_files(examples), names)
            write_report(page, scores, results, examples, loaded, preprocessing, title=title)
            Reporter(stderr=True).line(f"written: {table}, {page}")
    return scores


def write_scores(
    scores: Scores,
    class_names: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    tag: str = "",
    title: str = "",
) -> None:
    """Write test.json, and confusion.json, confusion.png and confusion.svg if there is a matrix.

    Args:
        scores: The scores.
        class_names: Names of the classes, in the order of the logits.
        folder: The folder to write to.
        tag: If given, the files are evaluation-TAG.json, confusion-TAG.json and so on.
        title: Title of the figure.
    """
    folder = Path(folder)
    suffix = f"-{tag}" if tag else ""
    write_json(folder / (f"evaluation{suffix}.json" if tag else "test.json"), scores.to_dict())
    if not scores.confusion:
        return
    rows = ",\n    ".join(json.dumps(row) for row in scores.confusion)  # one line per true class
    names = json.dumps(list(class_names), ensure_ascii=False)
    text = f'{{\n  "class_names": {names},\n  "matrix": [\n    {rows}\n  ]\n}}\n'
    write_text(folder / f"confusion{suffix}.json", text)
    draw_confusion(scores.confusion, class_names, folder / f"confusion{suffix}.png", title=title)


def other_data(name: str, own: DataConfig | None, preprocessing: Preprocessing) -> DataConfig:
    """Return the config of a dataset other than the training dataset.

    Args:
        name: A dataset name or "folder:PATH".
        own: The config of the training dataset, if it is known.
        preprocessing: Gives the size and channels of the images.
    """
    is_folder = name.startswith("folder:")
    is_embedded = name in ("digits", "synthetic") or is_reference(name)
    values: JsonObject = {
        "name": name,
        "dir": own.dir if own and not (is_folder or is_embedded) else "",
        "image_size": preprocessing.image_size,
        "channels": preprocessing.channels,
        "normalize": "unit",
        "on_corrupt": own.on_corrupt if own and is_folder else "error",
        "multi_label": bool(own and own.multi_label),
    }
    if (
        is_folder
        and own
        and own.labels
        and (expand_user(name.removeprefix("folder:")) / own.labels).is_file()
    ):
        values["labels"] = own.labels
    if name != "synthetic":
        values |= {"resize": preprocessing.resize, "interpolation": preprocessing.interpolation}
    return DataConfig(**values)


def _open_data(
    source: Source, data: str | None, batch_size: int | None, *, whole: bool
) -> tuple[Pipeline, bool]:
    """Open the dataset to evaluate, and return whether it is the run's own."""
    run = source.run
    own = run.recipe.data if run else None
    if run and own and data in (None, own.name):
        try:
            return run.open_pipeline(batch_size, whole=whole), True
        except ChangedDataError:
            if data is None:
                raise  # given explicitly, changed images at the same location are another dataset
    other = other_data(str(data), own, source.preprocessing)
    if run:
        return run.open_pipeline(batch_size, other, whole=whole), False
    augment = InceptionCrop() if whole else NoCrop()  # the former keeps larger images
    return open_dataset(other, augment, batch_size=batch_size or BATCH, seed=0), False


def _check_classes(name: str, found: Sequence[str], expected: Sequence[str]) -> None:
    """Raise ReszooError unless a dataset's classes are the model's, in the same order."""
    if len(found) != len(expected):
        raise ReszooError(
            f"data: {name} has {len(found)} classes; expected the model's {len(expected)}"
        )
    for index, (theirs, ours) in enumerate(zip(found, expected, strict=True)):
        if theirs != ours:
            raise ReszooError(
                f"data: class {index} of {name} is {theirs!r}; expected {ours!r}, as in training"
            )


def _to_tag(name: str) -> str:
    """Return a dataset's name as a part of a file name: of a long one the end and a digest."""
    tag = re.sub(r"[^\w.]+", "-", name).strip("-.")
    if len(tag.encode()) <= LONGEST_TAG:
        return tag
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{tag.encode()[-LONGEST_TAG:].decode(errors='ignore').strip('-.')}-{digest}"
