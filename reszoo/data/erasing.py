"""Random erasing: a rectangle of an image is replaced by zeros or noise after normalization.

Reference: arXiv 1708.04896, algorithm 1; timm 1.0.31, data/random_erasing.py.
"""

from __future__ import annotations

import math

from reszoo.data.random_keys import fold_in
from reszoo.lazy import tf
from reszoo.types import Tensor

ASPECT = (0.3, 1 / 0.3)  # height to width, and how often a rectangle is drawn until one fits
ATTEMPTS = 10


def draw_boxes(
    probability: float,
    area: tuple[float, float],
    count: int | Tensor,
    size: tuple[int, int],
    key: Tensor,
) -> Tensor:
    """Draw the rectangle to erase in each of `count` images.

    Args:
        probability: Of an image to be erased at all.
        area: The least and greatest share of the image's area.
        count: How many images.
        size: Their height and width.
        key: Of the random numbers, int64 [2].

    Returns:
        int32 [count, (y, x, height, width)]; zeros where nothing is erased.
    """
    draws = tf.random.stateless_uniform([count, ATTEMPTS, 4], fold_in(key, 0), dtype=tf.float64)
    target = (area[0] + draws[..., 0] * (area[1] - area[0])) * (size[0] * size[1])
    low, high = map(math.log, ASPECT)
    aspect = tf.exp(low + draws[..., 1] * (high - low))
    sides = tf.sqrt(tf.stack([target * aspect, target / aspect], axis=-1))
    sides = tf.cast(tf.round(sides), tf.int32)
    fits = tf.reduce_all(sides < tf.constant(size), axis=-1)
    pick = tf.argmax(fits, axis=-1)
    sides = tf.gather(sides, pick, batch_dims=1)
    places = tf.gather(draws[..., 2:], pick, batch_dims=1)
    offsets = tf.cast(places * tf.cast(tf.constant(size) - sides + 1, tf.float64), tf.int32)
    chance = tf.random.stateless_uniform([count], fold_in(key, 1), dtype=tf.float64)
    erased = (chance < probability) & tf.reduce_any(fits, axis=-1)
    return tf.where(erased[:, tf.newaxis], tf.concat([offsets, sides], axis=-1), 0)


def draw_noise(shape: tuple[int | Tensor, int, int, int], key: Tensor) -> Tensor:
    """Draw what stands in the rectangles of a batch of `shape`, normalized: float32."""
    return tf.random.stateless_normal(shape, fold_in(key, 2))


def erase(images: Tensor, boxes: Tensor, noise: Tensor | None = None) -> Tensor:
    """Replace the rectangles of normalized images [n, h, w, c] by noise, or by zeros."""
    inside = find_inside(boxes, images.shape[1:3])[..., tf.newaxis]
    return tf.where(inside, tf.zeros_like(images) if noise is None else noise, images)


def find_inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which pixels lie in int32 [..., (y, x, height, width)]: bool [..., h, w]."""
    y, x, height, width = (boxes[..., at : at + 1] for at in range(4))
    rows, columns = (tf.range(length, dtype=boxes.dtype) for length in size)
    down = (rows >= y) & (rows < y + height)
    across = (columns >= x) & (columns < x + width)
    return down[..., :, tf.newaxis] & across[..., tf.newaxis, :]
