"""Lines of JSON over a socket, whatever bytes arrive."""

from __future__ import annotations

import socket

from hypothesis import example, given, settings
from hypothesis import strategies as st

from reszoo.training.connection import Connection


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,1a\n').map(str.encode))
@example(b"{" * 200_000 + b"\n")
@example(b'{"a": NaN}\n')
def test_any_bytes_are_a_message_or_the_end_of_the_connection(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        try:
            ours.send(data[: 1 << 16])
        finally:
            ours.close()
        connection = Connection.__new__(Connection)  # a pair has no TCP options
        connection.socket, connection._received = theirs, b""
        try:
            for _ in range(5):
                assert isinstance(connection.receive(), dict)
        except OSError:
            pass


def test_messages_arrive_whole_and_in_order() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=5)
        with client, server.accept()[0] as accepted:
            connection, text = Connection(accepted), b'{"recipe": "' + b"x" * 99_000 + b'"}\n'
            client.sendall(text[:100])
            assert connection.receive() == {}
            client.sendall(text[100:])
            Connection(client).send(second=[1])
            received: list[object] = []
            while len(received) < 2:  # the socket's time limit ends it
                received += filter(None, [connection.receive()])
    assert received == [{"recipe": "x" * 99_000}, {"second": [1]}]
