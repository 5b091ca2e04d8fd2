"""A CSV file that labels the images of a folder: which image has which class and split."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from reszoo.errors import ReszooError
from reszoo.images.formats import printable

SEPARATORS = ",;\t"
SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Row:
    """A labeled image.

    Attributes:
        file: Its path below the folder.
        label: Its class name.
        split: "train", "validation" or "test"; "" where the file has no column `split`.
    """

    file: str
    label: str
    split: str


def read_label_file(path: Path) -> list[Row]:
    """Read a CSV file with a header: file name, label, and perhaps a column `split`.

    Columns are separated by a comma, a semicolon or a tab, whichever is most frequent in the
    header. Further columns are not read.

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
    names = [name.strip().lower() for name in next(reader, [])]
    place = names.index("split") if "split" in names else None
    label = 2 if place == 1 else 1
    if len(names) < 2 or (place is not None and len(names) < 3) or place == 0:
        raise ReszooError(
            f"{path}: the header {printable(header)!r} is invalid; expected file name, label and "
            "perhaps split. Example: file,label"
        )
    rows: dict[str, Row] = {}
    for cells in reader:
        if not any(cells):
            continue
        where, shown = f"{path}, line {reader.line_num}", printable(",".join(cells))
        if len(cells) < len(names) or not cells[0].strip() or not cells[label].strip():
            raise ReszooError(f"{where}: {shown!r} is invalid; expected {','.join(names)}")
        if "|" in cells[label]:
            raise ReszooError(
                f"{where}: {shown!r} is invalid; expected one label, because several labels per "
                "image are not supported"
            )
        split = cells[place].strip().lower() if place is not None else ""
        if place is not None and split not in SPLITS:
            raise ReszooError(f"{where}: split {split!r} is invalid; expected train, val or test")
        row = Row(os.path.normpath(cells[0].strip()), cells[label].strip(), SPLITS.get(split, ""))
        if rows.setdefault(row.file, row) is not row:
            raise ReszooError(f"{where}: {printable(row.file)!r} has a label already; remove one")
    return list(rows.values())
