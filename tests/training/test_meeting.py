"""Workers meet over sockets: missing, different, late, frozen ones and strangers; never a hang."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from reszoo.config.load import load_recipe
from reszoo.errors import PeerLost, ReszooError
from reszoo.training import connection, meeting
from reszoo.training.cluster import Hosts
from reszoo.training.greeting import Greeting
from reszoo.training.meeting import meet

RECIPE = load_recipe("quickstart").to_toml()
FIRST = Greeting({"keras": "3.15.1"}, "1 CPU", RECIPE, resume=True)
OTHER = dataclasses.replace(FIRST, recipe="", resume=False)


@pytest.fixture
def addresses() -> tuple[str, ...]:
    """Three free addresses of this machine."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        return tuple(f"127.0.0.1:{server.getsockname()[1]}" for server in servers)


def meet_all(
    addresses: tuple[str, ...], greetings: dict[int, Greeting], patience: float = 20.0
) -> dict[int, Any]:
    """Return by index what each worker's `meet` returned or raised, and "lines": what it said."""
    lines: list[str] = []
    with ThreadPoolExecutor(len(greetings)) as pool:
        futures: dict[int, Future[Greeting]] = {
            index: pool.submit(
                meet, Hosts(addresses, index), greeting, patience=patience, report=lines.append
            )
            for index, greeting in greetings.items()
        }
        found: dict[int, Any] = {
            index: future.exception(60) or future.result() for index, future in futures.items()
        }
    return found | {-1: lines}


def connect(address: str) -> socket.socket:
    """Connect as soon as somebody listens."""
    end = time.monotonic() + 10
    while True:
        try:
            host, port = address.split(":")
            return socket.create_connection((host, int(port)), timeout=10)
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.02)


def hello(addresses: tuple[str, ...], index: object, greeting: object = None) -> bytes:
    greeting = dataclasses.asdict(OTHER) if greeting is None else greeting
    message = {"index": index, "hosts": addresses, "greeting": greeting}
    return json.dumps(message).encode() + b"\n"


STRANGERS = [
    b"",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"{" * 200_000 + b"\n",
    b"{}\n{}\n[1]\n",
    b'{"index": 1}\n',
    b"{" + b" " * (1 << 21),
    bytes(range(256)) * 16,
]


def test_workers_meet_among_strangers(addresses: tuple[str, ...]) -> None:
    def disturb() -> None:
        for text in STRANGERS:
            with contextlib.suppress(OSError):
                sockets.append(connect(addresses[0]))
                sockets[-1].sendall(text)
        for index in (0, 3, "1", None):
            with contextlib.suppress(OSError):
                sockets.append(connect(addresses[0]))
                sockets[-1].sendall(hello(addresses, index))
        with contextlib.suppress(OSError):
            sockets.append(connect(addresses[0]))
            sockets[-1].sendall(hello(addresses, 1, {"versions": 3}))

    sockets: list[socket.socket] = []
    thread = threading.Thread(target=disturb)
    thread.start()
    with ThreadPoolExecutor(1) as pool:
        zero = pool.submit(meet_all, addresses, {0: FIRST})
        thread.join(30)
        rest = meet_all(addresses, {1: OTHER, 2: dataclasses.replace(OTHER, recipe=RECIPE)})
        found = rest | zero.result(60)
    for each in sockets:
        each.close()
    assert [found[index] for index in range(3)] == [FIRST] * 3
    # At once again on the same ports.
    again = meet_all(addresses, {0: FIRST, 1: OTHER, 2: OTHER})
    assert [again[index] for index in range(3)] == [FIRST] * 3 and again[-1] == []


def test_strangers_who_are_silent_do_not_take_all_connections(
    addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "STRANGERS", -1)  # with two workers: one connection
    monkeypatch.setattr(meeting, "HELLO", 0.5)
    with ThreadPoolExecutor(1) as pool:
        zero = pool.submit(meet_all, addresses[:2], {0: FIRST})
        with connect(addresses[0]):
            assert meet_all(addresses[:2], {1: OTHER})[1] == FIRST == zero.result(60)[0]


CHANGED = load_recipe("quickstart", ["train.seed=7"]).to_toml()


@pytest.mark.parametrize(
    ("greetings", "line"),
    [
        (
            {1: dataclasses.replace(OTHER, versions={"keras": "3.14.0"})},
            "worker 1 (ADDRESS): keras: '3.14.0' is invalid; expected '3.15.1', as on worker 0",
        ),
        (
            {1: dataclasses.replace(OTHER, devices="2 GPU")},
            "worker 1 (ADDRESS): devices: '2 GPU' is invalid; expected '1 CPU', as on worker 0",
        ),
        (
            {1: dataclasses.replace(OTHER, recipe=CHANGED)},
            "worker 1 (ADDRESS): train.seed: 7 is invalid; expected 0, as on worker 0",
        ),
        ({1: dataclasses.replace(OTHER, error="no recipe")}, "worker 1 (ADDRESS): no recipe"),
        ({0: dataclasses.replace(FIRST, error="no folder")}, "no folder"),
    ],
)
def test_a_difference_is_the_same_line_on_all_workers(
    greetings: dict[int, Greeting], line: str, addresses: tuple[str, ...]
) -> None:
    found = meet_all(addresses, {0: FIRST, 1: OTHER, 2: OTHER} | greetings)
    for index in range(3):
        assert type(found[index]) is ReszooError
        assert str(found[index]).startswith(line.replace("ADDRESS", addresses[1]))
        assert str(found[index]) == str(found[0])


