"""Ways to the deepest model: equal cost, exact growth."""

from __future__ import annotations

from pathlib import Path

import pytest

import reszoo
from reszoo.lab.constructed import compare_growth, constructed, measure_growth, plan_runs
from reszoo.lab.report import finding
from tests.lab.conftest import OPTIONS


def test_every_path_costs_the_same_and_grows_from_the_run_before(tmp_path: Path) -> None:
    plan, ways = plan_runs(tmp_path, "digits", [8, 14, 20], 300, 2, [])
    paths = {"scratch": [20], "grown": [8, 20], "staged": [8, 14, 20]}
    assert set(ways) == {
        (kind, way, seed) for kind in ("plain", "residual") for way in paths for seed in (0, 1)
    }
    for (kind, way, seed), names in ways.items():
        recipes = [plan[name] for name in names]
        prefix = "plain" if kind == "plain" else "resnet"
        assert [recipe.model.name for recipe in recipes] == [f"{prefix}{n}" for n in paths[way]]
        assert {recipe.train.seed for recipe in recipes} == {seed}
        sources = [recipe.train.grow_from for recipe in recipes]
        assert sources == ["", *(str(tmp_path / name) for name in names[:-1])]
        cost = sum(recipe.train.steps * reszoo.count(recipe.model.name).macs for recipe in recipes)
        assert cost == pytest.approx(300 * reszoo.count("resnet20").macs, rel=0.01)


@pytest.mark.parametrize(
    ("before", "after", "answer"),
    [([5, 6], [9, 11], "loses"), ([9, 11], [5, 6], "improves"), ([5, 6], [6, 5], "keeps")],
)
def test_growth_is_compared_seed_by_seed(
    before: list[float], after: list[float], answer: str
) -> None:
    ways = [
        {
            "kind": "plain",
            "way": "grown",
            "pieces": [{"final_training_error": error} for error in pair],
        }
        for pair in zip(before, after, strict=True)
    ]
    found = compare_growth(ways, "plain")
    assert found["answer"] == answer
    assert found["difference"] == pytest.approx((sum(after) - sum(before)) / 2)


def test_measures_compare_grown_models_with_those_from_scratch() -> None:
    def part(training: float, test: float, difference: float = -1) -> dict[str, object]:
        grown = None if difference < 0 else {"difference": difference}
        return {"final_training_error": training, "final_test_error": test, "grown": grown}

    ways = [
        {"kind": "plain", "way": "scratch", "pieces": [part(60, 70)]},
        {"kind": "plain", "way": "grown", "pieces": [part(5, 6), part(7, 8, 1e-5)]},
        {"kind": "plain", "way": "scratch", "pieces": [part(50, 60)]},
        {"kind": "plain", "way": "grown", "pieces": [part(3, 4), part(4, 5, 2e-5)]},
        {"kind": "residual", "way": "scratch", "pieces": [part(0, 0)]},
    ]
    assert measure_growth(ways, "plain") == {
        "output_change": 2e-5, "kept": 1.5, "missed": 49.5, "missed_test": 58.5,
    }  # fmt: skip


@pytest.mark.slow
def test_grown_models_start_where_the_shallow_ones_ended(tmp_path: Path) -> None:
    record = constructed(tmp_path / "out", **{**OPTIONS, "budget": 8})
    ways = record["results"]["ways"]
    assert {(row["kind"], row["way"]) for row in ways} == {
        (kind, way) for kind in ("plain", "residual") for way in ("scratch", "grown")
    }
    for row in ways:
        for before, part in zip(row["pieces"], row["pieces"][1:], strict=False):
            assert part["grown"]["model"] == before["model"]
            assert part["grown"]["difference"] <= (0 if row["kind"] == "residual" else 1e-4)
        macs = [reszoo.count(part["model"], (8, 8, 1), 10).macs for part in row["pieces"]]
        spent = sum(part["steps"] * cost for part, cost in zip(row["pieces"], macs, strict=True))
        assert row["pieces"][-1]["macs"][-1] == pytest.approx(3 * 20 * spent / 1e9)
    assert f"{compare_growth(ways, 'plain')['difference']:+.2f}" in finding(record)
