"""One recipe with several seeds: which runs are trained, skipped and resumed, and their scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from reszoo.cli.main import main
from reszoo.comparison import seeds
from reszoo.comparison.seeds import SUMMARY, SeedResult, read_scores, train_seeds
from reszoo.comparison.statistics import Summary
from reszoo.config.recipe import Recipe
from reszoo.data.pipeline import Pipeline
from reszoo.errors import ReszooError
from reszoo.training.run import Run
from tests.comparison.written import make_recipe, write_run

ERRORS = {0: 9.0, 1: 8.5, 2: 9.6, 3: 7.0, 7: 8.0}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Replace training by a run written by hand; the list gets (seed, resume) of each call."""
    calls: list[tuple[int, bool]] = []

    def train(recipe: Recipe, *, run_dir: Path, resume: bool, **_: Any) -> SimpleNamespace:
        seed = recipe.train.seed
        calls.append((seed, resume))
        shutil.rmtree(run_dir, ignore_errors=True)
        stopped = len(calls) == 2 and seed == 1  # a signal stops seed 1 of the first command
        write_run(run_dir, recipe, None if stopped else ERRORS[seed], seed=seed)
        return SimpleNamespace(finished=not stopped)

    monkeypatch.setattr(seeds, "train", train)
    return calls


def test_a_stopped_series_resumes_and_its_summary_is_numpys(
    trained: list[tuple[int, bool]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = tmp_path / "small.toml", tmp_path / "runs"
    path.write_text(make_recipe().to_toml())
    command = ["train", str(path), "--seeds", "3", "--run-dir", str(folder)]
    assert main(command) == 130
    assert f"resume with: reszoo train --resume --run-dir {folder}" in capsys.readouterr().out
    assert main(["train", "--resume", "--run-dir", str(folder), "--quiet"]) == 0
    assert trained == [(0, False), (1, False), (1, True), (2, False)]
    out = capsys.readouterr().out
    values = [ERRORS[seed] for seed in (0, 1, 2)]
    assert f"error, %\t{np.mean(values):.2f}\t{np.std(values, ddof=1):.2f}\t3" in out
    assert "seed" not in out.split("score")[0]
    summary = json.loads((folder / SUMMARY).read_text())
    assert summary["seeds"] == summary["finished"] == [0, 1, 2]
    error = summary["scores"]["error"]
    assert error["mean"] == pytest.approx(np.mean(values))
    assert error["std"] == pytest.approx(np.std(values, ddof=1))
    assert error["values"] == {str(seed): pytest.approx(ERRORS[seed]) for seed in (0, 1, 2)}
    assert [Run(folder / f"seed-{seed}").recipe.train.seed for seed in (0, 1, 2)] == [0, 1, 2]
    assert main(["train", "--resume", str(folder)]) == 0
    assert main([*command[:3], "4", *command[4:], "--resume"]) == 0  # one more seed
    assert trained[4:] == [(3, False)]
    with pytest.raises(ReszooError, match=r"another \[schedule\]"):
        train_seeds(make_recipe(schedule={"rate": 0.1}), seeds=3, run_dir=folder, resume=True)


def test_seeds_are_a_count_from_the_recipes_seed_or_a_list(
    trained: list[tuple[int, bool]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = train_seeds(make_recipe(train={"seed": 2}), seeds=2, run_dir=tmp_path / "a", quiet=True)
    assert list(found.runs) == [2, 3] and found.finished
    assert main(["train", "--resume", str(tmp_path / "a"), "--data", "x"]) == 2
    assert "--data: not supported with several seeds" in capsys.readouterr().err
    scores = {"error": Summary(1, 8.0, None), "calibration_error": Summary(2, 0.0123, 0.001)}
    assert SeedResult(tmp_path, {}, scores, True).rows() == [
        ("error, %", "8.00", "", "1"),
        ("calibration error", "0.0123", "0.0010", "2"),
    ]
    single = train_seeds(make_recipe(), seeds=[7], run_dir=tmp_path / "b", quiet=True)
    assert single.scores["error"].std is None and single.rows()[0] == ("error, %", "8.00", "", "1")
    assert list(single.runs) == [7] and "<td>8.00</td>" in single._repr_html_()
    assert read_scores(single.runs[7]) == {
        "error": pytest.approx(8.0),
        "loss": 0.5,
        "balanced_accuracy": 0.6,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "'0' is invalid; expected a number >= 1, or seeds such as 0,3,7"),
        (["--seeds", "1,-2"], "'1,-2' is invalid"),
        (["--seeds", "3,3"], "seeds: [3, 3] is invalid; expected at least 1 seed, each once"),
        (["--seeds", "2", "--hosts", "a:1,b:2", "--host-index", "0"], "expected one host"),
        (["--seeds", "2", "--run-dir", "single"], "run folder single exists; add --resume"),
        (["--seeds", "2", "--run-dir", "single", "--resume"], "single is the folder of one run"),
    ],
)
def test_invalid_seeds_are_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("single"), make_recipe(), 5.0)
    assert main(["train", "quickstart", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_run_of_a_series_equals_a_run_of_its_own(tmp_path: Path) -> None:
    recipe = make_recipe(train={"epochs": 1, "deterministic": True})
    train_seeds(recipe, seeds=2, run_dir=tmp_path / "series", quiet=True)
    own = recipe.replace(train=recipe.train.replace(seed=1))
    seeds.train(own, run_dir=tmp_path / "own", quiet=True)
    first, second = (Run(tmp_path / name) for name in ("series/seed-1", "own"))
    assert first.history == second.history and first.recipe == second.recipe
    assert (first.path / "test.json").read_text() == (second.path / "test.json").read_text()


def test_each_seed_trains_the_given_objects(two_devices: None, tmp_path: Path) -> None:
    """Two real runs: each has its own model and callbacks, and the optimizer starts anew."""
    made: list[keras.Model] = []
    counted: list[int] = []

    def model(pipeline: Pipeline) -> keras.Model:
        inputs = keras.Input(pipeline.info.input_shape)
        flat = keras.layers.Flatten(data_format="channels_last")(inputs)
        made.append(keras.Model(inputs, keras.layers.Dense(2)(flat), name="linear"))
        return made[-1]

    def callbacks() -> list[keras.callbacks.Callback]:
        steps: list[int] = []
        return [
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: steps.append(batch),
                on_train_end=lambda logs: counted.append(len(steps)),
            )
        ]

    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), np.uint8)
    labels = (images.mean(axis=(1, 2, 3)) > 128).astype(int)
    found = train_seeds(
        "quickstart",
        seeds=2,
        overrides=["train.steps=3", "train.export=false", "data.validation=0"],
        run_dir=tmp_path / "runs",
        devices="cpu",
        quiet=True,
        model=model,
        dataset={"train": (images, labels), "test": (images, labels)},
        optimizer=keras.optimizers.Adam(0.01),
        callbacks=callbacks,
    )
    assert found.finished and found.scores["error"].count == 2
    assert counted == [3, 3] and len(made) == 2
    metas = [run.meta for run in found.runs.values()]
    assert [meta["given"]["optimizer"]["class"].split(":")[1] for meta in metas] == ["Adam"] * 2
    assert not np.array_equal(*(each.get_weights()[0] for each in made))
    wrong: Any
    for name, wrong in (("model", made[0]), ("callbacks", [])):
        with pytest.raises(ReszooError, match=f"^{name}: .* expected a function that makes it"):
            train_seeds("quickstart", seeds=1, run_dir=tmp_path / "x", **{name: wrong})
