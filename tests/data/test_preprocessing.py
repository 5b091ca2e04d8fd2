"""Image to input, against NumPy's and PIL's arithmetic."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from reszoo.data.parts import Arrays
from reszoo.data.preprocessing import Preprocessing, centre_window, resize, shorter_side
from reszoo.data.statistics import fitted
from reszoo.errors import ReszooError
from reszoo.weights.transforms import Transforms

Photo = Callable[..., np.ndarray]
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def unit(
    image_size: tuple[int, int], channels: int, resize: int = 0, **fields: str
) -> Preprocessing:
    """Preprocessing that sizes images and scales them to 0..1."""
    zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    return Preprocessing(image_size, channels, resize, zeros, ones, **fields)


def pil_resize(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """PIL's resize, across and then down, which is its own order in every version unless the height shrinks far more."""
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


def agree(got: np.ndarray, expected: np.ndarray) -> None:
    """Assert that pixels are the same but for one in fifty, which is a level apart.

    A sum that comes to a half goes up or down by the last bits of its weights; where the sizes are in a ratio of small
    numbers, many do.
    """
    assert got.dtype == np.uint8
    apart = np.abs(got.astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 0.02


@pytest.fixture
def mean_image() -> Preprocessing:
    mean = np.random.default_rng(1).random((6, 8, 3)).astype(np.float32)
    return Preprocessing((6, 8), 3, 0, mean, np.ones(3, np.float32))


def test_mean_image_is_taken_away(mean_image: Preprocessing) -> None:
    images = np.random.default_rng(2).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
    got = mean_image.apply(images)
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, images / 255.0 - mean_image.mean, atol=2e-7)


def test_channel_mean_and_deviation() -> None:
    mean, std = np.array([0.4, 0.5, 0.6], np.float32), np.array([0.2, 0.3, 0.25], np.float32)
    images = np.random.default_rng(2).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
    got = Preprocessing((6, 8), 3, 0, mean, std).apply(images)
    np.testing.assert_allclose(got, (images / 255.0 - mean) / std, atol=1e-6)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("shape", [(6, 8), (24, 31), (7, 5), (300, 200)])
def test_from_image_resizes_as_pil_does(
    mean_image: Preprocessing, photo: Photo, shape: tuple[int, int], interpolation: str
) -> None:
    image = photo(*shape)
    mean_image = replace(mean_image, interpolation=interpolation)
    expected = pil_resize(image, (6, 8), interpolation) / 255.0 - mean_image.mean
    # Both round to whole grey values; a filter's last bit may tip one either way.
    np.testing.assert_allclose(mean_image.from_image(image), expected, atol=1.01 / 255)


def test_an_image_of_the_inputs_size_is_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert (resize(tf.constant(image), (9, 7)).numpy() == image).all()

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def unknown_size(pixels: tf.Tensor) -> tf.Tensor:
        return resize(pixels, (9, 7))

    assert (unknown_size(image).numpy() == image).all()


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (33, 200), (301, 41), (20, 29), (32, 32)])
def test_shorter_side_then_centre_crop(
    photo: Photo, shape: tuple[int, int], interpolation: str
) -> None:
    image = photo(*shape)
    expected = torchvision_crop(
        pil_resize(image, torchvision_size(*shape, 32), interpolation), 25, 28
    )
    preprocessing = unit((25, 28), 3, resize=32, interpolation=interpolation)
    agree(preprocessing.to_input(image).numpy(), expected)
    # As an export takes them: floats, of a size that the graph does not know.
    graph = tf.function(
        preprocessing.to_input, input_signature=[tf.TensorSpec([None, None, 3], tf.float32)]
    )
    agree(graph(image.astype(np.float32)).numpy(), expected)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("kind", ["smooth", "noise"])
@pytest.mark.parametrize("shape", [(101, 149), (149, 101), (45, 52), (210, 171), (1, 90), (70, 1)])
def test_resize_is_pils_to_few_pixels(
    photo: Photo, shape: tuple[int, int], kind: str, interpolation: str
) -> None:
    random = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = photo(*shape) if kind == "smooth" else random
    got = resize(tf.constant(image), (73, 64), interpolation).numpy()
    agree(got, pil_resize(image, (73, 64), interpolation))


def test_halves_are_rounded_up_as_pil_rounds_them() -> None:
    # Half the size weighs by eighths, which floats hold exactly: nothing is left to chance.
    image = np.random.default_rng(4).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        resize(tf.constant(image), (32, 24)), pil_resize(image, (32, 24), "bilinear")
    )


SIDES = st.integers(1, 40)


