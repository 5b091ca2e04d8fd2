"""A report: sections of a finding, tables and figures, written as a self-contained HTML file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reszoo.files import write_bytes, write_text
from reszoo.reporting.plots import DARK, LIGHT, Plot, render
from reszoo.reporting.template import render_template
from reszoo.types import JsonMapping


@dataclass(frozen=True)
class Table:
    """Rows of cells below headers. Numbers are formatted, with units. note: one line below."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Card:
    """Images side by side, each the bytes of a JPEG file, and lines below them."""

    images: Sequence[bytes]
    lines: Sequence[str]

    @property
    def sources(self) -> list[str]:
        """The images as data URLs."""
        return [f"data:image/jpeg;base64,{base64.b64encode(one).decode()}" for one in self.images]


@dataclass(frozen=True)
class Gallery:
    """Cards in rows. note: one line below."""

    cards: Sequence[Card]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, tables, figures and cards in order. finding: one sentence, or ""."""

    title: str
    items: Sequence[Plot | Table | Gallery]
    finding: str = ""


@dataclass(frozen=True)
class Page:
    """A report. finding: the result in one sentence; foot: lines on how it was made."""

    title: str
    finding: str
    sections: Sequence[Section]
    foot: Sequence[str] = ()


def write_page(folder: Path, page: Page) -> Path:
    """Write `folder`/report.html, and each figure as PNG and SVG files. Return the page's path."""
    for plot in _plots(page):
        write_bytes(folder / f"{plot.name}.png", render(plot, LIGHT, "png"))
        write_bytes(folder / f"{plot.name}.svg", render(plot, LIGHT, "svg"))
    path = folder / "report.html"
    write_text(path, render_page(page))
    return path


def render_page(page: Page) -> str:
    """Return a page as HTML that holds its figures."""
    figures = {
        plot.name: {
            theme.name: base64.b64encode(render(plot, theme, "svg")).decode()
            for theme in (LIGHT, DARK)
        }
        for plot in _plots(page)
    }
    return render_template("report.html.j2", page=page, figures=figures)


def _plots(page: Page) -> list[Plot]:
    return [item for section in page.sections for item in section.items if isinstance(item, Plot)]


def provenance(command: str, environment: JsonMapping, source: str) -> list[str]:
    """Return the lines at a page's foot.

    Args:
        command: what made the results, "" if unknown.
        environment: when, with which versions and where, as a run records it.
        source: the files that the page is made from.
    """
    versions = ", ".join(
        f"{name} {version}" for name, version in environment.get("versions", {}).items()
    )
    commit = f"commit {environment['git']}" if environment.get("git") else ""
    about = [environment.get("started", ""), versions, environment.get("platform", ""), commit]
    lines = [f"Made by: {command}"] if command else []
    return [*lines, f"{'; '.join(str(part) for part in about if part)}. Rebuilt from {source}."]


def base_name(name: str) -> str:
    """Return a model's or dataset's name without the folders of its path."""
    return Path(name.removeprefix("folder:")).name


def mean_and_deviation(values: Sequence[float | None], digits: int = 2) -> str:
    """Return "mean ± sample deviation" of finite values, one value's mean alone, "-" for none."""
    finite = [value for value in values if value is not None and np.isfinite(value)]
    if not finite:
        return "-"
    deviation = f" ± {np.std(finite, ddof=1):.{digits}f}" if len(finite) > 1 else ""
    return f"{np.mean(finite):.{digits}f}{deviation}"
