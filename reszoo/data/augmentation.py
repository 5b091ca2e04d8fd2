"""Random changes to training images, each a pure function of a key (int64 [2]) and the images."""

from __future__ import annotations

import math

from reszoo.config.data import InceptionCrop, ScaleCrop
from reszoo.images.decoding import LUMINANCE, crop, decode_window, to_channels
from reszoo.images.preprocessing import Preprocessing
from reszoo.images.resizing import resize, scale_shorter_side
from reszoo.lazy import tf
from reszoo.types import Array, Tensor

# Principal components of ImageNet's RGB values in 0..1, and the standard deviation of the noise:
# fb.resnet.torch, datasets/imagenet.lua (`pca`, and `t.Lighting(0.1, ...)`), after Krizhevsky et
# al. 2012, section 4.1. Columns of VECTORS belong to VALUES.
PCA_STD = 0.1
PCA_VALUES = (0.2175, 0.0188, 0.0045)
PCA_VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))

# Aspect ratios of an inception crop, and how often one is drawn before the fallback: Szegedy et al.
# 2014, section 6, and fb.resnet.torch, datasets/transforms.lua (`RandomSizedCrop`).
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10


def take_window(
    payload: Tensor, window: Tensor, preprocessing: Preprocessing, layout: Tensor | None = None
) -> Tensor:
    """Cut a window out of an image and resize it to the input's size.

    Args:
        payload: The bytes of an image file (scalar string), or uint8 [h, w, c].
        window: int32 [y, x, height, width] within the upright image.
        preprocessing: The input's size and channels.
        layout: Of a file, as `find_layout` returns it; None finds it.

    Returns:
        uint8 [height, width, channels].
    """
    if payload.dtype == tf.string:
        image = decode_window(payload, window, preprocessing.channels, layout)
    else:
        image = to_channels(crop(payload, window), preprocessing.channels)
    image = resize(image, preprocessing.image_size, preprocessing.interpolation)
    return tf.ensure_shape(image, preprocessing.input_shape)


def draw_windows(count: Tensor | int, augment: ScaleCrop | InceptionCrop, key: Tensor) -> Tensor:
    """Draw what `place_windows` needs for `count` images: float32 in [0, 1), first axis images."""
    shape = [count, ATTEMPTS, 4] if isinstance(augment, InceptionCrop) else [count, 3]
    return tf.random.stateless_uniform(shape, key, dtype=tf.float32)


def place_windows(
    shapes: Tensor, draws: Tensor, augment: ScaleCrop | InceptionCrop, size: tuple[int, int]
) -> Tensor:
    """Return the window of each image that a random crop shows.

    Args:
        shapes: Height and width of each image, int32 [n, 2].
        draws: Of each image, as `draw_windows` returns them.
        augment: The crop.
        size: Height and width of the model's input.

    Returns:
        int32 [n, (y, x, height, width)].
    """
    if isinstance(augment, InceptionCrop):
        return _place_inception_windows(shapes, draws, augment.area)
    return _place_scale_windows(shapes, draws, augment.scale, size)


