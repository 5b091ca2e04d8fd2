"""`reszoo export`: write a run's net as a SavedModel to serve."""

from __future__ import annotations

import argparse
from pathlib import Path

from reszoo.cli.output import load_tensorflow

HELP = "write a run's net as a SavedModel to serve"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `reszoo export` takes."""
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run")
    parser.add_argument("out", metavar="OUT", type=Path, help="new folder for the SavedModel")


def run(args: argparse.Namespace) -> int:
    """Export, check what was written in a fresh process, and say how it went."""
    from reszoo.training.run import Run

    folder = args.run if args.run.is_file() else Run.open(args.run)
    load_tensorflow()
    from reszoo.exporting.savedmodel import export

    report = export(folder, args.out)
    print(f"{report.path}: SavedModel of {report.bytes / 1e6:.1f} MB, signatures serving_default and image_bytes")
    print(
        f"checked: loaded by TensorFlow alone, it gives {report.images_checked} images the Keras model's probabilities "
        f"(largest difference {report.difference:.1g})"
    )
    return 0
