"""One side of a comparison, as a program: `python child.py JOB`. Its environment may lack reszoo.

JOB is a `Job` of `sides.py` in JSON. The parent limits the process to the job's device and threads.
The program prepares and prints a JSON line, `{"versions", "parameters"}`. For each number on
standard input it makes that many calls and prints `{"seconds", "build_seconds", "peak_mb"}`. If the
job cannot run, it prints `{"error": message}`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:  # run by its path: reszoo's modules, without its __init__
    package = types.ModuleType("reszoo")
    package.__path__ = [str(Path(__file__).parents[1])]
    sys.modules.setdefault("reszoo", package)

SIDES = {
    "reszoo": "tensorflow_sides.Reszoo",
    "reszoo-jit": "tensorflow_sides.ReszooJit",
    "reszoo-on-host": "tensorflow_sides.ReszooOnHost",
    "reszoo-on-device": "tensorflow_sides.ReszooOnDevice",
    "keras": "tensorflow_sides.Keras",
    "torch": "torch_sides.Torch",
    "torch-compile": "torch_sides.TorchCompile",
    "timm": "torch_sides.Timm",
}


def main(values: dict[str, Any]) -> None:
    """Measure one job."""
    from reszoo.bench.sides import Job

    def prepare() -> tuple[Callable[[int], float | None], dict[str, str], int]:
        side = open_side(Job(**values))
        calls, parameters = side.prepare()
        if side.job.what != "first-step":
            calls(1)
        return calls, side.versions, parameters

    answer(prepare)


def open_side(job: Any) -> Any:
    """Return the side of a job."""
    module, name = SIDES[job.side].split(".")
    return getattr(importlib.import_module(f"reszoo.bench.{module}"), name)(job)


def answer(
    prepare: Callable[[], tuple[Callable[[int], float | None], dict[str, str], int]],
) -> None:
    """Answer numbers on standard input with seconds.

    Args:
        prepare: Returns what makes the calls, versions, and the number of parameters.
    """
    real, sys.stdout = sys.stdout, sys.stderr  # libraries print too
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def write(**values: Any) -> None:
        print(json.dumps(values), file=real, flush=True)

    try:
        calls, versions, parameters = prepare()
    except (LookupError, ImportError) as error:
        write(error=str(error.args[0] if error.args else error))
        return
    write(versions=versions, parameters=parameters)
    for line in sys.stdin:
        start = time.perf_counter()
        built = calls(int(line)) or 0.0
        seconds = time.perf_counter() - start - built
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        write(seconds=seconds, build_seconds=built, peak_mb=peak)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
