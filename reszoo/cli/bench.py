"""`reszoo bench`: speed, measured side by side with PyTorch, timm and stock Keras."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reszoo.bench.limits import exit_on_sigterm
from reszoo.bench.run import KINDS, PEERS, VARIANTS, bench
from reszoo.cli.output import print_table
from reszoo.files import write_json

HELP = "measure speed side by side with PyTorch, timm and stock Keras"
SIDES = f"by commas, of {', '.join(PEERS)}; for train also {', '.join(VARIANTS)}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `reszoo bench` takes."""
    parser.add_argument("what", metavar="WHAT", help=", ".join(KINDS))
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        default=[],
        help="nets by name; for input: cifar, photographs",
    )
    parser.add_argument("--against", metavar="SIDES", default="", help=SIDES)
    parser.add_argument(
        "--peer",
        metavar="PYTHON",
        help="of an environment with them (default: RESZOO_PEER, or this one)",
    )
    parser.add_argument(
        "--batch", type=int, default=0, help="images a call (default: 128 of 32 x 32, else 16)"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="turns of each side (default %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or gpu (default %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=0, help="of every side (default: the machine's cores)"
    )
    parser.add_argument("--precision", default="float32", choices=("float32", "mixed_bfloat16"))
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the record there too")


def run(args: argparse.Namespace) -> int:
    """Measure, print a table, and write the record if asked."""
    lively = sys.stderr.isatty()
    against = [side for side in args.against.split(",") if side]
    with (
        exit_on_sigterm()
    ):  # or the processes of the sides would stay, stopped, and keep their memory
        record = bench(
            args.what,
            args.models,
            batch=args.batch,
            against=against,
            peer=args.peer or os.environ.get("RESZOO_PEER"),
            rounds=args.rounds,
            device=args.device,
            threads=args.threads,
            precision=args.precision,
            say=lambda line: (
                print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True) if lively else None
            ),
        )
    if lively:
        print("\r\x1b[K", end="", file=sys.stderr)
    print_table(*table(record), whole=2)
    if args.json:
        record = {"command": command(args)} | record
        write_json(args.json, record)
    return 0


def table(record: dict[str, Any]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return the headers and rows that a person reads."""
    seconds = record["what"] in ("build", "first-step")
    headers = (
        "model",
        "side",
        "seconds" if seconds else "images/s",
        "range",
        "reszoo is",
        "of peak",
        "memory",
        "versions",
    )
    rows: list[Sequence[str]] = []
    for model in record["models"]:
        name = (
            f"{model['model']} b{model['batch']}"
            if "batch" in model and record["what"] != "build"
            else model["model"]
        )
        for side, row in model["sides"].items():
            low, high = row["range"]
            times = row.get("reszoo_times_faster")
            spread = row.get("reszoo_times_faster_range", (0, 0))
            rows.append(
                (
                    name,
                    side,
                    f"{row['seconds'] if seconds else row['images_per_second']:,.4g}",
                    f"{low:,.4g} to {high:,.4g}",
                    ""
                    if times is None
                    else f"{times:.2f} times as fast ({spread[0]:.2f} to {spread[1]:.2f})",
                    f"{100 * row['share_of_matrix_product']:.0f} %"
                    if "share_of_matrix_product" in row
                    else "",
                    f"{row['peak_mb']:,} MB" if "peak_mb" in row else "",
                    row["version"],
                )
            )
    return headers, rows


def command(args: argparse.Namespace) -> str:
    """Return the command that makes such a record, without paths."""
    words = ["reszoo", "bench", args.what, *args.models]
    for name, default in (
        ("against", ""),
        ("batch", 0),
        ("rounds", 5),
        ("device", "cpu"),
        ("threads", 0),
        ("precision", "float32"),
    ):
        if getattr(args, name) != default:
            words += [f"--{name}", str(getattr(args, name))]
    if args.peer:
        words += ["--peer", "PYTHON"]
    return shlex.join([*words, "--json", "OUT.json"])
