"""Random changes to training images, each a pure function of a key (int64 [2]) and the images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from reszoo.config.data import InceptionCrop, ScaleCrop
from reszoo.data.decode import LUMINANCE, crop, decode_window, to_channels
from reszoo.data.preprocessing import Preprocessing, resize, shorter_side
from reszoo.lazy import tf

# Principal components of ImageNet's RGB values in 0..1, and the noise's deviation: fb.resnet.torch, datasets/imagenet.lua
# (`pca`, and `t.Lighting(0.1, ...)`), after Krizhevsky et al. 2012, section 4.1. Columns of VECTORS belong to VALUES.
PCA_STD = 0.1
PCA_VALUES = (0.2175, 0.0188, 0.0045)
PCA_VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))

# Aspect ratio of an inception crop and how often one is drawn before falling back: Szegedy et al. 2014, section 6, and
# fb.resnet.torch, datasets/transforms.lua (`RandomSizedCrop`).
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10


def take_window(payload: Any, window: Any, preprocessing: Preprocessing, layout: Any = None) -> Any:
    """Cut `window` (int32 [y, x, height, width]) out of one image and bring it to the input's size: uint8 [height, width, channels].

    Args:
        payload: the bytes of an image file (scalar string), or uint8 [h, w, c].
        window: within the upright image.
        preprocessing: the input's size and channels.
        layout: of a file, as `decode.find_layout` returns it; None finds it. Not read for an array.
    """
    channels = preprocessing.channels
    if payload.dtype == tf.string:
        image = decode_window(payload, window, channels, layout)
    else:
        image = to_channels(crop(payload, window), channels)
    image = resize(image, preprocessing.image_size, preprocessing.interpolation)
    return tf.ensure_shape(image, preprocessing.input_shape)


def random_windows(
    shapes: Any, augment: ScaleCrop | InceptionCrop, size: tuple[int, int], key: Any
) -> Any:
    """Draw a window for each image of `shapes` (int32 [n, 2]: h, w), by `crop` = `scale` or `inception`: int32 [n, 4]."""
    if augment.crop == "inception":
        return inception_windows(shapes, augment.area, key)
    return scale_windows(shapes, augment.scale, size, key)


def inception_windows(shapes: Any, area: tuple[float, float], key: Any) -> Any:
    """Draw windows of random area and aspect ratio inside images of `shapes` (int32 [n, 2]): int32 [n, (y, x, height, width)].

    The share of the area is uniform in `area`, the aspect ratio uniform in log scale in 3/4 ... 4/3. Of 10 draws the first
    that fits is taken; if none does, the largest centred square.
    """
    draws = tf.random.stateless_uniform([tf.shape(shapes)[0], ATTEMPTS, 4], key, dtype=tf.float32)
    full = tf.cast(shapes, tf.float32)[:, tf.newaxis]
    target = full[..., 0] * full[..., 1] * (area[0] + draws[..., 0] * (area[1] - area[0]))
    aspect = tf.exp(
        math.log(ASPECT[0]) + draws[..., 1] * (math.log(ASPECT[1]) - math.log(ASPECT[0]))
    )
    sizes = tf.cast(
        tf.round(tf.sqrt(tf.stack([target / aspect, target * aspect], axis=-1))), tf.int32
    )
    fits = tf.reduce_all((sizes >= 1) & (sizes <= shapes[:, tf.newaxis]), axis=-1)
    pick, found = tf.argmax(fits, axis=-1), tf.reduce_any(fits, axis=-1, keepdims=True)
    side = tf.reduce_min(shapes, axis=-1, keepdims=True)
    size = tf.where(found, tf.gather(sizes, pick, batch_dims=1), tf.repeat(side, 2, axis=-1))
    places = tf.gather(draws[..., 2:], pick, batch_dims=1)
    offset = tf.where(found, random_offset(shapes - size, places), (shapes - size) // 2)
    return tf.concat([offset, size], axis=-1)


def scale_windows(shapes: Any, scale: tuple[int, int], size: tuple[int, int], key: Any) -> Any:
    """Draw the windows of random crops of resized images.

    Cropping first and resizing after shows the same pixels, and lets the rest of a JPEG go undecoded.

    Args:
        shapes: Height and width of each image, int32 [n, 2].
        scale: Shortest and longest shorter side, in pixels, to which an image is resized.
        size: Height and width of the crop.
        key: Of the random numbers.

    Returns:
        The window of each image that the crop shows, int32 [n, (y, x, height, width)].

    Reference: arXiv 1512.03385, section 3.4.
    """
    draws = tf.random.stateless_uniform([tf.shape(shapes)[0], 3], key, dtype=tf.float32)
    length = tf.minimum(
        scale[0] + tf.cast(draws[:, :1] * (scale[1] - scale[0] + 1), tf.int32), scale[1]
    )
    resized = shorter_side(shapes, length)
    offset = random_offset(resized - tf.constant(size), draws[:, 1:])
    ratio = tf.cast(shapes, tf.float32) / tf.cast(resized, tf.float32)
    window = tf.maximum(tf.cast(tf.round(tf.constant(size, tf.float32) * ratio), tf.int32), 1)
    start = tf.cast(tf.round(tf.cast(offset, tf.float32) * ratio), tf.int32)
    return tf.concat([tf.minimum(start, shapes - window), window], axis=-1)


def random_offset(slack: Any, draws: Any) -> Any:
    """Turn draws in [0, 1) into whole offsets, each uniform in 0 ... slack: int32, `slack`'s shape."""
    return tf.minimum(tf.cast(draws * tf.cast(slack + 1, tf.float32), tf.int32), slack)


