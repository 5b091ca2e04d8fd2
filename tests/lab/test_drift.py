"""The drift experiment at a tiny size: equal starts, ordinary runs, resuming, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

import reszoo
from reszoo import ReszooError
from reszoo.data.pipeline import open_dataset
from reszoo.images.preprocessing import Preprocessing
from reszoo.lab import drift as lab
from reszoo.lab.backbone import recipe_for, remove_softmax
from reszoo.lab.drift import drift
from reszoo.lab.drift_page import make_page
from reszoo.reporting.page import Table
from reszoo.trainer import Trainer
from reszoo.weights import load, published
from reszoo.weights.convert import export_arrays
from reszoo.weights.files import RemoteFile
from reszoo.weights.published import Weights

L = keras.layers
LAST = "step-00000002.npz"
FIGURES = {"drift_ratio", "drift_cosine", "drift_accuracy"}
SETTINGS: dict[str, Any] = {
    "steps": 2,
    "every": 1,
    "images": 20,
    "blocks": 1,
    "quiet": True,
    "overrides": ["train.batch_size=16", "data.examples=200", "train.ema=0.5"],
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier of 8x8 images that ends in a softmax."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 1))
    x = L.GlobalAveragePooling2D()(L.Conv2D(8, 3, activation="relu", name="conv")(inputs))
    path = tmp_path_factory.mktemp("backbone") / "own.keras"
    keras.Model(inputs, L.Dense(10, activation="softmax")(x), name="own").save(path)
    return path


@pytest.fixture(scope="module")
def done(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished experiment on that classifier."""
    out = tmp_path_factory.mktemp("drift") / "out"
    drift(out, backbone=backbone, **SETTINGS)
    return out


def read(out: Path) -> dict[str, Any]:
    return json.loads((out / "record.json").read_text())


def test_both_arms_start_alike_and_only_one_has_blocks(done: Path) -> None:
    record = read(done)
    results = record["results"]
    stacked, control = results["stacked"], results["control"]
    for arm in (stacked, control):
        assert [row["step"] for row in arm["rows"]] == [0, 1, 2]
    for key in ("val_accuracy", "val_loss"):
        assert stacked["rows"][0][key] == control["rows"][0][key]
    assert stacked["rows"][0]["val_loss"] > 2  # of logits: a second softmax would flatten it
    assert stacked["difference"] == stacked["random_difference"] == 0
    assert stacked["added"] == ["stack_block1"]
    ratios = [row["blocks"][0]["ratio"] for row in stacked["rows"]]
    assert ratios[0] == 0 < ratios[1] < ratios[2]
    assert results["measures"] == {
        "largest_ratio": ratios[2],
        "smallest_cosine": stacked["rows"][2]["blocks"][0]["cosine"],
        "output_change": 0,
        "gain": pytest.approx(100 * (stacked["test_accuracy"] - control["test_accuracy"])),
    }
    assert stacked["parameters"] > control["parameters"] == 8 * 9 + 8 + 8 * 10 + 10
    assert record["settings"]["rate"] == pytest.approx(0.01)
    assert (record["settings"]["split"], record["settings"]["train_steps"]) == ("validation", 0)


def test_the_arms_are_ordinary_runs(done: Path) -> None:
    """Rows are their histories, and the averaged weights of train.ema are measured."""
    results = read(done)["results"]
    for name in ("stacked", "control"):
        run = reszoo.Run.open(done / "runs" / name)
        assert run.meta["status"] == "finished"
        for row, history in zip(results[name]["rows"][1:], run.history, strict=True):
            assert {key: row[key] for key in ("step", "loss", "val_loss")} == {
                key: history[key] for key in ("step", "loss", "val_loss")
            }
        score = reszoo.evaluate(run, out=done / "again")
        assert results[name]["test_accuracy"] == score.top1
    images = lab.sample_images(run.open_pipeline(), "validation", 20)
    model = reszoo.Run.open(done / "runs" / "stacked").load_model()
    last = results["stacked"]["rows"][-1]["blocks"]
    assert lab.Probe(model)(images) == last


