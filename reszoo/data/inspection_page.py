"""The page of an inspected folder: counts, problems, and one image of each class."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from reszoo.data.inspection import Inspection
from reszoo.reporting.page import Page, Section, Table
from reszoo.reporting.plots import Plot, Theme

COLUMNS = 6
LISTED = 100  # rows of a table of problems, and classes with a sample
PAIRS = 9  # pairs of images that are shown
SIDE = 160  # pixels of the longer side of an image


def inspection_page(found: Inspection) -> Page:
    """Return the page of an inspected folder."""
    counts = zip(found.class_names, *found.class_counts.values(), strict=True)
    rows = [(name, *(f"{n:,}" for n in each), f"{sum(each):,}") for name, *each in counts]
    shown = min(LISTED, len(found.samples))
    problems = [
        Section("Images that cannot be decoded", [_list(("file", "why"), found.corrupt.items())])
        if found.corrupt
        else None,
        _groups("Equal files in one split", found.copies),
        _groups("Equal files in two classes", found.conflicts),
    ]
    if found.leaks:
        cells = [
            (*leak.paths, " and ".join(leak.splits), _compare(leak.distance))
            for leak in found.leaks
        ]
        pairs = [path for leak in found.leaks[:PAIRS] for path in leak.paths]
        titles = [split for leak in found.leaks[:PAIRS] for split in leak.splits]
        files = [os.path.join(found.folder, path) for path in pairs]
        finding = "A model that was trained on one of a pair scores too well on the other."
        items: list[Plot | Table] = [
            _plot("leaks", "The first pairs, side by side.", files, titles),
            _list(("image", "image", "splits", "compared"), cells),
        ]
        problems.append(Section("Images in two splits", items, finding))
    first, *lines = found.describe(0)
    return Page(
        title=f"Images in {os.path.basename(os.path.abspath(found.folder))}",
        finding=first,
        sections=[
            Section("Summary", [Table((), [(line,) for line in lines])]),
            Section("Images per class", [Table(("class", *found.class_counts, "all"), rows)]),
            *filter(None, problems),
            Section(
                "One image of each class",
                [_plot("samples", "", found.samples[:shown], found.class_names[:shown])],
                "" if shown == len(found.samples) else f"The first {shown} classes.",
            ),
        ],
        foot=[f"Made by: reszoo data inspect {found.folder}"],
    )


def _compare(distance: int) -> str:
    return "equal files" if distance < 0 else f"{distance} of 64 bits differ"


def _groups(title: str, groups: Sequence[Sequence[str]]) -> Section | None:
    rows = [(f"{len(group)}", ", ".join(group)) for group in groups]
    return Section(title, [_list(("files", "paths"), rows)]) if rows else None


def _list(headers: Sequence[str], rows: object) -> Table:
    every = list(rows)  # type: ignore[call-overload]
    more = len(every) - LISTED
    return Table(headers, every[:LISTED], f"{more:,} more are not shown." if more > 0 else "")


def _plot(name: str, caption: str, paths: Sequence[str], titles: Sequence[str]) -> Plot:
    """Return a figure of image files in a grid."""
    columns = min(COLUMNS, len(paths))
    rows = -(-len(paths) // columns)

    def draw(figure: Figure, theme: Theme) -> None:
        for number, (path, title) in enumerate(zip(paths, titles, strict=True), 1):
            axes = figure.add_subplot(rows, columns, number)
            axes.axis("off")
            axes.set_title(textwrap.shorten(title, 22, placeholder="..."), fontsize=8)
            try:
                with Image.open(path) as image:
                    small = ImageOps.exif_transpose(image).convert("RGB")
                small.thumbnail((SIDE, SIDE))
                axes.imshow(np.asarray(small))
            except (OSError, ValueError, SyntaxError):
                axes.text(0.5, 0.5, "not readable", ha="center", va="center", color=theme.ink)

    return Plot(name, caption, draw, size=(8.0, 1.6 * rows))
