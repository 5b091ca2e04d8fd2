"""Claims from the command line: experiments run once, verdicts follow from the records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reszoo.claims.ledger import find_claims
from reszoo.claims.page import summarize
from reszoo.claims.verdicts import Finding, judge
from reszoo.cli.main import main
from reszoo.errors import ReszooError


def put(folder: Path, experiment: str, results: Any) -> None:
    (folder / experiment).mkdir(parents=True, exist_ok=True)
    (folder / experiment / "record.json").write_text(json.dumps({"results": results}))


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        ((-1.02, -0.95), "reproduced"),
        ((-1.02, -0.5), "depends"),
        ((-0.5, -1.02), "depends"),
        ((-0.5, -0.5), "not reproduced"),
    ],
)
def test_verdicts(tmp_path: Path, numbers: tuple[float, float], verdict: str) -> None:
    (claim,) = find_claims(["plain-gradients-shatter"])
    assert judge(claim, tmp_path).verdict == "not run"
    names = ("plain_batch_norm_correlation_log2", "plain_correlation_log2")
    put(tmp_path, "propagation", {"measures": dict(zip(names, numbers, strict=True))})
    finding = judge(claim, tmp_path)
    assert (finding.verdict, finding.number) == (verdict, numbers[0])
    assert dict(finding.others) == {"without batch norm": numbers[1]}


def test_a_record_without_the_number_is_an_error(tmp_path: Path) -> None:
    (claim,) = find_claims(["plain-degrades"])
    for results in ({}, {"verdicts": {"plain": {"difference": None}}}, {"verdicts": 3}):
        put(tmp_path, "degradation", results)
        with pytest.raises(ReszooError, match="has no number 'verdicts.plain.difference'; delete"):
            judge(claim, tmp_path)
    (tmp_path / "degradation/record.json").write_text("{")
    with pytest.raises(ReszooError, match="is damaged"):
        judge(claim, tmp_path)
    put(tmp_path, "degradation", {"verdicts": {"plain": {"difference": 70.5}}})
    assert judge(claim, tmp_path).verdict == "reproduced"


def test_claims_run_once_and_leave_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "ledger")
    assert main(["claims", "run", "sizes", "--out", out]) == 0
    text = capsys.readouterr().out
    assert "not reproduced" not in text and "wrn28-10-millions" in text
    record = tmp_path / "ledger/sizes/record.json"
    before = record.stat().st_mtime_ns
    assert main(["claims", "run", "wrn*", "--out", out, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {row["id"]: row["verdict"] for row in shown} == {
        f"{name}-millions": "reproduced" for name in ("wrn40-4", "wrn16-8", "wrn28-10")
    }
    assert record.stat().st_mtime_ns == before
    assert main(["claims", "report", "--out", out]) == 0
    page = (tmp_path / "ledger/report.html").read_text()
    assert "depends on which convolution strides" in page and "not run" in page
    assert main(["claims", "run", "sizs", "--out", out]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_summary_counts_verdicts_and_papers() -> None:
    claims = find_claims(["sizes"])[:2]
    findings = [Finding(claims[0], "reproduced", 1.0), Finding(claims[1], "not run")]
    assert summarize(findings) == "2 claims of 1 paper: 1 reproduced, 1 not run."


@pytest.mark.slow
def test_every_experiment_runs_in_its_smoke_form(tmp_path: Path) -> None:
    assert main(["claims", "run", "--smoke", "--out", str(tmp_path)]) == 0
