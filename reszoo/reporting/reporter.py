"""Lines and a progress bar for the person at the terminal, and a log file of the lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from reszoo.reporting.notebook import NotebookBar, in_notebook

REFRESH_SECONDS = 0.5  # between updates of a bar
LOG_SECONDS = 60.0  # without a terminal, between lines that show progress


class Reporter:
    """Reports lines and progress.

    Args:
        log: Every line is also appended to this file, with the time, even if `quiet`.
        quiet: Print nothing.
        stderr: Print to standard error, which keeps standard output for results.
    """

    def __init__(
        self, *, log: Path | None = None, quiet: bool = False, stderr: bool = False
    ) -> None:
        self.quiet = quiet
        self._log, self._stderr = log, stderr
        self._bar: TerminalBar | NotebookBar | None = None
        self._shown = time.monotonic()
        self._total = 0

    def line(self, text: str = "") -> None:
        """Report one line."""
        if self._log:
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")
        if self.quiet:
            return
        if self._bar:
            self._bar.line(text)
        else:
            print(text, file=sys.stderr if self._stderr else sys.stdout, flush=True)

    def start_bar(self, total: int, done: int = 0) -> None:
        """Show a progress bar if the output is a terminal or the output of a notebook's cell.

        Args:
            total: Steps in all.
            done: Steps done before.
        """
        self._total, self._shown = total, time.monotonic()
        if self.quiet:
            return
        if in_notebook():
            self._bar = NotebookBar(total, done)
        elif (sys.stderr if self._stderr else sys.stdout).isatty():
            self._bar = TerminalBar(total, done, stderr=self._stderr)

    def update_bar(self, done: int, note: Callable[[], str]) -> None:
        """Show that `done` steps are done: on the bar, or without one in occasional lines.

        Args:
            done: Steps done so far.
            note: Returns the text to show; called only when something is shown.
        """
        passed = time.monotonic() - self._shown
        last = self._bar is not None and done == self._total
        if passed < (REFRESH_SECONDS if self._bar else LOG_SECONDS) and not last:
            return
        self._shown = time.monotonic()
        if self._bar:
            self._bar.update(done, note())
        else:
            self.line(f"step {done}/{self._total}  {note()}")

    def stop_bar(self) -> None:
        """Stop the progress bar."""
        if self._bar:
            self._bar.stop()
            self._bar = None


class TerminalBar:
    """A progress bar at the bottom of a terminal. It disappears when it stops.

    Args:
        total: Steps in all.
        done: Steps done before.
        stderr: Whether it is shown on standard error.
    """

    def __init__(self, total: int, done: int, *, stderr: bool) -> None:
        from rich import progress
        from rich.console import Console

        self._progress = progress.Progress(
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}"),
            console=Console(stderr=stderr),
            transient=True,
        )
        self._task = self._progress.add_task("", total=total, completed=done, note="")
        self._progress.start()

    def update(self, done: int, note: str) -> None:
        """Show that `done` steps are done, with a text."""
        self._progress.update(self._task, completed=done, note=note)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Remove the bar."""
        self._progress.stop()
