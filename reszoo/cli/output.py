"""Tables of results, and loading TensorFlow without its log lines."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reszoo.errors import ReszooError
from reszoo.lazy import check_backend
from reszoo.loading import import_quietly

if TYPE_CHECKING:
    from reszoo.weights.published import Weights


def on_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


GAP = 2  # spaces between the columns of a table


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str | int]],
    *,
    whole: int = 1,
    spare: Sequence[str] = (),
) -> None:
    """Print a table to standard output: drawn on a terminal, tab-separated for another program.

    On a terminal, integers are right-aligned with commas between thousands. Text wraps; nothing is
    cut.

    Args:
        headers: The columns' names.
        rows: The cells, one sequence per row.
        whole: How many of the first columns never wrap on a terminal, because a user types their
            cells again.
        spare: Columns that a terminal which is too narrow does without, the first of them first. A
            last line names them.
    """
    lines: list[list[str | int]] = [list(row) for row in rows]
    if not on_terminal():
        print("\t".join(headers))
        for line in lines:
            print("\t".join(str(value) for value in line))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    cells = [
        [f"{value:,}" if isinstance(value, int) else value for value in line] for line in lines
    ]
    widths = [
        max(len(cell) for cell in column) + GAP for column in zip(headers, *cells, strict=True)
    ]
    shown = list(range(len(headers)))
    omitted: list[str] = []
    for name in spare:
        if sum(widths[index] for index in shown) > console.width:
            omitted.append(name)
            shown.remove(list(headers).index(name))
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0))
    for index in shown:
        number = bool(lines) and isinstance(lines[0][index], int)
        table.add_column(
            headers[index],
            justify="right" if number else "left",
            no_wrap=index < whole or number,
            overflow="fold",
        )
    for row in cells:
        table.add_row(*(Text(row[index]) for index in shown))
    console.print(table)
    if omitted:
        print(
            f"Not shown in {console.width} columns: {', '.join(omitted)}. Add `| cat` to print all."
        )


def print_weights(rows: Sequence[Weights], *, named: bool = True) -> None:
    """Print a table of published weights, with the model of each if `named`."""
    first = ("model", "weights", "top-1", "top-5", "size", "parameters", "license", "source")
    headers = (*first, "preprocessing")
    cells: list[tuple[str | int, ...]] = [
        (
            row.model,
            row.tag,
            f"{row.top1:.2f}",
            "" if row.top5 is None else f"{row.top5:.2f}",
            row.transforms.image_size[0],
            row.parameters,
            row.license,
            row.source.removeprefix("https://"),
            str(row.transforms),
        )
        for row in rows
    ]
    start = 0 if named else 1
    spare = ("preprocessing", "source", "parameters", "size", "top-5")
    print_table(headers[start:], [row[start:] for row in cells], whole=2 - start, spare=spare)


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """Add `--quiet` and `--verbose`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="print results and errors only")
    verbose = "also print settings, versions, and what TensorFlow logs"
    group.add_argument("--verbose", action="store_true", help=verbose)


def load_tensorflow(*, verbose: bool = False) -> None:
    """Import TensorFlow, without its log lines unless `verbose`.

    Raises:
        ReszooError: KERAS_BACKEND names another backend, or TensorFlow is not installed.
    """
    check_backend(os.environ.get("KERAS_BACKEND") or "tensorflow")
    if importlib.util.find_spec("tensorflow") is None:
        raise ReszooError("tensorflow is not installed: pip install tensorflow")
    if verbose:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
        importlib.import_module("tensorflow")
    else:
        import_quietly("tensorflow")
