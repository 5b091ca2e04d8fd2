"""Comparisons of tiny models: a record follows from what was measured, and a wrong argument is one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import reszoo
from reszoo.bench import comparison
from reszoo.bench.comparison import PRODUCT_GFLOP, bench, summarize
from reszoo.bench.photographs import write_photographs
from reszoo.bench.sides import Job
from reszoo.bench.turns import Measured, Ready
from reszoo.errors import ReszooError


def measured(*seconds: float) -> Measured:
    return Measured(Ready({"x": "1"}), list(seconds))


def test_ratios_are_taken_within_a_round() -> None:
    # The machine halves its speed after the first round: medians alone would mislead, the ratio does not.
    sides = {"reszoo": measured(1, 2, 2), "torch": measured(2, 4, 4), "matrix": measured(0.5, 0.5)}
    result = summarize(Job("", "train", "resnet20", 400, 32, 10), sides)
    torch, own = result["sides"]["torch"], result["sides"]["reszoo"]
    assert torch["reszoo_times_faster"] == 2 and torch["reszoo_times_faster_range"] == [2, 2]
    assert own["images_per_second"] == 200 and own["range"] == [200, 400]
    work = 6 * reszoo.count("resnet20").macs / 1e9
    assert result["gflop_an_image"] == pytest.approx(work, rel=1e-3)
    assert result["matrix_product_gflops"] == pytest.approx(2 * PRODUCT_GFLOP)
    share = 200 * work / (2 * PRODUCT_GFLOP)
    assert own["share_of_matrix_product"] == pytest.approx(share, abs=1e-3)
    assert list(result["sides"]) == ["reszoo", "torch"]


def test_fewer_seconds_are_faster() -> None:
    sides = {"reszoo": measured(1, 2), "keras": measured(3, 4)}
    rows = summarize(Job("", "build", "resnet50", 16, 224, 1000), sides)["sides"]
    assert rows["keras"]["reszoo_times_faster_range"] == [2, 3] and rows["reszoo"]["seconds"] == 1.5


def test_training_beside_stock_keras(tmp_path: Path) -> None:
    """The whole command; no log line of TensorFlow reaches the user."""
    file = tmp_path / "record.json"
    words = "bench train resnet8 --against keras --batch 4 --rounds 1 --json".split()
    command = [sys.executable, "-m", "reszoo", *words, str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    printed = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[:2] for row in printed[1:]] == [["resnet8 b4", "reszoo"], ["resnet8 b4", "keras"]]
    assert "times as fast" in printed[2][4] and printed[2][7].startswith("tensorflow 2")
    record = json.loads(file.read_text())
    assert record["command"] == " ".join(["reszoo", *words, "OUT.json"])
    assert record["versions"]["reszoo"] == reszoo.__version__
    (model,) = record["models"]
    own, stock = model["sides"]["reszoo"], model["sides"]["keras"]
    assert own["parameters"] == stock["parameters"] == reszoo.count("resnet8").parameters
    low, high = stock["reszoo_times_faster_range"]
    assert 0 < low <= stock["reszoo_times_faster"] <= high
    assert own["range"][0] <= own["images_per_second"] <= own["range"][1] and own["peak_mb"] > 100


@pytest.mark.slow
def test_everything_else_that_reszoo_measures(tmp_path: Path) -> None:
    variants = ["reszoo-jit", "reszoo-on-host", "reszoo-on-device"]
    train = bench("train", ["resnet8"], batch=4, against=variants, rounds=1)["models"][0]["sides"]
    assert list(train) == ["reszoo", *variants]
    assert len({row["parameters"] for row in train.values()}) == 1
    infer = bench("infer", ["resnet8"], batch=4, against=["keras"], rounds=1)["models"][0]["sides"]
    for row in (*train.values(), *infer.values()):
        assert row["images_per_second"] > 0
    first = bench("first-step", ["resnet8"], batch=4, rounds=1)["models"][0]["sides"]["reszoo"]
    assert first["seconds"] > 0 and first["build_seconds"] > 0 and first["peak_mb"] > 100
    for name in ("cifar", "photographs"):
        row = bench("input", [name], rounds=1)["models"][0]["sides"]["reszoo"]
        assert row["images_per_second"] > 0
    write_photographs(tmp_path, 8)
    sizes = [path.stat().st_size for path in tmp_path.rglob("*.jpg")]
    assert len(sizes) == 8 and 60_000 < sum(sizes) / 8 < 90_000
    with pytest.raises(
        ReszooError, match=r"keras cannot take part: keras.applications has no resn"
    ):
        bench("build", ["resnet8"], against=["keras"], rounds=1)


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet20", "torch"), ("plain20", "torch"), ("resnet18", "torch"), ("resnet18", "timm")],
)
def test_peers_train_the_same_model(name: str, side: str) -> None:
    peer = os.environ.get("RESZOO_PEER")
    if not peer:
        pytest.skip("RESZOO_PEER names no Python")
    record = bench("train", [name], batch=2, against=[side], peer=peer, rounds=1)
    rows = record["models"][0]["sides"]
    assert rows["reszoo"]["parameters"] == rows[side]["parameters"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"what": "walk"}, "what: walk is invalid; expected one of train, infer, input, build"),
        ({"what": "train", "models": ["resnet21"]}, "resnet21"),
        ({"what": "input", "models": ["resnet20"]}, "input: resnet20 is invalid; expected cifar"),
        ({"what": "train", "against": ["jax"]}, "against: jax is invalid for train; expected"),
        ({"what": "input", "against": ["keras"]}, "against: keras is invalid for input"),
        ({"what": "infer", "against": ["reszoo-jit"]}, "reszoo-jit is invalid for infer"),
        ({"what": "train", "rounds": 0}, "rounds: 0 is invalid; expected an integer >= 1"),
        ({"what": "train", "device": "tpu"}, "device: tpu is invalid; expected cpu or gpu"),
        ({"what": "build", "batch": 8}, "batch: 8 is invalid for build; expected it to be unset"),
        ({"what": "input", "batch": 8}, "batch: 8 is invalid for input; expected it to be unset"),
        ({"what": "input", "precision": "mixed_bfloat16"}, "mixed_bfloat16 is invalid for input"),
        (
            {"what": "input", "models": ["cifar"], "against": ["torch"], "peer": "/nowhere/python"},
            "/nowhere/python cannot be started for reszoo",
        ),
    ],
)
def test_an_invalid_argument_is_reported_in_one_line_before_anything_starts(
    arguments: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison.sys, "executable", "/nowhere/python")
    with pytest.raises(ReszooError) as caught:
        bench(**arguments)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_other_libraries_run_in_the_peers_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each side gets its job; reszoo's own and Keras stay in this Python."""
    seen: dict[str, list[str]] = {}

    def take_turns(commands: dict[str, list[str]], rounds: int, **options: Any) -> dict:
        seen.update(commands)
        assert rounds == 3 and options["threads"] == 2 and options["once"] is False
        return {name: measured(1.0) for name in commands}

    monkeypatch.setattr(comparison, "take_turns", take_turns)
    sides = ["torch", "keras", "reszoo-jit"]
    bench("train", ["resnet8"], against=sides, peer="/peer", rounds=3, threads=2, batch=5)
    assert list(seen) == ["reszoo", *sides, "matrix"]
    assert [name for name, command in seen.items() if command[0] == "/peer"] == ["torch"]
    for name, command in seen.items():
        job = json.loads(command[-1])
        matrix = name == "matrix"
        assert job["side"] == ("reszoo" if matrix else name)
        assert job["what"] == ("matrix" if matrix else "train") and job["batch"] == 5
