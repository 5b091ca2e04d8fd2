"""Image files and arrays brought to a net's input by Pillow: what `decode` and `Preprocessing.to_input` do, without TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from reszoo.data.decode import LUMINANCE
from reszoo.data.formats import decode_pixels
from reszoo.data.preprocessing import Preprocessing

KERNELS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
CHUNK = 256


def read_picture(path: str) -> np.ndarray | None:
    """Decode one image file, upright: uint8 [h, w, 3], or None if it cannot be decoded."""
    try:
        with open(path, "rb") as file:
            return decode_pixels(file.read())
    except (OSError, ValueError):
        return None


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Bring uint8 [h, w, 1 or 3] to 1 or 3 channels; RGB to grey is luminance, rounded."""
    if image.shape[-1] == channels:
        return image
    if image.shape[-1] == 1:
        return np.repeat(image, channels, axis=-1)
    grey = (image.astype(np.float32) * np.array(LUMINANCE, np.float32)).sum(axis=-1, keepdims=True, dtype=np.float32)
    return np.round(grey).astype(np.uint8)


def to_input(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Bring uint8 [h, w, 1 or 3] of any size to uint8 [height, width, channels], as `Preprocessing.to_input` does."""
    image = to_channels(image, preprocessing.channels)
    height, width = preprocessing.image_size
    kernel = KERNELS[preprocessing.interpolation]
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if preprocessing.resize:
        own, short = image.shape[:2], min(image.shape[:2])
        tall, wide = (side * preprocessing.resize // short for side in own)
        top, left = (round((there - here) / 2) for there, here in ((tall, height), (wide, width)))
        picture = picture.resize((wide, tall), kernel).crop((left, top, left + width, top + height))
    elif image.shape[:2] != (height, width):
        picture = picture.resize((width, height), kernel)
    return np.asarray(picture).reshape(preprocessing.input_shape)


def decoded(paths: np.ndarray, preprocessing: Preprocessing) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Give, in pieces, (indices, sizes before [n, 2], uint8 images at the input's size) of the files that can be decoded."""

    def load(path: str) -> tuple[tuple[int, int], np.ndarray] | None:
        image = read_picture(path)
        return None if image is None else ((image.shape[0], image.shape[1]), to_input(image, preprocessing))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), CHUNK):
            found = list(pool.map(load, paths[start : start + CHUNK]))
            good = [(start + index, *each) for index, each in enumerate(found) if each is not None]
            if good:
                indices, sizes, images = zip(*good, strict=True)
                yield np.array(indices), np.array(sizes), np.stack(images)
