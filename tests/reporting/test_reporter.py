"""Reported lines: where they appear, and what stays in the log."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from reszoo.reporting import reporter as module
from reszoo.reporting.reporter import Reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_are_printed_and_appended_to_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("[bold]first", "second"):
        Reporter(log=tmp_path / "log").line(text)
    assert capsys.readouterr() == ("[bold]first\nsecond\n", "")
    lines = (tmp_path / "log").read_text().splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "", line) for line in lines] == [
        "[bold]first",
        "second",
    ]


def test_quiet_keeps_the_log_and_stderr_keeps_stdout_clean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Reporter(log=tmp_path / "log", quiet=True).line("a")
    Reporter(stderr=True).line("b")
    assert capsys.readouterr() == ("", "b\n")
    assert (tmp_path / "log").read_text().endswith("  a\n")


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = Reporter()
    reporter.start_bar(10)
    for done in (1, 10):
        reporter.update_bar(done, lambda: pytest.fail("asked for a note that is not shown"))
    monkeypatch.setattr(module, "LOG_SECONDS", -1.0)
    reporter.update_bar(2, lambda: "loss 1")
    reporter.stop_bar()
    assert capsys.readouterr().out == "step 2/10  loss 1\n"


def test_on_a_terminal_a_bar_is_shown_above_which_lines_appear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.setattr(module, "REFRESH_SECONDS", -1.0)
    monkeypatch.setenv("TERM", "xterm")
    reporter = Reporter()
    reporter.start_bar(10, 3)
    reporter.update_bar(4, lambda: "loss 1")
    reporter.line("a line")
    monkeypatch.setattr(module, "REFRESH_SECONDS", 60.0)
    reporter.update_bar(5, lambda: pytest.fail("asked for a note that is not shown"))
    reporter.update_bar(10, lambda: "loss 0")  # the last one is always shown
    reporter.stop_bar()
    assert all(text in terminal.getvalue() for text in ("a line", "10/10", "loss 0"))
