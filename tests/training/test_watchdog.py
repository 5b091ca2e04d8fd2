"""The watchdog aborts collectives after its time, and only then."""

from __future__ import annotations

import math
import time

import pytest
from tensorflow.python.eager import context

from reszoo.training.watchdog import STANDS_STILL, Watchdog


@pytest.mark.parametrize(
    ("seconds", "first", "aborts"),
    [(0.2, False, True), (0.2, True, False), (math.inf, False, False), (30, False, False)],
)
def test_a_block_that_takes_too_long_is_aborted(
    seconds: float, first: bool, aborts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    own = context.context()
    monkeypatch.setattr(own, "abort_collective_ops", lambda code, message: calls.append(message))
    watchdog = Watchdog(seconds)
    for _ in range(3):  # short blocks, and the time between them, do not count
        with watchdog.limit():
            pass
        time.sleep(0.3)
    assert not calls
    with watchdog.limit(first=first):
        time.sleep(0.6)
    assert calls == [STANDS_STILL] * aborts
