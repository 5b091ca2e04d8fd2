"""A killed, stopped or damaged run resumes exactly, or reports why it cannot."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from reszoo.cli.main import main
from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.trainer import train
from reszoo.training import checkpoint
from reszoo.training.run import Run
from reszoo.training.step import Stepper

# Every kind of state: slots, averages, random layers, augmentation, a best model, sums.
TABLES: dict[str, Any] = {
    "name": "tiny",
    "model": {"name": "resnet8", "drop_path": 0.3, "dropout": 0.1},
    "data": {"name": "digits", "validation": 100, "examples": 200},
    "augment": {"crop": "pad", "pad": 1},
    "train": {
        "steps": 40,
        "batch_size": 32,
        "deterministic": True,
        "checkpoint_every": 3,
        "ema": 0.9,
        "ema_batch_norm": True,
        "ema_every": 2,
        "ema_warmup": 0.5,
        "select": "best",
        "export": False,
    },
    "optimizer": {"name": "sgd", "weight_decay": 1e-4},
    "schedule": {"kind": "plateau", "rate": 0.05, "patience": 1},
}


def start(folder: Path, recipe: Path, *more: str) -> subprocess.Popen[str]:
    command = ["-m", "reszoo", "train", str(recipe), "--run-dir", str(folder), *more]
    path = os.pathsep.join(sys.path)
    return subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(Recipe(**TABLES).to_toml())
    return path


@pytest.fixture(scope="module")
def unbroken(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    finish(start(folder, recipe))
    return folder


def assert_same(one: Path, other: Path) -> None:
    """Two runs left the same weights, slots, averages, logs and scores, to the bit."""
    for file in ("step-00000040.npz", "best.npz"):
        a, b = (checkpoint.load(each / "checkpoints" / file).arrays for each in (one, other))
        # The processes may number seed generators differently; their order is fixed.
        assert len(a) == len(b) > 40
        pairs = zip(a.items(), b.values(), strict=True)
        assert [key for (key, array), other in pairs if not np.array_equal(array, other)] == []
    for name in ("metrics.jsonl", "history.csv", "test.json", "confusion.json", "recipe.toml"):
        assert (one / name).read_text() == (other / name).read_text(), name


def log_length(folder: Path) -> int:
    path = folder / "train.log"
    return path.stat().st_size if path.exists() else 0


def kill_until_done(folder: Path, recipe: Path, kills: int, *more: str) -> int:
    """Train, killing the process at random moments; return how many kills struck."""
    clock = random.Random(kills)
    struck = 0
    for _ in range(kills):
        before = log_length(folder)
        resume = ["--resume"] if (folder / "recipe.toml").exists() else []
        process = start(folder, recipe, *more, *resume)
        while process.poll() is None and log_length(folder) <= before:
            time.sleep(0.01)
        time.sleep(clock.uniform(0.0, 4.0))
        struck += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(folder, recipe, *more, "--resume"))
    return struck


@pytest.mark.slow
def test_killed_run_on_two_replicas_equals_an_unbroken_one(recipe: Path, tmp_path: Path) -> None:
    finish(start(tmp_path / "unbroken", recipe, "--devices", "cpu:2"))
    assert kill_until_done(tmp_path / "run", recipe, 3, "--devices", "cpu:2") > 0
    assert_same(tmp_path / "unbroken", tmp_path / "run")


@pytest.mark.slow
def test_killed_run_equals_an_unbroken_one(recipe: Path, unbroken: Path, tmp_path: Path) -> None:
    assert kill_until_done(tmp_path / "run", recipe, 6) > 0
    assert_same(unbroken, tmp_path / "run")


@pytest.mark.slow
def test_a_run_that_is_stopped_and_then_killed_equals_an_unbroken_one(
    recipe: Path, unbroken: Path, tmp_path: Path
) -> None:
    """SIGTERM stops it at a step, and it says how to resume; SIGKILL strikes at a random moment."""
    folder = tmp_path / "run"
    process = start(folder, recipe)
    while not list(folder.glob("checkpoints/step-*.npz")):
        time.sleep(0.02)
        assert process.poll() is None
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"resume with: reszoo train --resume --run-dir {folder}" in output
    assert json.loads((folder / "run.json").read_text())["status"] == "stopped"
    kill_until_done(folder, recipe, 1)
    assert_same(unbroken, folder)


class Broken(Exception):
    pass


def test_a_run_that_is_stopped_and_then_breaks_off_equals_an_unbroken_one(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SIGTERM stops it with a checkpoint; an error breaks it off two steps after a checkpoint.

    Between the parts the process makes other models, as a notebook does.
    """
    one, other = tmp_path / "unbroken", tmp_path / "run"
    train(recipe, run_dir=one, quiet=True)
    taken: list[int] = []
    take_step = Stepper.__call__

    def take(stepper: Stepper, *arguments: Any) -> None:
        taken.append(1)
        if len(taken) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        if len(taken) == 18:
            raise Broken
        take_step(stepper, *arguments)

    monkeypatch.setattr(Stepper, "__call__", take)
    assert main(["train", str(recipe), "--run-dir", str(other)]) == 130
    assert f"resume with: reszoo train --resume --run-dir {other}" in capsys.readouterr().out
    assert Run(other).meta["status"] == "stopped"
    keras.layers.Dropout(0.1)
    with pytest.raises(Broken):
        train(recipe, run_dir=other, resume=True, quiet=True)
    keras.layers.Dropout(0.1)
    assert train(recipe, run_dir=other, resume=True, quiet=True).finished
    assert len(taken) == 40 + 3  # the steps 16 and 17 twice, and the one that broke
    assert_same(one, other)


