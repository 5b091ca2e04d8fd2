"""`reszoo data`: list known datasets and prepare one."""

from __future__ import annotations

import argparse
from pathlib import Path

from reszoo.cli.output import load_tensorflow, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list` and `prepare`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="known datasets, and which are prepared")
    preparing = actions.add_parser(
        "prepare",
        help="download a dataset, or read archives that you have",
        description="Prepare a dataset of TensorFlow Datasets, or check every image of a folder.",
    )
    preparing.add_argument("name", metavar="NAME", help="a dataset, or a folder of images")
    preparing.add_argument(
        "--from",
        dest="from_dir",
        type=Path,
        metavar="PATH",
        help="folder with the archives, or of CIFAR a file or folder; nothing is downloaded",
    )
    for action in (listing, preparing):
        action.add_argument(
            "--dir",
            dest="data_dir",
            type=Path,
            metavar="DIR",
            help="folder of prepared datasets ($RESZOO_DATA or ~/.cache/reszoo/data)",
        )


def run(args: argparse.Namespace) -> int:
    """List the datasets, or prepare one."""
    if args.action == "prepare":
        load_tensorflow()
        from reszoo.data.catalog import name_data
        from reszoo.data.preparation import prepare_dataset

        print(prepare_dataset(name_data(args.name), from_dir=args.from_dir, data_dir=args.data_dir))
        return 0
    from reszoo.data.catalog import EMBEDDED, KNOWN, data_home, is_prepared
    from reszoo.data.cifar import find_cifar

    home = data_home(args.data_dir)
    rows = []
    for known in KNOWN.values():
        found = is_prepared(known.name, home) or find_cifar(known.name, home)
        prepared = "yes" if found else "no"
        prepared = "always" if known.name in EMBEDDED else prepared
        rows.append(
            (known.name, known.title, known.classes, known.train, known.test, known.shape, prepared)
        )
    print_table(("name", "images", "classes", "train", "test", "size", "prepared"), rows)
    print(f"\nPrepared datasets are in {home}. Prepare one: reszoo data prepare NAME [--from DIR]")
    print("Other datasets: image classification of TensorFlow Datasets by name, and folder:PATH.")
    return 0
