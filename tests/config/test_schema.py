"""The JSON Schema of recipes against a validator that is not ours."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import jsonschema
import pytest

from reszoo.config.load import load_recipe, recipe_folder, recipe_names
from reszoo.config.schema import FILE, recipe_schema


def errors(tables: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(recipe_schema())
    return [".".join(map(str, error.absolute_path)) for error in validator.iter_errors(tables)]


def test_the_packaged_file_is_the_schema() -> None:
    """Made anew by `reszoo recipes --schema > recipes/recipe.schema.json`."""
    assert json.loads((recipe_folder() / FILE).read_text()) == recipe_schema()
    jsonschema.Draft202012Validator.check_schema(recipe_schema())


@pytest.mark.parametrize("name", recipe_names())
def test_packaged_recipes_are_valid_as_written_and_in_full(name: str) -> None:
    assert errors(tomllib.loads((recipe_folder() / f"{name}.toml").read_text())) == []
    assert errors(load_recipe(name).to_dict()) == []


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("train", {"batch_size": 0}),
        ("train", {"batchsize": 4}),
        ("schedule", {"kind": "cosine", "boundaries": [1]}),
        ("augment", {"crop": "pad", "scale": [2, 3]}),
        ("model", {"name": "resnet20", "shortcut": "D"}),
        ("model", {"name": "resnet20", "shortcutt": "A"}),
        ("data", {"channels": 2}),
    ],
)
def test_invalid_tables_are_reported(table: str, values: dict[str, Any]) -> None:
    tables = load_recipe("cifar10_resnet20").to_dict()
    assert any(
        path.startswith(table) for path in errors({**tables, table: {**tables[table], **values}})
    )


@pytest.mark.parametrize(
    ("tables", "wrong"),
    [
        ({"extends": "quickstart", "train": {"epochs": 3}, "model": {"shortcut": "B"}}, []),
        ({"extends": "quickstart", "schedule": {"peak": 0.3}}, []),
        ({"extends": "quickstart", "train": {"epoch": 3}}, ["train"]),
        ({"extends": "quickstart", "optimizer": {"momentum": 2}}, ["optimizer.momentum"]),
        ({"train": {"epochs": 3}}, [""]),  # tables are missing
    ],
)
def test_a_recipe_that_extends_another_states_only_changes(
    tables: dict[str, Any], wrong: list[str]
) -> None:
    assert sorted(set(errors(tables)))[: len(wrong)] == wrong and bool(errors(tables)) == bool(
        wrong
    )
