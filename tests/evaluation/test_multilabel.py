"""Two digits side by side have two labels: trained, scored, predicted and exported as NumPy does."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from sklearn import metrics
from sklearn.datasets import load_digits

from reszoo.comparison.compare import compare
from reszoo.config.load import load_recipe
from reszoo.config.schedule import validation_score
from reszoo.errors import ReszooError
from reszoo.evaluation.evaluate import evaluate
from reszoo.evaluation.evaluator import Evaluator, evaluate_model
from reszoo.evaluation.explain import Explainer
from reszoo.evaluation.multilabel import MultiLabelScores
from reszoo.evaluation.predict import predict
from reszoo.evaluation.views import mean_probabilities
from reszoo.exporting.export import export
from reszoo.exporting.formats import Artifact
from reszoo.exporting.pixels import PixelClassifier
from reszoo.exporting.signatures import Classifier
from reszoo.images.preprocessing import Preprocessing
from reszoo.trainer import Trainer, train
from reszoo.training.run import Run
from reszoo.types import Array

NAMES = "0123456789"
COUNT, TEST = 900, 200


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Array, Array]:
    """A folder with a label file; its images, uint8 [n, 8, 16], and targets [n, 10] by number."""
    folder, digits = tmp_path_factory.mktemp("pairs"), load_digits()
    chosen = np.random.default_rng(0).integers(0, len(digits.target), (COUNT, 2))
    gray = np.round(digits.images * 255 / 16).astype(np.uint8)
    images, targets = np.concatenate(gray[chosen].swapaxes(0, 1), axis=2), np.zeros((COUNT, 10))
    rows = ["file,labels,split"]
    for number, labels in enumerate(digits.target[chosen]):
        Image.fromarray(images[number]).save(folder / f"{number:03d}.png")
        targets[number, labels] = 1
        split = "test" if number < TEST else "train"
        rows.append(f"{number:03d}.png,{';'.join(map(str, labels))},{split}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder, images, targets


def linear() -> keras.Model:
    inputs = keras.Input((8, 16, 1))
    x = keras.layers.Flatten(data_format="channels_last")(inputs)
    return keras.Model(inputs, keras.layers.Dense(10, name="head_dense")(x), name="linear")


@pytest.fixture(scope="module")
def run(pairs: Any, two_devices: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    overrides = {
        "data.name": f"folder:{pairs[0]}",
        "data.labels": "labels.csv",
        "data.validation": 100,
        "augment.crop": "none",
        "train.loss": "bce",
        "train.class_weights": "balanced",
        "train.select": "best",
        "train.epochs": 8,
        "train.export": False,
        "optimizer.weight_decay": 0,
    }
    folder = tmp_path_factory.mktemp("runs") / "pairs"
    trainer = Trainer.prepare(
        load_recipe("quickstart", overrides),
        run_dir=folder,
        devices="cpu",
        quiet=True,
        model=linear(),
    )
    assert trainer.fit()
    trainer.finish()
    return Run.open(folder)


def classify(run: Run, images: Array) -> Array:
    """Return probabilities [n, 10] of images [n, 8, 16], by NumPy."""
    kernel, bias = run.load_model().get_weights()
    inputs = images[..., None] / 255 - run.preprocessing.mean
    probabilities: Array = 1 / (1 + np.exp(-(inputs.reshape(len(inputs), -1) @ kernel + bias)))
    return probabilities


def test_scores_are_those_of_scikit_learn_and_above_chance(run: Run, pairs: Any) -> None:
    _, images, targets = pairs
    expected, true = classify(run, images[:TEST]), targets[:TEST]
    predicted = (expected > 0.5).astype(int)
    found = json.loads((run.path / "test.json").read_text())
    each = metrics.average_precision_score(true, expected, average=None)
    assert found["examples"] == TEST and found["multi_label"] is True
    assert found["mean_average_precision"] > 0.7 > 3 * targets.mean()  # 0.19 is chance
    for name, value in {
        "average_precision": each,
        "mean_average_precision": each.mean(),
        "subset_accuracy": metrics.accuracy_score(true, predicted),
        "micro_f1": metrics.f1_score(true, predicted, average="micro"),
        "macro_f1": metrics.f1_score(true, predicted, average="macro"),
        "micro_precision": metrics.precision_score(true, predicted, average="micro"),
        "micro_recall": metrics.recall_score(true, predicted, average="micro"),
        "precision": metrics.precision_score(true, predicted, average=None),
        "per_class": metrics.recall_score(true, predicted, average=None),
        "loss": np.mean([metrics.log_loss(a, b) for a, b in zip(true.T, expected.T, strict=True)]),
    }.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
    # The history: accuracy is the subset accuracy, and its best epoch has the final weights.
    info = run.open_pipeline().info
    assert info.examples == {"train": 600, "validation": 100, "test": 200}
    assert sum(info.class_counts["train"]) == targets[TEST:].sum() - sum(
        info.class_counts["validation"]
    )
    best = max(run.history, key=lambda row: row["val_mean_average_precision"])
    validation = evaluate(run, split="validation", devices="cpu", out=run.path / "validation")
    assert validation.to_history() == pytest.approx({k: best[k] for k in validation.to_history()})
    assert validation_score(best) == best["val_mean_average_precision"] != best["val_accuracy"]


def test_predictions_page_and_comparison(run: Run, pairs: Any, tmp_path: Path) -> None:
    folder, images, targets = pairs
    scores = evaluate(run, out=tmp_path, predictions=True, devices="cpu")
    assert isinstance(scores, MultiLabelScores) and scores.confusion_table(3)[1] == []
    expected = classify(run, images[:TEST])
    with (tmp_path / "predictions.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["path", "true", "predicted", *(f"p_{name}" for name in NAMES)]
    order = [int(Path(row[0]).stem) for row in rows]
    assert sorted(order) == list(range(TEST))
    for number, row in zip(order, rows, strict=True):
        names = [";".join(np.array([*NAMES])[own[number] > 0.5]) for own in (targets, expected)]
        assert row[1:3] == names
    np.testing.assert_allclose(
        np.array([row[3:] for row in rows], float), expected[order], atol=1e-5
    )
    page = (tmp_path / "evaluation.html").read_text()
    wrong = int(((expected > 0.5) != targets[:TEST]).any(axis=1).sum())
    assert f"{wrong} of 200 images are predicted wrongly." in page
    errors = np.abs(expected - targets[:TEST]).max(axis=1)
    first = int(re.findall(r"<span>[^<]*/(\d+)\.png</span>", page)[0])
    assert first == int(errors.argmax())
    names, table = scores.class_table()
    assert names == ("class", "precision", "recall", "F1", "average precision", "images")
    assert table[3][-1] == str(int(targets[:TEST, 3].sum()))
    # Other views: the probabilities are averaged.
    logits = np.random.default_rng(0).normal(0, 3, (4, 3, 5))
    mean = (1 / (1 + np.exp(-logits))).mean(axis=1)
    found = mean_probabilities(logits, multi_label=True).numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), mean, atol=1e-6)
    result = compare([run.path], out=tmp_path / "comparison")
    assert f"error {scores.error:.2f}" in result.finding


def test_sigmoids_where_a_model_is_used(run: Run, pairs: Any) -> None:
    folder, images, _ = pairs
    expected = classify(run, images[:5])
    for number, one in enumerate(predict(run, [folder / f"{n:03d}.png" for n in range(5)], top=10)):
        own = expected[number]
        assert one.labels == tuple(NAMES[label] for label in np.argsort(-own, kind="stable"))
        np.testing.assert_allclose(one.probabilities, np.sort(own)[::-1], atol=1e-5)
    model, preprocessing = run.load_model(), run.preprocessing
    artifact = Artifact(model, preprocessing, [*NAMES], multi_label=True)
    pixels = images[:5, ..., None].astype(np.float32)
    exported = PixelClassifier(artifact).classify(pixels)["probabilities"]
    np.testing.assert_allclose(exported, expected, atol=1e-5)
    network = lambda inputs: (model(inputs), inputs)  # noqa: E731
    served = Classifier(network, [], artifact, [], with_features=False)
    np.testing.assert_allclose(served.serving_default(pixels)["probabilities"], expected, atol=1e-5)
    files = [(folder / f"{number:03d}.png").read_bytes() for number in range(5)]
    found = served.image_bytes(files)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    inputs = keras.Input((4, 4, 1))
    maps = keras.layers.Conv2D(2, 3, data_format="channels_last")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D(data_format="channels_last")(maps)
    small, plain = keras.Model(inputs, pooled), Preprocessing((4, 4), 1, 0, np.zeros(1), np.ones(1))
    (one,) = Explainer(small, plain, "ab", multi_label=True)([("x", np.ones((4, 4, 1), "u1"))], [1])
    logit = float(small(np.full((1, 4, 4, 1), 1 / 255, np.float32))[0, 1])
    assert one.probability == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


@pytest.mark.parametrize(("format", "quantize"), [("litert", "int8"), ("onnx", None)])
def test_an_export_has_sigmoids_and_counts_images_with_every_class_right(
    run: Run, pairs: Any, tmp_path: Path, format: str, quantize: str | None
) -> None:
    _, images, targets = pairs
    report = export(run, tmp_path / "out", format=format, quantize=quantize)
    pixels = images[:TEST, ..., None].astype(np.uint8 if quantize else np.float32)
    if format == "litert":
        runner = Interpreter(str(tmp_path / "out/model.tflite")).get_signature_runner()
        found = np.concatenate([runner(images=one[None])["probabilities"] for one in pixels])
    else:
        session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx")
        (found,) = session.run(["probabilities"], {"images": pixels})
    np.testing.assert_allclose(found, classify(run, images[:TEST]), atol=0.05 if quantize else 1e-5)
    right = ((found > 0.5) == targets[:TEST]).all(axis=1)
    assert report.check.accuracy == pytest.approx(right.mean())
    assert 0 < right.mean() < 1
    assert json.loads((tmp_path / "out/card.json").read_text())["multi_label"] is True
    assert "if p > 0.5" in (tmp_path / "out/README.md").read_text()


def test_rows_that_are_not_finite_and_classes_without_images() -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    logits = np.array([[2, -1, -3], [np.nan, 4, -3], [-2, -1, -1]], np.float32)
    targets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    scores = Evaluator(model, classes=3, multi_label=True)([(logits, targets)])
    assert isinstance(scores, MultiLabelScores)
    assert scores.not_finite == 1 and scores.top1 == pytest.approx(2 / 3)
    assert scores.average_precision == [1.0, pytest.approx(1 / 3), None]
    assert scores.per_class == [1.0, 0.0, None] and scores.precision == [1.0, None, None]
    assert scores.to_dict()["loss"] is None and scores.to_dict()["calibration_error"] is None
    with pytest.raises(ReszooError, match=r"^label 2.0 is none of the 2 values 0..1"):
        Evaluator(model, classes=3, multi_label=True)([(logits, 2 * targets)])
    assert not isinstance(
        evaluate_model(model, [(logits, np.array([0, 1, 1]))], classes=3), MultiLabelScores
    )


def test_own_arrays_have_targets_and_are_checked(tmp_path: Path) -> None:
    images = np.zeros((6, 4, 4, 1), np.uint8)
    good = np.eye(3, dtype=bool)[[0, 1, 2, 0, 1, 2]]
    recipe = load_recipe("quickstart", ["train.steps=1", "train.loss=bce", "data.validation=2"])
    for labels, said in [
        (2 * good, r"its labels are int64 \[6, 3\]; expected 0 and 1, \[6, classes\], with data"),
        (np.arange(6), r"expected 0 and 1, \[6, classes\], with data.multi_label = true"),
    ]:
        with pytest.raises(ReszooError, match=said):
            data = {"train": (images, labels), "test": (images, good)}
            train(recipe, dataset=data, run_dir=tmp_path / "run", devices="cpu")
    with pytest.raises(ReszooError, match="^data.labels: none is given; expected a CSV file"):
        train(recipe, run_dir=tmp_path / "run", devices="cpu")
    changes = ["data.multi_label=true", "train.loss=math:hypot", "train.class_weights=balanced"]
    with pytest.raises(ReszooError, match='class_weights: "balanced" is .* "none" with data.mul'):
        load_recipe("quickstart", changes)
    with pytest.raises(ReszooError, match='multi_label: false is .* true with train.loss = "bce"'):
        load_recipe("quickstart", ["data.multi_label=false", "train.loss=bce"])
    metric = keras.metrics.SparseCategoricalAccuracy()
    with pytest.raises(ReszooError, match="^metrics: SparseCategoricalAccuracy is invalid with"):
        data = {"train": (images, good), "test": (images, good)}
        train(recipe, dataset=data, metrics=[metric], run_dir=tmp_path / "run", devices="cpu")
