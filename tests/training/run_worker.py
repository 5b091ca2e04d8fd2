"""One worker of whole runs: `python -m tests.training.run_worker ADDRESSES INDEX JOBS OUTCOMES`.

JOBS is a JSON file with a list of `Job`. The outcome of each, a status of the command line and an
error, is appended to the JSON file OUTCOMES. The status of the process is that of the last job.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

TINY: dict[str, Any] = {
    "name": "tiny",
    "model": {"name": "resnet8", "depths": [1], "widths": [8], "stem_width": 8, "drop_path": 0.3},
    "data": {"name": "digits", "validation": 96, "examples": 150},
    "train": {
        "steps": 12,
        "batch_size": 32,
        "export": False,
        "deterministic": True,
        "checkpoint_every": 4,
        "ema": 0.9,
        "ema_batch_norm": True,
        "select": "best",
    },
    "optimizer": {"name": "sgd"},
    "schedule": {"kind": "plateau", "rate": 0.05, "patience": 1},
}


SIGNALS = {"signal": signal.SIGTERM, "kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class Job(TypedDict, total=False):
    """A run.

    Keys:
        folder: Of the run.
        overrides: Of TINY.
        more: Overrides on worker 1 alone.
        resume: Whether it resumes.
        stop: What a worker does after a step: "signal" (SIGTERM), "callback", "kill" or "stop"
            (SIGKILL, SIGSTOP) or "sleep".
        victim: Which worker that is; 1 by default.
        step: After which step; 2 by default.
        once: A file: if it exists, nothing happens.
        disk: The largest file that worker 0 can write.
    """

    folder: str
    overrides: list[str]
    more: list[str]
    resume: bool
    stop: str
    victim: int
    step: int
    once: str
    disk: int


def train(job: Job, devices: str, hosts: Any = None) -> Any:
    """Train TINY as a job says, as worker 1 if its hosts say so."""
    import keras

    import reszoo
    from reszoo.config.overrides import apply_overrides, parse_overrides

    index = hosts.index if hosts else 0

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        """Stops the run on one worker."""

        taken = 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            """Stop after a step."""
            self.taken += 1
            if self.taken != job.get("step", 2) or index != job.get("victim", 1):
                return
            if "once" in job:
                if Path(job["once"]).exists():
                    return
                Path(job["once"]).touch()
            if job["stop"] == "callback":
                self.model.stop_training = True
            elif job["stop"] == "sleep":
                time.sleep(3600)
            else:
                os.kill(os.getpid(), SIGNALS[job["stop"]])

    overrides = [*job.get("overrides", []), *(job.get("more", []) if index else [])]
    return reszoo.train(
        reszoo.Recipe(**apply_overrides(TINY, parse_overrides(overrides))),
        run_dir="/proc/none/run" if index else job["folder"],  # nobody may write or read there
        resume=job.get("resume", False),
        devices=devices,
        hosts=hosts,
        callbacks=[Stop()] if "stop" in job else [],
        quiet=hosts is None,
    )


def main(addresses: str, index: str, jobs: str, outcomes: str) -> int:
    """Train every job."""
    import reszoo
    from reszoo.training.cluster import Hosts

    hosts = Hosts(tuple(addresses.split(",")), int(index))
    found: list[tuple[int, str]] = []
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    for job in json.loads(Path(jobs).read_text()):
        if "disk" in job and hosts.first:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["disk"], unlimited[1]))
        try:
            found.append((0 if train(job, "cpu", hosts).finished else 130, ""))
        except (reszoo.ReszooError, OSError) as error:
            print(f"reszoo: {error}", flush=True)
            found.append((getattr(error, "status", 2), str(error)))
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        Path(outcomes).write_text(json.dumps(found))
    return found[-1][0]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