def pad_crop_flip(images: Any, pad: int, flip: bool, key: Any) -> Any:
    """Zero-pad a batch [b, h, w, c] by `pad` on every side, crop back at random and mirror half of it if `flip`: same shape."""
    return apply_crop_flip(images, pad, *draw_crop_flip(tf.shape(images)[0], pad, flip, key))


def draw_crop_flip(count: Any, pad: int, flip: bool, key: Any) -> tuple[Any, Any, Any]:
    """Draw what `pad_crop_flip` does to each of `count` images.

    Returns:
        The first row and the first column of each crop, int32 [count] in 0 ... 2 `pad`, and which images are mirrored, bool [count],
        or None without `flip`.
    """
    draws = tf.random.stateless_uniform([count, 3], key, 0, 1, tf.float32)
    top, left = (random_offset(2 * pad, draws[:, axis]) for axis in (0, 1))
    return top, left, draws[:, 2] >= 0.5 if flip else None


def apply_crop_flip(images: Any, pad: int, top: Any, left: Any, mirrored: Any) -> Any:
    """Zero-pad a batch [b, h, w, c] by `pad` on every side, then crop and mirror it as `draw_crop_flip` says: same shape.

    One gather does crop and mirror for the whole batch: the images are laid out as rows of pixels, and an index of `top`'s dtype
    says which padded pixel stands where.
    """
    count, (height, width, channels) = tf.shape(images)[0], images.shape[1:]
    tall, wide = height + 2 * pad, width + 2 * pad
    columns = tf.range(width, dtype=top.dtype)[tf.newaxis]
    if mirrored is not None:
        columns = tf.where(mirrored[:, tf.newaxis], width - 1 - columns, columns)
    rows = top[:, tf.newaxis] + tf.range(height, dtype=top.dtype)
    pixels = rows[:, :, tf.newaxis] * wide + (left[:, tf.newaxis] + columns)[:, tf.newaxis, :]
    padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]]) if pad else images
    cropped = tf.gather(tf.reshape(padded, [count, tall * wide, channels]), pixels, batch_dims=1)
    return tf.ensure_shape(cropped, [None, height, width, channels])


def mirrored(count: Any, key: Any) -> Any:
    """Return which of `count` images `pad_crop_flip` mirrors under `key`: bool [count]."""
    return tf.random.stateless_uniform([count, 3], key, 0, 1, tf.float32)[:, 2] >= 0.5


def mirror(image: Any, wanted: Any) -> Any:
    """Mirror one image [h, w, c] left and right if `wanted`, a scalar bool."""
    return tf.cond(wanted, lambda: tf.reverse(image, axis=[1]), lambda: image)


def pca_noise(images: Any, std: np.ndarray, key: Any) -> Any:
    """Add Krizhevsky's color noise to normalized images [b, h, w, 1 or 3], of deviation `std` (per channel): same shape."""
    return images + draw_pca_noise(tf.shape(images)[0], images.shape[-1], std, key)


def draw_pca_noise(count: Any, channels: int, std: np.ndarray, key: Any) -> Any:
    """Draw the noise of `count` normalized images of 1 or 3 channels: float32 [count, 1, 1, channels].

    Each image's noise is one color, a mix of the principal components with weights of deviation 0.1 times their values.
    """
    weights = tf.random.stateless_normal([count, 3], key) * PCA_STD * PCA_VALUES
    color = tf.linalg.matmul(weights, tf.constant(PCA_VECTORS), transpose_b=True)
    if channels == 1:
        color = tf.reduce_sum(color * LUMINANCE, axis=-1, keepdims=True)
    return (color / std)[:, tf.newaxis, tf.newaxis, :]
