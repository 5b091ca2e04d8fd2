"""Comparisons of real, tiny nets: what a record says follows from what was measured, and what cannot be is said in a line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import reszoo
from reszoo.bench.run import PRODUCT, Side, _child, _summary, bench, write_photographs
from reszoo.cli.main import main
from reszoo.errors import ReszooError

WITHOUT_TORCH = pytest.mark.skipif(
    importlib.util.find_spec("torch") is not None, reason="PyTorch is installed here"
)


def test_ratios_are_taken_within_a_round() -> None:
    job = {"what": "train", "model": "resnet20", "batch": 128, "size": 32}
    # The machine halves its speed after the first round: medians of each side alone would mislead, the ratio does not.
    own, other = (
        Side("reszoo", "v", [400.0, 200.0, 200.0]),
        Side("torch", "w", [200.0, 100.0, 100.0]),
    )
    result = _summary(job, [own, other, Side("matrix", "", [3.0, 3.0, 3.0])])
    assert (
        result["sides"]["torch"]["reszoo_times_faster"]
        == 2
        == result["sides"]["torch"]["reszoo_times_faster_range"][1]
    )
    work = 6 * reszoo.count("resnet20").multiply_adds / 1e9
    assert result["gflop_an_image"] == pytest.approx(work, rel=1e-3)
    assert result["matrix_product_gflops"] == pytest.approx(3 * PRODUCT)
    assert result["sides"]["reszoo"]["share_of_matrix_product"] == pytest.approx(
        200 * work / (3 * PRODUCT), abs=1e-3
    )
    assert "matrix" not in result["sides"]


def test_fewer_seconds_are_faster() -> None:
    sides = [Side("reszoo", "v", [1.0, 2.0]), Side("keras", "w", [3.0, 4.0])]
    result = _summary({"what": "build", "model": "resnet50"}, sides)
    assert result["sides"]["keras"]["reszoo_times_faster_range"] == [2, 3]
    assert result["sides"]["reszoo"]["seconds"] == 1.5


BUSY = """
import json, sys, threading, time
count = 0
def work():
    global count
    while True:
        time.sleep(0.001)
        count += 1
threading.Thread(target=work, daemon=True).start()
print(json.dumps({"version": "1"}), flush=True)
for line in sys.stdin:
    print(json.dumps({"count": count}), flush=True)
"""


def test_a_side_stands_still_in_the_others_turns() -> None:
    """Or it would read ahead, and be faster for what it did while another was measured."""
    with _child([sys.executable, "-c", BUSY], "busy", {"threads": 2, "device": "cpu"}) as child:
        child.wait_ready()
        before = child.ask(1)["count"]
        time.sleep(0.5)
        assert child.ask(1)["count"] - before < 100
        process = child.process
    assert process.returncode is not None


LIMITS = """
import json, os
keys = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
told = {key: os.environ.get(key) for key in keys}
print(json.dumps({"version": "1", "cores": len(os.sched_getaffinity(0)), **told}), flush=True)
input()
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system cannot limit a process to some cores"
)
def test_a_side_runs_on_the_threads_and_the_device_of_its_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    before = os.sched_getaffinity(0)
    for threads in {1, len(before)}:
        with _child(
            [sys.executable, "-c", LIMITS], "some", {"threads": threads, "device": "cpu"}
        ) as child:
            told = child.wait_ready()
            assert (told["cores"], told["OMP_NUM_THREADS"]) == (threads, str(threads))
            assert told["CUDA_VISIBLE_DEVICES"] == ""
    with _child([sys.executable, "-c", LIMITS], "some", {"threads": 1, "device": "gpu"}) as child:
        told = child.wait_ready()
        assert told["CUDA_VISIBLE_DEVICES"] is None
    assert os.sched_getaffinity(0) == before


ENDLESS = """
import sys
from reszoo.bench import run
from reszoo.cli.main import main
side = [sys.executable, "-c", sys.argv[1]]
run._commands = lambda *_: iter([("reszoo", side), ("torch", side)])
run.TURN = 0.01
sys.exit(main(["bench", "train", "resnet8", "--against", "torch", "--rounds", "1000000000"]))
"""
SIDE = """
import json, os, sys, time
print(json.dumps({"version": "1"}), flush=True)
for line in sys.stdin:
    time.sleep(0.01)
    print(os.getpid(), file=open(os.environ["PIDS"], "a"), flush=True)
    print(json.dumps({"seconds": 0.01, "peak_mb": 1}), flush=True)
"""


def test_sigterm_leaves_no_side_behind(tmp_path: Path) -> None:
    """A side stands still in the others' turns; left so, it would keep the memory of a GPU."""
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", ENDLESS, SIDE]
    with subprocess.Popen(command, env=os.environ | {"PIDS": str(pids)}) as process:
        while not pids.is_file() or len(sides := set(pids.read_text().split())) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
    assert process.returncode == 143
    states = [Path(f"/proc/{pid}/stat") for pid in sides]
    assert not any(
        state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"
        for state in states
    )


QUICK = """
import sys
from reszoo.bench import run
from reszoo.cli.main import main
run._measure = lambda *_: [run.Side("reszoo", "1", [2.0])]
sys.exit(main(["bench", "train", "resnet8"]))
"""


def test_no_log_line_of_tensorflow_reaches_the_user() -> None:
    done = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["model", "resnet8 b128"]


