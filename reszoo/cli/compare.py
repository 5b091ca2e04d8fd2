"""`reszoo compare`: compare runs by recipe, with means over seeds and paired differences."""

from __future__ import annotations

import argparse
from pathlib import Path

from reszoo.cli.output import load_tensorflow, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo compare`."""
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or folders of runs")
    out = "folder of the report, which the same command writes anew (default %(default)s)"
    add("--out", type=Path, default=Path("comparison"), metavar="DIR", help=out)
    score = "error (in percent), or another score of test.json, such as loss (default %(default)s)"
    add("--score", default="error", metavar="NAME", help=score)


def run(args: argparse.Namespace) -> int:
    """Write the report, and print means and differences."""
    load_tensorflow()
    from reszoo.comparison.compare import compare
    from reszoo.comparison.page import describe_difference, format_mean

    found = compare(args.runs, out=args.out, score=args.score)
    rows = [
        (group.label, format_mean(list(values.values()), args.score), str(len(values)))
        for group in found.groups
        for values in [group.values(args.score)]
    ]
    print_table(("recipe", args.score, "seeds"), rows)
    for pair in found.pairs:
        difference = describe_difference(pair.difference, args.score)
        print(f"{pair.second.label} - {pair.first.label}: {difference}")
    print(f"\n{found.finding}\nreport: {found.page}")
    return 0
