"""Jinja2 templates of pages and cards, in the folder `templates`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jinja2


def render_template(name: str, **values: Any) -> str:
    """Return the template `name` filled with `values`; in HTML every value is escaped."""
    return _environment().get_template(name).render(values)


def escape_cell(value: Any) -> str:
    """Return text that neither ends a cell of a Markdown table nor starts markup."""
    return (
        str(value).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = escape_cell
    return environment
