"""The numbers that normalisation takes away: of the training part alone, checked against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reszoo.config.data import DataConfig, NoCrop, PadCrop
from reszoo.data.parts import Arrays, Files
from reszoo.data.pipeline import open_dataset
from reszoo.data.statistics import channel_statistics, fitted, plain
from reszoo.errors import ReszooError


def test_channel_statistics_are_numpys() -> None:
    images = np.random.default_rng(0).integers(0, 200, (9, 5, 6, 3), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-12)


def test_a_constant_channel_is_not_divided_by_zero() -> None:
    images = np.full((2, 3, 3, 1), 51, np.uint8)
    mean, std = channel_statistics(images)
    assert mean.tolist() == [0.2] and std.tolist() == [1.0]


@pytest.mark.parametrize("normalize", ["pixel_mean", "channel", "unit"])
def test_only_the_training_part_counts(normalize: str) -> None:
    data = DataConfig(name="synthetic", validation=100, examples=300, normalize=normalize)
    pipeline = open_dataset(data, NoCrop(), batch_size=10, seed=0)
    train: Any = pipeline._images.parts["train"]
    assert train.count == 300
    pixels = train.images / 255
    mean = {
        "pixel_mean": pixels.mean(axis=0),
        "channel": pixels.mean(axis=(0, 1, 2)),
        "unit": np.zeros(3),
    }[normalize]
    std = pixels.std(axis=(0, 1, 2)) if normalize == "channel" else np.ones(3)
    np.testing.assert_allclose(pipeline.preprocessing.mean, mean, atol=1e-7)
    np.testing.assert_allclose(pipeline.preprocessing.std, std, atol=1e-7)


@pytest.mark.parametrize("channels", [1, 3])
def test_streamed_sets_take_imagenets_published_numbers(channels: int) -> None:
    files = Files(np.array(["a.jpg"], object), np.zeros(1, np.int32))
    got = fitted(plain((8, 8), channels, DataConfig(name="digits")), files, "channel")
    mean, std = (
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if channels == 3 else ([0.449], [0.226])
    )
    np.testing.assert_allclose(got.mean, mean, atol=1e-6)
    np.testing.assert_allclose(got.std, std, atol=1e-6)
    with pytest.raises(ReszooError, match="data.normalize='channel'"):
        fitted(plain((8, 8), channels, DataConfig(name="digits")), files, "pixel_mean")


def test_padding_and_noise_come_after_normalisation() -> None:
    # He et al. pad the normalised image with zeros: every training image is a window of the zero-padded normalised one.
    data = DataConfig(name="digits")
    pipeline = open_dataset(data, PadCrop(pad=2, flip=True), batch_size=40, seed=0)
    train: Any = pipeline._images.parts["train"]
    assert isinstance(train, Arrays)
    normal = train.images / 255.0 - (train.images / 255.0).mean(axis=0)
    padded = np.pad(normal, ((0, 0), (2, 2), (2, 2), (0, 0)))
    windows = [padded[:, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
    every = np.stack([view for cut in windows for view in (cut, cut[:, :, ::-1])]).astype(
        np.float32
    )
    images, labels = next(pipeline.train().as_numpy_iterator())
    for image, label in zip(images, labels, strict=True):
        off = np.abs(every[:, train.labels == label] - image).max(axis=(2, 3, 4))
        assert off.min() < 1e-6
