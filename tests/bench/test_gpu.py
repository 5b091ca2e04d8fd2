"""The GPU measurements: the budget fits the limit, what has a record is skipped, stopped runs are resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reszoo.bench import gpu, plan
from reszoo.bench import limits as limits_module
from reszoo.bench.figure6 import SAFETY, budget_steps, faster_options, set_steps
from reszoo.bench.gpu import BENCHES, RECORDS, measure
from reszoo.bench.limits import Clock, Outcome, run_commands
from reszoo.bench.plan import MODELS, Plan

ROOT = Path(__file__).parents[2]

# Stands for reszoo's command line. It writes each command to calls.txt, and the files of a run as `reszoo train` does.
# FAIL names a word that a command fails on. A run named in SLOW does not end before it is resumed.
FAKE = """
import json, os, pathlib, signal, sys, time
words = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(words) + "\\n")
if os.environ.get("FAIL") and any(os.environ["FAIL"] in word for word in words):
    sys.exit("this fails")
if words[0] == "bench":
    sides = {side: {"images_per_second": 2.0} for side in ["reszoo", *words[words.index("--against") + 1].split(",")]}
    sides.setdefault("reszoo-jit", {})["images_per_second"] = 3.0
    pathlib.Path(words[words.index("--json") + 1]).write_text(json.dumps({"models": [{"sides": sides}]}))
    sys.exit()
folder = pathlib.Path(words[words.index("--run-dir") + 1])
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
(folder / "recipe.toml").touch()
def leave(*_):
    (folder / "stopped").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, leave)
rows = "step,loss\\n"
for step in (2, 4):
    rows += f"{step},0.5\\n"
    (folder / "part").write_text(rows)
    (folder / "part").rename(folder / "history.csv")
    (folder / "checkpoints" / f"step-{step}.npz").touch()
    time.sleep(0.2)
while folder.name == os.environ.get("SLOW") and "--resume" not in words:
    time.sleep(0.01)
