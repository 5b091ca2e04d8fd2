"""Errors of ten crops and of several scales, against NumPy and Pillow on image files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from reszoo.errors import ReszooError
from reszoo.evaluation.evaluate import evaluate
from reszoo.evaluation.source import Source
from reszoo.images.preprocessing import Preprocessing

MEAN, STD = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.25])
PREPROCESSING = Preprocessing((12, 10), 3, 16, MEAN, STD)
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A small convolution, whose outputs NumPy computes easily."""
    inputs = keras.Input((12, 10, 3))
    x = keras.layers.Conv2D(8, 1, activation="relu", data_format="channels_last")(inputs)
    x = keras.layers.GlobalAveragePooling2D(data_format="channels_last")(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x), name="small")
    random = np.random.default_rng(1)
    model.set_weights([3 * random.normal(size=each.shape) for each in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo: Any) -> tuple[Path, Any, Any]:
    """Photos of several sizes in class folders; their pixels and labels in evaluation's order."""
    root, images, labels = tmp_path_factory.mktemp("photos"), [], []
    for number in range(15):
        # Pairs of neighbors have one size.
        label, image = number // 5, photo(18 + number // 2, 30 - number // 2, seed=number)
        for split in ("train", "test"):
            path = root / split / NAMES[label] / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        images.append(image)
        labels.append(label)
    return root, images, np.array(labels)


def source(model: keras.Model) -> Source:
    return Source(name="small", load=lambda: model, preprocessing=PREPROCESSING, class_names=NAMES)


def resized(image: Any, side: int) -> Any:
    height, width = image.shape[:2]
    short = min(height, width)
    size = (side * width // short, side * height // short)
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def probabilities(model: keras.Model, pixels: Any) -> Any:
    """Apply the model to one image of any size, in NumPy."""
    kernel, bias, dense, offset = (each.astype(float) for each in model.get_weights())
    maps = np.maximum((pixels / 255 - MEAN) / STD @ kernel[0, 0] + bias, 0)
    values = np.exp(maps.mean((0, 1)) @ dense + offset)
    return values / values.sum()


def views_of(image: Any, test: str) -> list[Any]:
    if test == "scales":
        views = [resized(image, side) for side in (9, 16, 23)]
        return [*views, *(view[:, ::-1] for view in views)]
    large = resized(image, 16)
    bottom, right = large.shape[0] - 12, large.shape[1] - 10
    middle = (round(bottom / 2), round(right / 2))
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), middle]
    places = places if test == "crops" else [middle]
    views = [large[top : top + 12, left : left + 10] for top, left in places]
    return [*views, *(view[:, ::-1] for view in views)]


OPTIONS: dict[str, dict[str, Any]] = {
    "crops": {"crops": 10},
    "scales": {"scales": (9, 16, 23), "flip": True},
    "flip": {"flip": True},
}


@pytest.mark.parametrize(
    ("test", "batch_size", "devices"),
    [
        ("crops", None, "cpu"),
        ("crops", 30, "cpu:2"),
        ("scales", None, "cpu"),
        ("scales", 1, "cpu"),
        ("flip", 7, "cpu"),
    ],
)
def test_errors_are_those_of_pillow_and_numpy(
    test: str, batch_size: int | None, devices: str, model: Any, photos: Any, tmp_path: Path
) -> None:
    root, images, labels = photos
    mean = np.stack(
        [
            np.mean([probabilities(model, view) for view in views_of(image, test)], axis=0)
            for image in images
        ]
    )
    scores = evaluate(
        source(model),
        data=f"folder:{root}",
        out=tmp_path,
        batch_size=batch_size,
        devices=devices,
        **OPTIONS[test],
    )
    assert scores.examples == 15
    assert scores.loss == pytest.approx(-np.log(mean[range(15), labels]).mean(), rel=1e-4)
    for true, predicted in zip(labels, mean.argmax(1), strict=True):
        assert scores.confusion[true][predicted] > 0
    assert scores.top1 == pytest.approx((mean.argmax(1) == labels).mean())
    names = {"crops": "10-crop", "scales": "scales 9,16,23 flip", "flip": "1-crop flip"}
    assert scores.test == names[test]
    (file,) = tmp_path.glob("evaluation-*.json")
    assert json.loads(file.read_text())["test"] == names[test]


def test_scales_need_a_model_of_any_size(photos: Any) -> None:
    inputs = keras.Input((12, 10, 3))
    flat = keras.layers.Flatten(data_format="channels_last")(inputs)
    fixed = keras.Model(inputs, keras.layers.Dense(3)(flat), name="flat")
    with pytest.raises(ReszooError, match="^scales: flat takes images of one size only"):
        evaluate(source(fixed), data=f"folder:{photos[0]}", scales=(16,), devices="cpu")


def test_small_images_of_a_run_are_evaluated_by_ten_crops(
    digits_run: Path, tmp_path: Path, classify: Any
) -> None:
    """The digits, 8x8 with a mean image, padded by 4 zero pixels after normalization."""
    from reszoo.training.run import Run

    run = Run.open(digits_run)
    scores = evaluate(digits_run, crops=10, out=tmp_path, devices="cpu")
    images, labels = run.open_pipeline().dataset.split("test").tensors()  # type: ignore[attr-defined]
    kernel, bias = (each.astype(float) for each in run.load_model().get_weights())
    padded = np.pad(images / 255 - run.preprocessing.mean, [(0, 0), (4, 4), (4, 4), (0, 0)])
    total = np.zeros((len(images), 10))
    for top, left in [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]:
        crop = padded[:, top : top + 8, left : left + 8]
        for view in (crop, crop[:, :, ::-1]):
            values = np.exp(view.reshape(len(images), -1) @ kernel + bias)
            total += values / values.sum(1, keepdims=True) / 10
    assert scores.examples == 360
    assert scores.top1 == pytest.approx((total.argmax(1) == np.asarray(labels)).mean())
    expected = -np.log(total[range(360), np.asarray(labels)]).mean()
    assert scores.loss == pytest.approx(expected, rel=1e-4)
    assert (tmp_path / "evaluation-10-crop.json").is_file()
