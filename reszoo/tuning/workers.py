"""Several processes on one search: KerasTuner's chief and workers, and what their protocol lacks.

The chief answers over gRPC, without encryption or authentication. In addition to KerasTuner's
protocol, workers send a heartbeat: they ask for the space every few seconds, with their name. The
chief hands out the trial of a dead worker again, replaces the workers that it started, and ends
with the error that the oracle raised.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer
from keras_tuner.src.engine.oracle import LOCKS, THREADS

from reszoo.errors import ReszooError
from reszoo.reporting.reporter import Reporter
from reszoo.tuning.environment import IP, PARENT, PORT, TUNER
from reszoo.tuning.oracle import Oracle

BEAT_SECONDS = 2.0
DEAD_SECONDS = 60.0  # of silence; a process that only waits for the machine is heard sooner
GRACE_SECONDS = 10.0  # in which a worker whose chief is gone may stop by itself
STOP_SECONDS = 60.0  # that workers have to reach a checkpoint when the search is stopped
DEATHS = 12  # after the last end of a trial; then the search ends. One deadly trial takes fewer

Item = TypeVar("Item")


class _Servicer(OracleServicer):  # type: ignore[misc]
    """KerasTuner's servicer, which notes when workers were seen and what the oracle raised."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__(oracle)
        self.last_seen: dict[str, float] = {}
        self.failure: Exception | None = None

    def CreateTrial(self, request: Any, context: Any) -> Any:
        self.last_seen[request.tuner_id] = time.monotonic()
        return self._answer(super().CreateTrial, request, context)

    def UpdateTrial(self, request: Any, context: Any) -> Any:
        return self._answer(super().UpdateTrial, request, context)

    def EndTrial(self, request: Any, context: Any) -> Any:
        return self._answer(super().EndTrial, request, context)

    def GetSpace(self, request: Any, context: Any) -> Any:
        for key, value in context.invocation_metadata() or ():
            if key == "tuner":
                self.last_seen[value] = time.monotonic()
        return super().GetSpace(request, context)

    def _answer(self, call: Callable[[Any, Any], Any], request: Any, context: Any) -> Any:
        try:
            return call(request, context)
        except Exception as error:  # only the worker would see it, and KerasTuner keeps its lock
            self.failure = error
            if THREADS[self.oracle] == threading.current_thread().name:
                THREADS[self.oracle] = None
                LOCKS[self.oracle].release()
            raise


@dataclass
class _Child:
    """A worker that this process started; `index` chooses its share of the machine."""

    process: subprocess.Popen[bytes]
    index: int
    log: Path


