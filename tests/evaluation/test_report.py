"""predictions.csv holds what NumPy computes, and the page shows the most confident mistakes."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import io
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from reszoo.config.data import DataConfig, InceptionCrop, NoCrop
from reszoo.data.dataset import ArraySplit, FileSplit
from reszoo.data.pipeline import open_dataset
from reszoo.errors import ReszooError
from reszoo.evaluation.evaluate import evaluate
from reszoo.evaluation.evaluator import Evaluator
from reszoo.evaluation.explain import explain
from reszoo.evaluation.report import (
    MISTAKES,
    list_files,
    write_predictions,
    write_report,
)
from reszoo.evaluation.rows import Rows
from reszoo.evaluation.scores import compute_scores
from reszoo.evaluation.source import Source
from reszoo.images.preprocessing import Preprocessing
from reszoo.training.run import Run
from reszoo.types import Array


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def images_of(page: str) -> list[Array]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


def test_predictions_are_those_of_numpy(digits_run: Path, tmp_path: Path, classify: Any) -> None:
    scores = evaluate(digits_run, out=tmp_path, predictions=True, devices="cpu")
    split: Any = Run.open(digits_run).open_pipeline().dataset.split("test")
    expected, labels = classify(split.images[..., 0]), split.labels
    head, *rows = read(tmp_path / "predictions.csv")
    names = [f"p_{digit}" for digit in range(10)]
    assert head == ["index", "true", "predicted", "probability", "true_probability", *names]
    assert [row[:3] for row in rows] == [
        [str(number), str(label), str(best)]
        for number, (label, best) in enumerate(zip(labels, expected.argmax(1), strict=True))
    ]
    columns = [expected.max(1), expected[range(360), labels], *expected.T]
    np.testing.assert_allclose(np.array([row[3:] for row in rows], float).T, columns, atol=1e-5)
    page = (tmp_path / "evaluation.html").read_text()
    wrong = round(360 * (1 - scores.top1))
    assert f"{wrong} of 360 images are predicted wrongly." in page
    assert "Without Grad-CAM: linear: no layer with maps" in page
    assert len(images_of(page)) == min(wrong, MISTAKES) and f"{100 * scores.macro_f1:.2f} %" in page
    with pytest.raises(
        ReszooError, match="^out: none is given, and resnet20 akamaster has no folder"
    ):
        evaluate("resnet20", data="digits", predictions=True)


@pytest.mark.parametrize("augment", [NoCrop(), InceptionCrop()])
def test_files_are_named_in_the_order_of_the_split(augment: Any, tmp_path: Path) -> None:
    """In memory, and streamed; a file that cannot be decoded is skipped."""
    expected = []
    for number in range(8):
        for split in ("train", "test"):
            path = tmp_path / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (9, 9), 12 * number).save(path)
        expected.append((number % 2, str(path)))
    (tmp_path / "test" / "a" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    data = DataConfig(
        name=f"folder:{tmp_path}", image_size=(8, 8), on_corrupt="skip", normalize="unit"
    )
    dataset = open_dataset(data, augment, batch_size=2, seed=0).dataset
    examples: Any = dataset.split("test")
    assert list(zip(examples.labels, list_files(examples), strict=True)) == sorted(expected)
    kept = examples.take(np.array([1, 5]))
    assert list_files(kept) == [sorted(expected)[1][1], sorted(expected)[5][1]]
    assert list_files(ArraySplit(np.zeros((2, 8, 8, 1)), np.zeros(2))) == []


def test_rows_without_predictions_and_many_classes(tmp_path: Path) -> None:
    rows = Rows(
        labels=np.array([1, 0]),
        predicted=np.array([0, -1]),
        rank=np.array([1, 2]),
        loss=np.array([np.log(4), np.nan]),
        confidence=np.array([0.75, np.nan]),
        probabilities=np.zeros((2, 0)),
    )
    write_predictions(tmp_path / "x.csv", rows, ["a\nb.png", "c.png"], ["cat", "dog, brown"])
    assert read(tmp_path / "x.csv") == [
        ["path", "true", "predicted", "probability", "true_probability"],
        ["a\\nb.png", "dog, brown", "cat", "0.75", "0.25"],
        ["c.png", "cat", "", "", ""],
    ]
    assert [each.tolist() for each in rows.mistakes()] == [[0], [0]]


def test_the_page_shows_mistakes_by_confidence_with_their_overlays(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, activation="relu", data_format="channels_last")(inputs)
    x = keras.layers.GlobalAveragePooling2D(data_format="channels_last")(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    random = np.random.default_rng(0)
    kernel, bias = random.normal(size=(3, 3, 3, 2)), np.zeros(2)
    model.set_weights([kernel - kernel.mean((0, 1, 2)), bias, np.eye(2), bias])
    images = random.integers(0, 256, (60, 8, 8, 3), np.uint8)
    preprocessing = Preprocessing((8, 8), 3, 0, np.zeros(3), np.ones(3))
    predicted = model(images / 255).numpy().argmax(1)
    labels = np.where(np.arange(60) < 40, 1 - predicted, predicted).astype(np.int32)
    paths = np.array([str(tmp_path / f"{number}.png") for number in range(60)], object)
    for file, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(file)
    split = FileSplit(paths, labels)
    rows = Evaluator(model, classes=2, probabilities=True).rows([(images / 255, labels)])
    names = ("<b>", "dog")
    scores = dataclasses.replace(compute_scores(2, rows), class_names=names)
    path = tmp_path / "page.html"
    write_report(path, scores, rows, split, model, preprocessing, title="<i>")
    page = path.read_text()
    assert len(page) < 500_000 and "<b>" not in page and "<i>" not in page
    assert "40 of 60 images are predicted wrongly." in page
    shown = [int(number) for number in re.findall(r"<span>[^<]*/(\d+)\.png</span>", page)]
    confidence = rows.probabilities.max(1)
    assert shown == sorted(range(40), key=lambda number: -confidence[number])[:MISTAKES]
    first = f"predicted: {names[predicted[shown[0]]]}, {100 * confidence[shown[0]]:.1f} %"
    assert html.escape(first) in page
    drawn = images_of(page)
    source = Source(name="x", load=lambda: model, preprocessing=preprocessing, class_names=names)
    explained = [explain(source, images[shown], class_name=name) for name in names]
    assert len(drawn) == 2 * MISTAKES
    for row, number in enumerate(shown):
        own, plain, overlay = explained[predicted[number]][row], drawn[2 * row], drawn[2 * row + 1]
        # The other class's overlay differs by 7 or more, JPEG by 1.
        assert np.abs(overlay.astype(int) - np.asarray(own.overlay())).mean() < 3
        assert np.abs(plain[14::28, 14::28].astype(int) - own.image).mean() < 3
