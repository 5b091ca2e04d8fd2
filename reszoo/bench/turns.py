"""Programs that take turns, each in a process of its own. Standard library only.

A drift of the machine's speed meets all programs alike, so ratios within a round hold where seconds
do not. A process is stopped outside its turn: it would otherwise read ahead, or burn a core
waiting.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reszoo.errors import ReszooError
from reszoo.reporting.reporter import Reporter
from reszoo.types import JsonObject

TURN_SECONDS = 2.0  # of a turn, about; at least one call


@dataclass(frozen=True)
class Ready:
    """What a program prints when it can make calls."""

    versions: dict[str, str]
    parameters: int = 0


@dataclass(frozen=True)
class Turn:
    """What a program prints after its calls; `seconds` are those of all calls."""

    seconds: float
    peak_mb: int = 0
    build_seconds: float = 0.0


@dataclass
class Measured:
    """What was measured of one program.

    Attributes:
        ready: Its versions and the number of the model's parameters.
        seconds: Of one call, per round.
        build_seconds: Of the build before a first step, per round.
        peak_mb: The largest memory, in megabytes.
    """

    ready: Ready
    seconds: list[float] = field(default_factory=list)
    build_seconds: list[float] = field(default_factory=list)
    peak_mb: int = 0

    def add(self, turn: Turn, calls: int) -> None:
        """Add a turn of some calls."""
        self.seconds.append(turn.seconds / calls)
        self.build_seconds.append(turn.build_seconds)
        self.peak_mb = max(self.peak_mb, turn.peak_mb)


def take_turns(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    *,
    device: str,
    threads: int,
    reporter: Reporter,
    once: bool = False,
) -> dict[str, Measured]:
    """Measure programs that take turns; the order rotates with each round.

    Args:
        commands: The programs by name; `child.py` says what each prints.
        rounds: Turns of each program.
        device: "cpu" hides the GPUs from them.
        threads: Cores and threads that they may use.
        reporter: Reports progress.
        once: Start each program anew in each round, and let it make one call.

    Raises:
        ReszooError: A program cannot be started, or ends.
    """
    measured: dict[str, Measured] = {}
    with contextlib.ExitStack() as stack:
        children = (
            []
            if once
            else [
                stack.enter_context(start_child(name, command, device, threads))
                for name, command in commands.items()
            ]
        )
        for child in children:  # they prepare in parallel
            measured[child.name] = Measured(child.wait_ready())
            reporter.line(f"{child.name} ready")
        calls = {
            child.name: max(1, round(2 * TURN_SECONDS / child.ask(2).seconds)) for child in children
        }
        for number in range(rounds):
            first = number % len(commands)
            for child in children[first:] + children[:first]:
                measured[child.name].add(child.ask(calls[child.name]), calls[child.name])
            for name, command in commands.items() if once else ():
                with start_child(name, command, device, threads) as child:
                    measured.setdefault(name, Measured(child.wait_ready())).add(child.ask(1), 1)
            reporter.line(f"round {number + 1} of {rounds}")
    return measured


class Child:
    """A process that answers lines of numbers with lines of JSON."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str]) -> None:
        self.name = name
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ReszooError(
                f"peer: {command[0]} cannot be started for {name} ({error.strerror}); expected a "
                "Python. Example: --peer ~/torch/bin/python"
            ) from None

    def wait_ready(self) -> Ready:
        """Wait until the process can make calls."""
        return Ready(**self._read())

    def ask(self, calls: int) -> Turn:
        """Let the process make some calls."""
        assert self.process.stdin
        self._signal(signal.SIGCONT)
        print(calls, file=self.process.stdin, flush=True)
        return Turn(**self._read())

    def end(self) -> None:
        """Kill the process and those that it started, and close its pipes."""
        self._signal(signal.SIGKILL)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _read(self) -> JsonObject:
        assert self.process.stdout and self.process.stderr
        line = self.process.stdout.readline()
        if not line:
            errors = self.process.stderr.read().strip().splitlines() or ["no message"]
            raise ReszooError(f"{self.name} ended without an answer: {errors[-1]}")
        found: JsonObject = json.loads(line)
        if "error" in found:
            missing = "No module named" in found["error"]
            hint = "; --peer PYTHON names an environment that has it" if missing else ""
            raise ReszooError(f"{self.name} cannot take part: {found['error']}{hint}")
        self._signal(signal.SIGSTOP)
        return found


@contextlib.contextmanager
def start_child(name: str, command: Sequence[str], device: str, threads: int) -> Iterator[Child]:
    """Start a program on a device and some threads for the block."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": str(threads)}
    if device == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": ""}
    # A library's own setting leaves some of its threads free, so the cores are limited too.
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else None
    try:
        if cores:
            os.sched_setaffinity(0, sorted(cores)[:threads])
        child = Child(name, command, environment)
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
    try:
        yield child
    finally:
        child.end()
