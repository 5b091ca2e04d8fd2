"""`reszoo predict`: classify images with a trained model."""

from __future__ import annotations

import argparse
import csv
import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from reszoo.cli.model_argument import add_model, open_model
from reszoo.cli.output import load_tensorflow, on_terminal, print_table
from reszoo.errors import ReszooError

if TYPE_CHECKING:
    from reszoo.evaluation.predict import Prediction

HEADERS = ("image", "class", "probability")
SHOWN = 64  # images per table on a terminal
SOME_UNREADABLE = 1  # exit status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo predict`."""
    add_model(parser)
    add = parser.add_argument
    files = (
        "JPEG, PNG, BMP, GIF, WebP or TIFF files, folders of them, patterns such as '*.jpg', or - "
        "for one path per line of standard input"
    )
    add("images", metavar="IMAGE", nargs="+", help=files)
    add("--top", type=int, default=5, metavar="K", help="classes per image (default %(default)s)")
    text = "tsv, csv, or jsonl: one JSON object per line (default: a table on a terminal, else tsv)"
    add("--format", choices=("tsv", "csv", "jsonl"), help=text)
    add("--json", action="store_true", help="print one JSON array when all images are classified")
    parser.epilog = (
        "exit status: 0 if all images were classified, 1 if some cannot be read, 2 if none can"
    )


def run(args: argparse.Namespace) -> int:
    """Classify, and print the most probable classes of each image as batches are done."""
    if args.json and args.format:
        raise ReszooError(f"--json is invalid with --format {args.format}; expected one of them")
    source = open_model(args)  # reports errors before TensorFlow is loaded
    load_tensorflow()
    from reszoo.evaluation.predict import Prediction, predict_each

    kind = "json" if args.json else args.format or ("table" if on_terminal() else "tsv")
    keep = {"json": sys.maxsize, "table": SHOWN}.get(kind, 1)
    waiting: list[Prediction] = []
    classified = unreadable = 0
    for result in predict_each(source, list_paths(args.images), top=args.top):
        if not isinstance(result, Prediction):
            unreadable += 1
            print(f"reszoo: {result}", file=sys.stderr, flush=True)
            continue
        waiting.append(result)
        classified += 1
        if len(waiting) == keep:
            print_predictions(waiting, kind, first=classified == keep)
            waiting.clear()
    if waiting:
        print_predictions(waiting, kind, first=classified == len(waiting))
    if unreadable and classified + unreadable > 1:
        count = f"{unreadable} of {classified + unreadable}"
        print(f"reszoo: {count} images cannot be read", file=sys.stderr)
    return 0 if not unreadable else SOME_UNREADABLE if classified else 2


def list_paths(words: Sequence[str]) -> Iterator[str]:
    """Yield paths: patterns are expanded, and - is replaced by the lines of standard input."""
    for word in words:
        if word == "-":
            lines = (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer)
            yield from filter(None, lines)
        elif glob.has_magic(word) and not os.path.lexists(word):
            found = sorted(glob.glob(word, recursive=True))
            if "**" in word:  # whose folders would be read twice
                found = [path for path in found if not os.path.isdir(path)]
            if not found:
                raise ReszooError(f"IMAGE: {word} is invalid; it matches no file")
            yield from found
        else:
            yield word


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
