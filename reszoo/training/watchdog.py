"""Ends a wait for a worker that stands still.

TensorFlow's own limit (`CommunicationOptions.timeout_seconds`) keeps two threads per collective for
its whole length: thousands in ten minutes.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator

from reszoo.lazy import tf

STANDS_STILL = "another worker stands still"
FIRST = 10.0  # times as long for a step that is traced


class Watchdog:
    """Aborts the collectives of this process if a block takes too long.

    Args:
        seconds: How long a block may take; infinite on one host.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._seconds, self._deadline = seconds, math.inf
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def limit(self, *, first: bool = False) -> Iterator[None]:
        """Limit the time of a block, a longer time if it is the `first` of its kind."""
        if math.isinf(self._seconds):
            yield
            return
        self._deadline = time.monotonic() + self._seconds * (FIRST if first else 1)
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        try:
            yield
        finally:
            self._deadline = math.inf

    def _watch(self) -> None:
        while time.monotonic() < self._deadline:
            time.sleep(min(1.0, self._seconds / 10))
        from tensorflow.python.eager import context

        context.context().abort_collective_ops(tf.errors.DEADLINE_EXCEEDED, STANDS_STILL)