def short(**fields: Any) -> Recipe:
    """A run of a few steps, to be tried inside this process."""
    fields = TABLES["train"] | {"steps": 6, "deterministic": False, "select": "last"} | fields
    model = {"name": "resnet8", "depths": [1], "widths": [8], "stem_width": 8}
    return Recipe(**(TABLES | {"train": fields, "model": model}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with checkpoints of the steps 3 and 6, to be changed in a copy."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    train(short(), run_dir=folder, quiet=True)
    return folder


def test_truncated_checkpoint_falls_back_to_the_one_before(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the steps after it are taken, from the weights in it."""
    folder = shutil.copytree(finished, tmp_path / "run")
    before = Run(folder).history
    first, last = checkpoint.steps(folder / "checkpoints")
    assert (first.name, last.name) == ("step-00000003.npz", "step-00000006.npz")
    last.write_bytes(last.read_bytes()[:-1000])
    held = checkpoint.load(first)
    for name in held.arrays:
        if name.startswith(("model/", "average/")):
            held.arrays[name] *= 0
    checkpoint.save(first, held.arrays, held.meta)

    class Watch(keras.callbacks.Callback):
        steps = 0
        largest = -1.0

        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            if self.largest < 0:
                self.largest = max(float(np.abs(array).max()) for array in self.model.get_weights())
            self.steps += 1

    watch = Watch()
    train(short(), run_dir=folder, resume=True, callbacks=[watch])
    printed = capsys.readouterr().out
    assert "step-00000006.npz cannot be read" in printed and "resuming from step 3" in printed
    assert watch.steps == 3 and watch.largest == 0
    assert [row["step"] for row in Run(folder).history] == [row["step"] for row in before]

    for path in checkpoint.steps(folder / "checkpoints"):
        path.write_bytes(b"nothing")
    with pytest.raises(ReszooError, match="none of the 2 checkpoints"):
        train(short(), run_dir=folder, resume=True, quiet=True)


def test_checkpoint_of_another_model_is_rejected(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    other = Recipe(**(short().to_dict() | {"model": {"name": "resnet14"}}))
    with pytest.raises(ReszooError, match=r"another \[model\]"):
        train(other, run_dir=folder, resume=True, quiet=True)
    (folder / "recipe.toml").write_text(other.to_toml())
    with pytest.raises(ReszooError, match="is of resnet8, but the recipe asks for resnet14"):
        train(other, run_dir=folder, resume=True, quiet=True)


def test_occupied_folder_is_rejected_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(ReszooError, match="add --resume"):
        train(short(), run_dir=tmp_path, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_divergence_stops_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    schedule = {"kind": "constant", "rate": 1e30, "warmup": 5, "warmup_rate": 0.01}
    tables = short(steps=60, checkpoint_every=2).to_dict() | {"schedule": schedule}
    with pytest.raises(ReszooError, match="last good checkpoint is .*step-0000000[4-6]"):
        train(Recipe(**tables), run_dir=tmp_path / "run", quiet=True)
    meta = json.loads((tmp_path / "run" / "run.json").read_text())
    assert meta["status"] == "failed" and "last good checkpoint" in meta["reason"]
    newest = checkpoint.load(checkpoint.steps(tmp_path / "run" / "checkpoints")[-1]).arrays
    assert all(np.isfinite(each).all() for each in newest.values() if each.dtype.kind == "f")


def test_best_needs_images_to_choose_by(tmp_path: Path) -> None:
    tables = short(select="best").to_dict() | {"data": {"name": "digits", "examples": 200}}
    with pytest.raises(ReszooError, match="set data.validation"):
        train(Recipe(**tables), run_dir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
