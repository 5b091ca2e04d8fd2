"""Commands in parallel within a limit: outcomes in the order of the end, and nothing runs on after the limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


def limit_once(written: Path, lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the limit pass when the log has so many lines, however slow the machine."""
    real = time.monotonic

    def monotonic() -> float:
        ready = written.is_file() and written.read_text().count("\n") >= lines
        return real() + (1e6 if ready else 0)

    monkeypatch.setattr("reszoo.bench.limits.time.monotonic", monotonic)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_outcomes_are_reported_as_soon_as_commands_end(tmp_path: Path) -> None:
    seen: list[tuple[str, Outcome]] = []
    # `second` waits for `first` to be reported.
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.01)\nraise SystemExit(3)"

    def ended(name: str, outcome: Outcome) -> None:
        seen.append((name, outcome))
        (tmp_path / "go").touch()

    commands = {
        "second": [sys.executable, "-c", wait],
        "first": [sys.executable, "-c", "print('told')"],
    }
    found = run_commands(commands, tmp_path / "logs", 60, 5, ended=ended)
    assert seen == [("first", found["first"]), ("second", found["second"])]
    assert (
        found["first"].succeeded and found["second"].status == 3 and not found["second"].succeeded
    )
    assert (tmp_path / "logs" / "first.log").read_text() == "told\n"
    assert not (tmp_path / "logs" / "second.log").read_text()


def test_what_runs_at_the_limit_may_write_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = {"careful": [sys.executable, "-c", CAREFUL, str(tmp_path / "saved")]}
    ready = tmp_path / "logs" / "careful.log"
    limit_once(ready, 1, monkeypatch)
    found = run_commands(commands, tmp_path / "logs", 1e5, 60)
    assert found["careful"].status is None
    assert not alive(int(ready.read_text()))
    assert (tmp_path / "saved").read_text() == "checkpoint"


def test_what_ignores_sigterm_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_once(tmp_path / "stubborn.log", 2, monkeypatch)
    found = run_commands({"stubborn": [sys.executable, "-c", STUBBORN]}, tmp_path, 1e5, 0.5)
    assert found["stubborn"].status is None
    pids = [int(line) for line in (tmp_path / "stubborn.log").read_text().split()]
    assert len(pids) == 2
    for _ in range(500):
        if not any(map(alive, pids)):
            return
        time.sleep(0.01)
    pytest.fail("a process survives")


def test_an_interrupt_stops_the_commands(tmp_path: Path) -> None:
    def interrupt() -> None:
        if (tmp_path / "careful.log").read_text():
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, exit_on_sigterm():
        run_commands(
            {"careful": [sys.executable, "-c", CAREFUL, str(tmp_path / "saved")]},
            tmp_path,
            600,
            60,
            observe=interrupt,
        )
    assert caught.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert not alive(int((tmp_path / "careful.log").read_text()))
    assert (tmp_path / "saved").is_file()


def test_a_stage_leaves_time_to_stop_within_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("reszoo.bench.limits.time.monotonic", lambda: now[0])
    clock = Clock(600)
    assert clock.grace == 20 and clock.left() == 580 and clock.left(0.5) == 280
    now[0] += 300
    assert clock.passed == 300 and clock.left() == 280 and clock.left(0.5) == -20
    assert Clock(20).grace == 1


def test_a_process_group_is_its_own(tmp_path: Path) -> None:
    """Ctrl-C in a terminal must reach the commands through the script alone, which lets them save."""
    code = "import os; print(os.getpgid(0) == os.getpid())"
    run_commands({"one": [sys.executable, "-c", code]}, tmp_path, 60, 5)
    assert (tmp_path / "one.log").read_text() == "True\n"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        == "False\n"
    )
