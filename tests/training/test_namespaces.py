"""Hosts that are network namespaces: the Indexed Job's environment, a link that goes down, and supervisors that know nothing of each other."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from reszoo.cli.main import main
from reszoo.training.run import Run

ROOT = Path(__file__).parents[2]
JOB = list(yaml.safe_load_all((ROOT / "recipes/cluster/indexed-job.yaml").read_text()))[1]
SETTINGS = ["model.name=resnet8", "train.steps=60", "train.checkpoint_every=5"]
SETTINGS += ["train.batch_size=16", "train.export=false", "train.deterministic=true"]
LIMIT = 240  # seconds for anything that a test waits for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and `ip netns`"
    ),
]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20, capture_output=True)


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Two network namespaces joined by a cable, in which the pods' names have addresses."""
    names = [f"reszoo{os.getpid()}-{index}" for index in range(2)]
    folders = [Path("/etc/netns") / name for name in names]
    pod = JOB["spec"]["template"]["spec"]
    hosts = "127.0.0.1 localhost\n" + "".join(
        f"10.213.7.{index + 1} {JOB['metadata']['name']}-{index}.{pod['subdomain']}\n"
        for index in range(2)
    )
    try:
        for name, folder in zip(names, folders, strict=True):
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespace can be made: {error.stderr.decode()}")
            folder.mkdir(parents=True)
            (folder / "hosts").write_text(hosts)
        ip(
            "link",
            "add",
            "cable",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "cable",
            "netns",
            names[1],
        )
        for index, name in enumerate(names):
            ip("-n", name, "addr", "add", f"10.213.7.{index + 1}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")
        yield names
    finally:
        for name, folder in zip(names, folders, strict=True):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)


class Pods:
    """What the Job controller does: a pod per index, started again unless it ends with 0 or 2.

    Args:
        namespaces: One per pod.
        folder: The volumes.
    """

    def __init__(self, namespaces: list[str], folder: Path) -> None:
        self._namespaces, self.folder = namespaces, folder
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, index: int) -> None:
        (container,) = JOB["spec"]["template"]["spec"]["containers"]
        words = [
            word.replace("$(INDEX)", str(index)).replace("/runs", str(self.folder / f"runs{index}"))
            for word in container["args"]
        ]
        command = ["ip", "netns", "exec", self._namespaces[index], sys.executable, "-m", "reszoo"]
        with open(self.folder / f"pod{index}.log", "ab") as log:
            self._running[index] = subprocess.Popen(
                [*command, *words, "--devices", "cpu", "--set", *SETTINGS],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def wait(self, index: int, seconds: float = LIMIT) -> int:
        return self._running[index].wait(max(seconds, 0.1))

    def kill(self, index: int | None = None) -> None:
        for key in [index] if index is not None else list(self._running):
            self._running[key].kill()
            self._running[key].wait()

    def supervise(self) -> dict[int, list[int]]:
        """Start each pod again on its own until it ends with 0 or 2; return all statuses."""
        statuses: dict[int, list[int]] = {0: [], 1: []}
        end = time.monotonic() + LIMIT
        while not all(each and each[-1] in (0, 2) for each in statuses.values()):
            assert time.monotonic() < end, statuses
            for index, process in self._running.items():
                found = statuses[index]
                if process.poll() is not None and (not found or found[-1] not in (0, 2)):
                    found.append(process.returncode)
                    if process.returncode not in (0, 2):
                        self.start(index)
            time.sleep(0.1)
        return statuses

    def wait_for_checkpoint(self, after: int = 0) -> int:
        """Return the step of the newest checkpoint, as soon as it is later than `after`."""
        end = time.monotonic() + LIMIT
        while True:
            found = [
                int(path.stem.partition("-")[2])
                for path in self.folder.glob("runs0/first/checkpoints/step-*.npz")
            ]
            if max(found, default=0) > after:
                return max(found)
            assert time.monotonic() < end, (self.folder / "pod0.log").read_text()[-3000:]
            time.sleep(0.05)


@pytest.fixture
def pods(namespaces: list[str], tmp_path: Path) -> Iterator[Pods]:
    pods = Pods(namespaces, tmp_path)
    try:
        yield pods
    except BaseException as error:
        error.add_note("".join(path.read_text()[-3000:] for path in tmp_path.glob("pod*.log")))
        raise
    finally:
        pods.kill()


def test_an_indexed_job_survives_faults_and_equals_an_uninterrupted_run(
    pods: Pods, namespaces: list[str], tmp_path: Path
) -> None:
    pods.start(1)  # early; it waits for the other
    time.sleep(3)
    pods.start(0)
    step = pods.wait_for_checkpoint()

    ip("-n", namespaces[0], "link", "set", "cable", "down")
    cut = time.monotonic()
    assert [pods.wait(index, 30) for index in range(2)] == [200, 200]
    seconds = time.monotonic() - cut
    assert seconds < 30
    ip("-n", namespaces[0], "link", "set", "cable", "up")

    pods.start(0)
    pods.start(1)
    pods.wait_for_checkpoint(step)
    pods.kill(1)
    statuses = pods.supervise()
    assert statuses[1][0] == -9 and statuses[0][0] == 200
    assert statuses[0][-1] == statuses[1][-1] == 0
    assert not (tmp_path / "runs1").exists()  # worker 1 wrote nothing

    whole = tmp_path / "whole"
    command = ["train", "quickstart", "--run-dir", str(whole), "--devices", "cpu"]
    assert main(["launch", "--workers", "2", "--", *command, "--set", *SETTINGS]) == 0
    ours, expected = Run.open(tmp_path / "runs0" / "first"), Run.open(whole)
    assert ours.history == expected.history
    scores = [json.loads((run.path / "test.json").read_text()) for run in (ours, expected)]
    assert scores[0] == scores[1]
    for mine, theirs in zip(
        ours.load_model().get_weights(), expected.load_model().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    print(f"link down: both ended after {seconds:.1f} s")


def test_a_pod_that_never_comes_is_named(pods: Pods) -> None:
    pods.start(0)
    log, end = pods.folder / "pod0.log", time.monotonic() + 90
    line = "waiting for worker 1 (reszoo-1.reszoo:12345)"
    with contextlib.suppress(AssertionError):
        while line not in log.read_text():
            assert time.monotonic() < end
            time.sleep(0.2)
    pods._running[0].terminate()
    assert pods.wait(0, 30) == 130
    assert line in log.read_text()
