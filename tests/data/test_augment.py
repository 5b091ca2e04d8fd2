"""Augmentation against NumPy, and its chances against what the papers say."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from reszoo.config.data import Augmentation, DataConfig
from reszoo.data.augment import (
    PCA_VALUES,
    PCA_VECTORS,
    inception_windows,
    mirror,
    mirrored,
    pad_crop_flip,
    pca_noise,
    random_windows,
    scale_windows,
    take_window,
)
from reszoo.data.keys import make_key
from reszoo.data.statistics import plain

Photo = Callable[..., np.ndarray]
DIGITS = DataConfig(name="digits")


def candidates(image: np.ndarray, pad: int, flip: bool) -> dict[bytes, tuple[int, int, bool]]:
    """Every crop that He et al.'s augmentation can make of an image, by slicing."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    crops = {}
    for y in range(2 * pad + 1):
        for x in range(2 * pad + 1):
            cut = padded[y : y + height, x : x + width]
            crops[cut.tobytes()] = (y, x, False)
            if flip:
                crops[cut[:, ::-1].tobytes()] = (y, x, True)
    return crops


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", [(8, 6, 3), (5, 9, 1)])
def test_pad_crop_flip_is_a_slice_of_the_padded_image(
    shape: tuple[int, int, int], flip: bool
) -> None:
    images = np.random.default_rng(0).standard_normal((600, *shape)).astype(np.float32)
    got = pad_crop_flip(tf.constant(images), 2, flip, make_key(0)).numpy()
    seen = [
        candidates(image, 2, flip)[crop.tobytes()] for image, crop in zip(images, got, strict=True)
    ]
    # 25 offsets, each side alike, and mirrored or not: all occur among 600 draws, none far too often.
    tally = {what: seen.count(what) for what in seen}
    assert len(tally) == (50 if flip else 25)
    assert max(tally.values()) < (30 if flip else 50)


def test_flip_alone_mirrors_about_half() -> None:
    images = np.random.default_rng(0).standard_normal((400, 4, 5, 3)).astype(np.float32)
    got = pad_crop_flip(tf.constant(images), 0, True, make_key(1)).numpy()
    kept = (got == images).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(got[~kept], images[~kept][:, :, ::-1])
    assert 150 < kept.sum() < 250


def test_mirrored_are_those_that_pad_crop_flip_mirrors() -> None:
    images = tf.random.stateless_uniform([40, 5, 7, 3], [1, 2], 0, 256, tf.int32)
    turned = pad_crop_flip(tf.cast(images, tf.float32), 0, True, make_key(3))
    ours = [
        mirror(image, turn) for image, turn in zip(images, mirrored(40, make_key(3)), strict=True)
    ]
    np.testing.assert_array_equal(ours, turned)


def test_keys_differ_by_every_number_and_repeat() -> None:
    keys = {
        tuple(make_key(*numbers).numpy())
        for numbers in [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 1, 0)]
    }
    assert len(keys) == 7
    assert tuple(make_key(5, 6, tf.constant(7, tf.int64)).numpy()) == tuple(
        make_key(5, 6, 7).numpy()
    )


@pytest.mark.parametrize("shape", [(300, 400), (64, 64), (100, 30), (1, 1)])
def test_inception_windows_lie_inside_and_have_the_area_and_aspect_asked(
    shape: tuple[int, int],
) -> None:
    windows = inception_windows(tf.constant([shape] * 300), (0.08, 1.0), make_key(0)).numpy()
    y, x, height, width = windows.T
    assert (y >= 0).all() and (x >= 0).all() and (height >= 1).all() and (width >= 1).all()
    assert (y + height <= shape[0]).all() and (x + width <= shape[1]).all()
    if min(shape) == 64:
        share, aspect = height * width / 64**2, width / height
        assert share.min() > 0.07 and share.min() < 0.12 and share.max() > 0.85
        assert aspect.min() > 0.72 and aspect.max() < 1.39
        # Before those that do not fit are drawn again, the aspect's logarithm is even about 0: as many wide as tall.
        assert abs(np.mean(np.log(aspect))) < 0.03


