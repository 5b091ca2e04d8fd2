"""Views of an image against Pillow and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from reszoo.errors import ReszooError
from reszoo.images.preprocessing import Preprocessing
from reszoo.images.views import Views, parse_scales

MEAN, STD = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.25])
PHOTOS = Preprocessing((24, 20), 3, 30, MEAN, STD)
SMALL = Preprocessing((12, 12), 3, 0, np.linspace(0, 1, 432).reshape(12, 12, 3), STD)


def normalize(pixels: Any, preprocessing: Preprocessing) -> Any:
    return (np.asarray(pixels, float) / 255 - preprocessing.mean) / preprocessing.std


def resized(image: Any, side: int, kernel: Any = Image.Resampling.BILINEAR) -> Any:
    """Resize the shorter side with Pillow, as torchvision's Resize does."""
    height, width = image.shape[:2]
    short = min(height, width)
    size = (side * width // short, side * height // short)
    return np.array(Image.fromarray(image).resize(size, kernel))


def assert_close(found: Any, expected: Any) -> None:
    """Allow one gray level where Pillow's integers round a half otherwise, in few pixels."""
    difference = np.abs(np.asarray(found) - expected)
    assert found.shape == expected.shape
    assert (difference <= 1 / 255 / STD + 1e-5).all() and (difference > 1e-5).mean() < 0.005


def crop(image: Any, top: int, left: int, height: int, width: int) -> Any:
    return image[top : top + height, left : left + width]


def test_ten_crops_are_corners_center_and_their_mirror_images(photo: Any) -> None:
    image = photo(37, 53)
    large = resized(image, 30)
    height, width = large.shape[:2]
    places = [(0, 0), (0, width - 20), (height - 24, 0), (height - 24, width - 20)]
    places.append((round((height - 24) / 2), round((width - 20) / 2)))
    crops = np.stack([normalize(crop(large, *place, 24, 20), PHOTOS) for place in places])
    expected = np.concatenate([crops, crops[:, :, ::-1]])
    assert_close(Views(crops=10).cut(image, PHOTOS), expected)


def test_ten_crops_of_small_images_are_padded_after_the_mean_image(photo: Any) -> None:
    image = photo(12, 12)
    padded = np.pad(normalize(image, SMALL), [(4, 4), (4, 4), (0, 0)])
    places = [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]
    crops = np.stack([crop(padded, *place, 12, 12) for place in places])
    expected = np.concatenate([crops, crops[:, :, ::-1]])
    assert_close(Views(crops=10).cut(image, SMALL), expected)


@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_ratio_and_interpolation_replace_those_of_training(photo: Any, flip: bool) -> None:
    image = photo(37, 53)
    views = Views(flip=flip, crop_ratio=0.75, interpolation="bicubic")
    adapted = views.adapt(PHOTOS)
    assert adapted.resize == 26  # 20 / 0.75 = 26.67, rounded down
    large = resized(image, 26, Image.Resampling.BICUBIC)
    middle = crop(large, 1, round((large.shape[1] - 20) / 2), 24, 20)
    one = normalize(middle, PHOTOS)
    expected = np.stack([one, one[:, ::-1]] if flip else [one])
    found = views.cut(image, adapted)
    assert len(found) == views.count
    assert_close(found, expected)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_scales_show_the_whole_image(photo: Any, order: str) -> None:
    image = photo(37, 53)
    preprocessing = Preprocessing((24, 20), 3, 30, MEAN, STD, channel_order=order)
    found = Views(scales=(16, 40), flip=True).rescale(image, preprocessing)
    for side, views in zip((16, 40), found, strict=True):
        large = resized(image, side)[..., :: -1 if order == "BGR" else 1]
        one = normalize(large, preprocessing)
        assert_close(views, np.stack([one, one[:, ::-1]]))


TESTS = {
    "1-crop": Views(),
    "10-crop": Views(crops=10),
    "1-crop flip": Views(flip=True),
    "scales 224,256 flip": Views(scales=(224, 256), flip=True),
    "1-crop ratio 0.95 bicubic": Views(crop_ratio=0.95, interpolation="bicubic"),
}


@pytest.mark.parametrize("name", TESTS)
def test_the_name_of_a_test_reads_back(name: str) -> None:
    assert str(TESTS[name]) == name and Views.parse(name) == TESTS[name]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crops": 5}, "crops: 5 is invalid; expected 1 or 10"),
        ({"crops": 10, "flip": True}, "flip: true is invalid with crops=10"),
        ({"scales": (0,)}, "scales: .0. is invalid; expected different lengths"),
        ({"scales": (8, 8)}, "scales: .8, 8. is invalid; expected different lengths"),
        ({"scales": (8,), "crops": 10}, "crops: 10 is invalid with scales"),
        ({"scales": (8,), "crop_ratio": 0.9}, "crop_ratio: 0.9 is invalid with scales"),
        ({"crop_ratio": 1.5}, "crop_ratio: 1.5 is invalid; expected a number above 0, at most 1"),
        ({"interpolation": "cubic"}, "interpolation: 'cubic' is invalid; expected bilinear or"),
    ],
)
def test_invalid_views_are_rejected(values: Any, message: str) -> None:
    with pytest.raises(ReszooError, match=f"^{message}"):
        Views(**values)


@pytest.mark.parametrize("text", ["", "11-crop", "scales", "ratio x", "1-crop twice"])
def test_unknown_tests_are_rejected(text: str) -> None:
    with pytest.raises(ReszooError, match="^test: .* is invalid; expected 1-crop, 10-crop or"):
        Views.parse(text)


def test_invalid_scales_are_rejected() -> None:
    assert parse_scales("224, 256") == (224, 256)
    with pytest.raises(ReszooError, match="^scales: '224;256' is invalid; .* separated by commas"):
        parse_scales("224;256")
    with pytest.raises(ReszooError, match=r"^scales: \[8\] is invalid; .* by a mean image of \[12"):
        Views(scales=(8,)).adapt(SMALL)