@dataclass
class Chief:
    """Serves an oracle until its search has ended.

    Attributes:
        oracle: Hands out trials.
        folder: The search folder.
        workers: Processes to start here; 0 if others start them.
        address: Where to listen, "IP:PORT"; port 0 takes a free one.
        arguments: Of `reszoo tune` for the workers started here.
        gpus: GPUs to divide among them, as are the cores.
        reporter: Reports dead workers.
    """

    oracle: Oracle
    folder: Path
    workers: int = 0
    address: str = "127.0.0.1:0"
    arguments: Sequence[str] = ()
    gpus: Sequence[str] = ()
    reporter: Reporter = field(default_factory=Reporter)
    _children: dict[str, _Child] = field(default_factory=dict)
    _started: int = 0
    _deaths: int = 0
    _ended: int = 0

    def run(self) -> None:
        """Serve, start workers and replace dead ones, until every trial has ended.

        Raises:
            ReszooError: If the address is not available, or workers keep dying.
            KeyboardInterrupt: If a signal came.
            Exception: What the oracle raised.
        """
        servicer = _Servicer(self.oracle)
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
        protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
        try:
            port = server.add_insecure_port(self.address)
        except RuntimeError:
            raise ReszooError(
                f"cannot listen on {self.address}; expected a free port of this machine"
            ) from None
        server.start()
        try:
            for index in range(self.workers):
                self._start(index, port)
            while not self._over(servicer):
                time.sleep(0.1)
                if servicer.failure is not None:
                    raise servicer.failure
                self._replace_dead(servicer, port)
        finally:
            self._stop_children()
            server.stop(grace=None).wait()

    def _over(self, servicer: _Servicer) -> bool:
        idle = not self.oracle.ongoing_trials and not self.oracle.tuner_ids
        return bool(servicer.stop_triggered and idle and not self._children)

    def _start(self, index: int, port: int) -> None:
        """Start a worker on its share of the machine."""
        name = f"tuner{self._started}"
        self._started += 1
        log = self.folder / "workers" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        ip = self.address.rpartition(":")[0]
        own = {IP: ip, PORT: str(port), TUNER: name, PARENT: str(os.getpid())}
        if self.gpus:
            own["CUDA_VISIBLE_DEVICES"] = ",".join(divide(self.gpus, self.workers)[index])
        with open(log, "ab") as file:
            # In a session of its own, so that Ctrl-C reaches only this process.
            process = subprocess.Popen(
                [sys.executable, "-m", "reszoo", "tune", *self.arguments],
                env={**os.environ, **own},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        cores = sorted(os.sched_getaffinity(0))
        with contextlib.suppress(ProcessLookupError):  # it may have ended
            os.sched_setaffinity(process.pid, divide(cores, self.workers)[index])
        self._children[name] = _Child(process, index, log)

    def _replace_dead(self, servicer: _Servicer, port: int) -> None:
        """Take back the trials of dead workers, and replace those started here."""
        if len(self.oracle.end_order) > self._ended:
            self._ended, self._deaths = len(self.oracle.end_order), 0
        for name, child in list(self._children.items()):
            status = child.process.poll()
            if status is None:
                continue
            del self._children[name]
            self._release(name, f"ended with status {status}")
            if status == 0:
                continue
            self._deaths += 1
            if self._deaths > DEATHS:
                raise ReszooError(
                    f"workers keep dying; the last line of {child.log}: {_last_line(child.log)}"
                )
            self._start(child.index, port)
        now = time.monotonic()
        for name in list(self.oracle.tuner_ids):
            silent = now - servicer.last_seen.get(name, now)
            if name not in self._children and silent > DEAD_SECONDS:
                self._release(name, f"was silent for {silent:.0f} s")

    def _release(self, name: str, how: str) -> None:
        if (trial := self.oracle.release_worker(name)) is not None:
            self.reporter.line(f"worker {name} {how}; its trial {trial} is handed out again")

    def _stop_children(self) -> None:
        for child in self._children.values():
            child.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for child in self._children.values():
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def divide(items: Sequence[Item], count: int) -> list[list[Item]]:
    """Return `items` divided evenly in order; parts share them if they are too few."""
    if 0 < len(items) < count:
        return [[items[index % len(items)]] for index in range(count)]
    bounds = [round(index * len(items) / count) for index in range(count + 1)]
    return [list(items[low:high]) for low, high in zip(bounds, bounds[1:], strict=False)]


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "(none)"


@contextlib.contextmanager
def heartbeat(environment: Mapping[str, str]) -> Iterator[None]:
    """Send a heartbeat to the chief; end this process if the chief that started it is gone."""
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(stop, environment), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _beat(stop: threading.Event, environment: Mapping[str, str]) -> None:
    parent = int(environment.get(PARENT, 0))
    channel = grpc.insecure_channel(f"{environment[IP]}:{environment[PORT]}")
    stub = protos.get_service_grpc().OracleStub(channel)
    while not stop.wait(BEAT_SECONDS):
        if parent and os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)  # training stops at its next checkpoint
            stop.wait(GRACE_SECONDS)
            continue
        with contextlib.suppress(grpc.RpcError):
            request = protos.get_service().GetSpaceRequest()
            stub.GetSpace(request, metadata=(("tuner", environment[TUNER]),), timeout=BEAT_SECONDS)
    channel.close()
