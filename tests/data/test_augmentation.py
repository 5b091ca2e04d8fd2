"""Augmentation against NumPy, and its probabilities against the papers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from reszoo.config.data import DataConfig, InceptionCrop, ScaleCrop
from reszoo.data.augmentation import (
    PCA_VALUES,
    PCA_VECTORS,
    apply_crop_flip,
    draw_crop_flip,
    draw_mirrored,
    draw_pca_noise,
    draw_windows,
    mirror,
    place_windows,
    take_window,
)
from reszoo.data.normalization import unnormalized
from reszoo.data.random_keys import make_key

Photo = Callable[..., np.ndarray]
DIGITS = DataConfig(name="digits")


def crops(image: np.ndarray, pad: int, flip: bool) -> dict[bytes, tuple[int, int, bool]]:
    """Every crop that He et al.'s augmentation can make of an image, by slicing."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    found = {}
    for y in range(2 * pad + 1):
        for x in range(2 * pad + 1):
            cut = padded[y : y + height, x : x + width]
            found[cut.tobytes()] = (y, x, False)
            if flip:
                found[cut[:, ::-1].tobytes()] = (y, x, True)
    return found


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", [(8, 6, 3), (5, 9, 1)])
def test_pad_crop_flip_is_a_slice_of_the_padded_image(
    shape: tuple[int, int, int], flip: bool
) -> None:
    images = np.random.default_rng(0).standard_normal((600, *shape)).astype(np.float32)
    got = apply_crop_flip(images, 2, *draw_crop_flip(600, 2, flip, make_key(0))).numpy()
    seen = [crops(image, 2, flip)[cut.tobytes()] for image, cut in zip(images, got, strict=True)]
    # 25 offsets, mirrored or not: all occur among 600 draws, none far too often.
    counts = {what: seen.count(what) for what in seen}
    assert len(counts) == (50 if flip else 25)
    assert max(counts.values()) < (30 if flip else 50)


def test_half_of_the_images_are_mirrored() -> None:
    images = np.random.default_rng(1).integers(0, 255, (400, 4, 5, 3)).astype(np.float32)
    got = apply_crop_flip(images, 0, *draw_crop_flip(400, 0, True, make_key(1))).numpy()
    kept = (got == images).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(got[~kept], images[~kept][:, :, ::-1])
    assert 150 < kept.sum() < 250
    mirrored = draw_mirrored(400, make_key(1))
    np.testing.assert_array_equal(mirrored, ~kept)
    singly = [mirror(image, turn) for image, turn in zip(images[:20], mirrored[:20], strict=True)]
    np.testing.assert_array_equal(singly, got[:20])


def test_keys_differ_by_every_number_and_repeat() -> None:
    numbers = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 1, 0)]
    assert len({tuple(make_key(*some).numpy()) for some in numbers}) == 7
    again = make_key(5, 6, tf.constant(7, tf.int64)).numpy()
    assert tuple(again) == tuple(make_key(5, 6, 7).numpy())


def windows_of(
    shapes: list[tuple[int, int]], crop: InceptionCrop | ScaleCrop, size: tuple[int, int] = (32, 32)
) -> np.ndarray:
    draws = draw_windows(len(shapes), crop, make_key(0))
    return place_windows(tf.constant(shapes), draws, crop, size).numpy()


@pytest.mark.parametrize("shape", [(300, 400), (64, 64), (100, 30), (1, 1)])
def test_inception_windows_lie_inside_and_have_the_area_and_aspect(shape: tuple[int, int]) -> None:
    y, x, height, width = windows_of([shape] * 300, InceptionCrop()).T
    assert (y >= 0).all() and (x >= 0).all() and (height >= 1).all() and (width >= 1).all()
    assert (y + height <= shape[0]).all() and (x + width <= shape[1]).all()
    if min(shape) == 64:
        share, aspect = height * width / 64**2, width / height
        assert share.min() > 0.07 and share.min() < 0.12 and share.max() > 0.85
        assert aspect.min() > 0.72 and aspect.max() < 1.39
        # Before those that do not fit are drawn again, as many are wide as tall.
        assert abs(np.mean(np.log(aspect))) < 0.03


def test_inception_window_falls_back_to_the_central_square() -> None:
    # Of a strip ten times as wide as tall no window of 90 % of the area has an aspect near 1.
    windows = windows_of([(20, 200), (60, 60)], InceptionCrop(area=(0.9, 1.0)))
    assert windows[0].tolist() == [0, 90, 20, 20]
    assert windows[1, 2:].min() > 48  # its neighbor found one


def test_scale_window_shows_what_resize_then_crop_shows(photo: Photo) -> None:
    image, crop = photo(60, 80), ScaleCrop(scale=(40, 50))
    for window in windows_of([(60, 80)] * 20, crop, (32, 36)):
        y, x, height, width = window
        assert y >= 0 and x >= 0 and y + height <= 60 and x + width <= 80
        # The window's size shows the length that was drawn. Pillow resizes to it and crops.
        assert 39 <= round(60 * 32 / height) <= 51
        got = take_window(tf.constant(image), window, unnormalized((32, 36), 3, DIGITS))
        box = (x, y, x + width, y + height)
        expected = Image.fromarray(image).resize((36, 32), Image.Resampling.BILINEAR, box=box)
        assert np.abs(got.numpy().astype(int) - np.asarray(expected)).mean() < 1.5


def test_scale_window_reaches_every_length_and_corner() -> None:
    windows = windows_of([(64, 64)] * 400, ScaleCrop(scale=(32, 64)))
    assert windows[:, 2].min() == 32 and windows[:, 2].max() == 64
    assert windows[:, 0].min() == 0 and (windows[:, 0] + windows[:, 2]).max() == 64


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_partial_decode_equals_decode_then_crop(kind: str, channels: int, photo: Photo) -> None:
    pixels = photo(97, 131)
    contents = tf.io.encode_png(pixels) if kind == "PNG" else tf.io.encode_jpeg(pixels, quality=90)
    pixels = tf.io.decode_jpeg(contents, dct_method="INTEGER_ACCURATE")
    small = unnormalized((32, 32), channels, DIGITS)
    for window in windows_of([(97, 131)] * 12, InceptionCrop()):
        part = take_window(contents, window, small).numpy()
        whole = take_window(pixels, window, small).numpy()
        assert part.shape == (32, 32, channels)
        # At the window's edge, halved chroma is interpolated from what was decoded.
        assert np.abs(part.astype(int) - whole).mean() < 0.5
        assert np.abs(part.astype(int) - whole).max() <= (24 if kind == "JPEG" else 0)


def test_pca_noise_has_the_covariance_of_the_paper() -> None:
    std = np.array([0.2, 0.3, 0.4], np.float32)
    noise = draw_pca_noise(20000, 3, std, make_key(0)).numpy()
    assert noise.shape == (20000, 1, 1, 3)
    color = noise[:, 0, 0] * std
    vectors, values = np.array(PCA_VECTORS), np.array(PCA_VALUES)
    expected = vectors @ np.diag((0.1 * values) ** 2) @ vectors.T
    np.testing.assert_allclose(np.cov(color.T), expected, atol=0.05 * expected.max())
    np.testing.assert_allclose(color.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-3)


def test_pca_noise_of_gray_images_is_the_luminance_of_the_color() -> None:
    color = draw_pca_noise(50, 3, np.ones(3, np.float32), make_key(4)).numpy()
    gray = draw_pca_noise(50, 1, np.full(1, 0.5, np.float32), make_key(4)).numpy()
    np.testing.assert_allclose(gray[..., 0], color @ [0.299, 0.587, 0.114] / 0.5, atol=1e-6)
