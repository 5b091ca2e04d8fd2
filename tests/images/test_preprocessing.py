"""Image to input, against the arithmetic of NumPy, Pillow and torchvision."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from reszoo.errors import ReszooError
from reszoo.images.preprocessing import Preprocessing
from reszoo.images.resizing import center_window, resize, scale_shorter_side

Photo = Callable[..., np.ndarray]
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MEAN, STD = np.array([0.1, 0.5, 0.9], np.float32), np.array([0.2, 0.3, 0.25], np.float32)


def unit(size: tuple[int, int], channels: int, resize: int = 0, **fields: str) -> Preprocessing:
    """Preprocessing that resizes images and scales them to 0..1."""
    zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    return Preprocessing(size, channels, resize, zeros, ones, **fields)


def pil_resize(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Pillow's resize, across and then down: its own order unless the height shrinks far more."""
    across = Image.fromarray(image).resize((size[1], image.shape[0]), FILTERS[interpolation])
    return np.asarray(across.resize(size[::-1], FILTERS[interpolation]))


def torchvision_size(height: int, width: int, length: int) -> tuple[int, int]:
    """torchvision.transforms.functional._compute_resized_output_size, of one length."""
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = length, int(length * long / short)
    return (new_long, new_short) if width <= height else (new_short, new_long)


def torchvision_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """torchvision.transforms.functional.center_crop, of an image at least as large."""
    top = int(round((image.shape[0] - height) / 2.0))
    left = int(round((image.shape[1] - width) / 2.0))
    return image[top : top + height, left : left + width]


def agree(got: Any, expected: np.ndarray) -> None:
    """Assert that pixels are equal but for one in fifty, which is a level apart.

    A sum that comes to a half goes up or down by the last bits of its weights; where the sizes are
    in a ratio of small numbers, many do.
    """
    assert got.numpy().dtype == np.uint8
    apart = np.abs(got.numpy().astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 0.02


@pytest.fixture
def mean_image() -> Preprocessing:
    mean = np.random.default_rng(1).random((6, 8, 3)).astype(np.float32)
    return Preprocessing((6, 8), 3, 0, mean, np.ones(3, np.float32))


def test_normalization_is_numpys(mean_image: Preprocessing, photo: Photo) -> None:
    images = np.random.default_rng(2).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
    got = mean_image.apply(images)
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, images / 255.0 - mean_image.mean, atol=2e-7)
    by_channel = Preprocessing((6, 8), 3, 0, MEAN, STD)
    np.testing.assert_allclose(by_channel.apply(images), (images / 255.0 - MEAN) / STD, atol=2e-6)
    bgr = replace(by_channel, channel_order="BGR")
    expected = (images[..., ::-1] / 255.0 - MEAN) / STD
    np.testing.assert_allclose(bgr.apply(images), expected, atol=2e-6)
    batch = tf.function(bgr.apply, input_signature=[tf.TensorSpec([None, 6, 8, 3], tf.uint8)])
    np.testing.assert_allclose(batch(images), expected, atol=2e-6)
    np.testing.assert_array_equal(bgr.to_input(images[0]), images[0])
    gray = Preprocessing((6, 8), 1, 0, MEAN[:1], STD[:1])
    image = photo(6, 8)
    np.testing.assert_array_equal(
        gray.from_image(image), replace(gray, channel_order="BGR").from_image(image)
    )


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (33, 200), (301, 41), (20, 29), (32, 32)])
def test_shorter_side_then_center_crop(
    photo: Photo, shape: tuple[int, int], interpolation: str
) -> None:
    image, size = photo(*shape), torchvision_size(*shape, 32)
    expected = torchvision_crop(pil_resize(image, size, interpolation), 25, 28)
    preprocessing = unit((25, 28), 3, resize=32, interpolation=interpolation)
    agree(preprocessing.to_input(image), expected)
    # As an export takes them: floats, of a size that the graph does not know.
    graph = tf.function(
        preprocessing.to_input, input_signature=[tf.TensorSpec([None, None, 3], tf.float32)]
    )
    agree(graph(image.astype(np.float32)), expected)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("kind", ["smooth", "noise"])
@pytest.mark.parametrize("shape", [(101, 149), (149, 101), (45, 52), (1, 90), (70, 1)])
def test_resize_is_pillows_to_few_pixels(
    photo: Photo, shape: tuple[int, int], kind: str, interpolation: str
) -> None:
    random = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = photo(*shape) if kind == "smooth" else random
    got = resize(tf.constant(image), (73, 64), interpolation)
    agree(got, pil_resize(image, (73, 64), interpolation))


