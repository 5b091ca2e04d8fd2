"""`reszoo launch`: train with several workers on this machine."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from reszoo.errors import PeerLost, ReszooError
from reszoo.training.cluster import Hosts

LAST_LINES = 20  # of a worker's output that are shown if it fails
STOP, KILL = 15.0, 30.0  # seconds after a worker's failure in which the others end by themselves


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo launch`."""
    add = parser.add_argument
    add("--workers", type=int, required=True, metavar="N", help="how many workers")
    restarts = (
        "restart all workers up to K times after one was lost; needs --run-dir, and resumes "
        "(default: %(default)s)"
    )
    add("--restarts", type=int, default=0, metavar="K", help=restarts)
    add("command", nargs="+", help="after `--`: train and its arguments")
    parser.epilog = (
        "Example: reszoo launch --workers 2 -- train quickstart --devices cpu. Shows the output of "
        "worker 0, and the last lines of others that fail. Exit status: 0 if all workers end with "
        "0; else that of the first worker with another status than 0, 130 and 200; else 200 if a "
        "worker was lost or killed; else 130."
    )


def run(args: argparse.Namespace) -> int:
    """Run the workers, restart them if one was lost, and return the exit status of the whole."""
    command = list(args.command)
    if args.workers < 2:
        raise ReszooError(f"--workers: {args.workers} is invalid; expected at least 2")
    if args.restarts < 0:
        raise ReszooError(f"--restarts: {args.restarts} is invalid; expected at least 0")
    if command[0] != "train" or any(word.startswith("--host") for word in command):
        raise ReszooError(
            f"command: {' '.join(command)[:60]} is invalid; expected `train` without --hosts and "
            "--host-index. Example: reszoo launch --workers 2 -- train quickstart"
        )
    if args.restarts and not any(word.startswith("--run-dir") for word in command):
        raise ReszooError(
            "--restarts: --run-dir is missing; expected the folder in which the run resumes. "
            "Example: reszoo launch --workers 2 --restarts 3 -- train quickstart --run-dir runs/a"
        )
    with _Launch(command, args.workers) as launch:
        for _ in range(args.restarts):
            status = launch.run()
            if status != PeerLost.status or launch.stopped:
                return status
            print("reszoo: a worker was lost; all workers start again", file=sys.stderr, flush=True)
            if "--resume" not in launch.command:
                launch.command.append("--resume")
        return launch.run()


class _Launch:
    """Workers on this machine that end together. SIGINT and SIGTERM are passed on to them.

    Args:
        command: `train` and its arguments.
        count: How many workers.

    Attributes:
        stopped: Whether SIGINT or SIGTERM came.
    """

    def __init__(self, command: list[str], count: int) -> None:
        self.command, self._count, self.stopped = command, count, False
        self._workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> _Launch:
        self._before = {n: signal.signal(n, self._pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None = None) -> None:
        self.stopped = True
        for worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(number)

    def run(self) -> int:
        """Run all workers once and return the exit status of the whole."""
        addresses = free_addresses(self._count)
        with tempfile.TemporaryDirectory(prefix="reszoo-launch-") as folder:
            logs = [Path(folder) / f"{index}" for index in range(self._count)]
            self._workers = []
            for index in range(self._count):
                self._workers.append(self._start(Hosts(addresses, index), logs[index]))
            if self.stopped:  # while they started
                self._pass_on(signal.SIGTERM)
            statuses = self._wait()
            for index, status in enumerate(statuses):
                if index and status:
                    _show_last_lines(index, status, logs[index])
        return _combine(statuses)

    def _start(self, hosts: Hosts, log: Path) -> subprocess.Popen[bytes]:
        with ExitStack() as stack:
            output = None if hosts.first else stack.enter_context(open(log, "wb"))
            return subprocess.Popen(
                [sys.executable, "-m", "reszoo", *self.command],
                env={**os.environ, "TF_CONFIG": hosts.tf_config()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches the workers once, from here
            )

    def _wait(self) -> list[int]:
        """Wait for all workers. After a failure the others are stopped, and then killed."""
        failed: float | None = None
        signals = [(STOP, signal.SIGTERM), (KILL, signal.SIGKILL)]
        while running := [worker for worker in self._workers if worker.poll() is None]:
            if failed is None and any(worker.returncode for worker in self._workers):
                failed = time.monotonic()
            if failed and signals and time.monotonic() - failed > signals[0][0]:
                for worker in running:
                    worker.send_signal(signals[0][1])
                del signals[0]
            time.sleep(0.05)
        return [worker.returncode for worker in self._workers]


def _combine(statuses: Sequence[int]) -> int:
    lost = PeerLost.status
    failed = [each for each in statuses if each > 0 and each not in (130, lost)]
    if failed:
        return failed[0]
    if any(each < 0 or each == lost for each in statuses):
        return lost
    return max(statuses)


def _show_last_lines(index: int, status: int, log: Path) -> None:
    lines = log.read_bytes().decode(errors="replace").splitlines()[-LAST_LINES:]
    how = f"exit status {status}" if status > 0 else f"signal {-status}"
    shown = "; its last lines:" if lines else ""
    print(f"reszoo: worker {index} ended with {how}{shown}", file=sys.stderr)
    for line in lines:
        print(f"  {line}", file=sys.stderr, flush=True)


def free_addresses(count: int) -> tuple[str, ...]:
    """Return addresses of this machine whose ports are free."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return tuple(f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
