"""The role of a process in a search, by KerasTuner's environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from reszoo.errors import ReszooError

TUNER, IP, PORT = "KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT"
PARENT = "RESZOO_TUNE_PARENT"  # process of the chief that started this worker

Role: TypeAlias = Literal["alone", "chief", "worker"]


def find_role(environment: Mapping[str, str]) -> Role:
    """Return the role of a process. Raises ReszooError for incomplete or invalid variables."""
    missing = [name for name in (TUNER, IP, PORT) if not environment.get(name)]
    if len(missing) == 3:
        return "alone"
    if missing:
        raise ReszooError(f"{missing[0]}: missing; chief and workers need {TUNER}, {IP} and {PORT}")
    port = environment[PORT]
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ReszooError(f"{PORT}: {port!r} is invalid; expected a port. Example: {PORT}=8000")
    return "chief" if "chief" in environment[TUNER] else "worker"
