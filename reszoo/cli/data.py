"""`reszoo data`: which sets there are, and preparing one."""

from __future__ import annotations

import argparse
from pathlib import Path

from reszoo.cli.output import load_tensorflow

HELP = "list data sets and prepare them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list` and `prepare`."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = verbs.add_parser("list", help="the sets known by name, and which are here")
    preparing = verbs.add_parser(
        "prepare",
        help="download a set, or take it from archives you have",
        description="Prepare a set of TensorFlow Datasets, or check every image of folder:PATH.",
    )
    preparing.add_argument("name", metavar="NAME", help="a set, or folder:PATH")
    preparing.add_argument(
        "--from",
        dest="from_dir",
        type=Path,
        metavar="DIR",
        help="take the archives from DIR; download nothing",
    )
    for verb in (listing, preparing):
        verb.add_argument(
            "--dir",
            dest="data_dir",
            type=Path,
            metavar="DIR",
            help="where sets lie ($RESZOO_DATA or ~/.cache/reszoo/data)",
        )


def run(args: argparse.Namespace) -> int:
    """List the sets, or prepare one."""
    if args.action == "list":
        _list(args.data_dir)
    else:
        load_tensorflow()
        from reszoo.data.prepare import prepare

        print(prepare(args.name, from_dir=args.from_dir, data_dir=args.data_dir))
    return 0


def _list(data_dir: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from reszoo.data.catalog import EMBEDDED, KNOWN, data_home, is_prepared

    home = data_home(data_dir)
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for column in ("name", "images", "classes", "train", "test", "size", "here"):
        table.add_column(
            column,
            justify="right" if column in ("classes", "train", "test") else "left",
            no_wrap=True,
        )
    for known in KNOWN.values():
        here = (
            "always" if known.name in EMBEDDED else "yes" if is_prepared(known.name, home) else "no"
        )
        counts = (f"{known.classes:,}", f"{known.train:,}", f"{known.test:,}")
        table.add_row(known.name, known.title, *counts, known.shape, here)
    Console(highlight=False).print(table)
    print(f"\nPrepared sets lie in {home}. Prepare one: reszoo data prepare NAME [--from DIR]")
    print(
        "Any other image-classification set of TensorFlow Datasets goes by its name, and folder:PATH by its path."
    )
