"""What makes a worker differ from worker 0, and what is a greeting at all."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from reszoo.config.load import load_recipe
from reszoo.training.greeting import Greeting


def greeting(*overrides: str, **changes: Any) -> Greeting:
    made = Greeting(
        {"keras": "1", "numpy": "2"}, "1 CPU", load_recipe("finetune", overrides).to_toml()
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    ("ours", "theirs", "line"),
    [
        (greeting(), greeting(), ""),
        (greeting(), greeting(recipe="", resume=True), ""),
        # Locations may differ; worker 0 alone reads weights.
        (greeting("data.name=folder:/a"), greeting("data.name=folder:/b"), ""),
        (greeting("data.name=cifar10", "data.dir=/a"), greeting("data.name=cifar10"), ""),
        (greeting("model.weights=/a.h5"), greeting("model.weights=/b/c.h5"), ""),
        (greeting("data.name=folder:/a"), greeting("data.name=digits"), "data.name: 'digits' is"),
        (greeting(), greeting("train.seed=3"), "train.seed: 3 is invalid; expected 0, as on"),
        (greeting(recipe="a = 'tag'"), greeting(recipe="a = '/b'"), "a: '/b' is invalid; expected"),
        (greeting(), greeting(recipe="a ="), "recipe: its text is invalid; expected TOML"),
        (greeting(), greeting(recipe="[a]\nb = 1"), "a.b: 1 is invalid; expected"),
        (greeting(), greeting(versions={"keras": "1"}), "numpy: None is invalid; expected '2'"),
        (greeting(), greeting(devices="1 GPU"), "devices: '1 GPU' is invalid; expected '1 CPU'"),
        (greeting(), greeting(error="wrong", devices="?"), "wrong"),
    ],
)
def test_differences_are_named(ours: Greeting, theirs: Greeting, line: str) -> None:
    found = ours.difference(theirs)
    assert found.startswith(line) and bool(found) == bool(line)


@pytest.mark.parametrize(
    "content",
    [None, 3, [], {}, {"versions": {}}, dataclasses.asdict(greeting()) | {"more": 1}]
    + [dataclasses.asdict(greeting()) | {key: 3} for key in dataclasses.asdict(greeting())],
)
def test_anything_else_is_not_a_greeting(content: object) -> None:
    with pytest.raises(ConnectionError):
        Greeting.from_json(content)


def test_a_greeting_is_read_back() -> None:
    assert Greeting.from_json(dataclasses.asdict(greeting())) == greeting()
