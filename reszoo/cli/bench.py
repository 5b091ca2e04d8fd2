"""`reszoo bench`: speed, measured side by side with PyTorch, timm and stock Keras."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from reszoo.bench.comparison import KINDS, PEERS, VARIANTS, bench
from reszoo.bench.limits import exit_on_sigterm
from reszoo.cli.output import print_table
from reszoo.files import write_json
from reszoo.reporting.reporter import Reporter
from reszoo.types import JsonObject

SIDES = f"by commas, of {', '.join(PEERS)}; for train also {', '.join(VARIANTS)}"
OPTIONS = {"against": "", "batch": 0, "rounds": 5, "device": "cpu", "threads": 0}
OPTIONS |= {"precision": "float32"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo bench`."""
    add = parser.add_argument
    add("what", metavar="WHAT", help=", ".join(KINDS))
    models = "model names; for input: cifar, photographs"
    add("models", metavar="MODEL", nargs="*", default=[], help=models)
    add("--against", metavar="SIDES", help=SIDES)
    peer = "Python of an environment with them (default: RESZOO_PEER, or this one)"
    add("--peer", metavar="PYTHON", help=peer)
    add("--batch", type=int, help="images per call (default: 128 of 32 x 32, else 16)")
    add("--rounds", type=int, help="turns of each side (default 5)")
    add("--device", help="cpu or gpu (default cpu)")
    add("--threads", type=int, help="threads of each side (default: the number of cores)")
    add("--precision", choices=("float32", "mixed_bfloat16"))
    add("--json", metavar="FILE", type=Path, help="write the record there too")
    parser.set_defaults(**OPTIONS)


def run(args: argparse.Namespace) -> int:
    """Measure, print a table, and write the record if asked."""
    with exit_on_sigterm():  # stopped sides would stay, and keep their memory
        record = bench(
            args.what,
            args.models,
            batch=args.batch,
            against=[side for side in args.against.split(",") if side],
            peer=args.peer or os.environ.get("RESZOO_PEER"),
            rounds=args.rounds,
            device=args.device,
            threads=args.threads,
            precision=args.precision,
            reporter=Reporter(quiet=not sys.stderr.isatty(), stderr=True),
        )
    print_table(*make_table(record), whole=2)
    if args.json:
        write_json(args.json, {"command": format_command(args)} | record)
    return 0


def make_table(record: JsonObject) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return the headers and rows of a record."""
    unit = "seconds" if record["what"] in ("build", "first-step") else "images_per_second"
    headers = ("model", "side", unit.replace("_per_second", "/s"), "range", "reszoo is", "of peak")
    rows: list[Sequence[str]] = []
    for model in record["models"]:
        batch = "" if record["what"] == "build" else f" b{model['batch']}"
        for side, row in model["sides"].items():
            low, high = row["range"]
            ratio = ""
            if "reszoo_times_faster" in row:
                least, most = row["reszoo_times_faster_range"]
                times = row["reszoo_times_faster"]
                ratio = f"{times:.2f} times as fast ({least:.2f} to {most:.2f})"
            share = row.get("share_of_matrix_product")
            rows.append(
                (
                    model["model"] + batch,
                    side,
                    f"{row[unit]:,.4g}",
                    f"{low:,.4g} to {high:,.4g}",
                    ratio,
                    "" if share is None else f"{100 * share:.0f} %",
                    f"{row['peak_mb']:,} MB",
                    row["version"],
                )
            )
    return (*headers, "memory", "versions"), rows


def format_command(args: argparse.Namespace) -> str:
    """Return the command that makes such a record, without paths."""
    words = ["reszoo", "bench", args.what, *args.models]
    for name, default in OPTIONS.items():
        if getattr(args, name) != default:
            words += [f"--{name}", str(getattr(args, name))]
    return shlex.join([*words, *(["--peer", "PYTHON"] if args.peer else []), "--json", "OUT.json"])