def test_other_hosts_are_a_difference(addresses: tuple[str, ...]) -> None:
    with ThreadPoolExecutor(1) as pool:
        zero = pool.submit(meet_all, addresses[:2], {0: FIRST})
        other = meet_all(addresses, {1: OTHER})
        found = zero.result(60)[0]
    assert str(found) == str(other[1])
    assert str(found).startswith(f"worker 1 ({addresses[1]}): hosts: ['127.")


def test_missing_workers_are_named_and_lost(
    addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "NOTICE", 0.8)
    start = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        zero = pool.submit(meet_all, addresses, {0: FIRST}, 2.5)
        found = meet_all(addresses, {1: OTHER})
        found |= zero.result(60)
    names = f"worker 2 ({addresses[2]})"
    assert all(type(found[index]) is PeerLost for index in (0, 1))
    assert str(found[0]).startswith(f"{names}: no contact within 2.5 s; ")
    assert f"waiting for {names}" in found[-1]
    found = meet_all(addresses, {1: OTHER}, patience=2.0)
    assert type(found[1]) is PeerLost and f"worker 0 ({addresses[0]})" in str(found[1])
    assert found[-1] == [f"waiting for worker 0 ({addresses[0]})"]
    assert time.monotonic() - start < 12


@pytest.fixture
def pair(addresses: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Future[Any]]]:
    """The addresses of two workers, and worker 0 that waits for 4 seconds."""
    with ThreadPoolExecutor(1) as pool:
        yield addresses[:2], pool.submit(meet_all, addresses[:2], {0: FIRST}, 4.0)


def test_a_worker_that_is_killed_and_started_again_meets(
    pair: tuple[tuple[str, ...], Future[Any]],
) -> None:
    addresses, zero = pair
    with connect(addresses[0]) as killed:
        killed.sendall(hello(addresses, 1))
        assert b"welcome" in killed.recv(1 << 16)  # it dies between its greeting and its answer
    assert meet_all(addresses, {1: OTHER})[1] == FIRST == zero.result(60)[0]


def test_a_second_worker_of_an_index_waits_for_the_first_to_leave(
    pair: tuple[tuple[str, ...], Future[Any]],
) -> None:
    addresses, zero = pair
    with connect(addresses[0]) as first, connect(addresses[0]) as second:
        first.sendall(hello(addresses, 1))
        assert b"welcome" in first.recv(1 << 16)
        second.sendall(hello(addresses, 1))
        assert second.recv(1 << 16) == b""
        first.sendall(b'{"ready": true}\n')
        assert first.recv(1 << 16) == b'{"go": true}\n'
    assert zero.result(60)[0] == FIRST


def test_a_frozen_worker_is_lost(pair: tuple[tuple[str, ...], Future[Any]]) -> None:
    addresses, zero = pair
    with connect(addresses[0]) as frozen:
        frozen.sendall(hello(addresses, 1))
        lost = zero.result(60)[0]
    assert type(lost) is PeerLost and f"worker 1 ({addresses[1]})" in str(lost)


@pytest.mark.parametrize(
    "reply", [b"", b"\x00\x00\x12\x04\x00\x00", b'{"welcome": 3}\n{"go": 1}\n']
)
def test_a_follower_survives_an_old_process_on_the_port_of_worker_0(
    reply: bytes, addresses: tuple[str, ...]
) -> None:
    host, port = addresses[0].split(":")
    with ThreadPoolExecutor(1) as pool:
        with socket.create_server((host, int(port))) as old:
            follower = pool.submit(meet_all, addresses[:2], {1: OTHER})
            old.settimeout(30)
            with old.accept()[0] as client:
                client.sendall(reply)
        assert meet_all(addresses[:2], {0: FIRST})[0] == FIRST == follower.result(60)[1]


@pytest.mark.parametrize("index", [0, 1])
def test_a_port_in_use_is_an_error(
    index: int, addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY", 0.0)
    host, port = addresses[index].split(":")
    with socket.create_server((host, int(port))):
        workers = {0: FIRST, 1: OTHER} if index else {0: FIRST}
        found = meet_all(addresses[:2], workers)
    for worker in workers:
        assert type(found[worker]) is ReszooError
        line = f"hosts: worker {index} ({addresses[index]}) is invalid: Address already in use"
        assert line in str(found[worker])


PROGRAM = """
import sys
from reszoo.training.cluster import Hosts
from reszoo.training.greeting import Greeting
from reszoo.training.meeting import limit_start, meet
"""


def test_sigterm_ends_the_wait(addresses: tuple[str, ...]) -> None:
    program = f"""{PROGRAM}
try:
    meet(Hosts({addresses}, 0), Greeting({{}}, "1 CPU"), report=print)
except KeyboardInterrupt:
    sys.exit(130)
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        connect(addresses[0]).close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()


def test_a_start_that_holds_pythons_lock_ends() -> None:
    program = f"{PROGRAM}\nimport ctypes\nwith limit_start(5): pass\nwith limit_start(1): ctypes.PyDLL(None).sleep(60)"
    done = subprocess.run([sys.executable, "-c", program], timeout=40, check=False)
    assert done.returncode == -signal.SIGALRM
