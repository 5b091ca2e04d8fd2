"""Several processes on one search: roles, silent and killed workers, a chief that dies, an address that is taken."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras_tuner.src import protos

from reszoo.errors import ReszooError
from reszoo.tuning import workers as workers_module
from reszoo.tuning.environment import find_role
from reszoo.tuning.oracle import Oracle, make_oracle
from reszoo.tuning.results import read_results
from reszoo.tuning.tune import tune
from reszoo.tuning.workers import Chief, divide
from tests.tuning.helpers import Lines, plan_of


@pytest.mark.parametrize(
    ("name", "ip", "port", "expected"),
    [
        ("", "", "", "alone"),
        ("chief", "127.0.0.1", "80", "chief"),
        ("w1", "10.0.0.1", "8000", "worker"),
        ("w1", "", "", "KERASTUNER_ORACLE_IP: missing"),
        ("w1", "10.0.0.1", "x", "'x' is invalid; expected a port"),
        ("w1", "10.0.0.1", "²", "'²' is invalid; expected a port"),
    ],
)
def test_the_environment_gives_a_process_its_role(
    name: str, ip: str, port: str, expected: str
) -> None:
    variables = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
    environment = dict(zip(variables, (name, ip, port), strict=True))
    if expected in ("alone", "chief", "worker"):
        assert find_role(environment) == expected
    else:
        with pytest.raises(ReszooError, match=expected):
            find_role(environment)


@given(st.lists(st.integers(), max_size=20), st.integers(1, 8))
def test_a_machine_is_divided_evenly(items: list[int], count: int) -> None:
    found = divide(items, count)
    assert len(found) == count and {x for part in found for x in part} == set(items)
    if len(items) >= count:
        assert [item for part in found for item in part] == items
        assert max(map(len, found)) - min(map(len, found)) <= 1
    else:
        assert all(len(part) == bool(items) for part in found)


# A chief, asked as by workers


@pytest.fixture
def oracle(tiny: Path, tmp_path: Path) -> Oracle:
    return make_oracle(plan_of(tiny, trials=1), tmp_path)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(port: int, name: str) -> Any:
    """Ask a chief for a trial, as a worker does."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = protos.get_service().CreateTrialRequest(tuner_id=name)
        stub = protos.get_service_grpc().OracleStub(channel)
        return stub.CreateTrial(request, wait_for_ready=True, timeout=120)


def test_a_full_disk_at_the_chief_ends_the_search(
    oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(oracle, "save", full)
    port = free_port()
    asking = threading.Thread(target=lambda: pytest.raises(grpc.RpcError, ask, port, "w0"))
    asking.start()
    with pytest.raises(OSError, match="No space left"):
        Chief(oracle, tmp_path, address=f"127.0.0.1:{port}").run()
    asking.join()


class Clock:
    """The chief's clock, which moves only by the test: a stalled machine is not a silent worker."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def test_the_trial_of_a_silent_worker_is_assigned_again(
    oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reporter: Lines
) -> None:
    clock, port, handed_out = Clock(), free_port(), list[str]()
    monkeypatch.setattr(workers_module, "time", clock)

    def two_workers() -> None:
        handed_out.append(ask(port, "w0").trial.trial_id)  # and is not heard again
        for _ in range(3):
            clock.now += workers_module.DEAD_SECONDS / 3
            time.sleep(0.15)  # the chief looks every 0.1 s; it must not lose w0 yet
        assert not oracle._retry_queue
        clock.now += 1
        while not oracle._retry_queue:
            time.sleep(0.01)
        handed_out.append(ask(port, "w1").trial.trial_id)
        oracle.update_trial("0000", {"val_accuracy": 0.5})
        trial = oracle.get_trial("0000")
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        ask(port, "w1")

    asking = threading.Thread(target=two_workers, daemon=True)
    asking.start()
    Chief(oracle, tmp_path, address=f"127.0.0.1:{port}", reporter=reporter).run()
    asking.join()
    assert handed_out == ["0000", "0000"]
    assert reporter.lines == ["worker w0 was silent for 61 s; its trial 0000 is handed out again"]


def test_an_address_that_is_taken_is_reported(oracle: Oracle, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ReszooError, match=f"cannot listen on {address}"):
            Chief(oracle, tmp_path, address=address).run()


# Real processes


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a search in a process of its own."""
    command = [sys.executable, "-m", "reszoo", "tune", *arguments, "--run-dir", str(folder)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=os.environ | environment, **pipes)


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().split()[2] != "Z"


def outcome(folder: Path) -> list[tuple[str, ...]]:
    """Every trial's values, share and scores, whichever worker ran it."""
    keys = ("values", "share", "scores")
    return sorted(tuple(str(t[key]) for key in keys) for t in read_results(folder)["trials"])


@pytest.mark.slow
def test_a_search_killed_again_and_again_ends_as_an_unbroken_one(
    tiny: Path, tmp_path: Path, reporter: Lines
) -> None:
    tune(tiny, run_dir=tmp_path / "whole", tuner="hyperband", trials=0, reporter=reporter)
    folder, chance, kills = tmp_path / "broken", random.Random(2), 0
    new = [str(tiny), "--tuner", "hyperband", "--trials", "0"]
    while True:
        process = start(folder, *(["--resume"] if (folder / "search.json").is_file() else new))
        if kills < 3:
            wait_for((folder / "oracle.json").is_file, process)
            time.sleep(chance.uniform(0.0, 5.0))
            process.kill()
            kills += 1
        text, _ = process.communicate(timeout=400)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, text
    assert outcome(folder) == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_workers_end_with_their_chief(
    tiny: Path, tmp_path: Path, reporter: Lines
) -> None:
    tune(tiny, run_dir=tmp_path / "whole", trials=4, reporter=reporter)
    folder = tmp_path / "two"
    process = start(folder, str(tiny), "--trials", "4", "--workers", "2")
    wait_for((folder / "trials" / "0001" / "trial.json").is_file, process)
    first, *_ = before = descendants(process.pid)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: set(descendants(process.pid)) - set(before), process)
    workers = descendants(process.pid)
    process.kill()
    text, _ = process.communicate()
    assert "ended with status -9" in text
    deadline = time.monotonic() + 300
    while any(map(running, workers)):
        assert time.monotonic() < deadline, "workers outlived their chief"
        time.sleep(0.2)
    process = start(folder, "--resume", "--workers", "2")
    text, _ = process.communicate(timeout=400)
    assert process.returncode == 0, text
    assert outcome(folder) == outcome(tmp_path / "whole")
    assert len({trial["worker"] for trial in read_results(folder)["trials"]}) >= 2


@pytest.mark.slow
def test_chief_and_worker_by_kerastuners_variables(tiny: Path, tmp_path: Path) -> None:
    """As on several machines: each is started by hand and has its role from the environment."""
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(free_port())}
    processes = [
        start(tmp_path / "shared", str(tiny), "--trials", "2", **address, KERASTUNER_TUNER_ID=name)
        for name in ("chief", "elsewhere0")
    ]
    texts = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    found = read_results(tmp_path / "shared")["trials"]
    assert [trial["status"] for trial in found] == ["completed"] * 2
    assert {trial["worker"] for trial in found} == {"elsewhere0"}