def test_inception_window_falls_back_to_the_central_square() -> None:
    # Of a strip ten times as wide as tall no window of 90 % of the area has an aspect near 1.
    windows = inception_windows(tf.constant([[20, 200], [60, 60]]), (0.9, 1.0), make_key(0)).numpy()
    assert windows[0].tolist() == [0, 90, 20, 20]
    assert windows[1, 2:].min() > 48  # its neighbour found one


def test_scale_window_shows_what_resize_then_crop_shows(photo: Photo) -> None:
    image = photo(60, 80)
    for i in range(20):
        window = scale_windows(tf.constant([[60, 80]]), (40, 50), (32, 36), make_key(0, i))[
            0
        ].numpy()
        y, x, height, width = window
        assert y >= 0 and x >= 0 and y + height <= 60 and x + width <= 80
        # The window's size tells the length that was drawn; then PIL resizes the whole image to it and crops.
        length = round(60 * 32 / height)
        assert 39 <= length <= 51
        got = take_window(tf.constant(image), window, plain((32, 36), 3, DIGITS))
        box = (x, y, x + width, y + height)
        expected = Image.fromarray(image).resize((36, 32), Image.Resampling.BILINEAR, box=box)
        assert np.abs(got.numpy().astype(int) - np.asarray(expected)).mean() < 1.5


def test_scale_window_reaches_every_length_and_corner() -> None:
    windows = scale_windows(tf.constant([[64, 64]] * 400), (32, 64), (32, 32), make_key(0)).numpy()
    assert windows[:, 2].min() == 32 and windows[:, 2].max() == 64
    assert windows[:, 0].min() == 0 and (windows[:, 0] + windows[:, 2]).max() == 64


@pytest.mark.parametrize("crop", ["inception", "scale"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_partial_decode_equals_decode_then_crop(
    crop: str, kind: str, channels: int, photo: Photo
) -> None:
    file = io.BytesIO()
    Image.fromarray(photo(97, 131)).save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
    augment = (
        Augmentation.of(crop=crop, scale=(40, 60))
        if crop == "scale"
        else Augmentation.of(crop=crop)
    )
    pixels = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
    for window in random_windows(tf.constant([[97, 131]] * 12), augment, (32, 32), make_key(7)):
        part = take_window(
            tf.constant(file.getvalue()), window, plain((32, 32), channels, DIGITS)
        ).numpy()
        whole = take_window(tf.constant(pixels), window, plain((32, 32), channels, DIGITS)).numpy()
        assert part.shape == (32, 32, channels)
        # At the window's edge, halved chroma is interpolated from what was decoded: a few grey values, on few pixels.
        assert np.abs(part.astype(int) - whole).mean() < 0.5
        assert np.abs(part.astype(int) - whole).max() <= (24 if kind == "JPEG" else 0)


def test_pca_noise_has_the_covariance_of_the_paper() -> None:
    std = np.array([0.2, 0.3, 0.4], np.float32)
    noise = pca_noise(tf.zeros([20000, 2, 2, 3]), std, make_key(0)).numpy()
    assert (noise == noise[:, :1, :1]).all()
    colour = noise[:, 0, 0] * std
    vectors, values = np.array(PCA_VECTORS), np.array(PCA_VALUES)
    expected = vectors @ np.diag((0.1 * values) ** 2) @ vectors.T
    np.testing.assert_allclose(np.cov(colour.T), expected, atol=0.05 * expected.max())
    np.testing.assert_allclose(colour.mean(axis=0), 0, atol=1e-3)


def test_pca_vectors_are_orthonormal() -> None:
    np.testing.assert_allclose(np.array(PCA_VECTORS).T @ PCA_VECTORS, np.eye(3), atol=1e-3)


def test_pca_noise_of_grey_images_is_the_luminance_of_the_colour() -> None:
    colour = pca_noise(tf.zeros([50, 1, 1, 3]), np.ones(3, np.float32), make_key(4)).numpy()
    grey = pca_noise(tf.zeros([50, 1, 1, 1]), np.full(1, 0.5, np.float32), make_key(4)).numpy()
    np.testing.assert_allclose(grey[..., 0], colour @ [0.299, 0.587, 0.114] / 0.5, atol=1e-6)
