"""A TF_CONFIG of several tasks is rejected before anything is written; one task is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import reszoo
from reszoo.cli.main import main
from reszoo.errors import ReszooError
from reszoo.training.cluster import check_cluster

WORKER_0 = {"type": "worker", "index": 0}
SEVERAL: list[tuple[dict[str, Any], str]] = [
    ({"cluster": {"worker": ["a:1", "b:2"]}, "task": WORKER_0}, "2 tasks (2 worker)"),
    ({"cluster": {"chief": ["a:1"], "worker": ["b:2"]}}, "(1 chief, 1 worker)"),
    ({"cluster": {"worker": ["a:1"], "ps": ["b:2"]}, "task": WORKER_0}, "(1 worker, 1 ps)"),
    ({"cluster": {"worker": {"0": "a:1", "3": "b:2"}}}, "2 tasks (2 worker)"),
]


@pytest.mark.parametrize(("config", "found"), SEVERAL)
def test_several_tasks_are_rejected(
    config: dict[str, Any], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(
        ReszooError, match=r"^TF_CONFIG: a cluster of .*expected one task"
    ) as caught:
        check_cluster()
    assert found in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        "  ",
        "{}",
        '{"cluster": null}',
        '{"cluster": {"worker": ["a:1"], "ps": []}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1"]}}',
    ],
)
def test_one_task_is_accepted(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    check_cluster()


@pytest.mark.parametrize(
    "config",
    ["{worker", "[1]", "3", '{"cluster": [1]}', '{"cluster": {"worker": 2}}', "a\nb" * 99],
)
def test_malformed_text_is_reported_in_one_line(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    line = r"^TF_CONFIG: .* is invalid; expected JSON such as .*unset TF_CONFIG$"
    with pytest.raises(ReszooError, match=line) as caught:
        check_cluster()
    assert len(str(caught.value)) < 200


def test_train_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CONFIG", json.dumps(SEVERAL[0][0]))
    assert main(["train", "quickstart"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "2 worker" in printed.err and printed.err.count("\n") == 1
    with pytest.raises(ReszooError, match="TF_CONFIG"):
        reszoo.train("quickstart", run_dir=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
