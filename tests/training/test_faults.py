"""What becomes of a run on several hosts when one of them fails, at any step."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import tensorflow as tf

from tests.training.pairs import Processes
from tests.training.run_worker import Job, train
from tests.training.test_workers import assert_equal

pytestmark = pytest.mark.slow

WORKER = "tests.training.run_worker"
KILLS = int(os.environ.get("RESZOO_KILLS", "1"))  # of each worker, each in a run of its own


def start(processes: Processes, folder: Path, index: int, job: Job) -> None:
    path = folder / "jobs.json"
    path.write_text(json.dumps([job]))
    processes.start(index, WORKER, str(path), str(folder / f"outcomes-{index}.json"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, strategy: tf.distribute.Strategy) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert train(Job(folder=str(folder), stop="nothing", step=0), "cpu:2").finished
    return folder


@pytest.mark.parametrize("number", range(KILLS))
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_and_its_peer_restart_and_end_as_if_nothing_happened(
    victim: int, number: int, unbroken: Path, tmp_path: Path
) -> None:
    """Each worker has a supervisor of its own, which starts it again at once."""
    step = random.Random(2 * number + victim).randrange(1, 12)
    job = Job(
        folder=str(tmp_path / "run"),
        resume=True,
        stop="kill",
        victim=victim,
        step=step,
        once=str(tmp_path / "killed"),
    )
    found: list[list[int]] = [[], []]
    with Processes(tmp_path) as processes:
        for index in range(2):
            start(processes, tmp_path, index, job)
        end = time.monotonic() + 900
        while not all(statuses[-1:] == [0] for statuses in found):
            assert time.monotonic() < end, found
            for index in range(2):
                status = processes.poll(index)
                if status is not None and found[index][-1:] != [0]:
                    found[index].append(status)
                    assert status in (0, 200, -9), found
                    if status:
                        start(processes, tmp_path, index, job)
            time.sleep(0.1)
    assert found[victim] == [-9, 0] and found[1 - victim] == [200, 0]
    assert_equal(tmp_path / "run", unbroken)


@pytest.mark.parametrize(
    ("how", "seconds"), [("stop", 60), ("sleep", 60)], ids=["frozen", "standing still"]
)
def test_a_worker_that_does_not_go_on_is_lost(how: str, seconds: float, tmp_path: Path) -> None:
    mark = tmp_path / "reached"
    job = Job(
        folder=str(tmp_path / "run"),
        overrides=["train.worker_timeout=10"],
        stop=how,
        once=str(mark),
    )
    with Processes(tmp_path) as processes:
        for index in range(2):
            start(processes, tmp_path, index, job)
        processes.wait_for(mark)
        begun = time.monotonic()
        assert processes.wait(0) == 200
        assert time.monotonic() - begun < seconds
        assert processes.poll(1) is None
        print(f"{how}: {time.monotonic() - begun:.1f} s")
        text = processes.text(0)
        assert (
            f"another of the 2 workers {'stands still' if how == 'sleep' else 'was lost'}" in text
        )


def test_a_follower_may_start_late(unbroken: Path, tmp_path: Path) -> None:
    job = Job(folder=str(tmp_path / "run"), stop="nothing", step=0)
    with Processes(tmp_path) as processes:
        start(processes, tmp_path, 0, job)
        time.sleep(20)
        assert processes.poll(0) is None
        start(processes, tmp_path, 1, job)
        assert processes.wait_all() == [0, 0]
    assert_equal(tmp_path / "run", unbroken)


def test_a_signal_from_outside_stops_both_workers(tmp_path: Path) -> None:
    job = Job(folder=str(tmp_path / "run"), overrides=["train.steps=4000"])
    with Processes(tmp_path) as processes:
        for index in range(2):
            start(processes, tmp_path, index, job)
        processes.wait_for(tmp_path / "run" / "checkpoints" / "step-00000004.npz")
        processes.signal(1, signal.SIGTERM)
        assert processes.wait_all() == [130, 130]
    assert "stopped at step" in processes.text(0)
