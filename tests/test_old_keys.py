"""Files that version 0.1 wrote are read with today's names of their keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reszoo.lab.record import read_record
from reszoo.serving.server import _read_card
from reszoo.training.run import Run
from reszoo.tuning.results import read_results

from .tuning.written import trial, write


def save(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path.parent


def test_the_record_of_an_old_run_has_the_new_names_and_is_written_with_them(
    tmp_path: Path,
) -> None:
    old = {"multiply_adds": 7, "weights": {"licence": "MIT"}, "grown_from": {"net": "resnet8"}}
    new = {"macs": 7, "weights": {"license": "MIT"}, "grown_from": {"model": "resnet8"}}
    run = Run(save(tmp_path / "run.json", old))
    assert run.meta == new
    run.write_meta(seconds=1)
    assert json.loads((tmp_path / "run.json").read_text()) == {**new, "seconds": 1}
    save(tmp_path / "run.json", {"weights": "a.safetensors", "grown_from": None})
    assert run.meta == {"weights": "a.safetensors", "grown_from": None}


def test_an_old_card_has_the_new_names(tmp_path: Path) -> None:
    card = {"net": "resnet8", "multiply_adds": 7, "licence": "MIT", "normalisations": {"kept": 1}}
    expected = {"model": "resnet8", "macs": 7, "license": "MIT", "batch_norms": {"kept": 1}}
    assert _read_card(save(tmp_path / "card.json", card)) == expected


def test_an_old_record_of_the_lab_has_the_new_names_at_every_level(tmp_path: Path) -> None:
    def results(model: str, models: str, macs: str) -> dict[str, Any]:
        return {models: [{model: "plain8", "pieces": [{model: "plain8", macs: [1.5]}]}]}

    old = {"lab": "x", "settings": {}, "results": results("net", "nets", "multiply_adds")}
    found = read_record(save(tmp_path / "record.json", old))
    assert found["results"] == results("model", "models", "macs")


def test_an_old_search_is_read_as_the_same_search_of_today(tmp_path: Path) -> None:
    trials = [trial(0, 0.9), trial(1)]
    rejected = [{"values": {"n": "5"}, "reason": "too large"}]
    today = read_results(write(tmp_path / "today", trials, rejected))
    old = write(tmp_path / "old", [])
    for record in trials:
        macs = record.pop("macs")
        path = old / "trials" / record["trial"] / "trial.json"
        path.parent.mkdir(parents=True)
        save(path, {**record, "multiply_adds": macs})
    save(old / "oracle.json", {"refused": rejected})
    assert read_results(old) == today
    assert today["totals"]["rejected"] == 1 and today["front"]["macs"] == ["0000"]
