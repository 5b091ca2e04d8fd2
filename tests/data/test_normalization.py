"""Mean and standard deviation of the training split alone, checked against NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reszoo.config.data import DataConfig, NoCrop, PadCrop
from reszoo.data.dataset import ArraySplit, FileSplit
from reszoo.data.normalization import channel_statistics, fit_normalization, unnormalized
from reszoo.data.pipeline import open_dataset
from reszoo.errors import ReszooError

DIGITS = DataConfig(name="digits")


@pytest.mark.smoke
def test_channel_statistics_are_numpys() -> None:
    images = np.random.default_rng(0).integers(0, 200, (9, 5, 6, 3), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-12)
    mean, std = channel_statistics(np.full((2, 3, 3, 1), 51, np.uint8))
    assert mean.tolist() == [0.2] and std.tolist() == [1.0], "not divided by zero"


@pytest.mark.parametrize("normalize", ["pixel_mean", "channel", "unit"])
def test_only_the_training_split_counts(normalize: str) -> None:
    data = DataConfig(name="synthetic", validation=100, examples=300, normalize=normalize)
    pipeline = open_dataset(data, NoCrop(), batch_size=10, seed=0)
    train: Any = pipeline.dataset.splits["train"]
    assert train.count == 300
    pixels = train.images / 255
    mean = {"pixel_mean": pixels.mean(axis=0), "channel": pixels.mean(axis=(0, 1, 2)), "unit": 0}
    std = pixels.std(axis=(0, 1, 2)) if normalize == "channel" else 1
    np.testing.assert_allclose(
        pipeline.preprocessing.mean, mean[normalize] + np.zeros(3), atol=1e-7
    )
    np.testing.assert_allclose(pipeline.preprocessing.std, std + np.zeros(3), atol=1e-7)


@pytest.mark.parametrize(("channels", "mean", "std"), [(3, 0.485, 0.229), (1, 0.449, 0.226)])
def test_streamed_datasets_use_imagenets_published_numbers(
    channels: int, mean: float, std: float
) -> None:
    files = FileSplit(np.array(["a.jpg"], object), np.zeros(1, np.int32))
    got = fit_normalization(unnormalized((8, 8), channels, DIGITS), files, "channel")
    assert (got.mean[0], got.std[0]) == pytest.approx((mean, std), abs=1e-6)
    with pytest.raises(ReszooError, match="data.normalize=channel"):
        fit_normalization(unnormalized((8, 8), channels, DIGITS), files, "pixel_mean")


@pytest.mark.parametrize("normalize", ["channel", "pixel_mean"])
def test_numbers_measured_for_bgr_are_in_bgr(normalize: str) -> None:
    images = np.random.default_rng(6).integers(0, [100, 180, 256], (5, 4, 6, 3), dtype=np.uint8)
    split = ArraySplit(images, np.zeros(5, np.int32))
    plain = unnormalized((4, 6), 3, DIGITS)
    rgb = fit_normalization(plain, split, normalize)
    bgr = fit_normalization(replace(plain, channel_order="BGR"), split, normalize)
    np.testing.assert_allclose(bgr.apply(images)[..., ::-1], rgb.apply(images), atol=1e-6)


def test_padding_and_noise_come_after_normalization() -> None:
    # He et al. pad the normalized image with zeros: every training image is a window of it.
    pipeline = open_dataset(DIGITS, PadCrop(pad=2, flip=True), batch_size=40, seed=0)
    train: Any = pipeline.dataset.splits["train"]
    normal = train.images / 255.0 - (train.images / 255.0).mean(axis=0)
    padded = np.pad(normal, ((0, 0), (2, 2), (2, 2), (0, 0)))
    windows = [padded[:, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
    every = np.stack([view for cut in windows for view in (cut, cut[:, :, ::-1])]).astype("f4")
    images, labels = next(pipeline.train().as_numpy_iterator())
    for image, label in zip(images, labels, strict=True):
        off = np.abs(every[:, train.labels == label] - image).max(axis=(2, 3, 4))
        assert off.min() < 1e-6
