"""What a notebook shows: tables, images and a progress bar, as HTML."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

IMAGE_WIDTH = 900  # pixels


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook. IPython is not imported."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def html_table(
    headers: Sequence[object], rows: Sequence[Sequence[object]], *, title: str = ""
) -> str:
    """Return a table for `_repr_html_`. All text is escaped.

    Args:
        headers: One per column.
        rows: The cells of each row; the first cell is its header.
        title: A line above the table.
    """
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in headers)
    lines = [f"<tr>{head}</tr>"]
    for first, *others in rows:
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in others)
        lines.append(f"<tr><th>{escape(str(first))}</th>{cells}</tr>")
    caption = f"<caption>{escape(title)}</caption>\n" if title else ""
    return "\n".join([f"<table>\n{caption}{lines[0]}", *lines[1:], "</table>"])


def html_image(path: Path, description: str) -> str:
    """Return an image file as an image that is part of the page: smaller, with 64 colors."""
    from PIL import Image

    small = io.BytesIO()
    with Image.open(path) as image:
        image.thumbnail((IMAGE_WIDTH, IMAGE_WIDTH))
        image.convert("RGB").quantize(64).save(small, "PNG", optimize=True)
    data = base64.b64encode(small.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(description)}">'


class NotebookBar:
    """A progress bar in the output of a cell. It stays when it stops.

    Args:
        total: Steps in all.
        done: Steps done before.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        from IPython.display import display

        self._total = total
        self._handle = display(self._content(done, ""), raw=True, display_id=True)

    def update(self, done: int, note: str) -> None:
        """Show that `done` steps are done, with a text."""
        self._handle.update(self._content(done, note), raw=True)

    def line(self, text: str) -> None:
        """Print a line below the bar."""
        print(text, flush=True)

    def stop(self) -> None:
        """Leave the bar as it is."""

    def _content(self, done: int, note: str) -> dict[str, str]:
        text = f"{done}/{self._total}  {note}".rstrip()
        bar = f'<progress value="{done}" max="{self._total}"></progress>'
        return {"text/plain": text, "text/html": f"{bar} <code>{escape(text)}</code>"}
