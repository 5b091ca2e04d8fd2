"""`reszoo export`: write a trained net as a SavedModel to serve."""

from __future__ import annotations

import argparse
from pathlib import Path

from reszoo.cli.net import add_net
from reszoo.cli.output import load_tensorflow
from reszoo.training.named import find_net

HELP = "write a trained net as a SavedModel to serve"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `reszoo export` takes."""
    add_net(parser)
    parser.add_argument("out", metavar="OUT", type=Path, help="new folder for the SavedModel")


def run(args: argparse.Namespace) -> int:
    """Export, check what was written in a fresh process, and say how it went."""
    find_net(args.net, args.weights)  # refuses what is wrong at once, before TensorFlow is loaded
    load_tensorflow()
    from reszoo.exporting.savedmodel import export

    report = export(args.net, args.out, weights=args.weights)
    print(f"{report.path}: SavedModel of {report.bytes / 1e6:.1f} MB, signatures serving_default and image_bytes")
    print(
        f"checked: loaded by TensorFlow alone, it gives {report.images_checked} images the Keras model's probabilities "
        f"(largest difference {report.difference:.1g})"
    )
    return 0