def _place_inception_windows(shapes: Tensor, draws: Tensor, area: tuple[float, float]) -> Tensor:
    """Return windows of random area and aspect ratio.

    The share of the area is uniform in `area`, the aspect ratio uniform in log scale in 3/4..4/3.
    The first of 10 draws that fits is used; if none does, the largest centered square.
    """
    full = tf.cast(shapes, tf.float32)[:, tf.newaxis]
    target = full[..., 0] * full[..., 1] * (area[0] + draws[..., 0] * (area[1] - area[0]))
    low, high = map(math.log, ASPECT)
    aspect = tf.exp(low + draws[..., 1] * (high - low))
    sizes = tf.sqrt(tf.stack([target / aspect, target * aspect], axis=-1))
    sizes = tf.cast(tf.round(sizes), tf.int32)
    fits = tf.reduce_all((sizes >= 1) & (sizes <= shapes[:, tf.newaxis]), axis=-1)
    pick, found = tf.argmax(fits, axis=-1), tf.reduce_any(fits, axis=-1, keepdims=True)
    side = tf.reduce_min(shapes, axis=-1, keepdims=True)
    size = tf.where(found, tf.gather(sizes, pick, batch_dims=1), tf.repeat(side, 2, axis=-1))
    places = tf.gather(draws[..., 2:], pick, batch_dims=1)
    offset = tf.where(found, _to_offset(shapes - size, places), (shapes - size) // 2)
    return tf.concat([offset, size], axis=-1)


def _place_scale_windows(
    shapes: Tensor, draws: Tensor, scale: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return the windows of random crops of images resized to a random shorter side in `scale`.

    Cropping before resizing shows the same pixels, and the rest of a JPEG is not decoded.

    Reference: arXiv 1512.03385, section 3.4.
    """
    length = scale[0] + tf.cast(draws[:, :1] * (scale[1] - scale[0] + 1), tf.int32)
    resized = scale_shorter_side(shapes, tf.minimum(length, scale[1]))
    offset = _to_offset(resized - tf.constant(size), draws[:, 1:])
    ratio = tf.cast(shapes, tf.float32) / tf.cast(resized, tf.float32)
    window = tf.maximum(tf.cast(tf.round(tf.constant(size, tf.float32) * ratio), tf.int32), 1)
    start = tf.cast(tf.round(tf.cast(offset, tf.float32) * ratio), tf.int32)
    return tf.concat([tf.minimum(start, shapes - window), window], axis=-1)


def _to_offset(slack: Tensor, draws: Tensor) -> Tensor:
    """Convert draws in [0, 1) to integers, each uniform in 0..slack."""
    return tf.minimum(tf.cast(draws * tf.cast(slack + 1, tf.float32), tf.int32), slack)


def draw_crop_flip(
    count: Tensor, pad: int, flip: bool, key: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Draw how `apply_crop_flip` crops each of `count` images, and mirrors half of them.

    Returns:
        The first row and column of each crop, int32 [count] in 0 ... 2 `pad`, and which images are
        mirrored, bool [count], or None without `flip`.
    """
    draws = tf.random.stateless_uniform([count, 3], key, 0, 1, tf.float32)
    top, left = (_to_offset(2 * pad, draws[:, axis]) for axis in (0, 1))
    return top, left, draws[:, 2] >= 0.5 if flip else None


def apply_crop_flip(
    images: Tensor, pad: int, top: Tensor, left: Tensor, mirrored: Tensor | None
) -> Tensor:
    """Zero-pad, crop and mirror a batch [b, h, w, c] as `draw_crop_flip` drew.

    One gather does it for the whole batch: images are rows of pixels, and an index of `top`'s dtype
    states which padded pixel stands where.
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


def draw_mirrored(count: Tensor, key: Tensor) -> Tensor:
    """Return which of `count` images `draw_crop_flip` mirrors under `key`: bool [count]."""
    return tf.random.stateless_uniform([count, 3], key, 0, 1, tf.float32)[:, 2] >= 0.5


def mirror(image: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror an image [h, w, c] left and right if `mirrored`, a scalar bool."""
    return tf.cond(mirrored, lambda: tf.reverse(image, axis=[1]), lambda: image)


def draw_pca_noise(count: Tensor, channels: int, std: Array, key: Tensor) -> Tensor:
    """Draw Krizhevsky's color noise of `count` images: float32 [count, 1, 1, channels].

    It is added to images in RGB or gray, normalized by `std` [channels].

    The noise of an image is one color: a mix of the principal components with weights of deviation
    0.1 times their values.
    """
    weights = tf.random.stateless_normal([count, 3], key) * PCA_STD * PCA_VALUES
    color = tf.linalg.matmul(weights, tf.constant(PCA_VECTORS), transpose_b=True)
    if channels == 1:
        color = tf.reduce_sum(color * LUMINANCE, axis=-1, keepdims=True)
    return (color / std)[:, tf.newaxis, tf.newaxis, :]
