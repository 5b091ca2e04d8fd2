"""Programs that take turns: the order, the limits of each process, and that none stays behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reszoo.bench.turns import start_child, take_turns
from reszoo.errors import ReszooError
from reszoo.reporting.reporter import Reporter

QUIET = Reporter(quiet=True)

# Appends its name to a file in each turn; its calls take half a second, by its own account.
NOTE = """
import json, sys
print(json.dumps({"versions": {"x": "1"}, "parameters": 7}), flush=True)
for line in sys.stdin:
    print(sys.argv[1], int(line), file=open("turns.txt", "a"), flush=True)
    print(json.dumps({"seconds": 0.5 * int(line), "peak_mb": 5, "build_seconds": 0.25}), flush=True)
"""


@pytest.mark.parametrize("once", [False, True])
def test_the_order_rotates_and_seconds_are_those_of_one_call(
    once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = {name: [sys.executable, "-c", NOTE, name] for name in "ab"}
    found = take_turns(commands, 2, device="cpu", threads=1, reporter=QUIET, once=once)
    for one in found.values():
        assert (one.ready.versions, one.ready.parameters, one.peak_mb) == ({"x": "1"}, 7, 5)
        assert one.seconds == [0.5, 0.5] and one.build_seconds == [0.25, 0.25]
    turns = (tmp_path / "turns.txt").read_text().splitlines()
    # A turn takes about two seconds, so four calls of half a second; a first step is one call.
    assert turns == (["a 1", "b 1"] * 2 if once else ["a 2", "b 2", "a 4", "b 4", "b 4", "a 4"])


BUSY = """
import json, sys, threading, time
count = 0
def work():
    global count
    while True:
        time.sleep(0.001)
        count += 1
threading.Thread(target=work, daemon=True).start()
print(json.dumps({"versions": {}}), flush=True)
for line in sys.stdin:
    print(json.dumps({"seconds": count}), flush=True)
"""


def test_a_side_is_stopped_in_the_others_turns() -> None:
    """Or it would read ahead, and be faster for what it did while another was measured."""
    with start_child("busy", [sys.executable, "-c", BUSY], "cpu", 2) as child:
        child.wait_ready()
        before = child.ask(1).seconds
        time.sleep(0.5)
        assert child.ask(1).seconds - before < 100
        process = child.process
    assert process.returncode is not None


LIMITS = """
import json, os
seen = [len(os.sched_getaffinity(0)), *map(os.environ.get, ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"))]
print(json.dumps({"versions": seen}), flush=True)
input()
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system cannot limit a process to some cores"
)
@pytest.mark.parametrize(("device", "visible"), [("cpu", ""), ("gpu", None)])
def test_a_side_runs_on_the_threads_and_the_device_of_its_job(
    device: str, visible: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    before = os.sched_getaffinity(0)
    for threads in {1, len(before)}:
        with start_child("some", [sys.executable, "-c", LIMITS], device, threads) as child:
            assert child.wait_ready().versions == [threads, str(threads), visible]
    assert os.sched_getaffinity(0) == before


ENDLESS = """
import sys
from reszoo.bench import comparison, turns
from reszoo.cli.main import main
side = [sys.executable, "-c", sys.argv[1]]
comparison.measure = lambda *_: turns.take_turns(
    {"reszoo": side, "torch": side}, 10**9, device="cpu", threads=1, reporter=_[-1])
turns.TURN_SECONDS = 0.01
sys.exit(main(["bench", "train", "resnet8", "--against", "torch"]))
"""
SIDE = """
import json, os, sys, time
print(json.dumps({"versions": {}}), flush=True)
for line in sys.stdin:
    time.sleep(0.01)
    print(os.getpid(), file=open(os.environ["PIDS"], "a"), flush=True)
    print(json.dumps({"seconds": 0.01, "peak_mb": 1}), flush=True)
"""


def test_sigterm_leaves_no_side_behind(tmp_path: Path) -> None:
    """A side is stopped in the others' turns; left so, it would keep the memory of a GPU."""
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", ENDLESS, SIDE]
    with subprocess.Popen(command, env=os.environ | {"PIDS": str(pids)}) as process:
        while not pids.is_file() or len(sides := set(pids.read_text().split())) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
    assert process.returncode == 143
    states = [Path(f"/proc/{pid}/stat") for pid in sides]
    assert not any(
        state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"
        for state in states
    )


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("raise SystemExit('no luck')", "^some ended without an answer: no luck$"),
        (f"print({json.dumps({'error': 'no such model'})!r})", "^some cannot take part: no such"),
        (
            f"print({json.dumps({'error': 'No module named torch'})!r})",
            "No module named torch; --peer PYTHON names an environment that has it",
        ),
    ],
)
def test_a_side_that_cannot_run_is_reported_in_one_line(program: str, line: str) -> None:
    commands = {"some": [sys.executable, "-c", program]}
    with pytest.raises(ReszooError, match=line):
        take_turns(commands, 1, device="cpu", threads=1, reporter=QUIET)
    with pytest.raises(ReszooError, match="^peer: /nowhere cannot be started for some"):
        take_turns({"some": ["/nowhere"]}, 1, device="cpu", threads=1, reporter=QUIET)
