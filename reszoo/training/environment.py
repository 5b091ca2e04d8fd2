"""What a process runs on, as records keep it."""

from __future__ import annotations

import datetime
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from reszoo.machine import describe_machine
from reszoo.types import JsonObject
from reszoo.versions import module_versions


def environment() -> JsonObject:
    """Return versions, backend, platform, machine, the working directory's commit, and the time."""
    import keras

    backend = keras.config.backend()
    versions = module_versions("reszoo") | {"python": platform.python_version()}
    return {
        "versions": versions | module_versions(backend, "keras", "numpy"),
        "backend": backend,
        "platform": platform.platform(),
        "machine": describe_machine(),
        "git": _commit(),
        "started": now(),
    }


def command_line() -> str:
    """Return the `reszoo` command that this process runs, "" in any other program."""
    program = Path(sys.argv[0])
    if program.stem == "reszoo" or program.parts[-2:] == ("reszoo", "__main__.py"):
        return shlex.join(["reszoo", *sys.argv[1:]])
    return ""


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
