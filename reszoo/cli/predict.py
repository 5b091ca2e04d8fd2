"""`reszoo predict`: classify images with a trained model."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reszoo.cli.image_argument import Readable, add_images, list_paths
from reszoo.cli.model_argument import add_model, open_model
from reszoo.cli.output import load_tensorflow, on_terminal, print_table
from reszoo.errors import ReszooError

if TYPE_CHECKING:
    from reszoo.evaluation.predict import Prediction

HEADERS = ("image", "class", "probability")
SHOWN = 64  # images per table on a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo predict`."""
    add_model(parser)
    add = parser.add_argument
    add_images(parser)
    add("--top", type=int, default=5, metavar="K", help="classes per image (default %(default)s)")
    text = "tsv, csv, or jsonl: one JSON object per line (default: a table on a terminal, else tsv)"
    add("--format", choices=("tsv", "csv", "jsonl"), help=text)
    add("--json", action="store_true", help="print one JSON array when all images are classified")


def run(args: argparse.Namespace) -> int:
    """Classify, and print the most probable classes of each image as batches are done."""
    if args.json and args.format:
        raise ReszooError(f"--json is invalid with --format {args.format}; expected one of them")
    source = open_model(args)  # reports errors before TensorFlow is loaded
    load_tensorflow()
    from reszoo.evaluation.predict import predict_each

    kind = "json" if args.json else args.format or ("table" if on_terminal() else "tsv")
    keep = {"json": sys.maxsize, "table": SHOWN}.get(kind, 1)
    waiting: list[Prediction] = []
    predictions = Readable(predict_each(source, list_paths(args.images), top=args.top))
    for number, prediction in enumerate(predictions, 1):
        waiting.append(prediction)
        if len(waiting) == keep:
            print_predictions(waiting, kind, first=number == keep)
            waiting.clear()
    if waiting:
        print_predictions(waiting, kind, first=True)
    return predictions.status


def print_predictions(predictions: Sequence[Prediction], kind: str, *, first: bool) -> None:
    """Print predictions as "table", "tsv", "csv", "jsonl" or "json".

    Args:
        predictions: The next ones.
        kind: The format.
        first: Whether they are the first, which headers precede.
    """
    from reszoo.images.formats import printable

    objects = [{**each.to_dict(), "path": printable(each.path)} for each in predictions]
    if kind == "json":
        print(json.dumps(objects, indent=2, ensure_ascii=False))
        return
    if kind == "jsonl":
        for each in objects:
            print(json.dumps(each, ensure_ascii=False), flush=True)
        return
    rows = [
        (each["path"] if rank == 0 or kind != "table" else "", label, probability)
        for each in objects
        for rank, (label, probability) in enumerate(
            zip(each["labels"], each["probabilities"], strict=True)
        )
    ]
    if kind == "table":
        print_table(HEADERS, [(*names, f"{100 * value:.2f} %") for *names, value in rows])
        return
    cells = [HEADERS] if first else []
    cells += [(path, label, f"{value:.6g}") for path, label, value in rows]
    if kind == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows(cells)
    else:  # neither paths nor class names have tabs
        print(*map("\t".join, cells), sep="\n")
    sys.stdout.flush()
