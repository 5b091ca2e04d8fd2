"""Tables: drawn on a terminal, plain columns with tabs between them for another program to read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def on_terminal() -> bool:
    """Return whether a person sees what is printed."""
    return sys.stdout is not None and sys.stdout.isatty()


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str | int]]) -> None:
    """Print a table to standard output; on a terminal, whole numbers stand at the right with commas between thousands."""
    lines: list[list[str | int]] = [list(row) for row in rows]
    if not on_terminal():
        print("\t".join(headers))
        for line in lines:
            print("\t".join(str(value) for value in line))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for index, header in enumerate(headers):
        number = bool(lines) and isinstance(lines[0][index], int)
        table.add_column(header, justify="right" if number else "left", no_wrap=index == 0 or number)
    for line in lines:
        table.add_row(*(Text(f"{value:,}" if isinstance(value, int) else value) for value in line))
    Console().print(table)
