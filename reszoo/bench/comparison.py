"""Speed of reszoo compared with other libraries, in turns. Standard library only."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from reszoo.bench.sides import Job, Precision
from reszoo.bench.turns import Measured, take_turns
from reszoo.errors import ReszooError
from reszoo.lazy import check_backend
from reszoo.machine import describe_machine
from reszoo.reporting.reporter import Reporter
from reszoo.types import JsonObject
from reszoo.zoo.catalog import spec as find_spec
from reszoo.zoo.count import count

KINDS = {"train": "resnet20", "infer": "resnet50", "input": "cifar"}
KINDS |= {"build": "resnet50", "first-step": "resnet20"}
"""What can be measured, each with the model that is measured by default."""
PEERS = ("torch", "torch-compile", "timm", "keras")
VARIANTS = ("reszoo-jit", "reszoo-on-host", "reszoo-on-device")
"""Training with `train.jit`; and from an in-memory dataset, without and with `data.on_device`."""
INPUTS = {"cifar": (128, 32, 10), "photographs": (32, 224, 2)}
"""Images per batch, size and classes of each input."""
PRODUCT_GFLOP = 2 * 3000**3 / 1e9  # 10^9 operations of one product of the side "matrix"


def bench(
    what: str,
    models: Sequence[str] = (),
    *,
    batch: int = 0,
    against: Sequence[str] = (),
    peer: str | None = None,
    rounds: int = 5,
    device: str = "cpu",
    threads: int = 0,
    precision: Precision = "float32",
    reporter: Reporter | None = None,
) -> JsonObject:
    """Measure reszoo and other sides in turns.

    Args:
        what: A key of `KINDS`.
        models: Model names; for "input", keys of `INPUTS`.
        batch: Images per call; by default 128 of 32 x 32, and 16 of larger images.
        against: The other sides, of `PEERS` and, for "train", `VARIANTS`.
        peer: The Python of an environment with PyTorch or timm; by default this one.
        rounds: Turns of each side.
        device: "cpu" or "gpu".
        threads: Threads of each side; by default the number of cores.
        precision: "float32" or "mixed_bfloat16".
        reporter: Reports progress.

    Returns:
        The record that `reszoo bench --json` writes.

    Raises:
        ReszooError: An argument is invalid, or a side cannot run.
    """
    _check(what, models, against, rounds, device, batch, precision)
    check_backend(os.environ.get("KERAS_BACKEND") or "tensorflow")
    threads = threads or os.cpu_count() or 1
    rows: list[JsonObject] = []
    versions: dict[str, str] = {}
    for name in models or [KINDS[what]]:
        if what == "input":
            rows_per_call, size, classes = INPUTS[name]
        else:
            spec = find_spec(name)
            size, classes = spec.default_input_shape[0], spec.default_classes
            rows_per_call = batch or (128 if size == 32 else 16)
        job = Job("", what, name, rows_per_call, size, classes, device, precision, threads)
        found = measure(job, ["reszoo", *against], peer, rounds, reporter or Reporter(quiet=True))
        rows.append(summarize(job, found))
        versions = found["reszoo"].ready.versions
    return {
        "what": what,
        "rounds": rounds,
        "device": device,
        "precision": precision,
        "threads": threads,
        **({"card": card_name()} if device == "gpu" else {}),
        "machine": describe_machine() | {"python": platform.python_version()},
        "versions": versions,
        "models": rows,
    }


def _check(
    what: str,
    models: Sequence[str],
    against: Sequence[str],
    rounds: int,
    device: str,
    batch: int,
    precision: str,
) -> None:
    """Raise ReszooError for an invalid argument, or one that would not change what is measured."""
    sides = {"input": ("torch",), "train": (*PEERS, *VARIANTS)}.get(what, PEERS)
    unused = f"for {what}; expected it to be unset, because {what} does not use it"
    for invalid, key, value, expected in (
        (what not in KINDS, "what", what, "; expected one of " + ", ".join(KINDS)),
        (device not in ("cpu", "gpu"), "device", device, "; expected cpu or gpu"),
        (rounds < 1, "rounds", rounds, "; expected an integer >= 1. Example: --rounds 5"),
        (batch and what in ("build", "input"), "batch", batch, f" {unused}"),
        (precision != "float32" and what == "input", "precision", precision, f" {unused}"),
        *(
            (side not in sides, "against", side, f" for {what}; expected {', '.join(sides)}")
            for side in against
        ),
        *(
            (name not in INPUTS, "input", name, f"; expected {' or '.join(INPUTS)}")
            for name in models
            if what == "input"
        ),
    ):
        if invalid:
            raise ReszooError(f"{key}: {value} is invalid{expected}")
    for name in models if what != "input" else ():
        find_spec(name)


def measure(
    job: Job, sides: Sequence[str], peer: str | None, rounds: int, reporter: Reporter
) -> dict[str, Measured]:
    """Measure a job on several sides; in a model's run, also the machine's matrix product."""
    here = Path(__file__)
    with contextlib.ExitStack() as stack:
        if job.what == "input" and job.model == "photographs":
            from reszoo.bench.photographs import write_photographs

            name = tempfile.TemporaryDirectory(prefix="reszoo-photographs-")
            job = dataclasses.replace(job, folder=stack.enter_context(name))
            write_photographs(Path(job.folder))
        jobs = {name: dataclasses.replace(job, side=name) for name in sides}
        if job.what in ("train", "infer"):
            jobs["matrix"] = dataclasses.replace(job, side="reszoo", what="matrix")
        own = [sys.executable, "-m", "reszoo.bench.child"]
        other = [peer or sys.executable, str(here.with_name("child.py"))]
        return take_turns(
            {
                name: [
                    *(other if one.side in ("torch", "torch-compile", "timm") else own),
                    json.dumps(dataclasses.asdict(one)),
                ]
                for name, one in jobs.items()
            },
            rounds,
            device=job.device,
            threads=job.threads,
            reporter=reporter,
            once=job.what == "first-step",
        )


def summarize(job: Job, measured: dict[str, Measured]) -> JsonObject:
    """Return the record of one model: medians, ranges, and ratios within the rounds."""
    in_seconds = job.what in ("build", "first-step")
    result: JsonObject = {"model": job.model, "batch": job.batch, "size": job.size}
    peak = work = 0.0
    if product := measured.get("matrix"):
        peak = PRODUCT_GFLOP * statistics.median(1 / seconds for seconds in product.seconds)
        work = 2 * count(job.model).macs * (3 if job.what == "train" else 1) / 1e9
        result |= {"gflop_an_image": round(work, 4), "matrix_product_gflops": round(peak, 1)}
    sides = {}
    for name, side in measured.items():
        if name == "matrix":
            continue
        values = side.seconds if in_seconds else [job.batch / one for one in side.seconds]
        middle = statistics.median(values)
        version = ", ".join(map(" ".join, side.ready.versions.items()))
        row: JsonObject = {"version": version}
        if side.ready.parameters:
            row["parameters"] = side.ready.parameters
        row["seconds" if in_seconds else "images_per_second"] = _round(middle)
        row["range"] = [_round(min(values)), _round(max(values))]
        if name != "reszoo":
            pairs = zip(measured["reszoo"].seconds, side.seconds, strict=True)
            ratios = [theirs / ours for ours, theirs in pairs]
            row["reszoo_times_faster"] = _round(statistics.median(ratios))
            row["reszoo_times_faster_range"] = [_round(min(ratios)), _round(max(ratios))]
        if peak:
            row["gflops"] = _round(work * middle)
            row["share_of_matrix_product"] = round(work * middle / peak, 3)
        if any(side.build_seconds):
            row["build_seconds"] = _round(statistics.median(side.build_seconds))
        row["peak_mb"] = side.peak_mb
        sides[name] = row
    return result | {"sides": sides}


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def card_name() -> str:
    """Return the name of the first GPU, or "" if nvidia-smi does not report one."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.split("\n")[0].strip() if found.returncode == 0 else ""
