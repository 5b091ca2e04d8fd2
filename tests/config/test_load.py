"""Recipes that extend others, against the same changes given as overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from reszoo.config.load import load_recipe
from reszoo.errors import ReszooError

CHILD = """
extends = "base.toml"
description = "Longer, with a cosine."
[train]
epochs = 30
[schedule]
kind = "cosine"
warmup = 1
"""
BASE = """
extends = "cifar10_resnet20"
description = "Another rate."
[schedule]
rate = 0.2
unit = "epochs"
boundaries = [1, 2]
"""


def test_a_recipe_extends_a_file_beside_it_that_extends_a_packaged_one(tmp_path: Path) -> None:
    (tmp_path / "child.toml").write_text(CHILD)
    (tmp_path / "base.toml").write_text(BASE)
    found = load_recipe(tmp_path / "child.toml", {"train.seed": 3})
    changes = {
        "train.epochs": 30,  # which replaces train.steps
        "train.seed": 3,
        "schedule.kind": "cosine",  # which drops the boundaries
        "schedule.rate": 0.2,
        "schedule.unit": "epochs",
        "schedule.warmup": 1,
    }
    expected = load_recipe("cifar10_resnet20", changes)
    described = {"name": "child", "description": "Longer, with a cosine."}
    assert found.to_dict() == expected.to_dict() | described
    assert "extends" not in found.to_toml()


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        ('"a.toml"', 'a.toml: extends: "a.toml" is invalid; expected a recipe that does not'),
        ('"b.toml"', 'b.toml: extends: "a.toml" is invalid; expected a recipe that does not'),
        ('"c.toml"', 'a.toml: extends: "c.toml" is invalid; no file '),
        ('"cifar10_resnet2"', "a.toml: extends: no recipe 'cifar10_resnet2'; did you mean"),
        ("3", "a.toml: extends: 3 is invalid; expected the name or file of a recipe"),
        ('"quickstart"', 'a.toml: schedule.rate: "x" is invalid; expected a number > 0'),
    ],
)
def test_what_cannot_be_extended_is_one_line(extends: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f'extends = {extends}\n[schedule]\nrate = "x"')
    (tmp_path / "b.toml").write_text('extends = "a.toml"')
    with pytest.raises(ReszooError) as caught:
        load_recipe(tmp_path / "a.toml")
    assert message in str(caught.value) and "\n" not in str(caught.value)