@pytest.mark.slow
def test_variants_are_measured_in_the_same_run() -> None:
    sides = ["reszoo-jit", "reszoo-on-host", "reszoo-on-device"]
    rows = bench("train", ["resnet8"], batch=4, against=sides, rounds=1)["models"][0]["sides"]
    assert list(rows) == ["reszoo", *sides] and all(
        row["images_per_second"] > 0 for row in rows.values()
    )
    assert len({row["parameters"] for row in rows.values()}) == 1


@pytest.mark.slow
def test_training_and_inference_beside_stock_keras(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "record.json"
    command = [
        "bench",
        "train",
        "resnet8",
        "--against",
        "keras",
        "--batch",
        "4",
        "--rounds",
        "2",
        "--json",
        str(file),
    ]
    assert main(command) == 0
    record = json.loads(file.read_text())
    (model,) = record["models"]
    own, stock = model["sides"]["reszoo"], model["sides"]["keras"]
    assert own["parameters"] == stock["parameters"] == reszoo.count("resnet8").parameters
    low, high = stock["reszoo_times_faster_range"]
    assert 0 < low <= stock["reszoo_times_faster"] <= high
    assert own["range"][0] <= own["images_per_second"] <= own["range"][1] and own["peak_mb"] > 100
    assert (
        record["command"]
        == "reszoo bench train resnet8 --against keras --batch 4 --rounds 2 --json OUT.json"
    )
    printed = capsys.readouterr().out
    assert "resnet8 b4\treszoo" in printed and "times as fast" in printed
    infer = bench("infer", ["resnet8"], batch=4, against=["keras"], rounds=1)
    assert set(infer["models"][0]["sides"]) == {"reszoo", "keras"}


@pytest.mark.slow
def test_builds_and_first_steps() -> None:
    first = bench("first-step", ["resnet8"], batch=4, rounds=1)["models"][0]["sides"]["reszoo"]
    assert first["seconds"] > 0 and first["build_seconds"] > 0 and first["peak_mb"] > 100
    assert bench("build", ["resnet8"], rounds=1)["models"][0]["sides"]["reszoo"]["seconds"] > 0


@pytest.mark.slow
def test_input(tmp_path: Path) -> None:
    for name in ("cifar", "photographs"):
        row = bench("input", [name], rounds=1)["models"][0]["sides"]["reszoo"]
        assert row["images_per_second"] > 0
    write_photographs(tmp_path, 8)
    sizes = [path.stat().st_size for path in tmp_path.rglob("*.jpg")]
    assert len(sizes) == 8 and 60_000 < sum(sizes) / 8 < 90_000


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet20", "torch"), ("plain20", "torch"), ("resnet18", "torch"), ("resnet18", "timm")],
)
def test_peers_train_the_same_net(name: str, side: str) -> None:
    peer = os.environ.get("RESZOO_PEER")
    if not peer:
        pytest.skip("RESZOO_PEER names no Python")
    rows = bench("train", [name], batch=2, against=[side], peer=peer, rounds=1)["models"][0][
        "sides"
    ]
    assert rows["reszoo"]["parameters"] == rows[side]["parameters"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"what": "walk"}, "no benchmark 'walk'; there are train, infer, input, build, first-step"),
        ({"what": "train", "models": ["resnet21"]}, "resnet21"),
        (
            {"what": "input", "models": ["resnet20"]},
            "no input 'resnet20'; there are cifar, photographs",
        ),
        ({"what": "train", "against": ["jax"]}, "'jax' is no side of train"),
        ({"what": "input", "against": ["keras"]}, "'keras' is no side of input"),
        ({"what": "infer", "against": ["reszoo-jit"]}, "'reszoo-jit' is no side of infer"),
        ({"what": "train", "rounds": 0}, "rounds must be at least 1"),
        ({"what": "train", "device": "tpu"}, "--device is cpu or gpu"),
        ({"what": "build", "batch": 8}, "batch: 8 is invalid for build; expected it to be unset"),
        ({"what": "input", "batch": 8}, "batch: 8 is invalid for input; expected it to be unset"),
        (
            {"what": "input", "precision": "mixed_bfloat16"},
            "precision: mixed_bfloat16 is invalid for input",
        ),
        (
            {"what": "input", "models": ["cifar"], "against": ["torch"], "peer": "/nowhere/python"},
            "cannot start /nowhere/python",
        ),
    ],
)
def test_what_there_is_not_is_refused(
    arguments: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "reszoo.bench.run.sys.executable", "/nowhere/python"
    )  # nothing starts before all is found right
    with pytest.raises(ReszooError) as caught:
        bench(**arguments)
    assert line in str(caught.value)


@pytest.mark.slow
@WITHOUT_TORCH
def test_a_side_that_is_not_installed_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESZOO_PEER", raising=False)
    assert main(["bench", "build", "resnet8", "--against", "torch", "--rounds", "1"]) == 2
    said = capsys.readouterr().err
    assert (
        "torch cannot take part: No module named 'torch'; --peer PYTHON names an environment that has it"
        in said
    )


@pytest.mark.slow
def test_a_net_that_a_side_has_not_is_told() -> None:
    with pytest.raises(
        ReszooError, match=r"keras cannot take part: keras.applications has no resnet8"
    ):
        bench("build", ["resnet8"], against=["keras"], rounds=1)
