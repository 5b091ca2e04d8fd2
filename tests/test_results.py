"""What the documents say was measured is what the kept records say."""

from __future__ import annotations

import html
import json
import re
import statistics
from pathlib import Path

import pytest

import reszoo
from reszoo.lab.degradation import KINDS, verdict
from reszoo.lab.record import read_record
from reszoo.lab.report import finding, report

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "docs" / "results" / "lab").glob("*/record.json"))


def words(text: str) -> str:
    return " ".join(re.sub(r"[>*`]", " ", text).split())


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_the_answer_quotes_what_each_experiment_found(path: Path) -> None:
    answer = words((ROOT / "docs" / "why-residual.md").read_text(encoding="utf-8"))
    assert words(finding(read_record(path.parent))) in answer
    assert f"results/lab/{path.parent.name}/" in (ROOT / "docs" / "why-residual.md").read_text(encoding="utf-8")
    assert f"lab/{path.parent.name}/record.json" in (ROOT / "docs" / "results" / "README.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_a_kept_record_still_makes_its_page(path: Path, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(path.read_bytes())
    page = html.unescape(report(tmp_path).read_text(encoding="utf-8"))
    assert finding(read_record(tmp_path)) in page
    drawn = {figure.name for figure in tmp_path.glob("*.png")}
    assert drawn == {figure.name for figure in path.parent.glob("*.png")}
    assert not re.search(r'"(/|folder:/)', path.read_text(encoding="utf-8")), "a folder of somebody's machine"


def test_kept_verdicts_follow_from_the_kept_errors() -> None:
    seen = 0
    for path in RECORDS:
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
        if "verdicts" in results:
            assert results["verdicts"] == {kind: verdict(results["nets"], kind) for kind in KINDS}
            seen += 1
    assert seen


WEIGHTS = ROOT / "docs" / "results" / "weights"


def kept(name: str) -> list[dict]:
    return json.loads((WEIGHTS / name).read_text(encoding="utf-8"))["rows"]


def test_the_tables_of_published_weights_are_the_records() -> None:
    page = (ROOT / "docs" / "results" / "README.md").read_text(encoding="utf-8")
    for row in kept("parity.json"):
        figures = " | ".join(f"{row[key]:.1e}" for key in ("logits", "gradient", "back"))
        sizes = ", ".join(map(str, row["sizes"]))
        assert f"| `{row['model']}` | {row['layout']} | {sizes} | {figures} | {row['seconds']:.2f} |" in page
    for row in kept("images.json"):
        assert (
            f"| {row['pixels_differing_percent']:g} | {row['largest_pixel_difference']} | {row['logits']:.1e} | {row['other_answers']} |"
            in page
        )
        assert "accuracy" not in row or f"{row['accuracy']:g}" in page
    assert f"{len(kept('downloads.json'))} bad downloads" in page
    for record in ("finetune-fashion.json", "finetune-jpeg.json"):
        for row in kept(record):
            assert row["error"] == pytest.approx(statistics.mean(row["errors"]), abs=1e-3)
            shown = f"| {row['steps']} | {row['error']:.2f} ± {row['deviation']:.2f} | {row['images']:,} |"
            assert f"| {row['arm']} {shown}" in page


def test_every_net_of_the_published_weights_was_compared() -> None:
    compared = {(row["model"], row["layout"]) for row in kept("parity.json")}
    assert compared == {(row.model, row.layout) for row in reszoo.list_weights()}
    assert all(max(row[key] for key in ("logits", "gradient", "back")) < 1e-4 for row in kept("parity.json"))