@tf.function(
    input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)]
)
def both(image: tf.Tensor, size: tf.Tensor) -> dict[str, tf.Tensor]:
    return {interpolation: resize(image, size, interpolation) for interpolation in FILTERS}


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None, 3], tf.uint8),
        *[tf.TensorSpec([n], tf.int32) for n in (2, 4)],
    ]
)
def both_windows(image: tf.Tensor, size: tf.Tensor, window: tf.Tensor) -> dict[str, tf.Tensor]:
    return {interpolation: resize(image, size, interpolation, window) for interpolation in FILTERS}


@settings(deadline=None)
@given(old=st.tuples(SIDES, SIDES), new=st.tuples(SIDES, SIDES), seed=st.integers(0, 99))
@example(old=(1, 1), new=(40, 40), seed=0)
@example(old=(1, 3000), new=(7, 5), seed=0)
@example(old=(3000, 1), new=(5, 7), seed=0)
@example(old=(3, 2), new=(1, 1500), seed=0)
def test_resize_of_any_size_to_any_is_pils(
    old: tuple[int, int], new: tuple[int, int], seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*old, 3), dtype=np.uint8)
    for interpolation, got in both(image, new).items():
        # Two sums that come to a half, one in each pass, may both go the other way.
        assert np.abs(got.numpy().astype(int) - pil_resize(image, new, interpolation)).max() <= 2


@settings(deadline=None)
@given(
    old=st.tuples(SIDES, SIDES),
    new=st.tuples(SIDES, SIDES),
    start=st.tuples(SIDES, SIDES),
    end=st.tuples(SIDES, SIDES),
)
def test_a_window_is_cut_from_the_resized_image(
    old: tuple[int, int], new: tuple[int, int], start: tuple[int, int], end: tuple[int, int]
) -> None:
    # Black and white, so that a kernel cut short at the window's edge tells.
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
    assert tuple(shorter_side(tf.constant(shape), length).numpy()) == torchvision_size(
        *shape, length
    )


@settings(deadline=None)
@given(shape=st.tuples(SIDES, SIDES), crop=st.tuples(SIDES, SIDES))
def test_centre_window_is_torchvisions(shape: tuple[int, int], crop: tuple[int, int]) -> None:
    height, width = map(min, shape, crop)
    pixels = np.arange(shape[0] * shape[1]).reshape(*shape)
    y, x, h, w = centre_window(tf.constant(shape), height, width).numpy()
    assert (pixels[y : y + h, x : x + w] == torchvision_crop(pixels, height, width)).all()


def test_the_longest_strip_costs_no_more_than_its_middle() -> None:
    # Resized whole it would be 16 million pixels long, more than memory holds.
    strip = np.repeat(
        np.linspace(0, 255, 65_000).astype(np.uint8)[:, np.newaxis, np.newaxis], 3, axis=2
    )
    got = unit((224, 224), 3, resize=256).to_input(strip).numpy()
    assert got.shape == (224, 224, 3) and set(np.unique(got)) <= {127, 128}


def test_bgr_is_the_inputs_order_alone(photo: Photo) -> None:
    mean, std = np.array([0.1, 0.5, 0.9], np.float32), np.array([0.2, 0.3, 0.25], np.float32)
    image = photo(9, 7)
    bgr = Preprocessing((9, 7), 3, 0, mean, std, channel_order="BGR")
    np.testing.assert_allclose(
        bgr.from_image(image), (image[..., ::-1] / 255.0 - mean) / std, atol=1e-6
    )
    np.testing.assert_array_equal(bgr.to_input(image), image)
    batch = tf.function(bgr.apply, input_signature=[tf.TensorSpec([None, 9, 7, 3], tf.uint8)])
    np.testing.assert_allclose(batch(image[np.newaxis])[0], bgr.from_image(image), atol=1e-6)
    grey = Preprocessing((9, 7), 1, 0, mean[:1], std[:1])
    np.testing.assert_array_equal(
        grey.from_image(image), replace(grey, channel_order="BGR").from_image(image)
    )


@pytest.mark.parametrize("normalize", ["channel", "pixel_mean"])
def test_numbers_measured_for_bgr_are_in_bgr(normalize: str) -> None:
    images = np.random.default_rng(6).integers(0, [100, 180, 256], (5, 4, 6, 3), dtype=np.uint8)
    part = Arrays(images, np.zeros(5, np.int32))
    rgb = fitted(unit((4, 6), 3, interpolation="bicubic"), part, normalize)
    bgr = fitted(unit((4, 6), 3, channel_order="BGR"), part, normalize)
    assert (rgb.interpolation, bgr.channel_order) == ("bicubic", "BGR")
    np.testing.assert_allclose(bgr.apply(images)[..., ::-1], rgb.apply(images), atol=1e-6)