def test_halves_are_rounded_up_as_pillow_rounds_them() -> None:
    # Half the size weighs by eighths, which floats hold exactly: nothing is left to chance.
    image = np.random.default_rng(4).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        resize(tf.constant(image), (32, 24)), pil_resize(image, (32, 24), "bilinear")
    )


SIDES = st.integers(1, 40)
PAIR = st.tuples(SIDES, SIDES)
IMAGE_SPEC, SIZE_SPEC = tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)


@tf.function(input_signature=[IMAGE_SPEC, SIZE_SPEC])
def both(image: tf.Tensor, size: tf.Tensor) -> dict[str, tf.Tensor]:
    return {interpolation: resize(image, size, interpolation) for interpolation in FILTERS}


@tf.function(input_signature=[IMAGE_SPEC, SIZE_SPEC, tf.TensorSpec([4], tf.int32)])
def both_windows(image: tf.Tensor, size: tf.Tensor, window: tf.Tensor) -> dict[str, tf.Tensor]:
    return {interpolation: resize(image, size, interpolation, window) for interpolation in FILTERS}


@settings(deadline=None)
@given(old=PAIR, new=PAIR, seed=st.integers(0, 99))
@example(old=(1, 1), new=(40, 40), seed=0)
@example(old=(1, 3000), new=(7, 5), seed=0)
@example(old=(3000, 1), new=(5, 7), seed=0)
@example(old=(3, 2), new=(1, 1500), seed=0)
@example(old=(9, 7), new=(9, 7), seed=0)
def test_resize_of_any_size_to_any_is_pillows(
    old: tuple[int, int], new: tuple[int, int], seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*old, 3), dtype=np.uint8)
    for interpolation, got in both(image, new).items():
        # Two sums that come to a half, one in each pass, may both go the other way.
        apart = np.abs(got.numpy().astype(int) - pil_resize(image, new, interpolation)).max()
        assert apart <= (0 if old == new else 2)


@settings(deadline=None)
@given(old=PAIR, new=PAIR, start=PAIR, end=PAIR)
def test_a_window_is_cut_from_the_resized_image(
    old: tuple[int, int], new: tuple[int, int], start: tuple[int, int], end: tuple[int, int]
) -> None:
    # Black and white, so that a kernel cut short at the window's edge shows.
    image = np.random.default_rng(5).choice(np.array([0, 255], np.uint8), (*old, 3))
    y, x = ((a - 1) % n for a, n in zip(start, new, strict=True))
    height, width = (1 + (b - 1) % (n - o) for b, n, o in zip(end, new, (y, x), strict=True))
    parts = both_windows(image, new, [y, x, height, width])
    for interpolation, whole in both(image, new).items():
        expected = whole.numpy()[y : y + height, x : x + width].astype(int)
        assert np.abs(parts[interpolation].numpy() - expected).max() <= 2


@settings(deadline=None)
@given(shape=st.tuples(st.integers(1, 10**7), st.integers(1, 10**7)), length=st.integers(1, 200))
@example(shape=(1, 10**7), length=200)
@example(shape=(9_999_999, 10**7), length=1000)
def test_shorter_side_is_torchvisions(shape: tuple[int, int], length: int) -> None:
    got = scale_shorter_side(tf.constant(shape), length).numpy()
    assert tuple(got) == torchvision_size(*shape, length)


@settings(deadline=None)
@given(shape=PAIR, crop=PAIR)
def test_center_window_is_torchvisions(shape: tuple[int, int], crop: tuple[int, int]) -> None:
    height, width = map(min, shape, crop)
    pixels = np.arange(shape[0] * shape[1]).reshape(*shape)
    y, x, h, w = center_window(tf.constant(shape), height, width).numpy()
    assert (pixels[y : y + h, x : x + w] == torchvision_crop(pixels, height, width)).all()


def test_the_longest_strip_costs_no_more_than_its_middle() -> None:
    # Resized whole it would be 16 million pixels long, more than memory holds.
    strip = np.linspace(0, 255, 65_000).astype(np.uint8)[:, np.newaxis, np.newaxis]
    got = unit((224, 224), 3, resize=256).to_input(np.repeat(strip, 3, axis=2)).numpy()
    assert got.shape == (224, 224, 3) and set(np.unique(got)) <= {127, 128}


