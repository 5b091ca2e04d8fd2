"""Results and page of a search, from records written here by hand; nothing is trained."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from reszoo.errors import ReszooError
from reszoo.reporting.plots import LIGHT
from reszoo.tuning import figures
from reszoo.tuning.report import finding, present, report
from reszoo.tuning.results import best_trial, effects, grid, pareto, read_results, spearman
from reszoo.tuning.words import in_words, short_names

SPACE: dict[str, Any] = {
    "n": {"options": {str(n): {"model.depths": [n] * 3} for n in (1, 3, 5)}, "when": {}},
    "model.shortcut": {
        "options": {label: {"model.shortcut": label} for label in ("none", "A", "B")},
        "when": {},
    },
    "model.zero_gamma": {
        "options": {"false": {"model.zero_gamma": False}, "true": {"model.zero_gamma": True}},
        "when": {"model.shortcut": ["A", "B"]},
    },
    "schedule.rate": {"low": 0.01, "high": 0.2, "log": True, "step": 0, "when": {}},
}


def search(**changes: Any) -> dict[str, Any]:
    return {
        "name": "depth_shortcut",
        "description": "Depth and shortcuts.",
        "search": {
            "tuner": "random",
            "trials": 30,
            "executions": 1,
            "seed": 7,
            "max_params": 1_000_000,
            "max_macs": 0,
        },
        "recipe": {"name": "quickstart", "model": {"name": "resnet20"}},
        "space": SPACE,
        "data": {
            "name": "digits",
            "input_shape": [8, 8, 1],
            "classes": 10,
            "examples": {"train": 1287, "validation": 150, "test": 360},
        },
        "environment": {
            "versions": {"reszoo": "0.1.0"},
            "platform": "Linux",
            "git": "abc1234",
            "started": "2026-01-02",
        },
        "command": "reszoo tune depth_shortcut",
        **changes,
    }


def trial(number: int, score: float | None = None, **changes: Any) -> dict[str, Any]:
    """A record: completed if it has a score, with that of two executions about it."""
    record: dict[str, Any] = {
        "trial": f"{number:04d}",
        "values": {
            "n": "3",
            "model.shortcut": "A",
            "model.zero_gamma": "true",
            "schedule.rate": 0.05,
        },
        "continues": None,
        "share": 1.0,
        "status": "failed" if score is None else "completed",
        "reason": "it broke" if score is None else "",
        "seeds": [0, 1],
        "depth": 20,
        "parameters": 1000,
        "multiply_adds": 50_000,
        "worker": "tuner0",
        "attempts": [[0, 0]],
    }
    if score is not None:
        more: dict[str, Any] = {
            "training": [score, score],
            "steps": 80,
            "trained_steps": 160,
            "seconds": 1.5,
        }
        record |= {"score": score, "scores": [score - 0.01, score + 0.01], **more}
    return {**record, **changes}


def values(n: int, shortcut: str, rate: float = 0.05) -> dict[str, Any]:
    gamma = {} if shortcut == "none" else {"model.zero_gamma": "true"}
    return {"n": str(n), "model.shortcut": shortcut, **gamma, "schedule.rate": rate}


def write(folder: Path, trials: list[dict[str, Any]], refused: Any = None, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "search.json").write_text(json.dumps(search(**changes)))
    for record in trials:
        path = folder / "trials" / record["trial"]
        path.mkdir(parents=True)
        (path / "trial.json").write_text(json.dumps(record))
    if refused is not None:
        (folder / "oracle.json").write_text(json.dumps({"refused": refused}))
    return folder


def varied(count: int = 24, shares: tuple[float, ...] = (1.0,)) -> list[dict[str, Any]]:
    """Trials of every depth and shortcut, at different rates; some failed, one running."""
    random = np.random.default_rng(0)
    found = []
    for number, (n, shortcut) in enumerate(
        itertools.islice(itertools.cycle(itertools.product((1, 3, 5), "NAB")), count)
    ):
        kind = "none" if shortcut == "N" else shortcut
        score = (
            None
            if number in (4, 9)
            else round(float(0.95 - (0.03 * n if kind == "none" else 0)), 4)
        )
        score = None if score is None else score + round(float(random.normal(0, 0.01)), 4)
        more: dict[str, Any] = {
            "values": values(n, kind, float(f"{random.uniform(0.01, 0.2):.4g}")),
            "depth": 6 * n + 2,
        }
        more |= {"parameters": 1000 * n + number // 9, "multiply_adds": 50_000 * n + number}
        found.append(trial(number, score, share=shares[number % len(shares)], **more))
    return [*found, trial(count, status="running", reason="")]


# The best trial and the fronts

SMALL = st.integers(0, 4)  # few different values, for many ties
RECORDS = st.lists(
    st.tuples(
        SMALL,
        SMALL,
        SMALL,
        st.sampled_from([1 / 3, 1.0]),
        st.sampled_from(["completed", "failed", "running"]),
    ),
    max_size=12,
)


def made(rows: list[tuple[int, int, int, float, str]]) -> list[dict[str, Any]]:
    return [
        trial(
            number, score / 4, parameters=parameters, multiply_adds=macs, share=share, status=status
        )
        for number, (score, parameters, macs, share, status) in enumerate(rows)
    ]


def comparable(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = [record for record in trials if record["status"] == "completed"]
    return [record for record in done if all(record["share"] >= other["share"] for other in done)]


@given(RECORDS, st.sampled_from(["parameters", "multiply_adds"]))
@settings(max_examples=100, deadline=None)
def test_the_front_is_what_nothing_beats(
    rows: list[tuple[int, int, int, float, str]], cost: str
) -> None:
    trials = made(rows)
    own = comparable(trials)

    def beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
        better = one[cost] < other[cost] or one["score"] > other["score"]
        return one[cost] <= other[cost] and one["score"] >= other["score"] and better

    def twin_before(record: dict[str, Any]) -> bool:
        return any(
            (other[cost], other["score"]) == (record[cost], record["score"])
            and other["trial"] < record["trial"]
            for other in own
        )

    kept = [
        record
        for record in own
        if not any(beats(other, record) for other in own) and not twin_before(record)
    ]
    assert pareto(trials, cost) == [
        record["trial"] for record in sorted(kept, key=lambda record: record[cost])
    ]
    assert pareto(trials[::-1], cost) == pareto(trials, cost)


@given(RECORDS)
@settings(max_examples=100, deadline=None)
def test_the_best_trial_is_the_first_of_the_smallest_of_the_highest(
    rows: list[tuple[int, int, int, float, str]],
) -> None:
    trials = made(rows)
    own = comparable(trials)
    if not own:
        assert best_trial(trials) is None
        return
    high = [record for record in own if record["score"] == max(other["score"] for other in own)]
    small = [
        record
        for record in high
        if record["parameters"] == min(other["parameters"] for other in high)
    ]
    assert (
        best_trial(trials)
        == min(small, key=lambda record: int(record["trial"]))
        == best_trial(trials[::-1])
    )


def test_of_equal_scores_the_smaller_net_is_best_then_the_earlier() -> None:
    trials = [
        trial(0, 0.9, parameters=20),
        trial(1, 0.9, parameters=10),
        trial(2, 0.9, parameters=10),
        trial(3, 0.8),
    ]
    best = best_trial(trials)
    assert best and best["trial"] == "0001"


def test_short_trials_are_not_compared_with_whole_ones() -> None:
    trials = [
        trial(0, 0.99, share=1 / 3),
        trial(1, 0.9, continues="0000"),
        trial(2, 0.8, parameters=10),
    ]
    best = best_trial(trials)
    assert best and best["trial"] == "0001"
    assert pareto(trials, "parameters") == ["0002", "0001"]
    alone = best_trial(trials[:1])
    assert alone and alone["trial"] == "0000"
    assert effects(trials, SPACE)["n"]["options"]["3"]["scores"] == [0.9, 0.8]


def test_a_trial_whose_score_is_no_number_counts_nowhere(tmp_path: Path) -> None:
    # json writes NaN, which is no JSON; it must not come out of the report again.
    results = read_results(write(tmp_path / "s", [trial(0, float("nan")), trial(1, 0.5)]))
    assert results["best"] == "0001" and results["front"]["parameters"] == ["0001"]
    json.dumps(results, allow_nan=False)


def test_ids_count_past_four_digits() -> None:
    trials = [trial(10_000, 0.5), trial(9_999, 0.5)]
    best = best_trial(trials)
    assert best and best["trial"] == "9999" and pareto(trials, "parameters") == ["9999"]


# Effects and the grid


def test_rank_correlation_needs_three_pairs_and_two_values() -> None:
    assert spearman([1, 2], [1, 2]) is None and spearman([], []) is None
    assert spearman([1, 1, 1], [1, 2, 3]) is None and spearman([1, 2, 3], [0.5, 0.5, 0.5]) is None
    assert spearman([1, 2, 3], [3, 2, 1]) == -1 and spearman([1, 10, 100], [0.1, 0.2, 0.9]) == 1
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(
        3 / 10**0.5
    )  # ranks 1, 2.5, 2.5, 4


def test_effects_are_by_option_and_leave_out_where_a_knob_does_not_act() -> None:
    trials = varied(shares=(1.0, 1.0, 1 / 3))
    own = comparable(trials)
    found = effects(trials, SPACE)
    assert list(found) == list(SPACE)
    for knob in ("n", "model.shortcut", "model.zero_gamma"):
        assert list(found[knob]["options"]) == list(SPACE[knob]["options"])
        for label, effect in found[knob]["options"].items():
            scores = [record["score"] for record in own if record["values"].get(knob) == label]
            assert effect["count"] == len(scores) and effect["scores"] == scores
            assert effect["mean"] == (pytest.approx(np.mean(scores)) if scores else None)
            assert effect["deviation"] == (
                pytest.approx(np.std(scores, ddof=1)) if len(scores) > 1 else None
            )
            assert effect["best"] == (max(scores) if scores else None)
    tried = found["model.zero_gamma"]["options"]
    assert tried["false"]["count"] == 0
    assert tried["true"]["count"] == sum(
        record["values"]["model.shortcut"] != "none" for record in own
    )
    rate = found["schedule.rate"]
    assert rate["values"] == [record["values"]["schedule.rate"] for record in own] and rate[
        "count"
    ] == len(own)
    assert rate["correlation"] == spearman(rate["values"], [record["score"] for record in own])


def test_the_grid_is_depth_by_shortcut() -> None:
    trials = varied(shares=(1.0, 1.0, 1.0, 1 / 3))
    own = comparable(trials)
    found = grid(trials, SPACE)
    assert found and found["depths"] == [8, 20, 32]
    assert found["shortcuts"] == ["none", "A", "B"] and found["plain"] == ["none"]
    for label in found["shortcuts"]:
        rows = [record for record in own if record["values"]["model.shortcut"] == label]
        by_depth = {depth: [row for row in rows if row["depth"] == depth] for depth in (8, 20, 32)}
        assert list(found["cells"][label]) == [
            str(depth) for depth, some in by_depth.items() if some
        ]
        for depth, some in by_depth.items():
            if some:
                scores = [row["score"] for row in some]
                assert found["cells"][label][str(depth)] == {
                    "count": len(some),
                    "mean": pytest.approx(np.mean(scores)),
                    "best": max(scores),
                    "training": pytest.approx(np.mean([np.mean(row["training"]) for row in some])),
                }
        cells = found["cells"][label]
        assert found["differences"][label] == {
            "shallow": 8,
            "deep": 32,
            **{
                key: pytest.approx(100 * (cells["32"][key] - cells["8"][key]))
                for key in ("mean", "best", "training")
            },
        }
    assert found["differences"]["none"]["mean"] < -5


def test_depth_is_compared_where_a_shortcut_has_two() -> None:
    pair = [
        trial(0, 0.9, values=values(1, "A"), depth=8, training=[]),
        trial(1, 0.95, values=values(5, "A"), depth=32),
        trial(2, 0.5, values=values(5, "none"), depth=32),
    ]
    found = grid(pair, SPACE)
    assert found and found["differences"]["none"] is None and found["differences"]["B"] is None
    assert found["differences"]["A"] == {
        "shallow": 8,
        "deep": 32,
        "mean": pytest.approx(5),
        "best": pytest.approx(5),
        "training": None,
    }
    assert found["cells"]["A"]["8"]["training"] is None and found["cells"]["B"] == {}
    assert grid(pair, {"n": SPACE["n"]}) is None


def test_plain_is_what_sets_no_shortcut_whatever_it_is_called(tmp_path: Path) -> None:
    options = {"bare": {"model.shortcut": "none"}, "none": {"model.shortcut": "B"}}
    space = {"model.shortcut": {"options": options, "when": {}}}
    trials = [
        trial(number, 0.9, values={"model.shortcut": label}) for number, label in enumerate(options)
    ]
    found = read_results(write(tmp_path / "s", trials, space=space))["grid"]
    assert found["plain"] == ["bare"]


# What the files hold


def test_results_hold_what_was_written_and_what_follows(tmp_path: Path) -> None:
    trials = varied()
    refused = [{"values": values(5, "B"), "reason": "1,234,567 parameters, more than 1,000,000"}]
    results = read_results(write(tmp_path / "s", trials[::-1], refused))
    told = search()
    assert {key: results[key] for key in told} == told
    assert results["trials"] == trials and results["refused"] == refused
    best = best_trial(trials)
    assert best and results["best"] == best["trial"]
    assert results["front"] == {
        cost: pareto(trials, cost) for cost in ("parameters", "multiply_adds")
    }
    assert results["effects"] == effects(trials, SPACE) and results["grid"] == grid(trials, SPACE)
    assert results["totals"] == {
        "trials": 25,
        "completed": 22,
        "failed": 2,
        "running": 1,
        "refused": 1,
        "trained_steps": 22 * 160,
        "seconds": pytest.approx(22 * 1.5),
    }


def test_results_need_no_tensorflow() -> None:
    code = "import sys, reszoo.tuning.results; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


DAMAGE: list[tuple[str, Any, str]] = [
    ("search.json", "{", "search.json cannot be read"),
    ("search.json", "[]", "search.json is damaged: it holds no table"),
    ("search.json", b"\xff\xfe", "search.json cannot be read"),
    ("search.json", {"space": []}, "search.json is damaged: it has no table space"),
    ("search.json", {"data": None}, "search.json is damaged: it has no table data"),
    ("search.json", {"name": 3}, "search.json is damaged: it has no name"),
    ("search.json", {"space": {"n": {"low": 1}}}, "search.json is damaged: n is no knob"),
    (
        "search.json",
        {"space": {"n": {"options": {"3": 3}}}},
        "search.json is damaged: n is no knob",
    ),
    ("search.json", {"environment": ["x"]}, "search.json lacks what a page needs"),
    ("oracle.json", "no", "oracle.json cannot be read"),
    ("oracle.json", {"refused": [3]}, "oracle.json is damaged: refused is no list"),
    ("trials/0000/trial.json", "", "trial.json cannot be read"),
    ("trials/0000/trial.json", {"trial": 0}, "trial.json is damaged: trial is 0"),
    ("trials/0000/trial.json", {"status": "done"}, "trial.json is damaged: status is 'done'"),
    ("trials/0000/trial.json", {"values": {"n": 3}}, "trial.json is damaged: values is"),
    (
        "trials/0000/trial.json",
        {"values": {"schedule.rate": "x"}},
        "trial.json is damaged: values is",
    ),
    ("trials/0000/trial.json", {"parameters": None}, "trial.json is damaged: parameters is None"),
    ("trials/0000/trial.json", {"score": "0.9"}, "trial.json is damaged: score is '0.9'"),
    ("trials/0000/trial.json", {"share": True}, "trial.json is damaged: share is True"),
    ("trials/0000/trial.json", {"scores": ["x"]}, "trial.json is damaged: scores is"),
    ("trials/0000/trial.json", {"training": 3}, "trial.json is damaged: training is 3"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE)
def test_damaged_files_are_named_in_one_line(
    name: str, damage: Any, message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "s", [trial(0, 0.9)], [])
    path = folder / name
    if isinstance(damage, dict):
        damage = json.dumps({**json.loads(path.read_text()), **damage})
    path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    with pytest.raises(ReszooError, match=re.escape(message)) as raised:
        report(folder)
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)
    assert not (folder / "report.json").exists() and not (folder / "report.html").exists()


def test_a_folder_that_holds_no_search_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            ReszooError, match="holds no search.json: give the folder of a `reszoo tune` search"
        ):
            report(folder)
    assert list(tmp_path.iterdir()) == []


# Words


def test_values_are_told_without_their_tables() -> None:
    told = {"n": "5", "model.shortcut": "A", "schedule.rate": 0.05, "train.batch_size": 64}
    assert in_words(told, {}) == "n 5, shortcut A, rate 0.05, batch_size 64"
    # Where that would make two the same, both keep it.
    keys = ["model.name", "data.name", "schedule.rate"]
    assert short_names(keys) == {
        "model.name": "model.name",
        "data.name": "data.name",
        "schedule.rate": "rate",
    }


def test_the_finding_tells_the_best_and_what_depth_did(tmp_path: Path) -> None:
    trials = [
        trial(0, 0.95, values=values(1, "none"), depth=8),
        trial(1, 0.9, values=values(5, "none"), depth=32),
        trial(2, 0.94, values=values(1, "B"), depth=8),
        trial(3, 0.96, values=values(5, "B"), depth=32, parameters=272_474),
        trial(4, 0.92, values=values(5, "B"), depth=32),
    ]
    folder = write(tmp_path / "s", trials)
    assert finding(read_results(folder)) == (
        "Best of 5 trials is 0003 (n 5, shortcut B, zero_gamma true, rate 0.05): 96.00 ± 1.41 % validation accuracy over 2 "
        "executions, 272,474 parameters."
    )

    def depth(trials: list[dict[str, Any]], name: str) -> str:
        sections = present(read_results(write(tmp_path / name, trials))).sections
        return next(section.finding for section in sections if section.title == "Depth by shortcut")

    change = "Change of the mean (best) validation accuracy in points: -5.00 (-5.00) in plain models from depth {} to 32 and "
    residual = "+0.00 (+2.00) with shortcut B from depth 8 to 32."
    assert depth(trials, "both") == change.format(8) + residual
    trials[0] |= {"depth": 14}
    trials[4] |= {"score": 0.92 - 1e-15}  # never -0.00
    assert depth(trials, "other") == change.format(14) + residual
    for number, kept in enumerate((trials[:2], trials[2:], trials[1:4])):
        assert depth(kept, f"kept{number}") == ""


def test_the_finding_of_one_execution_and_of_part_of_the_training(tmp_path: Path) -> None:
    trials = [
        trial(0, 0.8, scores=[0.8], share=1 / 9),
        trial(1, 0.7, scores=[0.7], share=1 / 3, continues="0000"),
        trial(2, 0.6, scores=[0.6], share=1 / 3),
    ]
    text = finding(read_results(write(tmp_path / "s", trials)))
    assert text.startswith("Best of 2 trials trained longest is 0001 (n 3,")
    assert text.endswith(
        ": 70.00 % validation accuracy after 33 % of the training, 1,000 parameters."
    )


def test_a_search_that_only_failed_says_why(tmp_path: Path) -> None:
    trials = [
        trial(0),
        trial(1, reason="out of memory"),
        trial(2, reason="out of memory\nTraceback"),
        trial(3, reason=""),
    ]
    folder = write(tmp_path / "s", trials)
    text = finding(read_results(folder))
    assert text == "No trial completed: 4 failed; 2 of 4 failed with: out of memory."
    page = report(folder).read_text()
    assert text in page and "Traceback" not in page and "<img" not in page
    assert table(page, "Failures and rejections") == [
        ["failed", "out of memory", "2"],
        ["failed", "it broke", "1"],
        ["failed", "no reason was recorded", "1"],
    ]


def test_an_empty_search_has_a_page(tmp_path: Path) -> None:
    page = report(write(tmp_path / "empty", [])).read_text()
    assert "No trial completed." in page and "0 trials." in page and "quickstart" in page
    running = finding(read_results(write(tmp_path / "running", [trial(0, status="running")])))
    assert running == "No trial has completed yet: 1 running."
    refused = [
        {"values": {}, "reason": f"{count} parameters, more than 9"}
        for count in ("1,200", "900", "1,200")
    ]
    folder = write(tmp_path / "refused", [], refused)
    said = "No trial completed: 3 of 3 rejected with: 900 to 1,200 parameters, more than 9."
    assert finding(read_results(folder)) == said
    assert table(report(folder).read_text(), "Failures and rejections") == [
        ["rejected", "900 to 1,200 parameters, more than 9", "3"]
    ]


# The page


def table(page: str, title: str, which: int = 0) -> list[list[str]]:
    """The cells of a table in a section of the page."""
    section = page.split(f"<h2>{title}</h2>")[1].split("</section>")[0]
    body = section.split("<tbody>")[which + 1].split("</tbody>")[0]
    return [
        [html.unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", body)
    ]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    refused = [{"values": values(5, "B"), "reason": "1,234,567 parameters, more than 1,000,000"}]
    folder = write(tmp_path_factory.mktemp("report") / "s", varied(), refused)
    report(folder)
    return folder


FIGURES = ("accuracy-cost", "choices", "depth-shortcut", "progress")


def test_the_page_says_what_the_results_say(done: Path) -> None:
    results, page = read_results(done), (done / "report.html").read_text()
    assert json.loads((done / "report.json").read_text()) == results
    assert (
        finding(results) in html.unescape(page)
        and "25 trials: 22 completed, 2 failed, 1 running; 1 rejected." in page
    )
    own = sorted(comparable(results["trials"]), key=lambda row: -row["score"])
    rows = table(page, "Leaderboard")
    assert [row[0] for row in rows] == [row["trial"] for row in own[:20]] and rows[0][0] == results[
        "best"
    ]
    first = own[0]
    assert rows[0] == [
        first["trial"],
        f"{100 * first['score']:.2f} ± 1.41",
        f"{100 * first['score']:.2f}",
        *(str(first["values"].get(knob, "-")) for knob in SPACE),
        f"{first['parameters']:,}",
        f"{first['multiply_adds']:,}",
        "1.5",
    ]
    assert [row[0] for row in table(page, "Accuracy against cost")] == results["front"][
        "parameters"
    ]
    choices = table(page, "Effect of each hyperparameter")
    none = results["effects"]["model.shortcut"]["options"]["none"]
    mean = f"{100 * none['mean']:.2f} ± {100 * none['deviation']:.2f}"
    assert [
        "shortcut",
        "none",
        str(none["count"]),
        mean,
        f"{100 * none['best']:.2f}",
        "",
    ] in choices
    assert choices[-1][:3] == ["rate", "0.01 to 0.2", "22"]
    assert choices[-1][-1] == f"{results['effects']['schedule.rate']['correlation']:+.2f}"
    gap = results["grid"]["differences"]["none"]
    assert table(page, "Depth by shortcut")[0] == [
        "none (plain)",
        "8",
        "32",
        *(f"{gap[key]:+.2f}" for key in ("mean", "best", "training")),
    ]
    how = dict(table(page, "Setup"))
    assert (how["tuner"], how["seed"], how["base recipe"]) == ("random", "7", "quickstart")
    assert how["limits of a model"] == "1,000,000 parameters" and how["steps trained"] == "3,520"
    assert (
        how["data"] == "digits (1,287 train, 150 validation, 360 test images)"
        and how["time in training"] == "33 s"
    )
    foot = page.split("<footer>")[1]
    assert "reszoo tune depth_shortcut" in foot and "reszoo 0.1.0" in foot and "abc1234" in foot


def test_the_cells_of_the_figure_are_those_of_the_grid(done: Path) -> None:
    svg = (done / "depth-shortcut.svg").read_text()
    found = read_results(done)["grid"]
    for row in found["cells"].values():
        for cell in row.values():
            assert f">{100 * cell['mean']:.2f}<" in svg and f">{cell['count']} trial" in svg
    assert ">none (plain)<" in svg


def test_the_figure_of_the_choices_has_rows_of_three_panels(done: Path) -> None:
    figure = Figure()
    figures.draw_choices(figure, LIGHT, read_results(done), list(SPACE))
    places = [
        (axes.get_position().x0, axes.get_position().y0)
        for axes in figure.axes
        if axes.get_visible()
    ][: len(SPACE)]
    assert (
        len(places)
        == len({left for left, _ in places}) + 1
        == len({low for _, low in places}) + 2
        == 4
    )
    assert places[3][0] == places[0][0] and places[3][1] < places[0][1]


def test_the_page_needs_nothing_beside_it_and_serves_both_backgrounds(done: Path) -> None:
    page = (done / "report.html").read_text()
    assert not re.search(r'(src|href|srcset)="(?!data:)', page) and "url(" not in page
    assert (
        page.count("data:image/svg+xml") == 2 * len(FIGURES)
        and "prefers-color-scheme: dark" in page
    )


def test_the_same_results_give_the_same_files(done: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in done.iterdir() if path.is_file()}
    figures = {f"{name}.{kind}" for name in FIGURES for kind in ("svg", "png")}
    assert set(before) == {"search.json", "oracle.json", "report.json", "report.html"} | figures
    other = tmp_path / "elsewhere"
    shutil.copytree(done, other, ignore=shutil.ignore_patterns("report.*", "*.svg", "*.png"))
    report(other)
    assert {path.name: path.read_bytes() for path in other.iterdir() if path.is_file()} == before


def test_hyperbands_trials_stand_by_share_and_say_what_they_continue(tmp_path: Path) -> None:
    trials = [
        trial(0, 0.5, share=1 / 9),
        trial(1, 0.99, share=1 / 9),
        trial(2, 0.6, share=1 / 3, continues="0000"),
        trial(3, 0.55, continues="0002"),
        trial(4, 0.7, share=1 / 3, continues="0001"),
    ]
    folder = write(tmp_path / "s", trials)
    page = report(folder).read_text()
    assert [row[:3] for row in table(page, "Leaderboard")] == [
        ["0003", "100 %", "0002"],
        ["0004", "33 %", "0001"],
        ["0002", "33 %", "0000"],
        ["0001", "11 %", "-"],
        ["0000", "11 %", "-"],
    ]
    assert "Best of one trial trained longest is 0003" in page
    assert read_results(folder)["front"]["parameters"] == ["0003"]


def test_tables_end_after_twenty_rows(tmp_path: Path) -> None:
    trials = [trial(number, 0.5 + number / 100) for number in range(23)]
    trials += [trial(number, reason=f"broke in way {number}") for number in range(23, 46)]
    page = report(write(tmp_path / "s", trials)).read_text()
    assert [row[0] for row in table(page, "Leaderboard")] == [
        f"{number:04d}" for number in range(22, 2, -1)
    ]
    assert "The best 20 of 23." in page
    assert "Triangles" not in page  # no trial is far below the rest
    assert (
        len(table(page, "Failures and rejections")) == 20 and "The first 20 of 23 reasons." in page
    )


def test_whatever_a_name_holds_is_escaped(tmp_path: Path) -> None:
    nasty = "<b>&\"x'</b>"
    space = {
        f"t.{nasty}": {"options": {nasty: {}, "y": {}}, "when": {}},
        "model.shortcut": {
            "options": {f"{nasty}1": {"model.shortcut": "none"}, f"{nasty}2": {}},
            "when": {},
        },
    }
    trials = [
        trial(
            number,
            0.9,
            values={f"t.{nasty}": nasty, "model.shortcut": f"{nasty}{number + 1}"},
            depth=8 + number,
        )
        for number in range(2)
    ]
    trials.append(trial(2, reason=f"{nasty} broke"))
    told = {"name": nasty, "description": nasty, "command": nasty, "recipe": {"name": nasty}}
    page = report(
        write(tmp_path / "s", trials, [{"values": {}, "reason": nasty}], space=space, **told)
    ).read_text()
    assert "<b>" not in page and "</b>" not in page and '"x' not in page
    assert html.unescape(page).count(nasty) > 12
    assert table(page, "Leaderboard")[0][3:5] == [nasty, f"{nasty}1"]


def test_one_trial_and_no_knob_for_shortcuts_have_a_page(tmp_path: Path) -> None:
    space = {
        "schedule.rate": {"low": 0.011, "high": 0.014, "log": True, "step": 0, "when": {}},
        "train.batch_size": {"low": 8, "high": 64, "log": False, "step": 8, "when": {}},
    }
    one = trial(0, 0.9, values={"schedule.rate": 0.012, "train.batch_size": 8})
    page = report(write(tmp_path / "s", [one], space=space)).read_text()
    assert "Depth by shortcut" not in page and page.count("<img") == 3
    assert "Best of one trial is 0000 (rate 0.012, batch_size 8)" in page
    # No round number lies in so narrow a range; its axis names the ends.
    drawn = (tmp_path / "s" / "choices.svg").read_text()
    assert ">0.0109989<" not in drawn and ">0.011<" in drawn and ">0.014<" in drawn


def test_a_trial_at_chance_is_drawn_at_the_edge(tmp_path: Path) -> None:
    trials = [trial(number, 0.95 + number / 1000) for number in range(8)]
    page = report(write(tmp_path / "one", [*trials, trial(8, 0.1)])).read_text()
    (edge,) = set(re.findall(r"Triangles: below ([\d.]+) %", page))
    assert 10 < float(edge) < 95
