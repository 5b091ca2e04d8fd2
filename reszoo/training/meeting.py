"""The workers of a run meet before TensorFlow starts, on worker 0's port. Standard library only.

While TensorFlow waits for other workers, it holds Python's lock and takes SIGTERM: no message, no
time limit and no clean stop is possible. So the workers first meet over a plain socket.

Each message is one line of JSON. A follower sends its greeting. When all workers are there, worker
0 sends its own; each follower answers "ready"; worker 0 sends "go".
"""

from __future__ import annotations

import contextlib
import dataclasses
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

from reszoo.errors import PeerLost, ReszooError, shorten
from reszoo.signals import interrupt_on
from reszoo.training.cluster import Hosts
from reszoo.training.connection import Connection, listen
from reszoo.training.greeting import Greeting

PATIENCE = 600.0  # seconds until a missing worker is an error
NOTICE = 10.0  # seconds until a message names the missing workers; then each minute
TELL = 10.0  # seconds in which workers that arrive late are sent an error
HELLO = 10.0  # seconds that a connection has for its greeting
STRANGERS = 64  # connections at once that are not workers


def meet(
    hosts: Hosts, greeting: Greeting, *, patience: float = PATIENCE, report: Callable[[str], None]
) -> Greeting:
    """Wait for all workers, and return worker 0's greeting on each.

    Args:
        hosts: The hosts.
        greeting: This worker's greeting.
        patience: Seconds to wait for missing workers.
        report: Reports a line: which workers are missing, after 10 seconds.

    Raises:
        ReszooError: If a worker has an error or differs from worker 0. All workers raise the same.
        PeerLost: If a worker does not come in time.
        KeyboardInterrupt: At SIGTERM.
    """
    wait = _Wait(patience, report)
    with interrupt_on(signal.SIGTERM):
        if hosts.first:
            with listen(hosts) as server, _Gathering(hosts, greeting, wait, server) as gathering:
                gathering.run()
            return greeting
        try:
            listen(hosts).close()  # TensorFlow needs the port
        except ReszooError as error:
            greeting = dataclasses.replace(greeting, error=greeting.error or str(error))
        return _join(hosts, greeting, wait)


