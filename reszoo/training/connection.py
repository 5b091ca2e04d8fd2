"""A socket between two workers that carries lines of JSON. Standard library only."""

from __future__ import annotations

import errno
import json
import socket
import sys
import time

from reszoo.errors import ReszooError
from reszoo.training.cluster import Hosts
from reszoo.types import JsonObject

LIMIT = 1 << 20  # bytes of a message
BUSY = 30.0  # seconds in which a port may still be in use by a process that ends


class Connection:
    """A connection that carries lines of JSON.

    Attributes:
        index: Of the follower at the other end; 0 before its greeting.
        welcomed: Whether it was sent worker 0's greeting.
        ready: Whether it has answered.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket, self.opened = sock, time.monotonic()
        self.index, self.welcomed, self.ready = 0, False, False
        self._received = b""
        sock.settimeout(5.0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # finds a host that is gone
        if sys.platform == "linux":
            for option, value in (("IDLE", 10), ("INTVL", 10), ("CNT", 3)):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{option}"), value)

    def send(self, **message: object) -> None:
        """Send a message."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> JsonObject:
        """Return the next message, or {} if it is not complete yet.

        Raises:
            OSError: If the connection has ended, or the other end is not a worker.
        """
        if b"\n" not in self._received:
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the connection was closed")
            self._received += data
        line, newline, rest = self._received.partition(b"\n")
        if not line.startswith(b"{") or len(line) > LIMIT:
            raise ConnectionError("not a worker of reszoo")
        if not newline:
            return {}
        self._received = rest
        try:
            message: JsonObject = json.loads(line)
        except (ValueError, RecursionError):
            raise ConnectionError("not a worker of reszoo") from None
        return message


def listen(hosts: Hosts) -> socket.socket:
    """Listen on this worker's port: on all interfaces, or on loopback if the address says so."""
    host = hosts.addresses[hosts.index].rpartition(":")[0].strip("[]")
    loopback = host in ("localhost", "::1") or host.startswith("127.")
    six = ":" in host if loopback else socket.has_dualstack_ipv6()
    end = time.monotonic() + BUSY
    while True:
        try:
            return socket.create_server(
                (host if loopback else "", hosts.port),
                family=socket.AF_INET6 if six else socket.AF_INET,
                dualstack_ipv6=six and not loopback,
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                reason = str(error.strerror).partition(" (")[0]
                raise ReszooError(
                    f"hosts: {hosts.name(hosts.index)} is invalid: {reason}; expected a free port. "
                    "Give another port on all hosts"
                ) from None
        time.sleep(0.5)
