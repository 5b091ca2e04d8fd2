"""Commands in parallel within a limit: outcomes in the order of the end, and nothing runs on after the limit."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from reszoo.bench import limits
from reszoo.bench.limits import Clock, Outcome, exit_on_sigterm, run_commands

# Writes its process id, and a file on SIGTERM, as a run writes its checkpoint.
CAREFUL = """
import os, pathlib, signal, sys, time
def leave(*_):
    pathlib.Path(sys.argv[1]).write_text("checkpoint")
    sys.exit(130)
signal.signal(signal.SIGTERM, leave)
print(os.getpid(), flush=True)
time.sleep(600)
"""
# Ignores SIGTERM, and so does the process that it starts.
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
print(os.getpid(), flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_outcomes_are_reported_as_soon_as_commands_end(tmp_path: Path) -> None:
    seen: list[tuple[str, Outcome]] = []
    # `second` waits for `first` to be reported. Each has a process group of its own: Ctrl-C in a terminal
    # must reach the commands through the script alone, which lets them save.
    wait = (
        f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'go')!r}).exists():\n"
        "    time.sleep(0.01)\nraise SystemExit(3)"
    )
    group = "import os; print(os.getpgid(0) == os.getpid())"

    def ended(name: str, outcome: Outcome) -> None:
        seen.append((name, outcome))
        (tmp_path / "go").touch()

    commands = {"second": [sys.executable, "-c", wait], "first": [sys.executable, "-c", group]}
    found = run_commands(commands, tmp_path / "logs", 60, 5, ended=ended)
    assert seen == [("first", found["first"]), ("second", found["second"])]
    assert found["first"].succeeded
    assert found["second"].status == 3 and not found["second"].succeeded
    assert (tmp_path / "logs" / "first.log").read_text() == "True\n"
    assert not (tmp_path / "logs" / "second.log").read_text()


@pytest.mark.parametrize(
    ("program", "pids", "grace", "saves"), [(CAREFUL, 1, 60, True), (STUBBORN, 2, 0.5, False)]
)
def test_nothing_runs_on_after_the_limit(
    program: str,
    pids: int,
    grace: float,
    saves: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What runs at the limit may write its checkpoint; what ignores SIGTERM is killed with its children."""
    log, real = tmp_path / "one.log", time.monotonic

    def monotonic() -> float:
        """Pass the limit when the log has its lines, however slow the machine."""
        ready = log.is_file() and log.read_text().count("\n") >= pids
        return real() + (1e6 if ready else 0)

    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))
    command = [sys.executable, "-c", program, str(tmp_path / "saved")]
    assert run_commands({"one": command}, tmp_path, 1e5, grace)["one"].status is None
    assert (tmp_path / "saved").is_file() is saves
    started = [int(line) for line in log.read_text().split()]
    deadline = real() + 10
    while any(map(alive, started)):
        assert real() < deadline, "a process survives"
        time.sleep(0.01)
    assert len(started) == pids


def test_an_interrupt_stops_the_commands(tmp_path: Path) -> None:
    def interrupt() -> None:
        if (tmp_path / "careful.log").read_text():
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    commands = {"careful": [sys.executable, "-c", CAREFUL, str(tmp_path / "saved")]}
    with pytest.raises(SystemExit) as caught, exit_on_sigterm():
        run_commands(commands, tmp_path, 600, 60, observe=interrupt)
    assert caught.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert not alive(int((tmp_path / "careful.log").read_text()))
    assert (tmp_path / "saved").is_file()


def test_a_stage_leaves_time_to_stop_within_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = Clock(600)
    assert clock.grace == 20 and clock.left() == 580 and clock.left(0.5) == 280
    now[0] += 300
    assert clock.passed == 300 and clock.left() == 280 and clock.left(0.5) == -20
    assert Clock(20).grace == 1
