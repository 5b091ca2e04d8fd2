"""What a process does at a signal, for the length of a block. Standard library only."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn


@contextlib.contextmanager
def handle_signals(
    handle: Callable[[int, FrameType | None], object], *numbers: int
) -> Iterator[Callable[[], None]]:
    """Call `handle` at each of the signals. Yield a function that restores the handlers early.

    Python handles signals in the main thread alone. In other threads the block changes nothing.
    """
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            before[number] = signal.signal(number, handle)
    try:
        yield restore
    finally:
        restore()


@contextlib.contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Set an event at the first Ctrl-C or SIGTERM; a second signal acts as before the block."""
    event = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        event.set()
        restore()

    with handle_signals(handle, signal.SIGINT, signal.SIGTERM) as restore:
        yield event


@contextlib.contextmanager
def interrupt_on(*numbers: int) -> Iterator[None]:
    """Turn signals into KeyboardInterrupt, except while an inner block handles them."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    with handle_signals(interrupt, *numbers):
        yield
