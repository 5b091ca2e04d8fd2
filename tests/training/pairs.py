"""Workers of one run on this machine: a process each, which meet on ports of the loopback device."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from reszoo.training.cluster import Hosts

ROOT = Path(__file__).parents[2]
PATIENCE = 900.0  # seconds that a test waits for a process


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback device that nobody uses."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Processes:
    """The workers of one cluster; those that still run when the block ends are killed.

    Args:
        folder: Receives what each worker prints.
        count: How many workers there are.
    """

    def __init__(self, folder: Path, count: int = 2) -> None:
        self.addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(count))
        self._folder, self._running = folder, dict[int, subprocess.Popen[bytes]]()
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()
        if error is not None:
            for index in self._running:
                error.add_note(f"--- worker {index} printed:\n{self.text(index)[-4000:]}")

    def hosts(self, index: int) -> Hosts:
        """Return the hosts as a worker sees them."""
        return Hosts(self.addresses, index)

    def start(self, index: int, module: str, *arguments: str) -> None:
        """Start a worker: `python -m MODULE ADDRESSES INDEX ARGUMENT...`."""
        self._start(index, module, ",".join(self.addresses), str(index), *arguments)

    def start_alone(self, module: str, *arguments: str) -> None:
        """Start one process that is not a worker: `python -m MODULE ARGUMENT...`."""
        self._start(0, module, *arguments)

    def _start(self, index: int, module: str, *arguments: str) -> None:
        path = os.pathsep.join([str(ROOT), *sys.path])
        environment = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
        with open(self._folder / f"worker-{index}.txt", "ab") as output:
            self._running[index] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def start_all(self, module: str, *arguments: str) -> None:
        """Start every worker with the same arguments."""
        for index in range(len(self.addresses)):
            self.start(index, module, *arguments)

    def signal(self, index: int, number: signal.Signals) -> None:
        """Send a signal to a worker."""
        self._running[index].send_signal(number)

    def poll(self, index: int) -> int | None:
        """Return the exit status of a worker, None while it runs."""
        return self._running[index].poll()

    def wait(self, index: int, seconds: float = PATIENCE) -> int:
        """Return the exit status of a worker; a signal's number is negative."""
        return self._running[index].wait(seconds)

    def wait_all(self, seconds: float = PATIENCE) -> list[int]:
        """Return the exit status of every worker that was started."""
        end = time.monotonic() + seconds
        return [self.wait(index, end - time.monotonic()) for index in sorted(self._running)]

    def wait_for(self, path: Path, seconds: float = PATIENCE) -> None:
        """Wait until a file exists, while the workers run."""
        end = time.monotonic() + seconds
        while not path.exists():
            alive = all(each.poll() is None for each in self._running.values())
            assert alive and time.monotonic() < end, f"{path} did not appear"
            time.sleep(0.05)

    def text(self, index: int) -> str:
        """Return what a worker has printed."""
        return (self._folder / f"worker-{index}.txt").read_text(errors="replace")
