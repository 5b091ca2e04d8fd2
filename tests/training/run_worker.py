"""One worker of whole runs: `python -m tests.training.run_worker ADDRESSES INDEX JOBS OUTCOMES`.

JOBS is a JSON file with a list of `Job`. The outcome of each, a status of the command line and an
error, is appended to the JSON file OUTCOMES. The status of the process is that of the last job.
"""

from __future__ import annotations

import json
import os
import signal
import sys
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
        "select": "best",
    },
    "optimizer": {"name": "sgd"},
    "schedule": {"kind": "plateau", "rate": 0.05, "patience": 1},
}


class Job(TypedDict, total=False):
    """A run: its folder, its overrides, those of worker 1 alone, and what stops it after step 2."""

    folder: str
    overrides: list[str]
    more: list[str]
    resume: bool
    stop: str


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
            """Stop after step 2."""
            self.taken += 1
            if self.taken == 2 and index == 1:
                if job["stop"] == "signal":
                    os.kill(os.getpid(), signal.SIGTERM)
                else:
                    self.model.stop_training = True

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
    for job in json.loads(Path(jobs).read_text()):
        try:
            found.append((0 if train(job, "cpu", hosts).finished else 130, ""))
        except reszoo.ReszooError as error:
            print(f"reszoo: {error}", flush=True)
            found.append((error.status, str(error)))
        Path(outcomes).write_text(json.dumps(found))
    return found[-1][0]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
