"""Commands that run in parallel within a time limit. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reszoo.signals import handle_signals

POLL = 0.02  # seconds between two looks at running commands


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: The exit status; negative for a signal, None if the command was stopped at its
            limit.
        seconds: From the start to the end of the command.
    """

    status: int | None
    seconds: float

    @property
    def succeeded(self) -> bool:
        """Whether the command ended by itself, without an error."""
        return self.status == 0


class Clock:
    """A time limit in seconds, and the shares of it that stages may use.

    A command gets SIGTERM at its limit, and SIGKILL `grace` seconds later; both are within the
    limit.
    """

    def __init__(self, seconds: float) -> None:
        self.limit, self.grace = seconds, min(20.0, seconds / 20)
        self._start = time.monotonic()

    @property
    def passed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def left(self, share: float = 1.0) -> float:
        """Return the seconds that a command may run if all ends at `share` (0..1) of the limit."""
        return self.limit * share - self.grace - self.passed


def run_commands(
    commands: Mapping[str, Sequence[str]],
    logs: Path,
    seconds: float,
    grace: float,
    *,
    observe: Callable[[], None] = lambda: None,
    ended: Callable[[str, Outcome], None] = lambda name, outcome: None,
) -> dict[str, Outcome]:
    """Run commands in parallel, and stop those that still run after `seconds`.

    Args:
        commands: The words of each command by name.
        logs: The folder for NAME.log, to which each command's output is appended.
        seconds: The limit. The commands get SIGTERM then.
        grace: Seconds from SIGTERM to SIGKILL.
        observe: Called between looks at the commands.
        ended: Called as soon as a command ends by itself.

    Returns:
        The outcome of each command.
    """
    logs.mkdir(parents=True, exist_ok=True)
    clock = Clock(seconds)
    outcomes: dict[str, Outcome] = {}
    running: dict[str, subprocess.Popen[bytes]] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: stop(running.values(), grace))  # also if a signal interrupts
        for name, words in commands.items():
            log = stack.enter_context(open(logs / f"{name}.log", "ab"))
            running[name] = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while running and clock.passed < seconds:
            for name in [name for name, process in running.items() if process.poll() is not None]:
                outcomes[name] = Outcome(running.pop(name).returncode, clock.passed)
                ended(name, outcomes[name])
            observe()
            time.sleep(POLL)
        late = list(running)
    return outcomes | {name: Outcome(None, clock.passed) for name in late}


def stop(processes: Iterable[subprocess.Popen[bytes]], grace: float) -> None:
    """Send SIGTERM to processes with their groups, and SIGKILL after `grace` seconds."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        _signal(process, signal.SIGTERM)
    end = time.monotonic() + grace
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end - time.monotonic()))
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into SystemExit in the block, so that child processes are ended."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    with handle_signals(leave, signal.SIGTERM):
        yield
