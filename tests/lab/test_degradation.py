"""The degradation experiment and what it stands on: runs that are used again, a verdict computed, a page from the record alone."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import reszoo
from reszoo.cli.main import main
from reszoo.errors import ReszooError
from reszoo.lab import degradation as lab
from reszoo.lab.grid import run_all
from reszoo.lab.record import read_record
from reszoo.lab.report import finding, report
from reszoo.lab.responses import layer_responses, responses
from reszoo.reporting.plots import LIGHT, Plot

OPTIONS: dict[str, Any] = {
    "depths": (8, 14),
    "seeds": 1,
    "budget": 4,
    "overrides": ["data.examples=60", "train.batch_size=20", "data.validation=40"],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab") / "degradation"
    lab.degradation(folder, **OPTIONS, tell=lambda line: None)
    return folder


def test_the_arms_differ_in_the_shortcut_alone() -> None:
    base = lab.base_recipe("digits", 40)
    for depth in (20, 56, 110, 18):
        plain, residual = lab.pair(depth, base, seed=3)
        assert plain.model.spec == residual.model.spec.plain_twin()
        same = {"model": residual.model, "name": residual.name}
        assert plain.replace(**same) == residual
        assert plain.train.seed == 3
        fields = residual.model.spec.to_dict()
        changed = {key for key, value in plain.model.spec.to_dict().items() if fields[key] != value}
        assert changed == {"name", "shortcut"}


@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_a_budget_scales_the_whole_schedule(data: str) -> None:
    own, half = (
        lab.base_recipe(data, 0),
        lab.base_recipe(data, lab.base_recipe(data, 0).train.steps // 2),
    )
    assert half.train.steps == own.train.steps // 2
    assert half.schedule.boundaries == tuple(at / 2 for at in own.schedule.boundaries)
    assert half.schedule.warmup == own.schedule.warmup / 2
    assert half.replace(train=own.train, schedule=own.schedule) == own


def test_the_papers_protocol_is_the_default_for_any_other_set() -> None:
    recipe = lab.base_recipe("cifar10", 0)
    assert recipe.train.steps == 64_000 and recipe.schedule.boundaries == (32_000, 48_000)
    assert (recipe.schedule.rate, recipe.train.batch_size, recipe.optimizer.weight_decay) == (
        0.1,
        128,
        1e-4,
    )


def test_the_record_is_what_the_runs_say(done: Path) -> None:
    record = read_record(done)
    assert [net["name"] for net in record["results"]["nets"]] == [
        "plain8",
        "resnet8",
        "plain14",
        "resnet14",
    ]
    for net in record["results"]["nets"]:
        run = reszoo.Run.open(done / "runs" / f"{net['name']}-seed0")
        assert net["parameters"] == reszoo.count(net["name"], (8, 8, 1), 10).parameters
        assert net["final_test_error"] == [
            pytest.approx(100 * (1 - json.loads((run.path / "test.json").read_text())["top1"]))
        ]
        assert net["training_error"] == [
            [pytest.approx(100 * (1 - row["accuracy"])) for row in run.history]
        ]
        assert net["final_training_error"] == [
            pytest.approx(reszoo.evaluate(run, split="train", out=done / "again").error)
        ]
    shutil.rmtree(done / "again")


def test_a_second_call_uses_the_runs_and_gives_the_same_record(done: Path) -> None:
    before = read_record(done)
    stamps = {path: path.stat().st_mtime_ns for path in done.rglob("model.keras")}
    lines: list[str] = []
    lab.degradation(done, **OPTIONS, tell=lines.append)
    assert {path: path.stat().st_mtime_ns for path in done.rglob("model.keras")} == stamps and len(
        stamps
    ) == 4
    after = read_record(done)
    assert (after["results"], after["settings"]) == (before["results"], before["settings"])
    assert len(lines) == 4


@pytest.mark.slow
def test_a_broken_run_goes_on_and_one_that_was_lost_is_made_again(
    done: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "lab"
    shutil.copytree(done, copy)
    shutil.rmtree(copy / "runs" / "plain8-seed0")
    broken = reszoo.Run.open(copy / "runs" / "resnet8-seed0")
    broken.write_meta(status="running")
    (broken.path / "checkpoints" / "step-00000004.npz").unlink()
    lab.degradation(copy, **OPTIONS, tell=lambda line: None)
    one, other = (
        [net["steps"] for net in read_record(folder)["results"]["nets"]] for folder in (done, copy)
    )
    assert one == other and broken.meta["status"] == "finished"


def test_another_experiment_in_the_folder_is_refused(done: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ReszooError, match=r"was begun with budget = 4, not 8; give the same settings"
    ):
        lab.degradation(done, **{**OPTIONS, "budget": 8})
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ReszooError, match="holds no experiment"):
        lab.degradation(tmp_path, **OPTIONS)
    changed = lab.pair(8, lab.base_recipe("digits", 4, OPTIONS["overrides"]), 0)[0]
    changed = changed.replace(schedule=changed.schedule.replace(rate=0.5))
    with pytest.raises(
        ReszooError, match=r"was trained with another \[schedule\].*give another --out"
    ):
        run_all(done / "runs", {"plain8-seed0": changed})


def nets(plain: list[list[float]], residual: list[list[float]]) -> list[dict[str, Any]]:
    return [
        {"name": f"{kind}{depth}", "kind": kind, "depth": depth, "final_training_error": errors}
        for kind, both in (("plain", plain), ("residual", residual))
        for depth, errors in zip((20, 56), both, strict=True)
    ]


@pytest.mark.parametrize(
    ("shallow", "deep", "answer", "mean"),
    [
        ([10, 11, 12], [20, 22, 21], "worse", 10),
        ([20, 22, 21], [10, 11, 12], "better", -10),
        ([10, 10, 10], [11, 11, 9], "no clear difference", 1 / 3),  # seeds disagree
        (
            [10, 10, 10],
            [10.1, 30, 10.1],
            "no clear difference",
            6.733,
        ),  # within two standard errors
        ([10, 10], [10, 10], "no clear difference", 0),
        ([10], [30], "worse", 20),
    ],
)
def test_the_verdict_is_arithmetic(
    shallow: list[float], deep: list[float], answer: str, mean: float
) -> None:
    found = lab.verdict(nets([shallow, deep], [deep, shallow]), "plain")
    assert found["answer"] == answer and found["difference"] == pytest.approx(mean, abs=1e-3)
    spread = np.std(np.subtract(deep, shallow), ddof=1) if len(deep) > 1 else None
    assert found["deviation"] == (None if spread is None else pytest.approx(spread))
    assert f"{mean:+.2f}" in lab.say(found)


def test_the_page_is_made_from_the_record_alone(done: Path, tmp_path: Path) -> None:
    made = {
        path.name: path.read_bytes()
        for path in done.iterdir()
        if path.suffix in (".html", ".svg", ".png")
    }
    assert set(made) == {"report.html", "degradation.svg", "degradation.png"}
    shutil.copy(done / "record.json", tmp_path)
    assert main(["lab", "report", str(tmp_path)]) == 0
    assert {name: (tmp_path / name).read_bytes() for name in made} == made
    page = made["report.html"].decode()
    # Nothing is fetched, and both backgrounds are served.
    assert not re.search(r'(src|href|srcset)="(?!data:)', page) and "url(" not in page
    assert page.count("data:image/svg+xml") == 2 and "prefers-color-scheme: dark" in page
    assert finding(read_record(done)) in html.unescape(page)


def test_each_panel_draws_the_models_of_its_kind(done: Path) -> None:
    record = read_record(done)
    (plot,) = (
        item
        for section in lab.present(record).sections
        for item in section.items
        if isinstance(item, Plot)
    )
    figure = Figure()
    plot.draw(figure, LIGHT)
    for panel, kind in zip(figure.axes, ("plain", "residual"), strict=True):
        assert panel.get_title() == f"{kind} models"
        models = [model for model in record["results"]["nets"] if model["kind"] == kind]
        assert [text.get_text() for text in panel.get_legend().get_texts()] == [
            model["name"] for model in models
        ]
        curves = [line.get_xydata().T.tolist() for line in panel.lines]
        expected: list[list[list[float]]] = []
        for model in models:
            for error in ("training_error", "validation_error"):
                expected.append([model["steps"], *model[error]])
            expected.append([model["steps"][-1:], model["final_test_error"]])
        assert curves == expected


def test_a_record_that_is_none_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        "{": "cannot be read",
        "[]": "is no record",
        '{"lab": "x", "settings": {}, "results": {}}': "no experiment is called 'x'",
        '{"lab": "degradation", "settings": {}, "results": {}}': "lacks what a page needs",
    }
    for text, message in cases.items():
        (tmp_path / "record.json").write_text(text)
        assert main(["lab", "report", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    (tmp_path / "record.json").unlink()
    assert main(["lab", "report", str(tmp_path)]) == 2
    assert "holds no record.json" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["degradation", "--depths", "20"], "at least two"),
        (["degradation", "--depths", "20", "21"], "no model 'resnet21'"),
        (["degradation", "--seeds", "0"], "seeds is 0"),
        (["degradation", "--budget", "-1"], "budget is -1"),
        (["degradation", "--set", "train.epoch=3"], "did you mean 'train.epochs'"),
        (["degradation", "--set", "train.epochs=3", "--budget", "10"], "a budget counts steps"),
        (["constructed", "--depths", "20"], "at least two"),
        (["constructed", "--seeds", "0"], "seeds is 0"),
        (["constructed", "--budget", "-1"], "budget is -1"),
        (["responses", "nowhere"], "no run folder nowhere"),
        (["responses", "nowhere", "--images", "0"], "images is 0"),
        (["nothing"], "invalid choice: 'nothing'"),
        ([], "required: LAB"),
    ],
)
def test_bad_input_is_answered_in_one_line_and_leaves_nothing(
    argv: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lab", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# Layer responses


def test_responses_are_those_of_figure_7() -> None:
    """After the normalisation, before ReLU and addition; by NumPy from the maps of the whole net."""
    import keras

    from tests.models.helpers import BASIC, BOTTLENECK, images, randomize

    batch = images((130, 9, 9, 3))
    for net, names in (
        (
            BASIC,
            {
                "stem_conv1": "stem_bn1",
                "stage1_block1_conv1": "stage1_block1_bn1",
                "stage2_block1_conv2": "stage2_block1_bn2",
            },
        ),
        (BOTTLENECK, {"stage1_block2_conv2": "stage1_block2_bn2"}),
        (
            BASIC.replace(order="pre"),
            {
                "stage1_block2_conv1": "stage1_block2_bn2",
                "stage1_block2_conv2": "stage1_block2_conv2",
            },
        ),
    ):
        model = reszoo.build(net, input_shape=(9, 9, 3))
        randomize(model, 0)
        found = {row["layer"]: row["std"] for row in layer_responses(model, batch)}
        wide = [
            layer.name for layer in model.layers if getattr(layer, "kernel_size", None) == (3, 3)
        ]
        assert list(found) == wide
        for conv, tap in names.items():
            maps = keras.Model(model.input, model.get_layer(tap).output)(batch, training=False)
            assert found[conv] == pytest.approx(np.asarray(maps, np.float64).std(), rel=1e-4)


def test_responses_of_runs_leave_a_page(done: Path, tmp_path: Path) -> None:
    runs = [done / "runs" / f"{net}-seed0" for net in ("plain14", "resnet14")]
    record = responses(runs, tmp_path / "out", images=30)
    assert [len(run["responses"]) for run in record["results"]["runs"]] == [13, 13]
    assert all(run["images"] == 30 for run in record["results"]["runs"])
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "record.json",
        "responses.png",
        "report.html",
    }
    means = [np.mean([row["std"] for row in run["responses"]]) for run in record["results"]["runs"]]
    assert f"plain14 {means[0]:.3f}, resnet14 {means[1]:.3f}" in finding(record)
    with pytest.raises(ReszooError, match="begun with images"):
        responses(runs, tmp_path / "out", images=20)


def test_responses_are_recorded_while_a_net_trains(done: Path) -> None:
    import keras

    from reszoo.lab.responses import LayerResponses

    model = reszoo.build("resnet8", input_shape=(8, 8, 1))
    x, y = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype("float32"), np.arange(16) % 10
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    watch = LayerResponses(x, every=2)
    model.fit(x, y, epochs=4, verbose=0, callbacks=[watch])
    assert [row["epoch"] for row in watch.records] == [0, 2, 4]
    assert (
        watch.records[-1]["responses"] == layer_responses(model, x) != watch.records[0]["responses"]
    )


@pytest.mark.slow
def test_constructed_spends_the_same_on_every_way_and_grows_exactly(tmp_path: Path) -> None:
    from reszoo.lab.constructed import constructed, kept

    options = {**OPTIONS, "depths": (8, 14, 20), "budget": 8}
    record = constructed(tmp_path / "c", **options, tell=lambda line: None)
    ways = record["results"]["ways"]
    assert {(row["kind"], row["way"]) for row in ways} == {
        (kind, way) for kind in ("plain", "residual") for way in ("scratch", "grown", "staged")
    }
    cost = {
        depth: reszoo.count(f"resnet{depth}", (8, 8, 1), 10).multiply_adds for depth in (8, 14, 20)
    }
    for row in ways:
        nets = [int(re.sub(r"\D", "", piece["net"])) for piece in row["pieces"]]
        assert nets == {"scratch": [20], "grown": [8, 20], "staged": [8, 14, 20]}[row["way"]]
        spent = sum(
            piece["steps"] * cost[depth] for piece, depth in zip(row["pieces"], nets, strict=True)
        )
        assert spent == pytest.approx(8 * cost[20], rel=0.2)  # whole steps
        assert row["pieces"][-1]["multiply_adds"][-1] == pytest.approx(3 * 20 * spent / 1e9)
        for piece, source in zip(row["pieces"][1:], row["pieces"], strict=False):
            assert piece["grown"]["net"] == source["net"]
            assert (
                piece["grown"]["difference"] == 0
                if row["kind"] == "residual"
                else piece["grown"]["difference"] < 1e-4
            )
    found = kept(ways, "plain")
    (pieces,) = [row["pieces"] for row in ways if (row["kind"], row["way"]) == ("plain", "grown")]
    assert found["difference"] == pytest.approx(
        pieces[1]["final_training_error"] - pieces[0]["final_training_error"]
    )
    assert f"{found['difference']:+.2f}" in finding(record)
    page = (tmp_path / "c" / "report.html").read_text()
    report(tmp_path / "c")
    assert (tmp_path / "c" / "report.html").read_text() == page
