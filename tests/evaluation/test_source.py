"""Trained models found by a model name, a Keras model or a source; nothing is downloaded."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import reszoo
from reszoo.config.data import NoCrop
from reszoo.data.pipeline import open_dataset
from reszoo.errors import ReszooError
from reszoo.evaluation.evaluate import other_data
from reszoo.evaluation.source import open_source, preprocessing
from reszoo.weights.published import published


def test_a_model_name_has_the_classes_and_transforms_of_its_weights() -> None:
    for row in published():
        source = open_source(row.model, row.tag)
        assert source.name == f"{row.model} {row.tag}" and source.run is None
        assert (
            (source.class_names, source.class_ids) == (row.class_names, row.class_ids) != ((), ())
        )
        assert len(set(source.class_names)) == len(source.class_names) > 9
        np.testing.assert_allclose(source.preprocessing.mean, row.transforms.mean)
        assert source.preprocessing.image_size == row.transforms.image_size
        assert source.details["weights"]["tag"] == row.tag


def test_a_source_is_returned_unchanged_and_frozen() -> None:
    source = open_source(published()[0].model)
    assert open_source(source) is source
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.name = "other"  # type: ignore[misc]


def test_a_model_of_unknown_preprocessing_is_rejected() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="own")
    with pytest.raises(ReszooError, match="^own: the preprocessing of its images is unknown"):
        open_source(model)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo: Callable[..., Any]) -> Path:
    """Two photos of different sizes in each of two classes, JPEG (one turned by EXIF) and PNG."""
    folder = tmp_path_factory.mktemp("photos")
    turned = Image.Exif()
    turned[0x0112] = 6
    for split, number in itertools.product(("train", "test"), range(4)):
        kind = "jpg" if number < 2 else "png"
        path = folder / split / "ab"[number % 2] / f"{number}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(photo(300 + 9 * number, 260, number))
        image.save(path, exif=turned if number == 0 else Image.Exif())
    return folder


@pytest.mark.parametrize("of", ["run", "resnet50_keras", "model"])
def test_preprocessing_gives_the_inputs_of_evaluation_to_the_bit(
    of: str, digits_run: Path, photos: Path
) -> None:
    named: Any = digits_run if of == "run" else of
    expected = open_source("resnet20" if of == "model" else named).preprocessing
    if of == "model":  # without a classifier
        named = SimpleNamespace(pretrained=SimpleNamespace(transforms=expected))
    prepare = reszoo.preprocessing(named)
    settings = other_data(f"folder:{photos}", None, expected)
    pipeline = open_dataset(settings, NoCrop(), batch_size=3, seed=0)
    pipeline.preprocessing = expected
    inputs = np.concatenate([images for images, _ in pipeline.evaluation("test")])
    files = [str(path) for path in sorted((photos / "test").rglob("*.*"))]
    own = tf.data.Dataset.from_tensor_slices(files).map(tf.io.read_file).map(prepare)
    np.testing.assert_array_equal(np.stack(list(own)), inputs)
    assert inputs.shape == (4, *expected.input_shape) and inputs.dtype == np.float32
    pixels = np.array(Image.open(files[1]))  # PNG
    np.testing.assert_array_equal(prepare(pixels), inputs[1])


def test_preprocessing_is_described() -> None:
    shown = str(preprocessing("resnet50_keras"))
    assert shown.startswith("shorter side 256, crop 224x224, ") and "BGR, mean 0.4" in shown
    with pytest.raises(ReszooError, match="no run folder nowhere"):
        preprocessing("nowhere")
