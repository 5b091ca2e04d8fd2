"""What an evaluation writes about single examples: predictions.csv, and a page of the mistakes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from reszoo.data.dataset import ArraySplit, FileSplit, Split
from reszoo.errors import ReszooError
from reszoo.evaluation.explain import Explainer, enlarge
from reszoo.evaluation.scores import Rows, Scores
from reszoo.files import atomic_path, write_text
from reszoo.images.formats import printable
from reszoo.images.preprocessing import Preprocessing
from reszoo.reporting.page import Card, Gallery, Page, Section, Table, provenance, render_page
from reszoo.training.environment import command_line, environment
from reszoo.types import Array

COLUMNS = 100  # classes whose probabilities predictions.csv holds
MISTAKES = 24  # that the page shows
SIDE = 256  # longer side of an image on the page, in pixels, at most
CLASSES, CONFUSIONS = 50, 10  # that the page lists


def write_predictions(
    path: Path, rows: Rows, examples: Sequence[str], class_names: Sequence[str]
) -> None:
    """Write a row per example, whole or not at all.

    Columns are `path` (`index` without files), `true`, `predicted`, `probability` of the predicted
    class, `true_probability`, and `p_CLASS` of each class if `rows` has them. An example with a
    logit that is not finite has no prediction.

    Args:
        path: The CSV file.
        rows: The results.
        examples: The file of each example, or none.
        class_names: Of the labels.
    """
    names, kept = np.array(class_names, object), rows.probabilities.shape[1]
    with atomic_path(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        head = ["path" if examples else "index", "true", "predicted", "probability"]
        classes = [f"p_{name}" for name in class_names[:kept]]
        writer.writerow([*head, "true_probability", *classes])
        for number, (label, predicted) in enumerate(zip(rows.labels, rows.predicted, strict=True)):
            known = [rows.confidence[number], math.exp(-rows.loss[number])]
            values = [*known, *rows.probabilities[number]] if predicted >= 0 else []
            writer.writerow(
                [
                    printable(examples[number]) if examples else number,
                    names[label],
                    names[predicted] if predicted >= 0 else "",
                    *(f"{value:.6g}" for value in values),
                    *[""] * (0 if values else 2 + kept),
                ]
            )


def list_files(split: Split) -> list[str]:
    """Return the file of each example of a split in stored order; none if they are unknown."""
    paths = split.paths if isinstance(split, ArraySplit | FileSplit) else None
    return [] if paths is None else list(paths)


def find_mistakes(rows: Rows) -> Array:
    """Return the indices of the wrong predictions, int64, the most confident first."""
    wrong = np.flatnonzero((rows.predicted >= 0) & (rows.predicted != rows.labels))
    return wrong[np.argsort(-rows.confidence[wrong], kind="stable")]


def write_report(
    path: Path,
    scores: Scores,
    rows: Rows,
    split: Split,
    model: keras.Model,
    preprocessing: Preprocessing,
    *,
    title: str,
) -> None:
    """Write a page with the scores, and the most confident mistakes with their Grad-CAM overlays.

    Args:
        path: The HTML file, which holds its images.
        scores: The scores, with class names.
        rows: The results that they come from.
        split: The examples, in the order of `rows`.
        model: The model.
        preprocessing: Of the model.
        title: Title of the page.
    """
    mistakes, names = find_mistakes(rows), scores.class_names
    sections = [Section("Scores", [Table((), scores.rows())])]
    if len(mistakes):
        images, note = _draw(mistakes[:MISTAKES], rows, split, model, preprocessing, names)
        cards = []
        for index, files in zip(mistakes, images, strict=False):
            lines = [
                f"true: {names[rows.labels[index]]}, {100 * math.exp(-rows.loss[index]):.1f} %",
                f"predicted: {names[rows.predicted[index]]}, {100 * rows.confidence[index]:.1f} %",
            ]
            known = list_files(split)
            place = "/".join(Path(known[index]).parts[-2:]) if known else f"image {index}"
            cards.append(Card(files, [*lines, printable(place)]))
        shown = f"{len(cards)} of {len(mistakes):,} wrong predictions, the most confident first."
        sections.append(Section("Mistakes", [Gallery(cards, note)], shown))
    sections.append(Section("Classes", [Table(*scores.class_table(CLASSES))]))
    headers, confused = scores.confusion_table(CONFUSIONS)
    if confused:
        sections.append(Section("Most frequent confusions", [Table(headers, confused)]))
    finding = f"{len(mistakes):,} of {scores.examples:,} images are predicted wrongly."
    foot = provenance(command_line(), environment(), "the model and its images")
    write_text(path, render_page(Page(title, finding, sections, foot)))


def _draw(
    indices: Array,
    rows: Rows,
    split: Split,
    model: keras.Model,
    preprocessing: Preprocessing,
    names: Sequence[str],
) -> tuple[list[list[bytes]], str]:
    """Return for each example its image and the overlay of the predicted class, and a note."""
    found = []
    for index in indices:
        one = split.take(np.array([index]))
        image, _ = one.load(next(iter(one.elements())))
        pixels = preprocessing.to_input(preprocessing.pixels(image.numpy()))
        found.append((str(index), np.asarray(pixels)))
    try:
        explainer = Explainer(model, preprocessing, names)
    except ReszooError as error:
        images = [[_encode(enlarge(pixels))] for _, pixels in found]
        return images, f"Without Grad-CAM: {error}"
    explained = []
    for start in range(0, len(found), 8):
        labels = rows.predicted[indices[start : start + 8]].tolist()
        explained += explainer(found[start : start + 8], labels)
    images = [[_encode(enlarge(one.image)), _encode(one.overlay())] for one in explained]
    note = (
        "Right: Grad-CAM (arXiv 1610.02391). Colored places speak for the predicted class, "
        "yellow ones the most."
    )
    return images, note


def _encode(image: Image.Image) -> bytes:
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()
