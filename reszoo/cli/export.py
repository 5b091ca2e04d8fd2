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
    parser.add_argument(
        "--fold",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fold batch normalisation into the convolution before it, wherever that is exact (default: fold)",
    )


def run(args: argparse.Namespace) -> int:
    """Export, check what was written in a fresh process, and say how it went."""
    find_net(args.net, args.weights)  # refuses what is wrong at once, before TensorFlow is loaded
    load_tensorflow()
    from reszoo.exporting.savedmodel import export

    report = export(args.net, args.out, weights=args.weights, fold_norms=args.fold)
    print(f"{report.path}: SavedModel of {report.bytes / 1e6:.1f} MB, signatures serving_default and image_bytes")
    if args.fold:
        rest = f", {report.kept} stay" if report.kept else ""
        print(f"{report.folded} normalisations folded into convolutions{rest}")
    print(
        f"checked: loaded by TensorFlow alone, it gives {report.images_checked} images the Keras model's probabilities "
        f"(largest difference {report.difference:.1g})"
    )
    return 0
