"""What an evaluation writes about single examples: predictions.csv, and a page of the mistakes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from reszoo.data.dataset import ArraySplit, FileSplit, Split
from reszoo.errors import ReszooError
from reszoo.evaluation.explain import Explainer, enlarge
from reszoo.evaluation.rows import ExampleRows
from reszoo.evaluation.scores import Scores
from reszoo.files import atomic_path, write_text
from reszoo.images.formats import printable
from reszoo.images.preprocessing import Preprocessing
from reszoo.reporting.page import Card, Gallery, Page, Section, Table, provenance, render_page
from reszoo.training.environment import command_line, environment
from reszoo.types import Array

MISTAKES = 24  # that the page shows
SIDE = 256  # longer side of an image on the page, in pixels, at most
CLASSES, CONFUSIONS = 50, 10  # that the page lists


def write_predictions(
    path: Path, rows: ExampleRows, examples: Sequence[str], class_names: Sequence[str]
) -> None:
    """Write a row per example, whole or not at all: its `path`, and the cells of `rows`.

    Args:
        path: The CSV file.
        rows: The results.
        examples: The file of each example; without them the column is its `index`.
        class_names: Of the labels.
    """
    with atomic_path(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path" if examples else "index", *rows.header(class_names)])
        for number in range(rows.count):
            name = printable(examples[number]) if examples else str(number)
            writer.writerow([name, *rows.cells(number, class_names)])


def list_files(split: Split) -> list[str]:
    """Return the file of each example of a split in stored order; none if they are unknown."""
    paths = split.paths if isinstance(split, ArraySplit | FileSplit) else None
    return [] if paths is None else list(paths)


def write_report(
    path: Path,
    scores: Scores,
    rows: ExampleRows,
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
    (mistakes, labels), names = rows.mistakes(), scores.class_names
    sections = [Section("Scores", [Table((), scores.rows())])]
    if len(mistakes):
        shown = mistakes[:MISTAKES], labels[:MISTAKES].tolist()
        images, note = _draw(*shown, split, model, preprocessing, names, rows.shown)
        cards, known = [], list_files(split)
        for index, label, files in zip(*shown, images, strict=True):
            lines = rows.describe(index, label, names)
            place = "/".join(Path(known[index]).parts[-2:]) if known else f"image {index}"
            cards.append(Card(files, [*lines, printable(place)]))
        amount = f"{len(cards)} of {len(mistakes):,} wrong predictions, the most confident first."
        sections.append(Section("Mistakes", [Gallery(cards, note)], amount))
    sections.append(Section("Classes", [Table(*scores.class_table(CLASSES))]))
    headers, confused = scores.confusion_table(CONFUSIONS)
    if confused:
        sections.append(Section("Most frequent confusions", [Table(headers, confused)]))
    finding = f"{len(mistakes):,} of {scores.examples:,} images are predicted wrongly."
    foot = provenance(command_line(), environment(), "the model and its images")
    write_text(path, render_page(Page(title, finding, sections, foot)))


def _draw(
    indices: Array,
    labels: Sequence[int],
    split: Split,
    model: keras.Model,
    preprocessing: Preprocessing,
    names: Sequence[str],
    shown: str,
) -> tuple[list[list[bytes]], str]:
    """Return for each example its image and the overlay of its label, and a note on both."""
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
        explained += explainer(found[start : start + 8], labels[start : start + 8])
    images = [[_encode(enlarge(one.image)), _encode(one.overlay())] for one in explained]
    note = (
        f"Right: Grad-CAM (arXiv 1610.02391). Colored places speak for {shown}, yellow "
        "ones the most."
    )
    return images, note


def _encode(image: Image.Image) -> bytes:
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()
