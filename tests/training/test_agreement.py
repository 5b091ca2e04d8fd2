"""Workers agree on worker 0's recipe, each with its own location of the data; errors are everybody's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from reszoo.cli.launch import free_addresses
from reszoo.config.load import load_recipe
from reszoo.errors import ReszooError
from reszoo.training.agreement import agree
from reszoo.training.cluster import Hosts

QUICK = load_recipe("quickstart", ["train.seed=4"])


def agree_all(*workers: dict[str, Any]) -> list[Any]:
    """Return what `agree` returned or raised on each worker."""
    addresses = free_addresses(len(workers))
    start = {
        "recipe": None,
        "overrides": (),
        "resume": False,
        "data": None,
        "devices": "cpu",
        "quiet": True,
    }
    with ThreadPoolExecutor(len(workers)) as pool:
        futures = [
            pool.submit(agree, Hosts(addresses, index), **{**start, **worker})
            for index, worker in enumerate(workers)
        ]
        return [future.exception(60) or future.result() for future in futures]


def test_followers_get_the_recipe_and_resume_of_worker_0(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(QUICK.to_toml())
    own = {"recipe": tmp_path / "own.toml", "resume": True}
    given = {"recipe": "quickstart", "overrides": ["train.seed=4"], "resume": True}
    assert agree_all(given, {}, own) == [(QUICK, True, None)] * 3


def test_each_worker_keeps_its_own_location_of_the_data(tmp_path: Path) -> None:
    folders = [f"folder:{tmp_path / name}" for name in "abc"]
    first = {"recipe": "finetune", "overrides": [f"data.name={folders[0]}"]}
    second = {"recipe": "finetune", "overrides": [f"data.name={folders[1]}"]}
    found = agree_all(first, second, {"data": folders[2]}, {})
    names = [recipe.data.name for recipe, *_ in found]
    assert names == [*folders, folders[0]]


@pytest.mark.parametrize(
    ("workers", "line"),
    [
        (({"recipe": QUICK}, {"recipe": "quickstrat"}), "worker 1 (ADDRESS): no recipe 'quickstr"),
        (({"recipe": QUICK}, {"recipe": "quickstart"}), "worker 1 (ADDRESS): train.seed: 0 is inv"),
        (({"recipe": QUICK}, {"devices": "cpu:2"}), "worker 1 (ADDRESS): devices: '2 CPU' is inv"),
        (({"recipe": QUICK}, {"devices": "tpu"}), "worker 1 (ADDRESS): devices: tpu is invalid; e"),
        (({}, {"recipe": QUICK}), "recipe: none is given; expected one, except on"),
    ],
)
def test_an_error_is_the_same_line_on_all(workers: tuple[dict[str, Any], ...], line: str) -> None:
    first, second = agree_all(*workers)
    assert type(first) is type(second) is ReszooError and str(first) == str(second)
    start, _, rest = line.partition("ADDRESS")
    assert str(first).startswith(start) and rest in str(first)
