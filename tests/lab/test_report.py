"""A report is made from the record alone; bad input is one line."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import pytest

from reszoo.cli.main import main
from reszoo.lab.record import read_record
from reszoo.lab.report import finding
from reszoo.reporting.page import Page, Section, Table, render_page


def test_the_report_is_made_from_the_record_alone(done: Path, tmp_path: Path) -> None:
    suffixes = (".html", ".svg", ".png")
    made = {path.name: path.read_bytes() for path in done.iterdir() if path.suffix in suffixes}
    assert set(made) == {"report.html", "degradation.svg", "degradation.png"}
    shutil.copy(done / "record.json", tmp_path)
    assert main(["lab", "report", str(tmp_path)]) == 0
    assert {name: (tmp_path / name).read_bytes() for name in made} == made
    page = made["report.html"].decode()
    # Nothing is fetched, and both backgrounds are served.
    assert not re.search(r'(src|href|srcset)="(?!data:)', page) and "url(" not in page
    assert page.count("data:image/svg+xml") == 2 and "prefers-color-scheme: dark" in page
    assert finding(read_record(done)) in html.unescape(page)


def test_a_bad_record_is_rejected_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        "{": "is not readable JSON",
        "[]": "is not a record",
        '{"lab": "x", "settings": {}, "results": {}}': "lab: 'x' is invalid",
        '{"lab": "degradation", "settings": {}, "results": {}}': "is incomplete",
    }
    for text, message in cases.items():
        (tmp_path / "record.json").write_text(text)
        assert main(["lab", "report", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    (tmp_path / "record.json").unlink()
    assert main(["lab", "report", str(tmp_path)]) == 2
    assert "holds no record.json" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["degradation", "--depths", "20"], "at least two"),
        (["degradation", "--depths", "20", "21"], "no model 'resnet21'"),
        (["degradation", "--seeds", "0"], "seeds: 0 is invalid"),
        (["degradation", "--budget", "-1"], "budget: -1 is invalid"),
        (["degradation", "--set", "train.epoch=3"], "did you mean 'train.epochs'"),
        (["degradation", "--set", "train.epochs=3", "--budget", "10"], "counts steps"),
        (["constructed", "--depths", "20"], "at least two"),
        (["identity", "--depths", "0", "2"], "depths: 0 is invalid"),
        (["identity", "--rate", "0"], "rate: 0.0 is invalid"),
        (["drift", "--steps", "0"], "steps: 0 is invalid"),
        (["responses", "runs/nowhere"], "no run folder runs/nowhere"),
        (["responses", "nowhere"], "no model 'nowhere'"),
        (["ablation", "--variants", "gate"], "variants: 'gate' is invalid"),
        (["responses", "nowhere", "--images", "0"], "images: 0 is invalid"),
        (["nothing"], "invalid choice: 'nothing'"),
        ([], "required: LAB"),
    ],
)
def test_bad_input_is_reported_in_one_line_and_leaves_nothing(
    argv: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lab", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_long_cells_and_deviations_may_wrap_and_numbers_may_not() -> None:
    table = Table(["score", "x" * 30], [["1 ± 2", "<&" * 15], ["0.25", "a b"]])
    page = render_page(Page("title", "finding", [Section("scores", [table])]))
    assert f'<th>score</th><th class="long">{"x" * 30}</th>' in page
    assert f'<td class="pair">1 ±\u00a02</td><td class="long">{"&lt;&amp;" * 15}</td>' in page
    assert "<td>0.25</td><td>a b</td>" in page
    (rules,) = re.findall("<style>(.*)</style>", page, re.DOTALL)
    wrapping = {
        rule: "white-space: normal" in body
        for rule, body in re.findall(r"([^{}\n]+) {(.*)}", rules)
    }
    assert (wrapping[".long"], wrapping[".pair"], wrapping["th, td"]) == (True, True, False)
