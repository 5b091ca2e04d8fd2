"""`reszoo data`: list known datasets, prepare one, and inspect a folder of images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from reszoo.cli.output import load_tensorflow, print_table
from reszoo.files import check_output, write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list`, `prepare` and `inspect`."""
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
    inspecting = actions.add_parser(
        "inspect",
        help="what a folder of images holds: counts, sizes, damage, duplicates, leakage",
        description="Decode every image of a folder; report counts, sizes and formats, corrupt "
        "files, and images that are equal or look alike.",
    )
    inspecting.add_argument("folder", metavar="FOLDER", help="a folder of images")
    labels = "CSV file in the folder that labels the images, as data.labels"
    inspecting.add_argument("--labels", default="", metavar="FILE", help=labels)
    several = "the file may state several labels per image, as data.multi_label"
    inspecting.add_argument("--multi-label", action="store_true", help=several)
    inspecting.add_argument("--json", action="store_true", help="print JSON")
    page = "write a page with all findings and one image of each class"
    inspecting.add_argument("--html", type=Path, metavar="PAGE", help=page)
    for action in (listing, preparing):
        action.add_argument(
            "--dir",
            dest="data_dir",
            type=Path,
            metavar="DIR",
            help="folder of prepared datasets ($RESZOO_DATA or ~/.cache/reszoo/data)",
        )


def run(args: argparse.Namespace) -> int:
    """List the datasets, prepare one, or inspect a folder."""
    if args.action == "inspect":
        return _inspect(args)
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


def _inspect(args: argparse.Namespace) -> int:
    if args.html:
        check_output(args.html, "page")
    load_tensorflow()
    from reszoo.data.inspection import inspect_folder

    folder = args.folder.removeprefix("folder:")
    found = inspect_folder(folder, args.labels, multi_label=args.multi_label)
    if args.html:
        from reszoo.data.inspection_page import inspection_page
        from reszoo.reporting.page import render_page

        write_text(args.html, render_page(inspection_page(found)))
    if args.json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return 0
    print("\n".join(found.describe()))
    print()
    counts = zip(found.class_names, *found.class_counts.values(), strict=True)
    print_table(("class", *found.class_counts), [list(row) for row in counts])
    if args.html:
        print(f"\npage: {args.html}")
    return 0
