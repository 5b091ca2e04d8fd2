"""The report of a search, from records written by hand."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from reszoo.tuning.formatting import format_values, short_names
from reszoo.tuning.report import finding, present, report
from reszoo.tuning.results import read_results
from tests.tuning.written import SPACE, comparable, trial, values, varied, write

FIGURES = ("accuracy-cost", "effects", "depth-shortcut", "progress")


def table(folder: Path, title: str) -> list[list[str]]:
    """The cells of the table of a section."""
    sections = {section.title: section for section in present(read_results(folder)).sections}
    rows: Any = next(item for item in sections[title].items if hasattr(item, "rows"))
    return [list(row) for row in rows.rows]


def test_names_are_shortened_while_they_are_unique() -> None:
    row = {"n": "5", "model.shortcut": "A", "schedule.rate": 0.05, "train.batch_size": 64}
    assert format_values(row, ()) == "n 5, shortcut A, rate 0.05, batch_size 64"
    names = ["model.name", "data.name", "schedule.rate"]
    assert list(short_names(names).values()) == ["model.name", "data.name", "rate"]


def test_the_findings_are_the_best_trial_and_what_depth_did(tmp_path: Path) -> None:
    trials = [
        trial(0, 0.95, values=values(1, "none"), depth=8),
        trial(1, 0.9, values=values(5, "none"), depth=32),
        trial(2, 0.94, values=values(1, "B"), depth=8),
        trial(3, 0.96, values=values(5, "B"), depth=32, parameters=272_474),
        trial(4, 0.92 - 1e-15, values=values(5, "B"), depth=32),  # a mean of -0.00
    ]
    page = present(read_results(write(tmp_path / "s", trials)))
    assert page.finding == (
        "Best of 5 trials is 0003 (n 5, shortcut B, zero_gamma true, rate 0.05): 96.00 ± 1.41 % validation accuracy over 2 "
        "executions, 272,474 parameters."
    )
    found = {section.title: section.finding for section in page.sections}
    assert found["Depth by shortcut"] == (
        "From the shallowest to the deepest models mean validation accuracy changes by -5.00 points in plain models, "
        "+0.00 points with shortcut B."
    )
    for number, kept in enumerate((trials[:2], trials[2:], trials[1:4])):
        sections = present(read_results(write(tmp_path / str(number), kept))).sections
        assert next(each.finding for each in sections if each.title == "Depth by shortcut") == ""


def test_hyperbands_trials_are_sorted_by_share(tmp_path: Path) -> None:
    trials = [
        trial(0, 0.5, share=1 / 9, scores=[0.5]),
        trial(1, 0.99, share=1 / 9),
        trial(2, 0.6, share=1 / 3, continues="0000", scores=[0.6]),
        trial(3, 0.55, share=1 / 3, continues="0001", scores=[0.55]),
    ]
    folder = write(tmp_path / "s", trials)
    rows = [row[:3] for row in table(folder, "Leaderboard")]
    assert rows == [["0002", "33 %", "0000"], ["0003", "33 %", "0001"], ["0001", "11 %", "-"], ["0000", "11 %", "-"]]  # fmt: skip
    text = finding(read_results(folder))
    assert text.startswith("Best of 2 trials trained longest is 0002 (n 3,")
    assert text.endswith(
        ": 60.00 % validation accuracy after 33 % of the training, 1,000 parameters."
    )


def test_a_search_without_a_score_reports_the_reason(tmp_path: Path) -> None:
    reasons = ("it broke", "out of memory", "out of memory\nTraceback", "")
    trials = [trial(number, reason=reason) for number, reason in enumerate(reasons)]
    folder = write(tmp_path / "s", trials)
    text = "No trial completed: 4 failed; most frequent reason: out of memory."
    page = report(folder).read_text()
    assert finding(read_results(folder)) == text in page
    assert "Traceback" not in page and "<img" not in page
    assert table(folder, "Failures and rejections") == [
        ["failed", "out of memory", "2"],
        ["failed", "it broke", "1"],
        ["failed", "unknown", "1"],
    ]
    running = write(tmp_path / "running", [trial(0, status="running")])
    assert finding(read_results(running)) == "No trial has completed yet: 1 running."
    rejected = [{"values": {}, "reason": f"{n} parameters, more than 9"} for n in ("1,200", "900")]
    folder = write(tmp_path / "rejected", [], rejected)
    assert "most frequent reason: parameters, more than 9." in finding(read_results(folder))
    assert table(folder, "Failures and rejections") == [
        ["rejected", "parameters, more than 9", "2"]
    ]
    page = report(write(tmp_path / "empty", [])).read_text()
    assert "No trial completed." in page and "0 trials." in page and "quickstart" in page


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rejected = [{"values": values(5, "B"), "reason": "1,234,567 parameters, more than 1,000,000"}]
    folder = write(tmp_path_factory.mktemp("report") / "s", varied(), rejected)
    report(folder)
    return folder


def test_the_page_holds_what_the_results_hold(done: Path) -> None:
    results, page = read_results(done), (done / "report.html").read_text()
    assert json.loads((done / "report.json").read_text()) == results
    assert finding(results) in html.unescape(page)
    assert "25 trials: 22 completed, 2 failed, 1 running, 1 rejected." in page
    own = sorted(comparable(results["trials"]), key=lambda row: -row["score"])
    rows, first = table(done, "Leaderboard"), own[0]
    assert [row[0] for row in rows] == [row["trial"] for row in own[:20]]
    assert rows[0] == [
        results["best"],
        f"{100 * first['score']:.2f} ± 1.41",
        f"{100 * first['score']:.2f}",
        *(str(first["values"].get(name, "-")) for name in SPACE),
        f"{first['parameters']:,}",
        f"{first['macs']:,}",
        "1.5",
    ]
    costs = [row[0] for row in table(done, "Accuracy against cost")]
    assert costs == results["front"]["parameters"][::-1]
    effects = table(done, "Effect of each hyperparameter")
    none = results["effects"]["model.shortcut"]["options"]["none"]
    mean = f"{100 * none['mean']:.2f} ± {100 * none['deviation']:.2f}"
    assert [
        "shortcut",
        "none",
        str(none["count"]),
        mean,
        f"{100 * none['best']:.2f}",
        "",
    ] in effects
    assert effects[-1][:3] == ["rate", "0.01 to 0.2", "22"]
    assert effects[-1][-1] == f"{results['effects']['schedule.rate']['correlation']:+.2f}"
    gap = results["grid"]["differences"]["none"]
    points = [f"{gap[key]:+.2f}" for key in ("mean", "best", "training")]
    assert table(done, "Depth by shortcut")[0] == ["none (plain)", "8", "32", *points]
    how = dict(table(done, "Setup"))
    assert (how["tuner"], how["seed"], how["base recipe"]) == ("random", "7", "quickstart")
    assert how["limits of a model"] == "1,000,000 parameters" and how["steps trained"] == "3,520"
    assert how["data"] == "digits (1,287 train, 150 validation, 360 test images)"
    foot = page.split("<footer>")[1]
    assert all(each in foot for each in ("reszoo tune depth_shortcut", "reszoo 0.1.0", "abc1234"))
    assert page.count("data:image/svg+xml") == 2 * len(FIGURES)


def test_the_cells_of_the_figure_are_those_of_the_grid(done: Path) -> None:
    svg = (done / "depth-shortcut.svg").read_text()
    for row in read_results(done)["grid"]["cells"].values():
        for cell in row.values():
            assert f">{100 * cell['mean']:.2f}<" in svg and f">{cell['count']} trial" in svg
    assert ">none (plain)<" in svg


def test_the_same_results_give_the_same_files(done: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in done.iterdir() if path.is_file()}
    figures = {f"{name}.{kind}" for name in FIGURES for kind in ("svg", "png")}
    assert set(before) == {"search.json", "oracle.json", "report.json", "report.html"} | figures
    other = tmp_path / "elsewhere"
    shutil.copytree(done, other, ignore=shutil.ignore_patterns("report.*", "*.svg", "*.png"))
    report(other)
    assert {path.name: path.read_bytes() for path in other.iterdir() if path.is_file()} == before


def test_tables_end_after_twenty_rows_and_a_trial_at_chance_is_drawn_at_the_edge(
    tmp_path: Path,
) -> None:
    trials = [trial(number, 0.9 + number / 1000) for number in range(23)] + [trial(23, 0.1)]
    trials += [trial(number, reason=f"broke in way {number}") for number in range(24, 47)]
    folder = write(tmp_path / "s", trials)
    rows = table(folder, "Leaderboard")
    assert [row[0] for row in rows] == [f"{number:04d}" for number in range(22, 2, -1)]
    page = repr(present(read_results(folder)))
    assert page.count("The first 20 of 2") == 2
    (edge,) = set(re.findall(r"below ([\d.]+) %", page))
    assert 10 < float(edge) < 90


def test_one_trial_names_that_need_escapes_and_no_shortcut(tmp_path: Path) -> None:
    nasty = "<b>&\"x'</b>"
    space = {
        f"t.{nasty}": {"options": {nasty: {}, "y": {}}, "when": {}},
        "schedule.rate": {"low": 0.011, "high": 0.014, "log": True, "step": 0, "when": {}},
        "train.batch_size": {"low": 8, "high": 64, "log": False, "step": 8, "when": {}},
    }
    row = {f"t.{nasty}": nasty, "schedule.rate": 0.012, "train.batch_size": 8}
    trials = [trial(0, 0.9, values=row), trial(1, reason=f"{nasty} broke", values={})]
    texts = {"name": nasty, "description": nasty, "command": nasty, "recipe": {"name": nasty}}
    rejected = [{"values": {}, "reason": nasty}]
    page = report(write(tmp_path / "s", trials, rejected, space=space, **texts)).read_text()
    assert "<b>" not in page and "</b>" not in page and '"x' not in page
    assert html.unescape(page).count(nasty) > 8
    assert "Depth by shortcut" not in page and page.count("<img") == 3
    drawn = (tmp_path / "s" / "effects.svg").read_text()
    assert ">0.0109989<" not in drawn and ">0.011<" in drawn and ">0.014<" in drawn