@contextlib.contextmanager
def limit_start(seconds: int = 180) -> Iterator[None]:
    """End the process by SIGALRM, exit status 142, if the block takes longer than `seconds`.

    For TensorFlow's own meeting, which has no end if a worker is lost at that moment.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


class _Wait:
    """Time that passes while workers are missing.

    Args:
        patience: Seconds until `over`.
        report: Reports a line.
    """

    def __init__(self, patience: float, report: Callable[[str], None]) -> None:
        self.patience, self._report = patience, report
        self._notice = time.monotonic() + NOTICE
        self.limit(patience)

    def limit(self, seconds: float) -> None:
        """Let the wait be over in `seconds`."""
        self._end = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self._end

    def notice(self, text: str) -> None:
        """Report what is waited for, if enough time has passed."""
        if time.monotonic() >= self._notice:
            self._notice = time.monotonic() + 60
            self._report(text)

    def lost(self, who: str) -> PeerLost:
        """Return the error of workers that did not come."""
        return PeerLost(
            f"{who}: no contact within {self.patience:g} s; expected all workers. Start all of "
            "them again with --resume"
        )


class _Gathering:
    """Worker 0's side: waits until all followers are ready.

    Args:
        hosts: The hosts.
        greeting: Worker 0's greeting.
        wait: The time to wait.
        server: Listens on worker 0's port.
    """

    def __init__(
        self, hosts: Hosts, greeting: Greeting, wait: _Wait, server: socket.socket
    ) -> None:
        self._hosts, self._greeting, self._wait, self._server = hosts, greeting, wait, server
        self._open: dict[socket.socket, Connection] = {}
        self._followers: dict[int, Connection] = {}
        self._error = ""
        if greeting.error:
            self._fail(greeting.error)

    def __enter__(self) -> _Gathering:
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        return self

    def __exit__(self, *error: object) -> None:
        self._selector.close()
        for sock in self._open:
            sock.close()

    def run(self) -> None:
        """Serve connections until all followers are ready, or an error ends the meeting."""
        while self._followers.keys() != set(range(1, self._hosts.count)) or not all(
            follower.ready for follower in self._followers.values()
        ):
            self._step()
        self._send_all(go=True)
        if len(self._followers) < self._hosts.count - 1:
            raise PeerLost("a worker was lost at the start; start all again with --resume")

    def _step(self) -> None:
        missing = [n for n in range(1, self._hosts.count) if n not in self._followers]
        if self._error and (not missing or self._wait.over):
            self._send_all(error=self._error)
            raise ReszooError(self._error)
        late = missing or [n for n, each in self._followers.items() if not each.ready]
        names = ", ".join(map(self._hosts.name, late))
        if self._wait.over:
            lost = self._wait.lost(names)
            self._send_all(lost=str(lost))
            raise lost
        self._wait.notice(f"waiting for {names}")
        if not missing:
            for follower in [each for each in self._followers.values() if not each.welcomed]:
                follower.welcomed = True
                self._send(follower, welcome=dataclasses.asdict(self._greeting))
        for key, _ in self._selector.select(0.5):
            if key.fileobj is self._server:
                self._accept()
            elif connection := self._open.get(key.fileobj):  # type: ignore[call-overload]
                try:
                    self._read(connection)
                except OSError:
                    self._drop(connection)
        for each in list(self._open.values()):
            if not each.index and time.monotonic() - each.opened > HELLO:
                self._drop(each)

    def _accept(self) -> None:
        try:
            connection = Connection(self._server.accept()[0])
        except OSError:  # gone already
            return
        self._open[connection.socket] = connection
        self._selector.register(connection.socket, selectors.EVENT_READ)
        if len(self._open) > self._hosts.count + STRANGERS:
            self._drop(connection)

    def _read(self, connection: Connection) -> None:
        message = connection.receive()
        if connection.index or not message:
            connection.ready |= message.get("ready") is True
            return
        index, theirs = message.get("index"), Greeting.from_json(message.get("greeting"))
        if not isinstance(index, int) or index not in range(1, self._hosts.count):
            raise ConnectionError("not a follower")
        if index in self._followers:  # until the connection of a host that is gone has ended
            raise ConnectionError("there already")
        connection.index, self._followers[index] = index, connection
        found = self._greeting.difference(theirs)
        if message.get("hosts") != list(self._hosts.addresses):
            found = f"hosts: {shorten(message.get('hosts'))} is invalid; expected those of worker 0"
        if found:
            self._fail(f"{self._hosts.name(index)}: {found}")

    def _fail(self, error: str) -> None:
        """Note an error. Workers that come within a few seconds are sent it too."""
        if not self._error:
            self._error = error
            self._wait.limit(TELL)

    def _send(self, connection: Connection, **message: object) -> None:
        try:
            connection.send(**message)
        except OSError:
            self._drop(connection)

    def _send_all(self, **message: object) -> None:
        for follower in list(self._followers.values()):
            self._send(follower, **message)

    def _drop(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()
        del self._open[connection.socket]
        if self._followers.get(connection.index) is connection:
            del self._followers[connection.index]


def _join(hosts: Hosts, greeting: Greeting, wait: _Wait) -> Greeting:
    """Wait as a follower for worker 0 and for its word that all are ready."""
    host, _, port = hosts.addresses[0].rpartition(":")
    if greeting.error:
        wait.limit(min(wait.patience, 6 * TELL))
    while not wait.over:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5) as sock:
                return _talk(Connection(sock), hosts, greeting, wait)
        except OSError:  # worker 0 is not there yet, or the port still is an old process's
            wait.notice(f"waiting for {hosts.name(0)}")
            time.sleep(0.5)
    raise ReszooError(greeting.error) if greeting.error else wait.lost(hosts.name(0))


def _talk(connection: Connection, hosts: Hosts, greeting: Greeting, wait: _Wait) -> Greeting:
    greeted, answer = dataclasses.asdict(greeting), None
    connection.send(index=hosts.index, hosts=hosts.addresses, greeting=greeted)
    connection.socket.settimeout(0.5)
    while not wait.over:
        wait.notice("waiting for the other workers")
        try:
            message = connection.receive()
        except TimeoutError:
            continue
        if "error" in message:
            raise ReszooError(str(message["error"]))
        if "lost" in message:
            raise PeerLost(str(message["lost"]))
        if "welcome" in message:
            answer = Greeting.from_json(message["welcome"])
            connection.send(ready=True)
        if "go" in message and answer:
            return answer
    raise ConnectionError("worker 0 does not answer")
