"""Scoring a run: on its own images, on others of the same classes, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from reszoo.errors import ReszooError
from reszoo.evaluation.evaluate import evaluate, other_data, write_scores
from reszoo.evaluation.scores import Scores
from reszoo.images.preprocessing import Preprocessing
from reszoo.training.run import Run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may write to."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def snapshot(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def digits_folder(folder: Path, name: Callable[[int], str] = str) -> np.ndarray:
    """Write a hundred digits, dimmed to half, as class folders, and return the labels of the test part."""
    digits = load_digits()
    labels = []
    for i in range(100):
        split, label = ("train", "test")[i % 2], digits.target[i]
        path = folder / split / name(label) / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.round(digits.images[i] * (127 / 16)).astype(np.uint8)[..., None]
        path.write_bytes(tf.io.encode_png(image).numpy())
        labels += [label] * (split == "test")
    return np.array(labels)


def by_hand(run: Run, images: np.ndarray) -> np.ndarray:
    """Predicted classes of 8x8 images by Keras and the run's mean image alone."""
    return run.load_model().predict(images / 255 - run.preprocessing.mean, verbose=0).argmax(1)


@pytest.mark.parametrize(
    ("batch_size", "devices"), [(None, "cpu"), (7, "cpu"), (1000, "cpu"), (64, "cpu:2")]
)
def test_the_test_scores_are_those_of_training_for_any_batch_size_and_devices(
    run: Path, batch_size: int | None, devices: str
) -> None:
    before = json.loads((run / "test.json").read_text())
    (run / "test.json").unlink()
    scores = evaluate(run, batch_size=batch_size, devices=devices)
    after = json.loads((run / "test.json").read_text())
    assert after.pop("loss") == pytest.approx(before.pop("loss"), rel=1e-5)
    assert after == before and scores.examples == 360
    written = json.loads((run / "confusion.json").read_text())
    assert written == {"class_names": [str(d) for d in range(10)], "matrix": scores.confusion}


def test_another_split_is_kept_apart_from_the_test_scores(run: Path) -> None:
    before = snapshot(run)
    scores = evaluate(run, split="validation", devices="cpu")
    assert scores.examples == 150
    assert scores.top1 == Run.open(run).history[-1]["val_accuracy"]
    added = {
        "evaluation-validation.json",
        *(f"confusion-validation.{kind}" for kind in ("json", "png", "svg")),
    }
    assert snapshot(run) - before == added


def test_other_data_is_prepared_with_the_mean_of_the_set_trained_on(
    run: Path, tmp_path: Path
) -> None:
    labels = digits_folder(tmp_path / "dim")
    before = snapshot(run)
    scores = evaluate(run, data=f"folder:{tmp_path}/dim", out=tmp_path / "scores", devices="cpu")
    images = np.round(load_digits().images[1:100:2] * (127 / 16))[..., None]
    predicted = by_hand(Run.open(run), images)
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (labels, predicted), 1)
    assert scores.confusion == expected.tolist()
    assert snapshot(run) == before
    assert len(snapshot(tmp_path / "scores")) == 4
    (drawn,) = (tmp_path / "scores").glob("*.svg")
    assert ": dim, test, error " in drawn.read_text() and str(tmp_path) not in drawn.read_text()
    assert all(
        re.fullmatch(r"(evaluation|confusion)-folder[\w.-]+dim\.(json|png|svg)", n)
        for n in snapshot(tmp_path / "scores")
    )


def test_images_of_another_size_and_kind_are_brought_to_the_nets_input(
    run: Path, tmp_path: Path
) -> None:
    for label in range(10):
        for split in ("train", "test"):
            path = tmp_path / "big" / split / str(label) / "x.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(tf.io.encode_png(np.full((20, 31, 3), label * 20, np.uint8)).numpy())
    scores = evaluate(run, data=f"folder:{tmp_path}/big", devices="cpu")
    images = np.stack([np.full((8, 8, 1), 20.0 * label) for label in range(10)])
    assert [row.index(1) for row in scores.confusion] == by_hand(Run.open(run), images).tolist()


def test_other_classes_are_refused_in_one_line(run: Path, tmp_path: Path) -> None:
    before = snapshot(run)
    digits_folder(tmp_path / "named", name=lambda d: "nine" if d == 9 else str(d))
    digits_folder(tmp_path / "fewer", name=lambda d: str(d % 5))
    with pytest.raises(
        ReszooError,
        match="class 9 of folder:.*named is 'nine', but the net was trained to call it '9'",
    ):
        evaluate(run, data=f"folder:{tmp_path}/named", devices="cpu")
    with pytest.raises(
        ReszooError, match="folder:.*fewer has 5 classes, but the net tells 10 apart"
    ):
        evaluate(run, data=f"folder:{tmp_path}/fewer", devices="cpu")
    assert snapshot(run) == before


def test_what_is_no_finished_run_split_or_size_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ReszooError, match="no run folder"):
        evaluate(tmp_path / "nothing")
    with pytest.raises(ReszooError, match="no split 'tset'; there are train, validation, test"):
        evaluate(run, split="tset")
    with pytest.raises(ReszooError, match="batch size must be at least 1, got 0"):
        evaluate(run, batch_size=0)
    (run / "model.keras").unlink()
    with pytest.raises(ReszooError, match="no trained model yet"):
        evaluate(run, devices="cpu")


def test_a_thousand_classes_make_a_file_of_a_thousand_rows(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(1000)]
    matrix = np.eye(1000, dtype=int).tolist()
    scores = Scores(
        examples=1000, top1=1.0, top5=1.0, loss=0.5, per_class=[1.0] * 1000, confusion=matrix
    )
    write_scores(scores, names, tmp_path)
    text = (tmp_path / "confusion.json").read_text()
    assert json.loads(text) == {"class_names": names, "matrix": matrix}
    assert len(text.splitlines()) < 1010
    assert {path.name for path in tmp_path.iterdir()} == {
        "test.json",
        "confusion.json",
        "confusion.png",
        "confusion.svg",
    }


@pytest.mark.parametrize(
    ("name", "resize", "interpolation"),
    [("folder:photos", 16, "bicubic"), ("synthetic", 0, "bilinear")],
)
def test_another_dataset_is_resized_as_the_model_was_trained(
    name: str, resize: int, interpolation: str
) -> None:
    zeros, ones = np.zeros(3, np.float32), np.ones(3, np.float32)
    config = other_data(
        name, None, Preprocessing((12, 10), 3, 16, zeros, ones, interpolation="bicubic")
    )
    assert (tuple(config.image_size), config.channels, config.resize) == ((12, 10), 3, resize)
    assert (config.interpolation, config.normalize) == (interpolation, "unit")
