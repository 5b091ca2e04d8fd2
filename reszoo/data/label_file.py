"""A CSV file that labels the images of a folder: which image has which classes and split."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reszoo.errors import ReszooError
from reszoo.images.formats import printable
from reszoo.types import Array

SEPARATORS = ",;\t"
SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Row:
    """A labeled image.

    Attributes:
        file: Its path below the folder.
        labels: Its class names; one, unless an image may have several.
        split: "train", "validation" or "test"; "" where the file has no column `split`.
    """

    file: str
    labels: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class LabelFile:
    """A label file.

    Attributes:
        class_names: Sorted.
        rows: In the order of the file.
    """

    class_names: tuple[str, ...]
    rows: tuple[Row, ...]


def read_label_file(path: Path, *, multi_label: bool = False) -> LabelFile:
    """Read a CSV file with a header: file name, label, and perhaps a column `split`.

    Columns are separated by a comma, a semicolon or a tab, whichever is most frequent in the
    header. Further columns are not read.

    Args:
        path: The file.
        multi_label: Whether an image may have several classes, or none. The labels of a row are
            separated by `;` or `|`. Or each column besides file name and `split` is a class, if
            there are several and the first one holds 0 and 1 alone.

    Raises:
        ReszooError: If the file cannot be read, or a row is not valid.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise ReszooError(f"data.labels: no file {printable(str(path))}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise ReszooError(
            f"data.labels: {printable(str(path))} cannot be read: {why}; expected a CSV file"
        ) from None
    header = lines[0] if lines else ""
    reader = csv.reader(lines, delimiter=max(SEPARATORS, key=header.count))
    head = [name.strip() for name in next(reader, [])]
    names = [name.lower() for name in head]
    place = names.index("split") if "split" in names else None
    label = 2 if place == 1 else 1
    columns = [column for column in range(1, len(names)) if column != place]
    if len(names) < 2 or (place is not None and len(names) < 3) or place == 0:
        raise ReszooError(
            f"{path}: the header {printable(header)!r} is invalid; expected file name, label and "
            "perhaps split. Example: file,label"
        )
    lines_of_cells = [(reader.line_num, cells) for cells in reader if any(cells)]
    first = {cells[label].strip() for _, cells in lines_of_cells if len(cells) > label}
    is_table = multi_label and len(columns) > 1 and first <= {"0", "1"}
    rows: dict[str, Row] = {}
    for number, cells in lines_of_cells:
        where, shown = f"{path}, line {number}", printable(",".join(cells))
        short = len(cells) < len(names) or not cells[0].strip()
        if short or not (cells[label].strip() or multi_label):
            raise ReszooError(f"{where}: {shown!r} is invalid; expected {','.join(names)}")
        parts = [part.strip() for part in re.split("[;|]", cells[label]) if part.strip()]
        if not multi_label and len(parts) > 1:
            raise ReszooError(
                f"{where}: {shown!r} is invalid; expected one label. Several labels per image "
                "need a loss for them. Example: --set train.loss=bce"
            )
        if is_table:
            parts = [head[column] for column in columns if cells[column].strip() == "1"]
            if any(cells[column].strip() not in ("0", "1") for column in columns):
                classes = ", ".join(head[column] for column in columns)
                raise ReszooError(f"{where}: {shown!r} is invalid; expected 0 or 1 for {classes}")
        split = cells[place].strip().lower() if place is not None else ""
        if place is not None and split not in SPLITS:
            raise ReszooError(f"{where}: split {split!r} is invalid; expected train, val or test")
        labels = tuple(sorted(set(parts))) if multi_label else (cells[label].strip(),)
        row = Row(os.path.normpath(cells[0].strip()), labels, SPLITS.get(split, ""))
        if rows.setdefault(row.file, row) is not row:
            raise ReszooError(
                f"{where}: {printable(row.file)!r} has a row already; expected one row per image"
                + (", its labels separated by ;" if multi_label else "")
            )
    named = {head[column] for column in columns} if is_table else set[str]()
    named = named.union(*(row.labels for row in rows.values()))
    return LabelFile(tuple(sorted(named)), tuple(rows.values()))


def make_targets(indices: Sequence[Sequence[int]], classes: int) -> Array:
    """Return the classes of images as 0 and 1, float32 [n, classes]."""
    targets = np.zeros((len(indices), classes), np.float32)
    for target, own in zip(targets, indices, strict=True):
        target[list(own)] = 1
    return targets
