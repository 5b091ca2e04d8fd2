"""Runs on several hosts: equal to one host to the bit, errors on one worker end all in a line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from reszoo.errors import PeerLost
from reszoo.training import checkpoint
from reszoo.training.run import Run
from reszoo.training.workers import Workers
from tests.training.pairs import Processes
from tests.training.run_worker import Job, train


def write_jobs(folder: Path, jobs: dict[str, Job]) -> Path:
    for name, job in jobs.items():
        job.setdefault("folder", str(folder / name))
    path = folder / "jobs.json"
    path.write_text(json.dumps(list(jobs.values())))
    return path


def write_images(folder: Path, seed: int) -> str:
    """Write a folder of two classes with four images each, and return it as a dataset."""
    random = np.random.default_rng(seed)
    for split in ("train", "test"):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            for number in range(4):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{number}.png")
    return f"data.name=folder:{folder}"


PICTURES = ["data.image_size=[8, 8]", "data.validation=0", "data.examples=0", "train.select=last"]
STOPPED = ["train.evaluate_every=2"]


class Outcome:
    """What the jobs of a pair of workers left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        one, other = (
            json.loads((folder / f"outcomes-{index}.json").read_text()) for index in range(2)
        )
        self.outcomes = dict(zip(JOBS, zip(one, [*other, [-9, ""]], strict=True), strict=True))


JOBS: dict[str, Job] = {
    "whole": {},
    "signal": {"stop": "signal"},
    "resumed": {"stop": "signal", "resume": True},
    "callback": {"stop": "callback", "overrides": STOPPED},
    "grown": {"overrides": ["model.depths=[2]"]},
    "occupied": {},
    "recipe": {"more": ["train.batch_size=16"]},
    "weights": {"overrides": ["model.weights=/proc/none/w.weights.h5"]},
    "data": {"overrides": PICTURES},
    "disk": {"disk": 30_000},
    "killed": {"stop": "kill"},
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("pair")
    jobs = {name: Job(**job) for name, job in JOBS.items()}
    jobs["resumed"]["folder"] = str(folder / "signal")
    jobs["grown"]["overrides"] = ["model.depths=[2]", f"train.grow_from={folder / 'whole'}"]
    jobs["data"]["overrides"] = [*PICTURES, write_images(folder / "images 0", 0)]
    jobs["data"]["more"] = [write_images(folder / "images 1", 1)]
    (folder / "occupied").mkdir()
    (folder / "occupied" / "file").touch()
    path = write_jobs(folder, jobs)
    with Processes(folder) as processes:
        for index in range(2):
            processes.start(
                index,
                "tests.training.run_worker",
                str(path),
                str(folder / f"outcomes-{index}.json"),
            )
        assert processes.wait_all() == [200, -9]
        assert "epoch" in processes.text(0) and "epoch" not in processes.text(1)
    return Outcome(folder)


def read(folder: Path) -> tuple[dict[str, Any], Any, Any]:
    """Return the arrays of the newest checkpoint, the history and the test scores of a run."""
    run = Run(folder)
    found = checkpoint.load(checkpoint.steps(run.checkpoints)[-1]).arrays
    # Keras numbers seed generators over the life of a process.
    arrays = {re.sub(r"generator_\d+/", "generator/", name): each for name, each in found.items()}
    history = [{k: v for k, v in row.items() if "seconds" not in k} for row in run.history]
    return arrays, history, json.loads((folder / "test.json").read_text())


def assert_equal(one: Path, other: Path) -> None:
    (arrays, *records), (others, *expected) = read(one), read(other)
    assert sorted(arrays) == sorted(others) and len(arrays) > 20
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)
    assert records == expected


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, strategy: tf.distribute.Strategy) -> Path:
    """The whole run on two replicas of one host."""
    folder = tmp_path_factory.mktemp("alone")
    job = Job(folder=str(folder / "whole"))
    assert train(job, "cpu:2").finished
    return folder


def test_a_run_on_two_hosts_equals_two_replicas(pair: Outcome, alone: Path) -> None:
    assert pair.outcomes["whole"] == ([0, ""], [0, ""])
    assert_equal(pair.folder / "whole", alone / "whole")
    assert Run(pair.folder / "whole").meta["devices"] == ["worker 0 CPU:0", "worker 1 CPU:0"]


def test_a_signal_to_one_worker_stops_all_at_a_step_from_which_they_resume(
    pair: Outcome, alone: Path
) -> None:
    assert pair.outcomes["signal"] == ([130, ""], [130, ""])
    assert pair.outcomes["resumed"] == ([0, ""], [0, ""])
    assert_equal(pair.folder / "signal", alone / "whole")
    lines = (pair.folder / "signal" / "train.log").read_text()
    assert "stopped at step 3 of 12" in lines and "resuming from step 3" in lines


def test_a_callback_of_one_worker_ends_training_on_all(pair: Outcome) -> None:
    assert pair.outcomes["callback"] == ([0, ""], [0, ""])
    assert Run(pair.folder / "callback").history[-1]["step"] == 3


def test_worker_0_alone_reads_the_run_to_grow_from(pair: Outcome, alone: Path) -> None:
    assert pair.outcomes["grown"] == ([0, ""], [0, ""])
    grow = f"train.grow_from={pair.folder / 'whole'}"
    job = Job(folder=str(alone / "grown"), overrides=["model.depths=[2]", grow])
    assert train(job, "cpu:2").finished
    assert_equal(pair.folder / "grown", alone / "grown")


@pytest.mark.parametrize(
    ("name", "own", "other"),
    [
        ("occupied", r"run folder .* exists; add --resume", "worker 0 failed: run folder"),
        ("recipe", r"worker 1 has another \[train\] than worker 0", "worker 1 has another"),
        ("weights", "model.weights: no weights file", "worker 0 failed: model.weights"),
        ("disk", "File too large", "worker 0 failed: .*File too large"),
        ("data", "data.name: folder:.* of worker 1 is not the data of worker 0", "data.name"),
    ],
)
def test_what_fails_on_one_worker_ends_all_in_a_line(
    pair: Outcome, name: str, own: str, other: str
) -> None:
    outcomes = pair.outcomes[name]
    assert [status for status, _ in outcomes] == [2, 2]
    for (_, line), expected in zip(outcomes, (own, other), strict=True):
        assert "\n" not in line
        assert re.search(expected, line), line
    assert name == "disk" or not (pair.folder / name / "run.json").exists()


def test_the_loss_of_a_worker_is_one_line_and_its_own_status(pair: Outcome) -> None:
    (status, line), _ = pair.outcomes["killed"]
    assert status == PeerLost.status == 200
    assert re.fullmatch(r"worker 0 \(.*\): another of the 2 workers was lost; .* --resume", line)
    assert Run(pair.folder / "killed").meta["status"] == "failed"


def test_one_host_exchanges_with_itself() -> None:
    alone, arrays = Workers(tf.distribute.get_strategy()), [np.ones(3), np.zeros((2, 1))]
    assert (alone.index, alone.count, alone.first) == (0, 1, True)
    assert all(map(np.array_equal, alone.share(arrays), arrays))
    assert alone.exchange({"a": [1, None]}) == [{"a": [1, None]}]
    alone.barrier()
    with pytest.raises(KeyError), alone.together():
        raise KeyError
