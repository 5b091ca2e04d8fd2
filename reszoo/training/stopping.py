"""How a run stops before its end: by a signal or a callback, on all workers at the same step."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence

from reszoo.config.schedule import validation_score
from reszoo.config.training import TrainConfig
from reszoo.signals import stop_on_signal
from reszoo.training.protocols import Stepper
from reszoo.training.watchdog import Watchdog
from reszoo.training.workers import Workers
from reszoo.types import JsonMapping

READ_EVERY = 8  # steps between readings on a GPU, which waits for each


def is_out_of_patience(history: Sequence[JsonMapping], train: TrainConfig) -> bool:
    """Return whether the last `train.patience` rows are no better than the best one before them.

    It depends on the history alone, which a checkpoint holds, so a resumed run ends at the same
    step.
    """
    if not train.patience or len(history) <= train.patience:
        return False
    sign = -1 if train.patience_on == "loss" else 1
    key = "val_loss" if train.patience_on == "loss" else ""
    scores = [sign * (row[key] if key else validation_score(row) or 0.0) for row in history]
    return bool(max(scores[-train.patience :]) <= max(scores[: -train.patience]))


class Stopping:
    """Whether training stops after the present step.

    On one host a wish to stop applies at once. On several hosts the next step carries the wishes of
    all workers to all of them, in the sum that it computes anyway.

    Args:
        workers: The workers of the run.
        stepper: Carries the wishes. Callbacks wish by `stop_training` of its model.
        timeout: On several hosts, seconds after which a worker that stands still counts as lost.

    Attributes:
        ended: Whether a callback ends training.
    """

    def __init__(self, workers: Workers, stepper: Stepper, timeout: float) -> None:
        self._workers, self._stepper = workers, stepper
        self._event = threading.Event()
        watchdog = Watchdog(timeout if workers.count > 1 else math.inf)
        self.limit = watchdog.limit
        """Limits the time of a block in which workers wait for each other."""
        self._signalled = self.ended = False
        self._every = READ_EVERY if "GPU" in stepper.wishes.device else 1

    @contextlib.contextmanager
    def catch_signals(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM as wishes."""
        self._signalled = self.ended = False
        with stop_on_signal() as self._event:
            yield

    @property
    def signalled(self) -> bool:
        """Whether a signal stops training."""
        return self._event.is_set() if self._workers.count == 1 else self._signalled

    @property
    def wishes(self) -> tuple[bool, bool]:
        """Whether a signal and a callback of this worker wish to stop."""
        return self._event.is_set(), bool(self._stepper.model.stop_training)

    def after_step(self, step: int, *, last: bool) -> None:
        """Take the wishes that apply after a step.

        Args:
            step: Steps so far.
            last: Whether an epoch ends.
        """
        if self._workers.count == 1:
            self.ended = self.wishes[1]
        elif last or step % self._every == 0:
            with self.limit():  # a GPU is waited for here
                wished = self._stepper.wishes.numpy()
            self._signalled, self.ended = (bool(each) for each in wished)
            self._stepper.model.stop_training |= self.ended

    def after_epoch(self) -> None:
        """Take the wishes of callbacks at the end of an epoch, which apply at once on all hosts."""
        self.ended = any(self._workers.exchange(self.wishes[1]))
        self._stepper.model.stop_training |= self.ended
