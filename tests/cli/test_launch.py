"""Workers on one machine: what is shown, how the whole ends, restarts and signals. The workers are small programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import reszoo
from reszoo.cli import launch
from reszoo.cli.main import main

WORKER = """
import json, os, pathlib, signal, sys, time
task = json.loads(os.environ["TF_CONFIG"])
index, folder = task["task"]["index"], pathlib.Path(os.environ["FOLDER"])
(folder / f"pid{index}").write_text(str(os.getpid()))
tries = folder / f"tries{index}"
tries.write_text(tries.read_text() + "1" if tries.exists() else "1")
attempt = len(tries.read_text())
def kill(): os.kill(os.getpid(), 9)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a program that runs in place of `reszoo train`."""
    package = tmp_path / "path" / "reszoo"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # `python -m` looks there first
    return package / "__main__.py"


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("print('all', index)", 0),
        ("sys.exit([200, 200, 2][index])", 2),
        ("sys.exit([200, 1, 200][index])", 1),
        ("sys.exit([0, 130, 130][index])", 130),
        ("sys.exit([130, 200, 0][index])", 200),
        ("index == 1 and kill(); sys.exit(200)", 200),
        # The others end with the one that fails, even if they are deaf to SIGTERM.
        ("index == 2 and sys.exit(2); time.sleep(60)", 2),
        ("signal.signal(15, signal.SIG_IGN); index and sys.exit(200); time.sleep(60)", 200),
    ],
)
def test_the_status_of_the_whole(
    program: str,
    status: int,
    worker: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(launch, "STOP", 0.3)
    monkeypatch.setattr(launch, "KILL", 1.0)
    worker.write_text(f"{WORKER}\nif index: print('line of', index, flush=True)\n{program}")
    start = time.monotonic()
    assert main(["launch", "--workers", "3", "--", "train", "quickstart"]) == status
    assert time.monotonic() - start < 30
    shown = capfd.readouterr()
    assert shown.out == ("all 0\n" if status == 0 else "")
    if status == 2:
        assert (
            "reszoo: worker 2 ended with exit status 2; its last lines:\n  line of 2\n" in shown.err
        )
    assert ("line of" in shown.err) == (status != 0)


def test_the_workers_are_a_cluster(worker: Path, tmp_path: Path) -> None:
    worker.write_text(
        f"{WORKER}\n(folder / f'config{{index}}').write_text(json.dumps([task, sys.argv]))"
    )
    assert main(["launch", "--workers", "2", "--", "train", "a.toml", "--resume"]) == 0
    found = [json.loads((tmp_path / f"config{index}").read_text()) for index in range(2)]
    (first, argv), (second, same) = found
    assert argv[1:] == same[1:] == ["train", "a.toml", "--resume"]
    assert first["cluster"] == second["cluster"] and len(set(first["cluster"]["worker"])) == 2
    assert [each["task"] for each in (first, second)] == [
        {"type": "worker", "index": index} for index in range(2)
    ]


@pytest.mark.parametrize(
    ("program", "restarts", "status", "attempts"),
    [
        ("sys.exit(200 if attempt < 3 else 0)", 5, 0, 3),
        ("sys.exit(200)", 2, 200, 3),
        ("index and attempt == 1 and kill(); sys.exit(200 if attempt == 1 else 2)", 5, 2, 2),
        ("sys.exit(130)", 5, 130, 1),
    ],
)
def test_lost_workers_start_again_and_resume(
    program: str,
    restarts: int,
    status: int,
    attempts: int,
    worker: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    worker.write_text(f"{WORKER}\nindex or print('--resume' in sys.argv)\n{program}")
    command = ["train", "quickstart", "--run-dir", "runs/a"]
    options = ["--workers", "2", "--restarts", str(restarts)]
    assert main(["launch", *options, "--", *command]) == status
    assert (tmp_path / "tries0").read_text() == "1" * attempts
    shown = capfd.readouterr()
    assert shown.out.split() == ["False", *["True"] * (attempts - 1)]
    assert shown.err.count("all workers start again") == attempts - 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_once_and_ends_the_whole(
    number: signal.Signals, worker: Path, tmp_path: Path
) -> None:
    program = f"""{WORKER}
def stop(number, frame):
    with open(folder / f"stopped{{index}}", "a") as file: file.write(f"{{number}} ")
    time.sleep(0.3)
    sys.exit(130 if index else 200)  # another worker was lost
signal.signal(2, stop); signal.signal(15, stop)
(folder / f"up{{index}}").touch()
time.sleep(60)
"""
    worker.write_text(program)
    root = str(Path(reszoo.__file__).parents[1])
    argv = ["launch", "--workers", "2", "--restarts", "3", "--", "train", "q", "--run-dir", "r"]
    start = f"import sys; sys.path[0] = {root!r}; from reszoo.cli.main import main; sys.exit(main({argv}))"
    process = subprocess.Popen([sys.executable, "-c", start], start_new_session=True)
    try:
        end = time.monotonic() + 20
        while not all((tmp_path / f"up{index}").exists() for index in range(2)):
            assert time.monotonic() < end
            time.sleep(0.05)
        os.killpg(process.pid, number)  # as Ctrl-C does
        assert process.wait(20) == 200  # without a restart
    finally:
        process.kill()
        process.wait()
    for index in range(2):
        assert (tmp_path / f"stopped{index}").read_text() == f"{int(number)} "
        assert (tmp_path / f"tries{index}").read_text() == "1"
        assert not os.path.exists(f"/proc/{(tmp_path / f'pid{index}').read_text()}")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--workers", "1", "--", "train", "q"], "--workers: 1 is invalid; expected at least 2"),
        (["--workers", "2", "--restarts", "-1", "--", "train"], "--restarts: -1 is invalid"),
        (["--workers", "2", "--", "tune", "s"], "command: tune s is invalid; expected `train`"),
        (["--workers", "2", "--", "train", "q", "--hosts", "a:1"], "without --hosts and"),
        (["--workers", "2", "--restarts", "2", "--", "train", "q"], "--run-dir is missing"),
        (["--workers", "2"], "required: command"),
    ],
)
def test_invalid_arguments_are_reported_in_one_line(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", *argv]) == 2
    shown = capsys.readouterr().err
    assert says in shown and shown.count("\n") == 1


def test_handlers_are_restored(worker: Path) -> None:
    assert threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    worker.write_text(WORKER)
    assert main(["launch", "--workers", "2", "--", "train", "q"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before
