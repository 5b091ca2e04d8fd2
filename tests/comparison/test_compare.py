"""The report of a comparison: groups, differences and files, from run folders with chosen scores."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from reszoo.cli.main import main
from reszoo.comparison.compare import compare
from reszoo.errors import ReszooError
from tests.comparison.written import make_recipe, write_run

FIRST = {0: 9.0, 1: 8.5, 2: 9.6}
SECOND = {0: 8.2, 1: 7.9, 2: 8.6, 3: 8.1}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of each recipe with a run of each seed, and one run that was stopped."""
    slow, fast = make_recipe("slow <a>"), make_recipe("fast", schedule={"rate": 0.1})
    for recipe, errors in ((slow, FIRST), (fast, SECOND)):
        for seed, error in errors.items():
            write_run(tmp_path / recipe.name[:4] / f"seed-{seed}", recipe, error, seed=seed)
    write_run(tmp_path / "slow" / "seed-3", slow, None, seed=3)
    return tmp_path


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_report_has_the_statistics_of_scipy(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = runs / "out"
    command = ["compare", str(runs / "slow"), str(runs / "fast"), "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    own = [SECOND[seed] for seed in FIRST]
    test = stats.ttest_rel(own, list(FIRST.values()))
    interval = test.confidence_interval(0.95)
    (row,) = read(out / "differences.csv")
    assert (row["second"], row["first"], row["score"], row["seeds"]) == (
        "fast",
        "slow <a>",
        "error",
        "3",
    )
    assert float(row["difference"]) == pytest.approx(
        np.mean(np.subtract(own, list(FIRST.values())))
    )
    assert float(row["low"]) == pytest.approx(interval.low)
    assert float(row["high"]) == pytest.approx(interval.high)
    assert (
        test.pvalue < 0.05 and "The error of fast differs from that of slow <a>: -0.80" in printed
    )
    values = list(SECOND.values())
    assert f"fast\t{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}\t4" in printed

    page = (out / "report.html").read_text()
    assert "slow &lt;a&gt;" in page and "<a>" not in page and "http" not in page.split("<body>")[1]
    assert "<td>schedule.rate</td><td>0.05</td><td>0.1</td>" in page
    assert f"<td>{interval.low:+.2f} to {interval.high:+.2f}</td><td>0, 1, 2</td>" in page
    assert (
        "independent and nearly normal" in page and "<td>stopped</td><td>1</td><td>-</td>" in page
    )
    assert (out / "curves.svg").read_text().startswith("<?xml")
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    table = read(out / "runs.csv")
    assert len(table) == 8 and table[3]["status"] == "stopped" and table[3]["error"] == ""
    assert [float(row["error"]) for row in table[4:]] == pytest.approx(values)
    assert {row["schedule.rate"] for row in table} == {"0.05", "0.1"}


def test_one_common_seed_and_other_test_images(runs: Path) -> None:
    fast, slow = runs / "fast", runs / "slow"
    found = compare([slow / "seed-0", fast], out=runs / "out")
    assert "no interval" in found.finding and found.pairs[0].difference.interval is None
    write_run(runs / "other", make_recipe("other"), 1.0, digest="b")
    assert not compare([fast, runs / "other"], out=runs / "out").pairs
    assert compare([slow / "seed-3"], out=runs / "out").finding == "No run has finished yet."
    assert re.fullmatch(r"fast: loss 0\.5000 ± 0\.0000, seeds: 4\.",
                        compare([fast], out=runs / "out", score="loss").finding)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: does not exist; expected a run folder, or a folder of runs"),
        (["empty"], "runs: none is found; expected run folders"),
        (
            ["slow", "--score", "los"],
            "score: 'los' is not a score of these runs; did you mean 'loss'",
        ),
        (["slow", "--out", "file"], "out: "),
    ],
)
def test_invalid_arguments_are_reported(
    runs: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(runs)
    Path("empty").mkdir()
    Path("file").touch()
    assert main(["compare", *words]) == 2
    assert f"reszoo: {message}" in capsys.readouterr().err
    with pytest.raises(ReszooError):
        compare([])
