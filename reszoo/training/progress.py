"""Progress of a run in training: its steps and the rows of its history."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from reszoo.reporting.reporter import Reporter
from reszoo.types import JsonObject


class Progress:
    """Reports how far a run is.

    Args:
        reporter: Where lines and the bar go.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self._first = (0, time.monotonic())
        self._total = 0

    def begin(self, step: int, total: int) -> None:
        """Start at `step` of `total`."""
        self._first, self._total = (step, time.monotonic()), total
        self.reporter.start_bar(total, step)

    def step(self, step: int, summary: Callable[[], Mapping[str, float]]) -> None:
        """Report that `step` steps are done.

        Args:
            step: Steps done so far.
            summary: Returns "loss" and "accuracy"; called only when there is something to show.
        """

        def note() -> str:
            values = summary()
            error = 100 * (1 - values["accuracy"])
            return f"loss {values['loss']:.4f}  error {error:.2f} %  {self._pace(step)}"

        self.reporter.update_bar(step, note)

    def row(self, row: JsonObject) -> None:
        """Report one row of the history."""
        text = (
            f"epoch {row['epoch']:>4}  step {row['step']}/{self._total}  "
            f"learning rate {row['rate']:.4g}  "
        )
        text += f"train loss {row['loss']:.4f} error {100 * (1 - row['accuracy']):.2f} %"
        if "train_size" in row:
            text += f" at {row['train_size']} px"
        if "val_accuracy" in row:
            error = 100 * (1 - row["val_accuracy"])
            text += f"  validation loss {row['val_loss']:.4f} error {error:.2f} %"
        if "val_mean_average_precision" in row:
            text += f" mAP {100 * row['val_mean_average_precision']:.2f} %"
        self.reporter.line(f"{text}  {self._pace(row['step'])}")

    def end(self) -> None:
        """Remove the progress bar."""
        self.reporter.stop_bar()

    def _pace(self, step: int) -> str:
        first, begun = self._first
        seconds = (time.monotonic() - begun) / max(step - first, 1)
        return f"{1000 * seconds:.0f} ms/step"
