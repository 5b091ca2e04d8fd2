"""Measure one thing and write its record: `python tests/bench NAME [WHAT] OUT.json [options]`.

A program is a module of this folder. `measure(args)` returns the content of the record, and `add_arguments(parser)`
declares its options; a module with several measurements lists them in `PROGRAMS`. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _shared import tidy

NAMES = sorted(
    path.stem for path in Path(__file__).parent.glob("*.py") if not re.match("_|test_", path.stem)
)


def parse(argv: Sequence[str]) -> tuple[Callable[[argparse.Namespace], Any], argparse.Namespace]:
    """Return the function that measures, and its arguments."""
    choice = argparse.ArgumentParser(
        prog="python tests/bench", description=__doc__.splitlines()[0], add_help=False
    )
    choice.add_argument("name", choices=NAMES)
    program = importlib.import_module(choice.parse_args(argv[:1]).name)
    parser = argparse.ArgumentParser(
        prog=f"python tests/bench {argv[0]}", description=program.__doc__
    )
    if programs := getattr(program, "PROGRAMS", {}):
        parser.add_argument("what", choices=programs)
    parser.add_argument("out", type=Path)
    if hasattr(program, "add_arguments"):
        program.add_arguments(parser)
    args = parser.parse_args(argv[1:])
    return programs[args.what] if programs else program.measure, args


def main(argv: Sequence[str]) -> None:
    """Measure what `argv` names, and write the record."""
    measure, args = parse(argv)
    from reszoo.files import write_json
    from reszoo.machine import describe_machine
    from reszoo.versions import module_versions

    result = measure(args)
    if result is None:
        return
    words = ["OUT.json" if word == str(args.out) else word for word in argv]
    modules = (
        "tensorflow",
        "keras",
        "numpy",
        "onnx",
        "tf2onnx",
        "onnxruntime",
        "ai_edge_litert",
        "PIL",
    )
    record = {
        "command": " ".join(["python tests/bench", *words]),
        "machine": describe_machine(),
        "versions": module_versions(*(name for name in modules if name in sys.modules)),
        **result,
    }
    write_json(args.out, tidy(record))


if __name__ == "__main__":
    main(sys.argv[1:])
