"""metrics.jsonl: whole lines after a kill, no row twice after a resume, and files of version 0.1."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reszoo.errors import ReszooError
from reszoo.training.metrics import append_metrics, read_metrics, write_metrics

ROWS = [{"epoch": epoch, "step": 7 * epoch, "loss": 1 / epoch} for epoch in range(1, 5)]


def test_rows_are_appended_and_those_after_a_checkpoint_are_written_once(tmp_path: Path) -> None:
    write_metrics(tmp_path, [])
    assert read_metrics(tmp_path) == []
    for count in (1, 2, 3):
        append_metrics(tmp_path, ROWS[:count])
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == ROWS[:count] == read_metrics(tmp_path)
    write_metrics(tmp_path, ROWS[:1])  # the run resumes after its first row
    append_metrics(tmp_path, ROWS[:2])
    assert read_metrics(tmp_path) == ROWS[:2]
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3


def test_a_line_without_an_end_is_skipped_and_a_damaged_one_reported(tmp_path: Path) -> None:
    write_metrics(tmp_path, ROWS)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-9])
    assert read_metrics(tmp_path) == ROWS[:-1]
    path.write_text("{" + whole)
    with pytest.raises(ReszooError, match=r"metrics\.jsonl is not JSON; it is damaged"):
        read_metrics(tmp_path)
    path.unlink()
    with pytest.raises(ReszooError, match="the run stopped before training"):
        read_metrics(tmp_path)


def test_history_of_version_0_1_is_read_and_replaced_on_resume(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text(json.dumps(ROWS, indent=2))
    assert read_metrics(tmp_path) == ROWS
    write_metrics(tmp_path, ROWS[:2])
    append_metrics(tmp_path, ROWS[:3])
    assert read_metrics(tmp_path) == ROWS[:3] and not (tmp_path / "history.json").exists()


def test_a_killed_process_leaves_whole_lines(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from reszoo.training.metrics import append_metrics
print("begins", flush=True)
while True:
    append_metrics(Path({str(tmp_path)!r}), [{{"step": 1, "note": "x" * 3000}}])
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stdout.readline()
        path = tmp_path / "metrics.jsonl"
        while not path.exists() or path.stat().st_size < 20_000:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    text = path.read_text()
    assert text.endswith("\n") and all(json.loads(line)["note"] for line in text.splitlines())