def test_transforms_are_carried_out(photo: Photo) -> None:
    record = Transforms(
        image_size=(24, 20),
        resize=26,
        mean=(0.4, 0.5, 0.6),
        std=(1 / 255, 0.2, 0.3),
        interpolation="bicubic",
        channel_order="BGR",
    )
    image = photo(50, 70)
    got = Preprocessing.from_transforms(record)
    assert got.input_shape == (24, 20, 3)
    crop = torchvision_crop(pil_resize(image, torchvision_size(50, 70, 26), "bicubic"), 24, 20)
    expected = (crop[..., ::-1] / 255.0 - record.mean) / record.std
    assert np.abs((got.from_image(image) - expected) * record.std).max() <= 1.01 / 255
    assert np.isclose(got.from_image(image), expected, atol=1e-4).mean() > 0.99


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("own", [1, 2, 3, 4])
def test_channels_of_arrays(photo: Photo, own: int, channels: int) -> None:
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[own]
    image = np.asarray(Image.fromarray(photo(12, 10)).convert(mode)).reshape(12, 10, own)
    expected = np.asarray(
        Image.fromarray(image.squeeze(), mode).convert("L" if channels == 1 else "RGB")
    )
    got = unit((12, 10), channels).to_input(image).numpy()
    assert np.abs(got.astype(int) - expected.reshape(12, 10, channels)).max() <= 1


@pytest.mark.parametrize("interpolation", FILTERS)
def test_another_size_keeps_the_share_of_the_image_that_is_shown(
    photo: Photo, interpolation: str
) -> None:
    own = unit((24, 20), 3, resize=32, interpolation=interpolation)
    for size, side in (((48, 40), 64), ((12, 10), 16), ((24, 20), 32)):
        larger = own.at(size)
        assert larger == unit(size, 3, resize=side, interpolation=interpolation)
        image = photo(130, 170)
        shown = torchvision_crop(
            pil_resize(image, torchvision_size(130, 170, side), interpolation), *size
        )
        agree(larger.to_input(image).numpy(), shown)
    assert unit((24, 20), 3, interpolation=interpolation).at((30, 30)) == unit(
        (30, 30), 3, interpolation=interpolation
    )


def test_a_mean_image_is_of_one_size(mean_image: Preprocessing) -> None:
    assert mean_image.at((6, 8)) == mean_image
    with pytest.raises(ReszooError, match="mean image of 6 x 8"):
        mean_image.at((12, 16))


def test_from_bytes_is_decode_then_from_image(mean_image: Preprocessing, photo: Photo) -> None:
    file = io.BytesIO()
    Image.fromarray(photo(40, 30)).save(file, "PNG")
    np.testing.assert_array_equal(
        mean_image.from_bytes(file.getvalue()), mean_image.from_image(photo(40, 30))
    )


def test_round_trip_through_json_is_exact(mean_image: Preprocessing) -> None:
    caffe = unit((4, 5), 3, interpolation="bicubic", channel_order="BGR")
    for preprocessing in (mean_image, unit((4, 5), 1, resize=9), caffe):
        text = json.dumps(preprocessing.to_dict())
        back = Preprocessing.from_dict(json.loads(text))
        assert back == preprocessing
        assert back.mean.dtype == np.float32
        np.testing.assert_array_equal(back.mean, preprocessing.mean)
    assert (back.interpolation, back.channel_order) == ("bicubic", "BGR")
    assert unit((4, 5), 1) != unit((4, 5), 1, resize=9)
    assert unit((4, 5), 3) != unit((4, 5), 3, channel_order="BGR")
    assert unit((4, 5), 3) != unit((4, 5), 3, interpolation="bicubic")


def test_records_from_before_interpolation_and_channel_order_can_be_read() -> None:
    record = {"image_size": [4, 5], "channels": 3, "resize": 9, "mean": [0.0] * 3, "std": [1.0] * 3}
    assert Preprocessing.from_dict(record) == unit((4, 5), 3, resize=9)


DAMAGE: list[dict[str, object]] = [
    {"mean": [0.0]},
    {"std": None},
    {"image_size": "x"},
    {"mean": {"float32": "AAAA"}},
]
DAMAGE += [
    {"interpolation": "nearest"},
    {"interpolation": None},
    {"channel_order": "bgr"},
    {"resize": 7},
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_dict_is_one_line(mean_image: Preprocessing, damage: dict[str, object]) -> None:
    with pytest.raises(ReszooError, match="preprocessing") as caught:
        Preprocessing.from_dict({**mean_image.to_dict(), **damage})
    assert "\n" not in str(caught.value)
