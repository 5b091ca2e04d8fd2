"""Sides that take turns: every side has a process of its own, a round gives each one turn, and ratios are taken within a round.

So a drift of the machine's speed meets all sides alike, and a ratio holds where seconds do not. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reszoo.errors import ReszooError
from reszoo.lazy import check_backend
from reszoo.zoo.catalog import spec as get_spec
from reszoo.zoo.count import count

KINDS = ("train", "infer", "input", "build", "first-step")
PEERS = ("torch", "torch-compile", "timm", "keras")
VARIANTS = ("reszoo-jit", "reszoo-on-host", "reszoo-on-device")
"""reszoo's training with `train.jit`; and fed by an in-memory dataset, without and with `data.on_device`."""
INPUT_BATCH = {"cifar": 128, "photographs": 32}
"""Sets of `loaders.py`, and the images of a batch there."""
MODELS = {
    "train": ["resnet20"],
    "infer": ["resnet50"],
    "build": ["resnet50"],
    "first-step": ["resnet20"],
    "input": ["cifar"],
}
TURN = 2.0
"""Seconds of a side's turn, about: at least one call."""
PRODUCT = 2 * 3000**3 / 1e9  # billion operations of `child.py`'s matrix product

Say = Callable[[str], None]


@dataclass
class Side:
    """What was measured of one side. values: images a second, or for builds and first steps seconds, one a round."""

    name: str
    version: str
    values: list[float] = field(default_factory=list)
    peak_mb: int = 0
    parameters: int = 0
    build_seconds: list[float] = field(default_factory=list)


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
    precision: str = "float32",
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Measure reszoo, and the sides of `against` beside it; return the record that `reszoo bench --json` writes.

    what: of KINDS. models: names of the zoo (for "input": of INPUT_BATCH). batch: rows, by default 128 of 32 x 32 and 16 of larger images.
    peer: the Python of an environment with PyTorch or timm, by default this one. threads: by default the machine's cores. `say` gets a
    line of progress. Raises ReszooError for what there is not, and for a side that cannot start, with its reason.
    """
    _check(what, models, against, rounds, device)
    _check_unused(what, batch, precision)
    check_backend(os.environ.get("KERAS_BACKEND") or "tensorflow")
    threads = threads or os.cpu_count() or 1
    shared = {"what": what, "device": device, "precision": precision, "threads": threads}
    rows = []
    for name in models or MODELS[what]:
        job = shared if what == "input" else shared | _describe(name, batch)
        measured = _measure(
            job | {"model": name}, ["reszoo", *against], peer or sys.executable, rounds, say
        )
        rows.append(_summary(job | {"model": name}, measured))
    return {
        "what": what,
        "rounds": rounds,
        "device": device,
        "precision": precision,
        "threads": threads,
        **({"card": card_name()} if device == "gpu" else {}),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "versions": _versions("reszoo", "tensorflow", "keras", "numpy"),
        "models": rows,
    }


def _check(
    what: str, models: Sequence[str], against: Sequence[str], rounds: int, device: str
) -> None:
    if what not in KINDS:
        raise ReszooError(f"no benchmark {what!r}; there are {', '.join(KINDS)}")
    if device not in ("cpu", "gpu"):
        raise ReszooError(f"--device is cpu or gpu, not {device!r}")
    if rounds < 1:
        raise ReszooError(f"rounds must be at least 1, not {rounds}")
    possible = {"input": ("torch",), "train": (*PEERS, *VARIANTS)}.get(what, PEERS)
    for side in against:
        if side not in possible:
            raise ReszooError(f"'{side}' is no side of {what}; there are {', '.join(possible)}")
    for name in models:
        if what != "input":
            get_spec(name)
        elif name not in INPUT_BATCH:
            raise ReszooError(f"no input {name!r}; there are {', '.join(INPUT_BATCH)}")


def _check_unused(what: str, batch: int, precision: str) -> None:
    """Raise ReszooError for an option that would not change what is measured."""
    if batch and what in ("build", "input"):
        raise ReszooError(
            f"batch: {batch} is invalid for {what}; expected it to be unset, because {what} does not use it. "
            "Example: leave --batch out"
        )
    if precision != "float32" and what == "input":
        raise ReszooError(
            f"precision: {precision} is invalid for input; expected float32, because the pipelines yield float32. "
            "Example: leave --precision out"
        )


def _describe(name: str, batch: int) -> dict[str, Any]:
    spec = get_spec(name)
    size = spec.default_input_shape[0]
    return {
        "size": size,
        "classes": spec.default_classes,
        "batch": batch or (128 if size == 32 else 16),
    }


def _measure(
    job: dict[str, Any], names: Sequence[str], peer: str, rounds: int, say: Say
) -> list[Side]:
    pythons = {
        name: sys.executable if name in ("reszoo", "keras", *VARIANTS) else peer for name in names
    }
    if job["what"] == "first-step":
        return _fresh(job, pythons, rounds, say)
    with contextlib.ExitStack() as stack:
        turns = take_turns(dict(_commands(job, pythons, stack)), job, rounds, say)
    rows = INPUT_BATCH[job["model"]] if job["what"] == "input" else job["batch"]
    sides = []
    for name, one in turns.items():
        unit = 1 if name == "matrix" else rows
        values = (
            one.seconds if job["what"] == "build" else [unit / seconds for seconds in one.seconds]
        )
        sides.append(
            Side(name, one.ready["version"], values, one.peak_mb, one.ready.get("parameters", 0))
        )
    return sides


@dataclass
class Turns:
    """The measurement of one child. ready: its first line; seconds: of one call, per round."""

    ready: dict[str, Any]
    seconds: list[float] = field(default_factory=list)
    peak_mb: int = 0


def take_turns(
    commands: Mapping[str, list[str]], job: Mapping[str, Any], rounds: int, say: Say
) -> dict[str, Turns]:
    """Measure several programs that take turns.

    Args:
        commands: the programs by name. Each prints one JSON line when it is ready. Then, for each whole number on standard
            input, it makes that many calls and prints `{"seconds": float, "peak_mb": int}`.
        job: the `model`, for messages, and the `device` and `threads` of the programs.
        rounds: turns of each program; the order rotates.
        say: prints a line of progress.
    """
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(_child(command, name, job)) for name, command in commands.items()
        ]
        turns = {}
        for child in children:  # they get ready in parallel
            turns[child.name] = Turns(child.wait_ready())
            say(f"{job['model']}: {child.name} ready")
        calls = {
            child.name: max(1, round(2 * TURN / child.ask(2)["seconds"])) for child in children
        }
        for number in range(rounds):
            first = number % len(children)
            for child in children[first:] + children[:first]:
                answer = child.ask(calls[child.name])
                turns[child.name].seconds.append(answer["seconds"] / calls[child.name])
                turns[child.name].peak_mb = answer["peak_mb"]
            say(f"{job['model']}: round {number + 1} of {rounds}")
    return turns


def _fresh(job: dict[str, Any], pythons: dict[str, str], rounds: int, say: Say) -> list[Side]:
    """First steps: a new process for each."""
    sides = [Side(name, "") for name in pythons]
    for number in range(rounds):
        for side in sides:
            command = [
                pythons[side.name],
                str(_program("child")),
                json.dumps(job | {"side": side.name}),
            ]
            with _child(command, side.name, job) as child:
                told = child.wait_ready()
            side.version, side.peak_mb = told["version"], max(side.peak_mb, told["peak_mb"])
            side.values.append(told["seconds"])
            side.build_seconds.append(told["build"])
        say(f"{job['model']}: round {number + 1} of {rounds}")
    return sides


def _commands(
    job: dict[str, Any], pythons: dict[str, str], stack: contextlib.ExitStack
) -> Iterator[tuple[str, list[str]]]:
    if job["what"] == "input":
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="reszoo-photographs-"))
        if job["model"] == "photographs":
            write_photographs(Path(folder))
        for name, python in pythons.items():
            yield name, [python, str(_program("loaders")), name, job["model"], folder]
        return
    for name, python in pythons.items():
        yield name, [python, str(_program("child")), json.dumps(job | {"side": name})]
    if job["what"] in ("train", "infer"):
        product = job | {"side": "reszoo", "what": "matrix"}
        yield "matrix", [sys.executable, str(_program("child")), json.dumps(product)]


def write_photographs(folder: Path, count: int = 256) -> None:
    """Write JPEG files of about 75 kB in two classes, parts of scikit-learn's two photographs enlarged: the decoder's usual work."""
    from io import BytesIO

    import numpy as np
    import tensorflow as tf
    from sklearn.datasets import load_sample_images

    whole = load_sample_images().images
    rng = np.random.default_rng(0)
    for number in range(count):
        image = whole[number % 2]
        top, left = int(rng.integers(0, 60)), int(rng.integers(0, 90))
        part = tf.image.resize(
            image[top : top + 367, left : left + 550], (400, 600), method="bicubic"
        )
        path = folder / "train" / f"class{number % 2}" / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = BytesIO(
            tf.io.encode_jpeg(tf.cast(tf.clip_by_value(part, 0, 255), tf.uint8), quality=93).numpy()
        )
        path.write_bytes(file.getvalue())


class _Child:
    """A process, with those that it starts, that answers lines of numbers with lines of JSON, and stands still in between.

    It would otherwise read ahead, or burn a core waiting, in another side's turn.
    """

    def __init__(self, command: list[str], name: str, environment: dict[str, str]) -> None:
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ReszooError(
                f"cannot start {command[0]} for {name}: {error.strerror}; --peer names a Python"
            ) from None
        self.name = name

    def wait_ready(self) -> dict[str, Any]:
        """Return what the process says of itself once it can make calls."""
        return self._answer()

    def end(self) -> None:
        """Kill it, and let go of its pipes."""
        self._signal(signal.SIGKILL)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.process.wait()

    def ask(self, calls: int) -> dict[str, Any]:
        assert self.process.stdin
        self._signal(signal.SIGCONT)
        print(calls, file=self.process.stdin, flush=True)
        return self._answer()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout and self.process.stderr
        line = self.process.stdout.readline()
        if not line:
            last = (self.process.stderr.read().strip().splitlines() or ["it said nothing"])[-1]
            raise ReszooError(f"{self.name} ended without an answer: {last}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            hint = (
                "; --peer PYTHON names an environment that has it"
                if "No module named" in answer["error"]
                else ""
            )
            raise ReszooError(f"{self.name} cannot take part: {answer['error']}{hint}")
        self._signal(signal.SIGSTOP)
        return answer


@contextlib.contextmanager
def _limited_to(threads: int) -> Iterator[None]:
    """Start processes inside the block on `threads` of this process's cores: a library's own setting leaves some of its threads free."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def _child(command: list[str], name: str, job: Mapping[str, Any]) -> Iterator[_Child]:
    """Start a side's process, limited to the job's device and threads."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": str(job["threads"])}
    if job["device"] == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": ""}
    with _limited_to(job["threads"]):
        child = _Child(command, name, environment)
    try:
        yield child
    finally:
        child.end()


def _summary(job: dict[str, Any], sides: list[Side]) -> dict[str, Any]:
    own = sides[0].values
    faster = job["what"] in (
        "build",
        "first-step",
    )  # fewer seconds are better; ratios say how many times faster reszoo is
    result: dict[str, Any] = {"model": job["model"]} | {
        key: job[key] for key in ("batch", "size") if key in job
    }
    work = 0.0
    if job["what"] in ("train", "infer"):
        work = 2 * count(job["model"]).multiply_adds * (3 if job["what"] == "train" else 1) / 1e9
        result["gflop_an_image"] = round(work, 4)
    rows = {}
    peak = next(
        (PRODUCT * statistics.median(side.values) for side in sides if side.name == "matrix"), 0.0
    )
    if peak:
        result["matrix_product_gflops"] = round(peak, 1)
    for side in sides:
        if side.name == "matrix":
            continue
        row: dict[str, Any] = {"version": side.version}
        if side.parameters:
            row["parameters"] = side.parameters
        unit = "seconds" if faster else "images_per_second"
        row[unit] = _round(statistics.median(side.values))
        row["range"] = [_round(min(side.values)), _round(max(side.values))]
        if side.name != "reszoo":
            pairs = zip(own, side.values, strict=True)
            ratios = [b / a if faster else a / b for a, b in pairs]
            row["reszoo_times_faster"] = _round(statistics.median(ratios))
            row["reszoo_times_faster_range"] = [_round(min(ratios)), _round(max(ratios))]
        if peak:
            row["gflops"] = _round(work * statistics.median(side.values))
            row["share_of_matrix_product"] = round(work * statistics.median(side.values) / peak, 3)
        if side.build_seconds:
            row["build_seconds"] = _round(statistics.median(side.build_seconds))
        if side.peak_mb:
            row["peak_mb"] = side.peak_mb
        rows[side.name] = row
    return result | {"sides": rows}


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def _program(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.py")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def _versions(*names: str) -> dict[str, str]:
    """Return the versions of modules, asked in a process of its own: TensorFlow prints log lines when it is imported."""
    code = "import json, sys; from reszoo.versions import module_versions; print(json.dumps(module_versions(*sys.argv[1:])))"
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def card_name() -> str:
    """Return the name of the first GPU, or "" if nvidia-smi does not report one."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.split("\n")[0].strip() if found.returncode == 0 else ""
