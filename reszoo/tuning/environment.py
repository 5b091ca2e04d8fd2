"""What tells a process of a search its part: KerasTuner's variables, and ours beside them. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from reszoo.errors import ReszooError

TUNER, IP, PORT = "KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT"
PARENT = "RESZOO_TUNE_PARENT"  # process of the chief that started this worker, with which it ends
CORES = "RESZOO_TUNE_CORES"  # processors that this worker keeps to

Part = Literal["alone", "chief", "worker"]
Item = TypeVar("Item")


def part(environment: Mapping[str, str]) -> Part:
    """Return which part a process has in a search: alone, or chief or worker of several.

    Raises ReszooError where only some of KerasTuner's three variables are set, or the port is none.
    """
    given = [name for name in (TUNER, IP, PORT) if environment.get(name)]
    if not given:
        return "alone"
    if missing := [name for name in (TUNER, IP, PORT) if name not in given]:
        raise ReszooError(
            f"{given[0]} is set, but {missing[0]} is not: chief and workers need {TUNER}, {IP} and {PORT}"
        )
    if (
        not (environment[PORT].isascii() and environment[PORT].isdecimal())
        or not 0 < int(environment[PORT]) < 65536
    ):
        raise ReszooError(f"{PORT} is {environment[PORT]!r}, but must be a port such as 8000")
    return "chief" if "chief" in environment[TUNER] else "worker"


def shares(items: Sequence[Item], count: int) -> list[list[Item]]:
    """Return `items` shared out evenly, in order; where there are fewer than `count`, each share is one of them in turn."""
    if not items:
        return [[] for _ in range(count)]
    if len(items) < count:
        return [[items[index % len(items)]] for index in range(count)]
    bounds = [round(index * len(items) / count) for index in range(count + 1)]
    return [list(items[low:high]) for low, high in zip(bounds, bounds[1:], strict=False)]


def keep_to_cores(environment: Mapping[str, str]) -> None:
    """Keep this process, and the threads TensorFlow will start, to the processors that its chief gave it."""
    if cores := environment.get(CORES):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does: by KeyboardInterrupt, wherever training itself does not catch it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