def test_every_field_acts_together(photo: Photo) -> None:
    record = Preprocessing((24, 20), 3, 26, MEAN, STD, "bicubic", "BGR")
    size = torchvision_size(50, 70, 26)
    crop = torchvision_crop(pil_resize(photo(50, 70), size, "bicubic"), 24, 20)
    expected = (crop[..., ::-1] / 255.0 - MEAN) / STD
    got = record.from_image(photo(50, 70))
    assert np.abs((got - expected) * STD).max() <= 1.01 / 255
    assert np.isclose(got, expected, atol=1e-4).mean() > 0.98


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_channels_of_arrays(photo: Photo, mode: str, channels: int) -> None:
    image = np.asarray(Image.fromarray(photo(12, 10)).convert(mode)).reshape(12, 10, len(mode))
    expected = Image.fromarray(image.squeeze(), mode).convert("L" if channels == 1 else "RGB")
    got = unit((12, 10), channels).to_input(image).numpy()
    assert np.abs(got.astype(int) - np.reshape(expected, (12, 10, channels))).max() <= 1


def test_another_size_shows_the_same_share_of_the_image() -> None:
    own = unit((24, 20), 3, resize=32, interpolation="bicubic")
    for size, side in (((48, 40), 64), ((12, 10), 16), ((24, 20), 32), ((48, 80), 80)):
        assert own.fit((*size, 3)) == unit(size, 3, resize=side, interpolation="bicubic")
    assert unit((24, 20), 3).fit((30, 30, 3)) == unit((30, 30), 3)
    assert own.fit((None, None, 3)) == own


def test_other_channels_take_the_mean_of_the_numbers_or_repeat_them() -> None:
    own = Preprocessing((24, 20), 3, 32, (0.2, 0.4, 0.9), (0.1, 0.2, 0.6), channel_order="BGR")
    gray = own.fit((24, 20, 1))
    assert (gray.channels, gray.channel_order) == (1, "RGB")
    np.testing.assert_allclose([gray.mean[0], gray.std[0]], [0.5, 0.3], rtol=1e-6)
    four = own.fit((24, 20, 4))
    np.testing.assert_allclose(four.mean, [0.2, 0.4, 0.9, 0.2], rtol=1e-6)
    assert four.input_shape == (24, 20, 4)


def test_a_mean_image_has_one_size(mean_image: Preprocessing) -> None:
    assert mean_image.fit((6, 8, 3)) == mean_image
    with pytest.raises(ReszooError, match="mean image of 6 x 8"):
        mean_image.fit((12, 16, 3))


def test_bytes_of_a_file_are_decoded(mean_image: Preprocessing, photo: Photo) -> None:
    image = photo(40, 30)
    contents = tf.io.encode_png(image)
    expected = mean_image.from_image(image)
    np.testing.assert_array_equal(mean_image.from_bytes(contents), expected)
    np.testing.assert_array_equal(mean_image.pixels(contents.numpy()), image)
    np.testing.assert_array_equal(mean_image.pixels(image), image)


@pytest.mark.smoke
def test_round_trip_through_json_is_exact(mean_image: Preprocessing) -> None:
    caffe = unit((4, 5), 3, interpolation="bicubic", channel_order="BGR")
    for preprocessing in (mean_image, unit((4, 5), 1, resize=9), caffe):
        back = Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict())))
        assert back == preprocessing
        assert back.mean.dtype == np.float32
        np.testing.assert_array_equal(back.mean, preprocessing.mean)
    assert (back.interpolation, back.channel_order) == ("bicubic", "BGR")
    for other in ({"resize": 9}, {"channel_order": "BGR"}, {"interpolation": "bicubic"}):
        assert unit((4, 5), 3) != unit((4, 5), 3, **other)


def test_records_of_version_0_1_can_be_read() -> None:
    record = {"image_size": [4, 5], "channels": 3, "resize": 9, "mean": [0.0] * 3, "std": [1.0] * 3}
    assert Preprocessing.from_dict(record) == unit((4, 5), 3, resize=9)


DAMAGE: list[dict[str, object]] = [
    {"mean": [0.0]},
    {"std": None},
    {"std": [0.1, 0.0, 0.1]},
    {"image_size": "x"},
    {"image_size": [0, 8]},
    {"mean": {"float32": "AAAA"}},
    {"interpolation": "nearest"},
    {"interpolation": None},
    {"channel_order": "bgr"},
    {"resize": 7},
    {"resize": -1},
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_invalid_record_is_reported_in_one_line(
    mean_image: Preprocessing, damage: dict[str, Any]
) -> None:
    with pytest.raises(ReszooError, match="preprocessing") as caught:
        Preprocessing.from_dict({**mean_image.to_dict(), **damage})
    assert "\n" not in str(caught.value)
