"""Run folders of an experiment."""

from __future__ import annotations

from pathlib import Path

import pytest

from reszoo.errors import ReszooError
from reszoo.lab.degradation import base_recipe, twin_recipes
from reszoo.lab.runs import train_all
from reszoo.reporting.reporter import Reporter
from tests.lab.conftest import OPTIONS


def test_a_folder_of_another_recipe_is_rejected_before_training(done: Path) -> None:
    recipe, other = twin_recipes(8, base_recipe("digits", 4, OPTIONS["overrides"]), 0)
    recipe = recipe.replace(schedule=recipe.schedule.replace(rate=0.5))
    plan = {"new": other, "plain8-seed0": recipe}
    with pytest.raises(ReszooError, match=r"another \[schedule\].*give another --out"):
        train_all(done / "runs", plan, reporter=Reporter(quiet=True))
    assert not (done / "runs" / "new").exists()


def test_each_run_is_reported_in_one_line(done: Path) -> None:
    lines = (done / "degradation.log").read_text().splitlines()[:4]
    assert [line.split("  ")[1].split(":")[0] for line in lines] == [
        f"{number}/4 {name}-seed0"
        for number, name in enumerate(("plain8", "resnet8", "plain14", "resnet14"), 1)
    ]
    assert "min left" in lines[0] and "min left" not in lines[3]
