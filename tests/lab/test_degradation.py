"""Plain and residual runs that differ in the shortcut alone, and what is computed from them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import reszoo
from reszoo.errors import ReszooError
from reszoo.lab import degradation as lab
from reszoo.lab.record import read_record
from reszoo.lab.report import finding
from reszoo.reporting.plots import LIGHT, Plot
from tests.lab.conftest import OPTIONS


def test_the_twins_differ_in_the_shortcut_alone() -> None:
    base = lab.base_recipe("digits", 40)
    for depth in (20, 110, 18):
        plain, residual = lab.twin_recipes(depth, base, seed=3)
        assert plain.replace(model=residual.model, name=residual.name) == residual
        assert plain.train.seed == 3
        fields = residual.model.spec.to_dict()
        changed = {key for key, value in plain.model.spec.to_dict().items() if fields[key] != value}
        assert changed == {"name", "shortcut"}


@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_a_budget_scales_the_whole_schedule(data: str) -> None:
    own = lab.base_recipe(data, 0)
    half = lab.base_recipe(data, own.train.steps // 2)
    assert half.train.steps == own.train.steps // 2
    assert half.schedule.boundaries == tuple(at / 2 for at in own.schedule.boundaries)
    assert half.schedule.warmup == own.schedule.warmup / 2
    assert half.replace(train=own.train, schedule=own.schedule) == own


def test_the_papers_protocol_is_the_default_for_other_datasets() -> None:
    recipe = lab.base_recipe("cifar10", 0)
    assert recipe.train.steps == 64_000 and recipe.schedule.boundaries == (32_000, 48_000)
    assert recipe.schedule.rate == 0.1 and recipe.optimizer.weight_decay == 1e-4
    assert recipe.train.batch_size == 128


def test_the_record_agrees_with_the_runs(done: Path) -> None:
    models = read_record(done)["results"]["models"]
    assert [model["name"] for model in models] == ["plain8", "resnet8", "plain14", "resnet14"]
    for model in models:
        run = reszoo.Run.open(done / "runs" / f"{model['name']}-seed0")
        assert model["parameters"] == reszoo.count(model["name"], (8, 8, 1), 10).parameters
        top1 = json.loads((run.path / "test.json").read_text())["top1"]
        assert model["final_test_error"] == [pytest.approx(100 * (1 - top1))]
        errors = [pytest.approx(100 * (1 - row["accuracy"])) for row in run.history]
        assert model["training_error"] == [errors]
    again = reszoo.evaluate(run, split="train", out=done / "again").error
    assert model["final_training_error"] == [pytest.approx(again)]
    shutil.rmtree(done / "again")


def test_finished_runs_are_used_again(done: Path) -> None:
    before = read_record(done)
    stamps = {path: path.stat().st_mtime_ns for path in done.rglob("model.keras")}
    lab.degradation(done, **OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in done.rglob("model.keras")} == stamps
    after = read_record(done)
    assert (after["results"], after["settings"]) == (before["results"], before["settings"])


@pytest.mark.slow
def test_a_stopped_run_resumes_and_a_lost_one_is_trained_again(done: Path, tmp_path: Path) -> None:
    copy = tmp_path / "lab"
    shutil.copytree(done, copy)
    shutil.rmtree(copy / "runs" / "plain8-seed0")
    stopped = reszoo.Run.open(copy / "runs" / "resnet8-seed0")
    stopped.write_meta(status="running")
    (stopped.path / "checkpoints" / "step-00000004.npz").unlink()
    lab.degradation(copy, **OPTIONS)
    one, other = (read_record(folder)["results"]["models"] for folder in (done, copy))
    assert [model["steps"] for model in one] == [model["steps"] for model in other]
    assert stopped.meta["status"] == "finished"


def test_another_experiment_in_the_folder_is_rejected(done: Path, tmp_path: Path) -> None:
    with pytest.raises(ReszooError, match=r"was begun with budget = 4, not 8; give the same"):
        lab.degradation(done, **{**OPTIONS, "budget": 8})
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ReszooError, match="is not a folder of `reszoo lab degradation`"):
        lab.degradation(tmp_path, **OPTIONS)


@pytest.mark.parametrize(
    ("shallow", "deep", "answer", "mean"),
    [
        ([10, 11, 12], [20, 22, 21], "worse", 10),
        ([20, 22, 21], [10, 11, 12], "better", -10),
        ([10, 10, 10], [11, 11, 9], "no clear difference", 1 / 3),  # seeds disagree
        ([10, 10, 10], [10.1, 30, 10.1], "no clear difference", 6.733),  # within two errors
        ([10, 10], [10, 10], "no clear difference", 0),
        ([10], [30], "worse", 20),
    ],
)
def test_the_verdict_is_arithmetic(
    shallow: list[float], deep: list[float], answer: str, mean: float, done: Path
) -> None:
    record = read_record(done)
    models = [
        {"name": f"plain{depth}", "kind": "plain", "depth": depth, "final_training_error": errors}
        for depth, errors in ((14, deep), (8, shallow))
    ]
    other = [{**model, "kind": "residual", "final_training_error": [0]} for model in models]
    found = lab.compare_depths(models + other, "plain")
    assert found["answer"] == answer and found["difference"] == pytest.approx(mean, abs=1e-3)
    spread = np.std(np.subtract(deep, shallow), ddof=1) if len(deep) > 1 else None
    assert found["deviation"] == (None if spread is None else pytest.approx(spread))
    record["results"]["verdicts"]["plain"] = found
    assert f"plain14 differs from plain8 by {mean:+.2f}" in finding(record)


def test_test_errors_are_compared_by_their_means() -> None:
    models = [
        {"kind": kind, "depth": depth, "final_test_error": errors}
        for kind, depth, errors in (
            ("plain", 56, [40, 42]), ("plain", 20, [3, 5]),
            ("residual", 20, [2, 4]), ("residual", 56, [1, 2]),
        )
    ]  # fmt: skip
    expected = {"plain_growth": 37, "residual_growth": -1.5, "plain_excess": 39.5}
    assert lab.measure_depths(models) == expected


def test_each_panel_draws_the_models_of_its_kind(done: Path) -> None:
    record = read_record(done)
    plot = lab.make_page(record).sections[0].items[0]
    assert isinstance(plot, Plot)
    figure = Figure()
    plot.draw(figure, LIGHT)
    for panel, kind in zip(figure.axes, ("plain", "residual"), strict=True):
        models = [model for model in record["results"]["models"] if model["kind"] == kind]
        names = [text.get_text() for text in panel.get_legend().get_texts()]
        assert names == [model["name"] for model in models]
        expected: list[list[list[float]]] = []
        for model in models:
            for error in ("training_error", "validation_error"):
                expected.append([model["steps"], *model[error]])
            expected.append([model["steps"][-1:], model["final_test_error"]])
        assert [line.get_xydata().T.tolist() for line in panel.lines] == expected