def test_both_arms_train_on_the_same_first_batch(done: Path, backbone: Path) -> None:
    recipe = recipe_for(str(backbone), None, SETTINGS["overrides"])
    pipeline = open_dataset(recipe.data, recipe.augment, batch_size=16, seed=0)
    model = remove_softmax(keras.models.load_model(backbone))
    images, labels = next(iter(pipeline.train(0)))
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(images, training=True))
    for name in ("control", "stacked"):
        first = reszoo.Run.open(done / "runs" / name).history[0]["loss"]
        assert first == pytest.approx(float(np.mean(loss)), rel=1e-5)


def test_a_stopped_experiment_resumes_and_ends_alike(
    done: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed with a checkpoint at step 1 of the stacked arm, before it measured there."""
    out = tmp_path / "out"
    shutil.copytree(done, out)
    run = reszoo.Run.open(out / "runs" / "stacked")
    run.write_meta(status="running")
    for lost in (out / "record.json", run.path / "model.keras", run.checkpoints / LAST):
        lost.unlink()
    file = run.path / "measurements.json"
    measured = json.loads(file.read_text())
    file.write_text(json.dumps({**measured, "rows": measured["rows"][:1]}))
    drift(out, backbone=backbone, **SETTINGS)
    assert read(out)["results"] == read(done)["results"]
    with pytest.raises(ReszooError, match="was begun with steps = 2, not 5"):
        drift(out, backbone=backbone, **{**SETTINGS, "steps": 5})
    monkeypatch.setattr(Trainer, "prepare", None)  # finished arms are not opened again
    drift(out, backbone=backbone, **SETTINGS)


def test_a_verdict_needs_more_than_chance(done: Path) -> None:
    record = read(done)
    arms = record["results"]
    assert {path.stem for path in done.glob("*.png")} == FIGURES
    for gain, end in (
        (0.02, "2.0 points more, within two standard errors for 150 images."),
        (0.3, "30.0 points more."),
    ):
        arms["control"]["rows"][-1]["val_accuracy"] = 0.5
        arms["stacked"]["rows"][-1]["val_accuracy"] = 0.5 + gain
        page = make_page(record)
        start = f"{50 + 100 * gain:.1f} % with the blocks and 50.0 % without: "
        assert page.finding.endswith(start + end)
    table = page.sections[1].items[1]
    assert isinstance(table, Table)
    accuracy = f"{100 * arms['stacked']['test_accuracy']:.2f} %"
    parameters = f"{arms['stacked']['parameters']:,}"
    assert table.rows[2] == ["with the blocks", "2", "80.00 %", accuracy, parameters]


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"backbone": "resnet21"}, "resnet21"),
    "no run": ({"backbone": "some/where"}, "is not a run folder"),
    "no file": ({"backbone": "net.keras"}, "no file .*net.keras"),
    "too small": ({"backbone": "vgg16", "recipe": "quickstart"}, "at least 32x32.*image_size"),
    "steps": ({"steps": 0}, "steps: 0 is invalid; expected an integer >= 1"),
    "every": ({"every": 0.5}, "every: 0.5 is invalid; expected an integer"),
    "images": ({"images": -1}, "images: -1 is invalid; expected an integer"),
    "rate": ({"rate": -0.1}, "rate: -0.1 is invalid"),
    "vgg16's weights": (
        {"backbone": "vgg16", "recipe": "finetune", "overrides": ["data.name=digits"]},
        "model.weights: 'imagenet' is invalid for the backbone vgg16",
    ),
    "freeze without stages": (
        {"overrides": ["finetune.freeze=stage1"]},
        "has no layers named stage1_block1",
    ),
    "probe": (
        {"backbone": "resnet8", "train_steps": 2, "overrides": ["finetune.probe_epochs=1"]},
        "finetune.probe_epochs: 1 .* is invalid",
    ),
    "place": ({"at": "convv"}, "no layer 'convv'; did you mean"),
    "order": ({"backbone": "resnet8", "at": "stem_conv1", "order": "post"}, "can be negative"),
    "device": ({"devices": "cpu:99"}, "99"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_is_rejected_before_anything_is_written(
    case: str, backbone: Path, tmp_path: Path
) -> None:
    given, reason = REFUSALS[case]
    with pytest.raises(ReszooError, match=reason) as caught:
        drift(tmp_path / "out", **{**SETTINGS, "backbone": backbone, **given})
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_file_of_other_data_is_rejected(tmp_path: Path) -> None:
    reszoo.build("resnet8").save(tmp_path / "cifar.keras")
    (tmp_path / "broken.keras").write_bytes(b"nothing")
    for name, reason in (
        ("cifar", r"maps \(32, 32, 3\) to \(10,\); expected \(8, 8, 1\)"),
        ("broken", "cannot be read as a Keras model"),
    ):
        with pytest.raises(ReszooError, match=reason):
            drift(tmp_path / "out", **{**SETTINGS, "backbone": tmp_path / f"{name}.keras"})


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Published weights of resnet8 whose file is at hand."""
    path = tmp_path / "weights.safetensors"
    save_file(export_arrays(reszoo.build("resnet8"), reszoo.spec("resnet8"), "akamaster"), path)
    file = RemoteFile(url="https://example.org/resnet8.safetensors", digest="sha256:" + 64 * "0")
    row = Weights(
        model="resnet8",
        tag="someone/v1",
        layout="akamaster",
        data="cifar10",
        top1=90.0,
        top5=None,
        transforms=Preprocessing((32, 32), 3, 0, (0.5, 0.4, 0.3), (0.3, 0.2, 0.1)),
        license="BSD-2-Clause",
        source="https://weights.example",
        files=(file,),
    )
    known = published.published()
    monkeypatch.setattr(published, "published", lambda: (row, *known))
    monkeypatch.setattr(load, "fetch", lambda file: path)
    return row


@pytest.mark.slow
def test_published_weights_are_fine_tuned_by_their_recipe(weights: Weights, tmp_path: Path) -> None:
    """A named model is trained first; its run is then a backbone itself."""
    overrides = ["data.name=digits", "data.validation=100", "data.examples=64"]
    overrides += ["train.batch_size=16", "model.weights=someone/v1"]
    overrides += ["finetune.probe_epochs=0", "finetune.freeze=stage2"]
    settings = {**SETTINGS, "steps": 1, "train_steps": 1, "overrides": overrides}
    out, start = tmp_path / "out", reszoo.build("resnet8", weights="someone/v1")
    record = drift(out, **{**settings, "backbone": "resnet8", "recipe": "finetune"})
    for name in ("backbone", "stacked"):
        run = reszoo.Run.open(out / "runs" / name)
        assert run.preprocessing.std == pytest.approx((0.3, 0.2, 0.1))
        model = run.load_model()
        moved = {
            layer.name.split("_")[0]
            for layer in start.layers
            for old, new in zip(
                layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True
            )
            if layer.name != "head_dense" and not np.array_equal(old, new)
        }
        assert moved == {"stage3"}, name
    assert model.get_layer("stack_block1_bn2").gamma.numpy().any()  # new blocks learn
    scores = json.loads((out / "runs" / "backbone" / "test.json").read_text())
    assert record["results"]["backbone"]["test_accuracy"] == scores["top1"]
    again = {**settings, "backbone": out / "runs" / "backbone", "overrides": []}
    record = drift(tmp_path / "again", **again)
    assert record["results"]["backbone"]["test_accuracy"] == scores["top1"]
    assert record["settings"]["recipe"]["model"]["weights"] == "someone/v1"