(folder / "run.json").write_text(json.dumps({"seconds": 4.0, "steps": 4, "data": "/a/path"}))
(folder / "metrics.jsonl").write_text('{"step": 2, "loss": 0.5}\\n{"step": 4, "loss": 0.5}\\n')
(folder / "test.json").write_text(json.dumps({"accuracy": 0.75, "path": "/a/path"}))
"""


Make = Callable[[float], Plan]


@pytest.fixture
def make_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return a function of seconds that makes a plan around the fake command line."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.txt"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "overflow.json").write_text("{}")  # needs the engine itself

    def make(seconds: float) -> Plan:
        program = [sys.executable, str(tmp_path / "fake.py")]
        data, out = tmp_path / "data", tmp_path / "out"
        return Plan(data, out, Clock(seconds), reszoo=program, card="card")

    return make


def read_calls(tmp_path: Path) -> list[list[str]]:
    return [json.loads(line) for line in (tmp_path / "calls.txt").read_text().splitlines()]


def settings(words: Sequence[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words[words.index("--set") + 1 :])


@given(
    left=st.floats(0, 1e5),
    overhead=st.floats(0, 1e3),
    each=st.floats(1e-3, 1e2),
    most=st.sampled_from([2, 400, 64_000]),
)
def test_the_budget_is_the_largest_that_ends_in_time(
    left: float, overhead: float, each: float, most: int
) -> None:
    steps = budget_steps(left, overhead, each, most)
    assert 0 <= steps <= most
    if steps:
        assert overhead + steps * each <= SAFETY * left * (1 + 1e-9)
        assert steps == most or steps % 4 == 0
    if steps < most:
        assert overhead + (steps + 4) * each > SAFETY * left * (1 - 1e-9) or steps + 4 > most


def test_the_paper_s_budget_is_the_most() -> None:
    assert budget_steps(1e9, 30, 0.01) == 64_000
    assert budget_steps(330, 40, 0.02) == int((SAFETY * 330 - 40) / 0.02) // 4 * 4 == 13_180
    assert budget_steps(30, 40, 0.02) == 0
    assert set_steps(64_000) == ["train.steps=64000", "schedule.boundaries=[32000, 48000]"]


@pytest.mark.parametrize(
    ("jit", "on_device", "expected"),
    [
        (1.1, 1.1, ["train.jit=true", "data.on_device=true"]),
        (1.1, 0.9, ["train.jit=true"]),
        (1.01, 1.1, ["data.on_device=true"]),
        (None, None, []),
    ],
)
def test_only_faster_options_are_used(
    jit: float | None, on_device: float | None, expected: list[str], make_plan: Make
) -> None:
    plan = make_plan(60)
    assert faster_options(plan) == []
    speeds = {"reszoo": 100.0, "torch": 400.0, "reszoo-on-host": 50.0}
    speeds |= {"reszoo-jit": 100 * jit} if jit else {}
    speeds |= {"reszoo-on-device": 50 * on_device} if on_device else {}
    sides = {side: {"images_per_second": speed} for side, speed in speeds.items()}
    plan.record("train_resnet56_b128").write_text(json.dumps({"models": [{"sides": sides}]}))
    assert faster_options(plan) == expected


def test_everything_is_measured_once(
    make_plan: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(3000)
    assert measure(plan) == 0 and not plan.missing(*RECORDS)
    made = read_calls(tmp_path)
    assert made[0][:4] == ["train", "quickstart", "--devices", "gpu"]
    assert [(words[2], words[4]) for words in made[1:6]] == [
        ("resnet20", "128"),
        ("resnet56", "128"),
        ("resnet20", "1024"),
        ("resnet56", "1024"),
        ("resnet50", "256"),
    ]
    probes, runs = made[6:10], made[10:14]
    budget = json.loads(plan.record("figure6_budget").read_text())
    for group, key, value in (
        (probes, "train.epochs", "2"),
        (runs, "train.steps", str(budget["steps"])),
    ):
        assert sorted(words[1] for words in group) == sorted(f"cifar10_{model}" for model in MODELS)
        for words in group:  # the fake's jit is 1.5 times as fast
            used = settings(words)
            assert used["train.jit"] == "true" and used["data.name"] == f"folder:{plan.data}"
            assert used[key] == value
    assert budget["card"] == "card" and budget["settings"] == ["train.jit=true"]
    assert 0.05 <= budget["seconds_per_step"] < 100  # a row each 0.2 s, of two steps
    left, overhead = budget["seconds_left"], budget["overhead_seconds"]
    steps = budget_steps(left, overhead, budget["seconds_per_step"])
    assert budget["steps"] == pytest.approx(steps, rel=0.01, abs=8)
    one = json.loads(plan.record("figure6_plain20").read_text())
    assert one["card"] == "card" and one["test"] == {"accuracy": 0.75} and len(one["history"]) == 2
    assert "/a/path" not in json.dumps(one)
    assert json.loads(plan.record("kill").read_text())["equal_to_the_bit"] is True
    assert "all records are written" in capsys.readouterr().out
    assert measure(make_plan(3000)) == 0 and read_calls(tmp_path) == made


def test_a_stopped_run_is_resumed(
    make_plan: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SLOW", "figure6_resnet56")
    limits, real_clock = [], time.monotonic

    def run(
        commands: Mapping[str, Sequence[str]],
        logs: Path,
        seconds: float,
        grace: float,
        **hooks: Any,
    ) -> Any:
        """Let the limit of the four runs pass as soon as three have ended; note each limit."""
        limits.append(seconds + grace)
        if "figure6_resnet56" in commands and "--resume" not in commands["figure6_resnet56"]:
            ended, count = hooks["ended"], []

            def count_ended(name: str, outcome: Outcome) -> None:
                ended(name, outcome)
                assert not one.missing(name)  # written while another run still goes on
                count.append(name)

            def clock() -> float:
                return real_clock() + (seconds if len(count) == 3 else 0)

            stand_in = SimpleNamespace(monotonic=clock, sleep=time.sleep)
            monkeypatch.setattr(limits_module, "time", stand_in)
            hooks["ended"] = count_ended
        try:
            return run_commands(commands, logs, seconds, grace, **hooks)
        finally:
            monkeypatch.setattr(limits_module, "time", time)

    monkeypatch.setattr(plan, "run_commands", run)
    one = make_plan(3000)
    assert measure(one) == 1
    assert one.missing("figure6_resnet56") and not one.missing("figure6_plain56")
    folder = one.out / "runs" / "figure6_resnet56"
    assert (folder / "stopped").is_file()  # by SIGTERM
    assert "missing: figure6_resnet56; start again to resume" in capsys.readouterr().out
    assert limits and max(limits) <= 3000
    count = len(read_calls(tmp_path))
    assert measure(make_plan(3000)) == 0
    (words,) = read_calls(tmp_path)[count:]
    place = ["--devices", "gpu", "--run-dir", str(folder)]
    assert words == ["train", *place, "--resume", "--data", f"folder:{one.data}"]


def test_options_that_fail_are_left_out(
    make_plan: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAIL", "train.jit=true")
    plan = make_plan(3000)
    assert measure(plan) == 0
    assert json.loads(plan.record("figure6_budget").read_text())["settings"] == []
    assert "failed with status 1: this fails" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fails", "count", "sides"),
    [("reszoo-jit", 2, "torch,torch-compile"), ("torch-compile", 3, "torch")],
)
def test_a_side_that_fails_does_not_cost_the_comparison(
    fails: str,
    count: int,
    sides: str,
    make_plan: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAIL", fails)
    plan = make_plan(3000)
    gpu.measure_benchmarks(plan)
    assert not plan.missing(*BENCHES)
    against = [words[words.index("--against") + 1] for words in read_calls(tmp_path)]
    assert against[count - 1 :: count] == [sides] * 5 and len(against) == 5 * count


def test_nothing_starts_without_time(
    make_plan: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure(make_plan(1e-3)) == 1
    assert not (tmp_path / "calls.txt").exists()
    assert "missing: quickstart, train_resnet20_b128" in capsys.readouterr().out


def test_wrong_arguments_are_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for arguments, line in (
        (["nowhere", "out", "60"], "nowhere is invalid; expected a folder with train/CLASS"),
        (["data", "out", "0"], "SECONDS: 0 is invalid"),
    ):
        with pytest.raises(SystemExit) as caught:
            gpu.main(arguments)
        assert caught.value.code == 2 and line in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_rehearsal_on_the_cpu(tmp_path: Path) -> None:
    """The script itself at two steps; benchmarks, which tests of their own hold, have records already."""
    draw = np.random.default_rng(0)
    for number in range(80):
        folder = tmp_path / "data" / ("test", "train")[number % 2] / f"class{number // 2 % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        image.save(folder / f"{number}.png")
    out = tmp_path / "out"
    out.mkdir()
    for name in (*BENCHES, "first_step_resnet110"):
        (out / f"{name}.json").write_text('{"models": [{"sides": {}}]}')
    command = ["bash", str(ROOT / "recipes" / "gpu.sh"), str(tmp_path / "data"), str(out), "3000"]
    # The GPU machine lacks what reszoo imports only for other data.
    site = tmp_path / "site"
    site.mkdir()
    missing = ("tensorflow_datasets", "jax", "onnx", "ai_edge_litert")
    code = f"import sys\nsys.modules.update(dict.fromkeys({missing}))\n"
    (site / "sitecustomize.py").write_text(code)
    environment = os.environ | {"DEVICE": "cpu", "STEPS": "2", "PYTHON": sys.executable}
    environment["PYTHONPATH"] = str(site)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((out / "figure6_budget.json").read_text())["steps"] == 2
    for model in MODELS:
        record = json.loads((out / f"figure6_{model}.json").read_text())
        assert [row["step"] for row in record["history"]] == [2]
        assert 0 <= record["test"]["top1"] <= 1
    assert json.loads((out / "overflow.json").read_text())["skipped_steps"] > 0
    kill = json.loads((out / "kill.json").read_text())
    assert kill["equal_to_the_bit"] is True and kill["status_of_killed"] in (-9, 0)
