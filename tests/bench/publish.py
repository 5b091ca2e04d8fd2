"""Copy a lab record into docs/results: `python tests/bench publish docs/results/lab/NAME LAB_FOLDER`.

The folders of this machine are left out of its paths, and its figures are drawn again from the copy.
"""

from __future__ import annotations

import argparse
import json

from _shared import tidy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source")


def measure(args: argparse.Namespace) -> None:
    """Write the record and its PNG figures into the folder `args.out`."""
    from reszoo.files import write_text
    from reszoo.lab.record import read_record
    from reszoo.lab.report import write_report

    write_text(
        args.out / "record.json",
        json.dumps(tidy(read_record(args.source)), ensure_ascii=False) + "\n",
    )
    write_report(args.out)
    for path in (*args.out.glob("*.svg"), args.out / "report.html"):
        path.unlink()
