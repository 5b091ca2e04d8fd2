"""Evaluate a run on its own images and on others of the same classes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix

from reszoo.errors import ReszooError
from reszoo.evaluation.evaluate import evaluate, other_data, write_scores
from reszoo.evaluation.scores import Scores
from reszoo.images.preprocessing import Preprocessing
from reszoo.training.run import Run
from reszoo.types import Array


@pytest.fixture
def run(digits_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may write to."""
    return Path(shutil.copytree(digits_run, tmp_path / "run"))


def snapshot(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def write_digits(folder: Path, name: Callable[[int], str] = str) -> tuple[Array, Array]:
    """Write 40 digits at half brightness in class folders; return images and labels of the test split."""
    images, labels = load_digits(return_X_y=True)
    images = np.round(images.reshape(-1, 8, 8)[:40] * (127 / 16)).astype(np.uint8)
    for index, (image, label) in enumerate(zip(images, labels, strict=False)):
        path = folder / ("train", "test")[index // 20] / name(label) / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return images[20:], labels[20:40]


@pytest.mark.parametrize(("batch_size", "devices"), [(None, "cpu"), (7, "cpu:2"), (1000, "cpu")])
def test_scores_are_those_of_training_for_any_batch_size_and_devices(
    run: Path, batch_size: int | None, devices: str
) -> None:
    before = json.loads((run / "test.json").read_text())
    (run / "test.json").unlink()
    scores = evaluate(run, batch_size=batch_size, devices=devices)
    after = json.loads((run / "test.json").read_text())
    for key in ("loss", "calibration_error"):
        assert after.pop(key) == pytest.approx(before.pop(key), rel=1e-5)
    assert after == before and scores.examples == 360
    written = json.loads((run / "confusion.json").read_text())
    assert written == {"class_names": [str(d) for d in range(10)], "matrix": scores.confusion}


def test_another_split_has_files_of_its_own(run: Path) -> None:
    before = snapshot(run)
    scores = evaluate(run, split="validation", devices="cpu")
    assert scores.examples == 150
    assert scores.top1 == Run.open(run).history[-1]["val_accuracy"]
    figures = {f"confusion-validation.{kind}" for kind in ("json", "png", "svg")}
    assert snapshot(run) - before == {"evaluation-validation.json", *figures}


def test_other_data_is_normalized_with_the_mean_of_the_training_dataset(
    run: Path, tmp_path: Path, classify: Any
) -> None:
    images, labels = write_digits(tmp_path / "dim")
    before, out = snapshot(run), tmp_path / "scores"
    scores = evaluate(run, data=f"folder:{tmp_path}/dim", out=out, devices="cpu")
    expected = confusion_matrix(labels, classify(images).argmax(1), labels=range(10))
    assert scores.confusion == expected.tolist()
    assert snapshot(run) == before
    name = re.compile(r"(evaluation|confusion)-folder[\w.-]+dim\.(json|png|svg)")
    assert len(snapshot(out)) == 4 and all(map(name.fullmatch, snapshot(out)))
    drawn = next(out.glob("*.svg")).read_text()
    assert ": dim, test, error " in drawn and str(tmp_path) not in drawn


def test_images_of_another_size_and_channels_are_resized(
    run: Path, tmp_path: Path, classify: Any
) -> None:
    for split in ("train", "test"):
        for label in range(10):
            path = tmp_path / "big" / split / str(label) / "x.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (31, 20), (label * 20,) * 3).save(path)
    scores = evaluate(run, data=f"folder:{tmp_path}/big", devices="cpu")
    images = np.stack([np.full((8, 8), 20.0 * label) for label in range(10)])
    assert [row.index(1) for row in scores.confusion] == classify(images).argmax(1).tolist()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (lambda label: "nine" if label == 9 else str(label), "class 9 .* is 'nine'; expected '9'"),
        (lambda label: str(label % 5), "folder:.* has 5 classes; expected the model's 10"),
    ],
)
def test_other_classes_are_rejected(
    name: Callable[[int], str], message: str, run: Path, tmp_path: Path
) -> None:
    before = snapshot(run)
    write_digits(tmp_path / "other", name)
    with pytest.raises(ReszooError, match=f"^data: .*{message}"):
        evaluate(run, data=f"folder:{tmp_path}/other", devices="cpu")
    assert snapshot(run) == before


def test_invalid_arguments_are_rejected(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ReszooError, match="no run folder"):
        evaluate(tmp_path / "nothing")
    with pytest.raises(ReszooError, match="split: 'tset' is invalid; expected train, validation"):
        evaluate(run, split="tset")
    with pytest.raises(ReszooError, match="batch_size: 0 is invalid; expected an integer >= 1"):
        evaluate(run, batch_size=0)
    (run / "model.keras").unlink()
    with pytest.raises(ReszooError, match="no trained model yet"):
        evaluate(run, devices="cpu")


def test_the_matrix_is_written_with_one_line_per_class(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(300)]
    matrix = np.eye(300, dtype=int).tolist()
    ones: list[float | None] = [1.0] * 300
    scores = Scores(
        examples=300,
        top1=1.0,
        top5=1.0,
        loss=0.5,
        calibration_error=0.1,
        per_class=ones,
        precision=ones,
        f1=ones,
        confusion=matrix,
    )
    write_scores(scores, names, tmp_path)
    text = (tmp_path / "confusion.json").read_text()
    assert json.loads(text) == {"class_names": names, "matrix": matrix}
    assert len(text.splitlines()) < 310
    assert snapshot(tmp_path) == {"test.json", *(f"confusion.{s}" for s in ("json", "png", "svg"))}


@pytest.mark.parametrize(
    ("name", "resize", "interpolation"),
    [("folder:photos", 16, "bicubic"), ("synthetic", 0, "bilinear")],
)
def test_another_dataset_is_resized_as_in_training(
    name: str, resize: int, interpolation: str
) -> None:
    preprocessing = Preprocessing((12, 10), 3, 16, np.zeros(3), np.ones(3), interpolation="bicubic")
    config = other_data(name, None, preprocessing)
    assert (tuple(config.image_size), config.channels, config.resize) == ((12, 10), 3, resize)
    assert (config.interpolation, config.normalize) == (interpolation, "unit")
