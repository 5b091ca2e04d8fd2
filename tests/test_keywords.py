"""A keyword that a public function does not take is one line that names the right one."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import reszoo
from reszoo import ReszooError
from reszoo.config.recipe import TABLES
from reszoo.keywords import PARAMETERS, RECIPE_KEYS, explain_keywords


@pytest.mark.parametrize(
    ("function", "keywords", "says"),
    [
        ("train", {"epochs": 10},
         'train: epochs=10 is invalid; it is a key of the recipe. Example: train(recipe, overrides=["train.epochs=10"])'),
        ("train", {"lr": 0.1}, 'overrides=["schedule.rate=0.1"]'),
        ("train", {"optimizer": "adam"}, 'overrides=["optimizer.name=adam"]'),
        ("train", {"dataset": [1, 2]}, "expected a dict of train, test and perhaps validation"),
        ("train", {"model": "resnet56"}, 'overrides=["model.name=resnet56"]'),
        ("train", {"pretrained": True}, 'overrides=["model.weights=imagenet"]'),
        ("train", {"output_dir": "x"}, "expected run_dir"),
        ("train", {"gpus": 2}, "expected devices"),
        ("train", {"verbose": 0}, "expected quiet"),
        ("train", {"override": []}, "did you mean 'overrides'?"),
        ("evaluate", {"dataset": "x"}, "expected data"),
        ("evaluate", {"splitt": "x"}, "did you mean 'split'?"),
        ("evaluate", {"epochs": 3}, "expected one of model, data, split"),
        ("export", {"int8": True}, "expected quantize"),
        ("export", {"imgsz": 224}, "expected image_size"),
        ("predict", {"top_k": 3}, "expected top"),
        ("predict", {"net": "x"}, "expected model"),
    ],
)  # fmt: skip
def test_an_unknown_keyword_names_the_right_one(
    function: str, keywords: dict[str, Any], says: str
) -> None:
    with pytest.raises(ReszooError) as caught:
        getattr(reszoo, function)("quickstart", **keywords)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(set(RECIPE_KEYS.values())))
def test_every_recipe_key_exists(key: str) -> None:
    table, _, name = key.partition(".")
    assert table == "model" or name in TABLES[table].fields_of_alternatives()


def test_signatures_stay_and_known_keywords_pass() -> None:
    for name in ("train", "evaluate", "export", "predict"):
        parameters = inspect.signature(getattr(reszoo, name)).parameters
        assert "args" not in parameters and "keywords" not in parameters
        assert parameters.keys() & PARAMETERS.keys()

    @explain_keywords
    def add(one: int, *, other: int = 2) -> int:
        return one + other

    assert add(1) == 3 and add(1, other=5) == 6 and add(one=1) == 3
    with pytest.raises(TypeError):
        add()  # type: ignore[call-arg]
