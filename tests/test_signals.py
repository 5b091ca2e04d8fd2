"""The first signal stops a run at a step, the second one acts as it would have."""

from __future__ import annotations

import signal
import threading

import pytest

from reszoo.signals import stop_on_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_an_event_and_the_second_acts(number: signal.Signals) -> None:
    seen: list[int] = []
    before = signal.signal(number, lambda caught, frame: seen.append(caught))
    try:
        with stop_on_signal() as stopped:
            assert not stopped.is_set()
            signal.raise_signal(number)
            assert stopped.is_set() and not seen
            signal.raise_signal(number)
            assert seen == [number]
        with stop_on_signal():
            pass
        signal.raise_signal(number)
        assert seen == [number, number]
    finally:
        signal.signal(number, before)


def test_a_thread_trains_without_signals() -> None:
    """Python lets the main thread alone set handlers."""
    found: list[bool] = []

    def enter() -> None:
        with stop_on_signal() as stopped:
            found.append(stopped.is_set())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [False]
