"""Stopping a run by a signal, at the end of a step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Set an event at the first Ctrl-C or SIGTERM; a second signal acts as before the block."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        event.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for caught in (signal.SIGINT, signal.SIGTERM):
        before[caught] = signal.signal(caught, handle)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
