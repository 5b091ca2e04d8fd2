"""`reszoo predict`: classify images with a trained net."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from reszoo.cli.net import add_net
from reszoo.cli.output import load_tensorflow, on_terminal, print_table
from reszoo.evaluation.source import open_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `reszoo predict` takes."""
    add_net(parser)
    parser.add_argument(
        "images",
        metavar="IMAGE",
        type=Path,
        nargs="+",
        help="JPEG, PNG, BMP, GIF, WebP or TIFF files, or folders of them",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=5,
        metavar="K",
        help="classes for each image (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")


def run(args: argparse.Namespace) -> int:
    """Classify, and print the most probable classes of each image."""
    source = open_source(
        args.net, args.weights
    )  # rejects what is wrong before TensorFlow is loaded
    load_tensorflow()
    from reszoo.evaluation.predict import predict
    from reszoo.images.formats import printable

    predictions = predict(source, args.images, top=args.top)
    if args.json:
        rows = [
            {**prediction.to_dict(), "path": printable(prediction.path)}
            for prediction in predictions
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    print_table(
        ("image", "class", "probability"),
        [
            (
                printable(prediction.path) if rank == 0 or not on_terminal() else "",
                label,
                f"{100 * probability:.2f} %",
            )
            for prediction in predictions
            for rank, (label, probability) in enumerate(
                zip(prediction.labels, prediction.probabilities, strict=True)
            )
        ],
    )
    return 0
