"""What a person sees while a net trains: a bar on a terminal, quiet lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

REFRESH_SECONDS = 0.5
LINE_SECONDS = 60.0  # in a log, a sign of life at least this often


class Progress:
    """Tells how far a run is. `quiet` prints nothing; train.log gets every line all the same."""

    def __init__(self, log: Path, quiet: bool = False) -> None:
        from rich.console import Console

        self.quiet = quiet
        self._log = log
        self._console = None if quiet else Console(highlight=False, soft_wrap=True)
        self._bar: Any = None
        self._last = time.monotonic()
        self._first = (0, self._last)
        self._total = 0

    def begin(self, step: int, total: int) -> None:
        """Start at `step` of `total`."""
        self._first, self._total = (step, time.monotonic()), total
        if self._console and self._console.is_terminal:
            from rich import progress

            columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn())
            more = (progress.TimeRemainingColumn(), progress.TextColumn("{task.fields[note]}"))
            self._bar = progress.Progress(*columns, *more, console=self._console, transient=True)
            self._bar.add_task("step", total=total, completed=step, note="")
            self._bar.start()

    def step(self, step: int, summary: Callable[[], Mapping[str, float]]) -> None:
        """Tell that `step` steps are done. `summary` is only asked (for loss and accuracy) when there is something to show."""
        passed = time.monotonic() - self._last
        if passed < (REFRESH_SECONDS if self._bar else LINE_SECONDS):
            return
        self._last = time.monotonic()
        values = summary()
        note = f"loss {values['loss']:.4f}  error {100 * (1 - values['accuracy']):.2f} %  {self._pace(step)}"
        if self._bar:
            self._bar.update(0, completed=step, note=note)
        else:
            self.line(f"step {step}/{self._total}  {note}")

    def row(self, row: Mapping[str, Any]) -> None:
        """Tell one row of the history."""
        text = f"epoch {row['epoch']:>4}  step {row['step']}/{self._total}  rate {row['rate']:.4g}  "
        text += f"train loss {row['loss']:.4f} error {100 * (1 - row['accuracy']):.2f} %"
        if "val_accuracy" in row:
            text += f"  validation loss {row['val_loss']:.4f} error {100 * (1 - row['val_accuracy']):.2f} %"
        self._last = time.monotonic()
        self.line(f"{text}  {self._pace(row['step'])}")
        if self._bar:
            self._bar.update(0, completed=row["step"])

    def line(self, text: str) -> None:
        """Print one line, and keep it in train.log."""
        with open(self._log, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")
        if self._console:
            self._console.print(text, markup=False)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _pace(self, step: int) -> str:
        first, begun = self._first
        seconds = (time.monotonic() - begun) / max(step - first, 1)
        return f"{1000 * seconds:.0f} ms/step"
