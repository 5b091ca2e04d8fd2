"""Every operation against Pillow, whose pixels define it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from reszoo.data.operations import OPERATIONS, apply_operations

FILL = (10, 120, 230)
RANGES = {
    "posterize": (1, 8.99),
    "solarize": (0, 256),
    "solarize_add": (0, 110),
    "brightness": (0.0, 1.99),
    "contrast": (0.0, 1.99),
    "color": (0.0, 1.99),
    "sharpness": (0.0, 1.99),
    "hue": (-128, 127),
    "shear_x": (-0.99, 0.99),
    "shear_y": (-0.99, 0.99),
    "translate_x": (-40, 40),
    "translate_y": (-14.5, 14.5),
    "rotate": (-135, 135),
}
WHOLE = ("posterize", "solarize_add", "hue", "translate_x")


def turned(image: Image.Image, turn: int) -> Image.Image:
    if image.mode == "L":
        return image
    hue, saturation, value = image.convert("HSV").split()
    hue = Image.fromarray(np.asarray(hue) + np.int32(turn).astype(np.uint8))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def by_pillow(image: Image.Image, name: str, amount: float, interpolation: str) -> Image.Image:
    resample: Any = Image.Resampling[interpolation.upper()]
    fill = FILL if image.mode == "RGB" else FILL[0]
    matrices = {
        "shear_x": (1, amount, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, amount, 1, 0),
        "translate_x": (1, 0, amount, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, amount),
    }
    if name in matrices:
        how = Image.Transform.AFFINE
        return image.transform(image.size, how, matrices[name], resample, fillcolor=fill)
    brighter = [min(i + int(amount), 255) if i < 128 else i for i in range(256)]
    return {
        "identity": lambda: image,
        "auto_contrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
        "posterize": lambda: ImageOps.posterize(image, int(amount)),
        "solarize": lambda: ImageOps.solarize(image, amount),  # type: ignore[arg-type]
        "solarize_add": lambda: image.point(brighter * len(image.getbands())),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(amount),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(amount),
        "color": lambda: ImageEnhance.Color(image).enhance(amount),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(amount),
        "hue": lambda: turned(image, int(amount)),
        "rotate": lambda: image.rotate(amount, resample, fillcolor=fill),
    }[name]()


def draw_images(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Noise, smooth images, and images of few values, for which tables have special cases."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape))
    walk = rng.standard_normal((2, count, *shape)) * 6
    smooth = walk[0].cumsum(axis=1) + walk[1].cumsum(axis=2) + 128
    images[1::4] = np.clip(smooth, 0, 255)[1::4]
    images[2::8] = 77  # one value
    images[3::8] = rng.choice([20, 200], shape)
    images[7::8] = np.where(images[7::8] < 120, images[7::8], 255)  # half are the last value
    return images.astype(np.uint8)


@pytest.mark.smoke
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (29, 40, 1), (61, 7, 3), (131, 129, 3)])
def test_operations_give_pillows_pixels(shape: tuple[int, int, int], interpolation: str) -> None:
    names = [name for name in OPERATIONS for _ in range(9 if shape[0] < 100 else 2)]
    rng = np.random.default_rng(1)
    rng.shuffle(names)
    images = draw_images(len(names), shape)
    amounts = np.array([rng.uniform(*RANGES.get(name, (0, 1))) for name in names])
    amounts = np.where(np.isin(names, WHOLE), np.trunc(amounts), amounts)
    # Tenths, whose products are often whole numbers, which round differently in float32.
    amounts[::2] = np.where(np.isin(names, WHOLE), amounts, amounts.round(1))[::2]
    kinds = np.array([OPERATIONS.index(name) for name in names], np.int32)
    got = apply_operations(
        tf.constant(images),
        tf.constant(kinds),
        tf.constant(amounts),
        FILL[: shape[-1]],
        interpolation,
    ).numpy()
    for image, name, amount, ours in zip(images, names, amounts, got, strict=True):
        pillow = Image.fromarray(image.squeeze())
        expected = np.asarray(by_pillow(pillow, name, amount, interpolation)).reshape(shape)
        np.testing.assert_array_equal(ours, expected, err_msg=f"{name} {amount}")


@pytest.mark.parametrize("degrees", [0, 90, 180, -90, 360])
def test_quarter_turns_move_pixels_only(degrees: int) -> None:
    images = draw_images(8, (20, 20, 3))
    kinds = tf.fill([8], OPERATIONS.index("rotate"))
    amounts = tf.fill([8], tf.constant(float(degrees), tf.float64))
    got = apply_operations(tf.constant(images), kinds, amounts, FILL)
    np.testing.assert_array_equal(got, np.rot90(images, degrees // 90, axes=(1, 2)))
