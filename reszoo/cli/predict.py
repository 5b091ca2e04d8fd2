"""`reszoo predict`: classify images with a trained model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from reszoo.cli.model_argument import add_model, open_model
from reszoo.cli.output import load_tensorflow, on_terminal, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo predict`."""
    add_model(parser)
    add = parser.add_argument
    files = "JPEG, PNG, BMP, GIF, WebP or TIFF files, or folders of them"
    add("images", metavar="IMAGE", type=Path, nargs="+", help=files)
    add("--top", type=int, default=5, metavar="K", help="classes per image (default %(default)s)")
    add("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Classify, and print the most probable classes of each image."""
    source = open_model(args)  # reports errors before TensorFlow is loaded
    load_tensorflow()
    from reszoo.evaluation.predict import predict
    from reszoo.images.formats import printable

    rows = [
        {**prediction.to_dict(), "path": printable(prediction.path)}
        for prediction in predict(source, args.images, top=args.top)
    ]
    if args.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    repeat = not on_terminal()
    cells = [
        (row["path"] if rank == 0 or repeat else "", label, f"{100 * probability:.2f} %")
        for row in rows
        for rank, (label, probability) in enumerate(
            zip(row["labels"], row["probabilities"], strict=True)
        )
    ]
    print_table(("image", "class", "probability"), cells)
    return 0
