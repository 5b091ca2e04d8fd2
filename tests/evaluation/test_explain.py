"""Explanations of images: which class, which places, and what the overlay shows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import reszoo
from reszoo.errors import ReszooError
from reszoo.evaluation.explain import OPACITY, Explanation, explain
from reszoo.evaluation.source import Source
from reszoo.images.preprocessing import Preprocessing

NAMES = ("red", "blue")
PREPROCESSING = Preprocessing((8, 12), 3, 0, np.zeros(3), np.ones(3))


@pytest.fixture(scope="module")
def source() -> Source:
    """A model whose maps are the colors: class "red" adds up red, class "blue" blue."""
    inputs = keras.Input((8, 12, 3))
    x = keras.layers.Conv2D(3, 1, activation="relu", data_format="channels_last")(inputs)
    x = keras.layers.GlobalAveragePooling2D(data_format="channels_last")(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x), name="colors")
    weights = [np.eye(3)[None, None], np.zeros(3), np.eye(3)[:, ::2], np.zeros(2)]
    model.set_weights(weights)
    load = lambda: model  # noqa: E731
    return Source(name="colors", load=load, preprocessing=PREPROCESSING, class_names=NAMES)


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """A photo whose left half is red and whose right third is blue."""
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, :6, 0] = pixels[:, 8:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "halves.png")
    return tmp_path / "halves.png"


def test_the_places_of_the_class_are_marked(source: Source, halves: Path) -> None:
    assert reszoo.explain is explain
    (red,) = explain(source, halves)
    assert (red.path, red.label) == (str(halves), "red")
    logits = np.array([6 / 12, 4 / 12])
    assert red.probability == pytest.approx(np.exp(logits)[0] / np.exp(logits).sum())
    # Half of the maps' places have the value 1; the weight of red is 1 / (8 * 12).
    np.testing.assert_allclose(red.map[:, :6], 1 / 96, rtol=1e-6)
    assert not red.map[:, 6:].any()
    (blue,) = explain(source, halves, class_name="blue")
    assert blue.map[:, 8:].all() and not blue.map[:, :8].any()
    assert blue.probability == pytest.approx(1 - red.probability)


def test_the_overlay_colors_the_places_of_the_class_only(source: Source, halves: Path) -> None:
    (found,) = explain(source, halves)
    shown = np.asarray(found.overlay())
    assert shown.shape == (224, 336, 3)
    # Red is 76 in gray, and blue 29.
    assert (shown[:, 7 * 28 : 8 * 28] == 0).all() and (shown[:, 8 * 28 :] == 29).all()
    yellow = np.array([240, 249, 33])  # the last color of matplotlib's plasma
    expected = (1 - OPACITY) * 76 + OPACITY * yellow
    np.testing.assert_allclose(shown[100, 20], expected, atol=1.5)
    with Image.open(io.BytesIO(found._repr_png_())) as image:
        np.testing.assert_array_equal(image, shown)
    found.save(halves.with_name("out.png"))
    assert halves.with_name("out.png").read_bytes() == found._repr_png_()


def test_an_image_without_such_places_is_gray() -> None:
    image = np.full((300, 300, 3), 90, np.uint8)
    nothing = Explanation(path="", label="a", probability=0.0, map=np.zeros((2, 2)), image=image)
    np.testing.assert_array_equal(nothing.overlay(), image)


def test_gray_images_and_batches_are_explained(digits_run: Path, tmp_path: Path) -> None:
    model = reszoo.build("resnet8", classes=10, input_shape=(8, 8, 1))
    run = reszoo.Run.open(digits_run)
    load = lambda: model  # noqa: E731
    source = Source(
        name="x", load=load, preprocessing=run.preprocessing, class_names=run.class_names
    )
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), np.uint8)
    found = explain(source, images, layer="stage1")
    predictions = reszoo.predict(source, images, top=1)
    for one, prediction, image in zip(found, predictions, images, strict=True):
        assert ((one.label,), one.path) == (prediction.labels, prediction.path)
        assert one.probability == pytest.approx(prediction.probabilities[0], abs=1e-5)
        np.testing.assert_array_equal(one.image, image.repeat(3, -1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_name": "blau"}, "^class_name: 'blau' is invalid; expected a class of the model"),
        ({"layer": "stage1"}, "^layer: 'stage1' is invalid; expected one of conv2d"),
        ({"target_layer": "x"}, "expected layer"),
        ({}, "^missing.png: No such file"),
    ],
)
def test_invalid_arguments_are_rejected(
    options: dict[str, Any], message: str, source: Source
) -> None:
    with pytest.raises(ReszooError, match=message):
        explain(source, "missing.png", **options)
