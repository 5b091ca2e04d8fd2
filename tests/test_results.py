"""The documentation shows the records of docs/results, and the records agree with themselves."""

from __future__ import annotations

import html
import json
import re
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest

import reszoo
from reszoo.lab.degradation import KINDS, compare_depths
from reszoo.lab.record import read_record
from reszoo.lab.report import finding, write_report
from reszoo.tuning.results import best_trial, grid

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
LAB = sorted((RESULTS / "lab").glob("*/record.json"))


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The program docs/generate.py."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import generate
    finally:
        sys.path.remove(str(ROOT / "docs"))
    return generate


def record(path: str) -> dict:
    return json.loads((RESULTS / path).read_text(encoding="utf-8"))


def test_every_generated_part_is_up_to_date(
    generator: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    status = generator.main()
    assert status == 0, capsys.readouterr().err


def test_a_changed_number_is_found_and_rewritten(generator: ModuleType) -> None:
    page = ROOT / "docs" / "performance.md"
    text = page.read_text(encoding="utf-8")
    changed = text.replace("| 586.7 images/s |", "| 600.0 images/s |")
    assert changed != text and generator.generate(page, changed) == text


def test_figures_of_the_pages_are_those_of_the_records() -> None:
    """One number of each kind, read from the record here."""
    speed = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    results = (RESULTS / "README.md").read_text(encoding="utf-8")
    cells = record("bench/train_resnet20.json")["models"][0]["sides"]["reszoo"]
    assert f"| {cells['images_per_second']:.1f} images/s |" in speed
    for row in record("precision.json")["rows"]:
        mean, deviation = statistics.mean(row["test_errors"]), statistics.stdev(row["test_errors"])
        assert f"| {row['precision']} | {', '.join(map(str, row['test_errors']))}" in speed
        assert f"| {mean:.2f} ± {deviation:.2f} |" in speed
    folded = record("export/fold.json")["results"]["resnet20, batch 1"]["rows"]["folded"]
    assert f"| resnet20, batch 1 | {folded['images_per_second']} |" in results
    memory = record("tune/memory.json")["rows"][29]
    assert f"| 30 | {memory['VmRSS']:,} | {memory['VmHWM']:,} |" in results
    cell = record("tune/depth_shortcut.json")["grid"]["cells"]["none"]["56"]
    assert f"| 56 | none | {cell['count']} | {100 * cell['mean']:.2f} |" in results


def test_every_record_is_shown() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    hidden = [
        str(path.relative_to(RESULTS))
        for path in RESULTS.rglob("*.json")
        if str(path.relative_to(RESULTS)) not in pages
    ]
    assert not hidden


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] * (path.parent.name == "identity"))
        for path in LAB
    ],
    ids=lambda path: path.parent.name,
)
def test_a_kept_record_still_makes_its_page(path: Path, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(path.read_bytes())
    page = html.unescape(write_report(tmp_path).read_text(encoding="utf-8"))
    assert finding(read_record(tmp_path)) in page
    drawn = {figure.name for figure in tmp_path.glob("*.png")}
    assert drawn == {figure.name for figure in path.parent.glob("*.png")}


def test_no_record_names_a_folder_of_a_machine() -> None:
    for path in [*LAB, *(RESULTS / "tune").glob("*.json")]:
        assert not re.search(r'"(/|folder:/)', path.read_text(encoding="utf-8")), path


def test_kept_verdicts_follow_from_the_kept_errors() -> None:
    found = [json.loads(path.read_text(encoding="utf-8"))["results"] for path in LAB]
    kept = [results for results in found if "verdicts" in results]
    assert kept
    for results in kept:
        assert results["verdicts"] == {
            kind: compare_depths(results["models"], kind) for kind in KINDS
        }


def test_every_model_with_published_weights_was_compared() -> None:
    rows = record("weights/parity.json")["rows"]
    compared = {(row["model"], row["layout"]) for row in rows}
    # tests/weights/test_keras_graph.py compares the layout kerasio with Keras.
    rows_of_others = {(row.model, row.layout) for row in reszoo.list_weights() if not row.card}
    assert compared == {row for row in rows_of_others if row[1] != "kerasio"}
    assert max(max(row[key] for key in ("logits", "gradient", "back")) for row in rows) < 1e-4


def test_kept_errors_of_training_runs_are_means() -> None:
    paths = list(RESULTS.glob("*/record.json"))
    for found in (json.loads(path.read_text(encoding="utf-8")) for path in paths):
        errors = [row["test_error"] for row in found["rows"]]
        assert found["test_error_mean"] == pytest.approx(statistics.mean(errors), abs=1e-3)
        assert len({row["seed"] for row in found["rows"]}) == len(errors)
        assert found["data"]["examples"]["test"] == 10_000
    assert paths


def test_kept_errors_of_fine_tuning_are_means() -> None:
    for row in record("weights/finetune-fashion.json")["rows"]:
        assert row["error"] == pytest.approx(statistics.mean(row["errors"]), abs=1e-3)


def test_a_kept_search_agrees_with_its_trials() -> None:
    found = record("tune/depth_shortcut.json")
    best = best_trial(found["trials"])
    assert best is not None and best["trial"] == found["best"]
    assert found["grid"] == grid(found["trials"], found["space"])


def test_kept_scores_of_imbalanced_classes_are_means() -> None:
    for row in record("imbalance.json")["rows"]:
        for name in ("macro_f1", "accuracy", "rarest_recall"):
            assert row[f"{name}_mean"] == pytest.approx(statistics.mean(row[name]), abs=1e-4)
