"""`reszoo doctor`: check versions, devices, folders and the network of this machine."""

from __future__ import annotations

import argparse
import json
import os

from reszoo.cli.output import print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo doctor`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = (
        "Loads TensorFlow in a process of its own, which takes most of the time, and waits at most "
        "6 seconds for the network. Exit status: 2 if a problem makes training impossible, else 0."
    )


def run(args: argparse.Namespace) -> int:
    """Print the checks, and one line of advice per problem."""
    from reszoo.doctor import examine

    checks = examine(os.environ)
    failed = any(check.status == "failed" for check in checks)
    if args.json:
        content = {"usable": not failed, "checks": [check.to_dict() for check in checks]}
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        rows = [(check.name, check.status, check.value) for check in checks]
        print_table(("check", "status", "found"), rows, whole=2)
        problems = [check for check in checks if check.advice]
        print()
        for check in problems:
            print(f"{check.name}: {check.advice}")
        if not problems:
            print("no problem found")
    return 2 if failed else 0
