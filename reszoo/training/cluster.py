"""The cluster that TF_CONFIG describes. reszoo trains on one host. Standard library only."""

from __future__ import annotations

import json
import os

from reszoo.errors import ReszooError

EXPECTED = 'expected JSON such as {"cluster": {"worker": ["HOST:PORT"]}}. Example: unset TF_CONFIG'


def check_cluster() -> None:
    """Raise ReszooError if TF_CONFIG describes a cluster of more than one task, or is malformed.

    Without this check each task of the cluster trains a copy of the same run.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return
    try:
        config = json.loads(text)
    except ValueError:
        raise ReszooError(f"TF_CONFIG: {_shorten(text)} is invalid; {EXPECTED}") from None
    cluster = config.get("cluster") or {} if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not all(
        isinstance(tasks, list | dict) for tasks in cluster.values()
    ):
        raise ReszooError(f"TF_CONFIG: {_shorten(text)} is invalid; {EXPECTED}")
    counts = {job: len(tasks) for job, tasks in cluster.items() if tasks}
    if sum(counts.values()) > 1:
        found = ", ".join(f"{count} {job}" for job, count in counts.items())
        raise ReszooError(
            f"TF_CONFIG: a cluster of {sum(counts.values())} tasks ({found}) is invalid; expected "
            "one task, because reszoo trains on one host. Example: unset TF_CONFIG, and run the "
            "command on one host"
        )


def _shorten(text: str) -> str:
    line = json.dumps(text)
    return line if len(line) <= 60 else f"{line[:57]}..."
