"""Image to input, against NumPy's and PIL's arithmetic."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from reszoo.data.preprocessing import Preprocessing, resize
from reszoo.data.statistics import plain
from reszoo.errors import ReszooError

Photo = Callable[..., np.ndarray]


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


@pytest.mark.parametrize("shape", [(6, 8), (24, 31), (7, 5), (300, 200)])
def test_from_image_resizes_as_pil_does(mean_image: Preprocessing, photo: Photo, shape: tuple[int, int]) -> None:
    image = photo(*shape)
    expected = np.asarray(Image.fromarray(image).resize((8, 6), Image.Resampling.BILINEAR)) / 255.0 - mean_image.mean
    # Both round to whole grey values; a filter's last bit may tip one either way.
    np.testing.assert_allclose(mean_image.from_image(image), expected, atol=1.01 / 255)


def test_an_image_of_the_inputs_size_is_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert (resize(tf.constant(image), (9, 7)).numpy() == image).all()

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def unknown_size(pixels: tf.Tensor) -> tf.Tensor:
        return resize(pixels, (9, 7))

    assert (unknown_size(image).numpy() == image).all()


@pytest.mark.parametrize(("shape", "short"), [((60, 90), (32, 48)), ((90, 60), (48, 32)), ((33, 200), (32, 194))])
def test_shorter_side_then_centre_crop(photo: Photo, shape: tuple[int, int], short: tuple[int, int]) -> None:
    image = photo(*shape)
    resized = np.asarray(Image.fromarray(image).resize(short[::-1], Image.Resampling.BILINEAR)).astype(int)
    top, left = (short[0] - 24) // 2, (short[1] - 28) // 2
    got = plain((24, 28), 3, resize=32).to_input(image).numpy().astype(int)
    assert np.abs(got - resized[top : top + 24, left : left + 28]).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("own", [1, 2, 3, 4])
def test_channels_of_arrays(photo: Photo, own: int, channels: int) -> None:
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[own]
    image = np.asarray(Image.fromarray(photo(12, 10)).convert(mode)).reshape(12, 10, own)
    expected = np.asarray(Image.fromarray(image.squeeze(), mode).convert("L" if channels == 1 else "RGB"))
    got = plain((12, 10), channels).to_input(image).numpy()
    assert np.abs(got.astype(int) - expected.reshape(12, 10, channels)).max() <= 1


def test_from_bytes_is_decode_then_from_image(mean_image: Preprocessing, photo: Photo) -> None:
    file = io.BytesIO()
    Image.fromarray(photo(40, 30)).save(file, "PNG")
    np.testing.assert_array_equal(mean_image.from_bytes(file.getvalue()), mean_image.from_image(photo(40, 30)))


def test_round_trip_through_json_is_exact(mean_image: Preprocessing) -> None:
    for preprocessing in (mean_image, plain((4, 5), 1, resize=9)):
        text = json.dumps(preprocessing.to_dict())
        back = Preprocessing.from_dict(json.loads(text))
        assert back == preprocessing
        assert back.mean.dtype == np.float32
        np.testing.assert_array_equal(back.mean, preprocessing.mean)
    assert plain((4, 5), 1) != plain((4, 5), 1, resize=9)


@pytest.mark.parametrize("damage", [{"mean": [0.0]}, {"std": None}, {"image_size": "x"}, {"mean": {"float32": "AAAA"}}])
def test_damaged_dict_is_one_line(mean_image: Preprocessing, damage: dict[str, object]) -> None:
    with pytest.raises(ReszooError, match="preprocessing") as caught:
        Preprocessing.from_dict({**mean_image.to_dict(), **damage})
    assert "\n" not in str(caught.value)
