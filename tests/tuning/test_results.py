"""Results of a search, from records written by hand: best trial, fronts, effects, grid and damaged files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reszoo.errors import ReszooError
from reszoo.tuning.report import report
from reszoo.tuning.results import best_trial, effects, grid, pareto, read_results, spearman
from tests.tuning.written import SEARCH, SPACE, comparable, trial, values, varied, write

few = st.integers(0, 4)  # few different values, for many ties
share = st.sampled_from([1 / 3, 1.0])
status = st.sampled_from(["completed", "failed", "running"])
rows = st.lists(st.tuples(few, few, few, share, status), max_size=12)


@given(rows, st.sampled_from(["parameters", "macs"]))
@settings(max_examples=100, deadline=None)
def test_the_best_trial_and_the_front_are_what_nothing_beats(rows: Any, cost: Any) -> None:
    trials: Any = [
        trial(number, score / 4, parameters=parameters, macs=macs, share=share, status=status)
        for number, (score, parameters, macs, share, status) in enumerate(rows)
    ]
    own = comparable(trials)

    def dominates(one: dict[str, Any], other: dict[str, Any]) -> bool:
        worse = one[cost] > other[cost] or one["score"] < other["score"]
        equal = (one[cost], one["score"]) == (other[cost], other["score"])
        return not worse and (not equal or one["trial"] < other["trial"])

    kept = [one for one in own if not any(dominates(other, one) for other in own)]
    front = [record["trial"] for record in sorted(kept, key=lambda record: record[cost])]
    assert pareto(trials, cost) == pareto(trials[::-1], cost) == front
    best = best_trial(trials)
    assert (best is None) == (not own)
    if best:
        equal = [each for each in own if each["score"] == max(other["score"] for other in own)]
        small = min(each["parameters"] for each in equal)
        assert best == next(each for each in equal if each["parameters"] == small)
        assert best == best_trial(trials[::-1])


def test_short_trials_are_not_compared_with_whole_ones_and_ids_are_numbers() -> None:
    trials: Any = [trial(0, 0.99, share=1 / 3), trial(1, 0.9, continues="0000"), trial(2, 0.8, parameters=10)]  # fmt: skip
    best = best_trial(trials)
    assert best and best["trial"] == "0001" and pareto(trials, "parameters") == ["0002", "0001"]
    assert effects(trials, SPACE)["n"]["options"]["3"]["scores"] == [0.9, 0.8]
    many: Any = [trial(10_000, 0.5), trial(9_999, 0.5)]
    best = best_trial(many)
    assert best and best["trial"] == "9999" and pareto(many, "parameters") == ["9999"]


def test_rank_correlation_needs_three_pairs_and_two_values() -> None:
    assert spearman([1, 2], [1, 2]) is None and spearman([], []) is None
    assert spearman([1, 1, 1], [1, 2, 3]) is None and spearman([1, 2, 3], [0.5, 0.5, 0.5]) is None
    assert spearman([1, 2, 3], [3, 2, 1]) == -1 and spearman([1, 10, 100], [0.1, 0.2, 0.9]) == 1
    ties = spearman([1, 2, 2, 3], [1, 2, 3, 4])  # ranks 1, 2.5, 2.5, 4
    assert ties == pytest.approx(3 / 10**0.5)


def test_effects_are_by_option_and_exclude_inactive_hyperparameters() -> None:
    trials: Any = varied(shares=(1.0, 1.0, 1 / 3))
    own = comparable(trials)
    found = effects(trials, SPACE)
    assert list(found) == list(SPACE)
    for name in ("n", "model.shortcut", "model.zero_gamma"):
        for label in SPACE[name]["options"]:
            scores = [each["score"] for each in own if each["values"].get(name) == label]
            assert found[name]["options"][label] == {
                "count": len(scores),
                "mean": pytest.approx(np.mean(scores)) if scores else None,
                "deviation": pytest.approx(np.std(scores, ddof=1)) if len(scores) > 1 else None,
                "best": max(scores, default=None),
                "scores": scores,
            }
    rates = [each["values"]["schedule.rate"] for each in own]
    scores = [each["score"] for each in own]
    expected = {"count": len(own), "correlation": spearman(rates, scores)}
    assert found["schedule.rate"] == {**expected, "values": rates, "scores": scores}


def test_the_grid_is_depth_by_shortcut() -> None:
    trials: Any = varied(shares=(1.0, 1.0, 1.0, 1 / 3))
    own = comparable(trials)
    found = grid(trials, SPACE)
    assert found and found["depths"] == [8, 20, 32]
    assert found["shortcuts"] == ["none", "A", "B"] and found["plain"] == ["none"]
    for label in found["shortcuts"]:
        cells = found["cells"][label]
        for depth in (8, 20, 32):
            some = [each for each in own if (each["values"]["model.shortcut"], each["depth"]) == (label, depth)]  # fmt: skip
            scores = [each["score"] for each in some]
            training = [np.mean(each["training"]) for each in some]
            assert cells.get(str(depth)) == (
                {
                    "count": len(some),
                    "mean": pytest.approx(np.mean(scores)),
                    "best": max(scores),
                    "training": pytest.approx(np.mean(training)),
                }  # fmt: skip
                if some
                else None
            )
        points = {key: pytest.approx(100 * (cells["32"][key] - cells["8"][key])) for key in ("mean", "best", "training")}  # fmt: skip
        assert found["differences"][label] == {"shallow": 8, "deep": 32, **points}
    assert found["differences"]["none"]["mean"] < -5


def test_depth_is_compared_if_a_shortcut_has_two_and_plain_is_what_sets_none() -> None:
    pair: Any = [
        trial(0, 0.9, values=values(1, "A"), depth=8, training=[]),
        trial(1, 0.95, values=values(5, "A"), depth=32),
        trial(2, 0.5, values=values(5, "none"), depth=32),
    ]
    found = grid(pair, SPACE)
    gap = {"shallow": 8, "deep": 32, "mean": pytest.approx(5), "best": pytest.approx(5), "training": None}  # fmt: skip
    assert found and found["differences"] == {"none": None, "A": gap, "B": None}
    assert grid(pair, {"n": SPACE["n"]}) is None
    options = {"bare": {"model.shortcut": "none"}, "none": {"model.shortcut": "B"}}
    found = grid([], {"model.shortcut": {"options": options}})
    assert found and found["plain"] == ["bare"]


def test_results_hold_what_was_written_and_what_follows(tmp_path: Path) -> None:
    trials: Any = varied()
    rejected = [{"values": values(5, "B"), "reason": "1,234,567 parameters, more than 1,000,000"}]
    results = read_results(write(tmp_path / "s", trials[::-1], rejected))
    assert {key: results[key] for key in SEARCH} == SEARCH
    assert results["trials"] == trials and results["rejected"] == rejected
    best = best_trial(trials)
    assert best and results["best"] == best["trial"]
    assert results["front"]["macs"] == pareto(trials, "macs")
    counts = {"trials": 25, "completed": 22, "failed": 2, "running": 1, "rejected": 1}
    work = {"trained_steps": 22 * 160, "seconds": pytest.approx(22 * 1.5)}
    assert results["totals"] == counts | work


def test_results_need_no_tensorflow() -> None:
    code = (
        "import sys, reszoo.tuning.results, reszoo.tuning.proposals; "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


RECORD = "trials/0000/trial.json"
DAMAGE: list[tuple[str, Any, str]] = [
    ("search.json", "{", "search.json is damaged"),
    ("search.json", "[]", "search.json is damaged"),
    ("search.json", b"\xff\xfe", "search.json is damaged"),
    ("search.json", {"space": []}, "search.json is damaged: space:"),
    ("search.json", {"data": None}, "search.json is damaged: data:"),
    ("search.json", {"name": 3}, "search.json is damaged: name:"),
    ("search.json", {"space": {"n": {"low": 1}}}, "search.json is damaged: space.n"),
    ("search.json", {"space": {"n": {"options": {"3": 3}}}}, "search.json is damaged: space.n"),
    ("search.json", {"environment": {"versions": 3}}, "search.json is damaged"),
    ("oracle.json", "no", "oracle.json is damaged"),
    ("oracle.json", {"rejected": [3]}, "oracle.json is damaged: rejected.0"),
    (RECORD, "", "trial.json is damaged"),
    (RECORD, {"trial": 0}, "trial.json is damaged: trial:"),
    (RECORD, {"status": "done"}, "trial.json is damaged: status:"),
    (RECORD, {"values": {"n": 3}}, "trial.json is damaged: values.n"),
    (RECORD, {"values": {"schedule.rate": "x"}}, "trial.json is damaged: values.schedule.rate"),
    (RECORD, {"parameters": None}, "trial.json is damaged: parameters:"),
    (RECORD, {"score": float("nan")}, "trial.json is damaged: score:"),
    (RECORD, {"share": True}, "trial.json is damaged: share:"),
    (RECORD, {"scores": ["x"]}, "trial.json is damaged: scores.0"),
    (RECORD, {"training": 3}, "trial.json is damaged: training:"),
    (RECORD, {"continues": 5}, "trial.json is damaged: continues:"),
    (RECORD, '{"trial": "0", "values": {}, "status": "completed"}', "trial.json is damaged: score"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE)
def test_damaged_files_are_reported_in_one_line(
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


def test_a_folder_without_a_search_is_rejected(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ReszooError, match="not a search folder; it has no search.json"):
            report(folder)
    assert list(tmp_path.iterdir()) == []
