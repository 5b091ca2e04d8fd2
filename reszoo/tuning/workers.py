"""Several processes on one search, by KerasTuner's chief and workers: who serves, who starts, who is given up for dead.

The chief holds the oracle and answers over gRPC, which KerasTuner leaves without encryption or authentication. Its protocol is
unchanged; what is added lies beside it: a worker shows that it lives by asking for the space, with its name, every
few seconds, and the chief hands out again what a dead one was given.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer
from keras_tuner.src.engine.oracle import LOCKS, THREADS

from reszoo.errors import ReszooError
from reszoo.reporting.reporter import Reporter
from reszoo.tuning.environment import CORES, IP, PARENT, PORT, TUNER, shares

BEAT_SECONDS = 2.0
DEAD_SECONDS = 60.0  # of silence: a process that only waits for the machine is heard of sooner
GRACE_SECONDS = 10.0  # in which a worker whose chief is gone may stop by itself
PATIENCE_SECONDS = 60.0  # that workers have to reach a checkpoint when the search is stopped
DEATHS = (
    12  # since a trial last ended, before the search is given up: more than one deadly trial takes
)


class _Servicer(OracleServicer):
    """KerasTuner's, which also notes when each worker was last heard of, and what the oracle could not do.

    An error, such as a full disk, would otherwise be told to a worker alone, and leave the oracle's lock held.
    """

    def __init__(self, oracle: Any) -> None:
        super().__init__(oracle)
        self.heard: dict[str, float] = {}
        self.failure: Exception | None = None

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failure = error
            if (
                THREADS[self.oracle] == threading.current_thread().name
            ):  # KerasTuner leaves its lock held
                THREADS[self.oracle] = None
                LOCKS[self.oracle].release()
            raise

    def CreateTrial(self, request: Any, context: Any) -> Any:
        self.heard[request.tuner_id] = time.monotonic()
        with self._noting():
            return super().CreateTrial(request, context)

    def UpdateTrial(self, request: Any, context: Any) -> Any:
        with self._noting():
            return super().UpdateTrial(request, context)

    def EndTrial(self, request: Any, context: Any) -> Any:
        with self._noting():
            return super().EndTrial(request, context)

    def GetSpace(self, request: Any, context: Any) -> Any:
        for key, value in context.invocation_metadata() or ():
            if key == "tuner":
                self.heard[value] = time.monotonic()
        return super().GetSpace(request, context)


@dataclass
class _Child:
    """A worker that this process started."""

    process: subprocess.Popen[bytes]
    place: int
    log: Path


@dataclass
class Chief:
    """Serves an oracle until its search is over.

    folder: the search's. workers: processes to start here; 0 leaves that to others. address: where to listen, "IP:PORT"; port 0
    takes a free one. arguments: of `reszoo tune` for the workers started here. cores, gpus: the machine's, shared out among them.
    """

    oracle: Any
    folder: Path
    workers: int = 0
    address: str = "127.0.0.1:0"
    arguments: Sequence[str] = ()
    cores: Sequence[int] = ()
    gpus: Sequence[str] = ()
    reporter: Reporter = field(default_factory=Reporter)
    _children: dict[str, _Child] = field(default_factory=dict)
    _started: int = 0
    _deaths: int = 0
    _ended: int = 0

    def run(self) -> None:
        """Serve, start workers and replace dead ones, until every trial has ended.

        Raises ReszooError where the address cannot be had, or workers keep dying; KeyboardInterrupt when a signal came;
        what the oracle raised while it served.
        """
        servicer = _Servicer(self.oracle)
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
        protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
        ip, _, _ = self.address.rpartition(":")
        try:
            port = server.add_insecure_port(self.address)
        except RuntimeError:
            raise ReszooError(
                f"cannot listen on {self.address}: is it in use, or not this machine's?"
            ) from None
        server.start()
        try:
            for place in range(self.workers):
                self._start(place, ip, port)
            while not self._over(servicer):
                time.sleep(0.1)
                if servicer.failure is not None:
                    raise servicer.failure
                self._bury(servicer, ip, port)
        finally:
            self._stop_children()
            server.stop(grace=None).wait()

    def _over(self, servicer: _Servicer) -> bool:
        idle = not self.oracle.ongoing_trials and not self.oracle.tuner_ids
        return bool(servicer.stop_triggered and idle and not self._children)

    def _start(self, place: int, ip: str, port: int) -> None:
        """Start a worker, its share of the machine that of `place`."""
        name = f"tuner{self._started}"
        self._started += 1
        log = self.folder / "workers" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, IP: ip, PORT: str(port), TUNER: name, PARENT: str(os.getpid())}
        environment[CORES] = ",".join(map(str, shares(self.cores, self.workers)[place]))
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(shares(self.gpus, self.workers)[place])
        command = [sys.executable, "-m", "reszoo", "tune", *self.arguments]
        with open(log, "ab") as file:
            # A session of its own: Ctrl-C reaches this process alone, which then stops the workers in order.
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._children[name] = _Child(process, place, log)

    def _bury(self, servicer: _Servicer, ip: str, port: int) -> None:
        """Take back the trials of workers that died, and put others in the place of those started here."""
        if len(self.oracle.end_order) > self._ended:
            self._ended, self._deaths = len(self.oracle.end_order), 0
        for name, child in list(self._children.items()):
            status = child.process.poll()
            if status is None:
                continue
            del self._children[name]
            self._lose(name, f"ended with status {status}")
            if status == 0:
                continue
            self._deaths += 1
            if self._deaths > DEATHS:
                raise ReszooError(
                    f"workers keep dying; the last one's words are in {child.log}: {_last_line(child.log)}"
                )
            self._start(child.place, ip, port)
        for name in list(self.oracle.tuner_ids):
            silent = time.monotonic() - servicer.heard.get(name, time.monotonic())
            if name not in self._children and silent > DEAD_SECONDS:
                self._lose(name, f"was silent for {silent:.0f} s")

    def _lose(self, name: str, how: str) -> None:
        if (trial := self.oracle.lose(name)) is not None:
            self.reporter.line(f"worker {name} {how}; its trial {trial} is handed out again")

    def _stop_children(self) -> None:
        for child in self._children.values():
            child.process.terminate()
        deadline = time.monotonic() + PATIENCE_SECONDS
        for child in self._children.values():
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "(none)"


@contextlib.contextmanager
def alive(environment: Mapping[str, str]) -> Iterator[None]:
    """Show the chief, during the block, that this worker lives; end the process when the chief that started it is gone."""
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
