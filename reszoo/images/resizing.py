"""Resize images to the pixels that Pillow and torchvision compute, with TensorFlow operations."""

from __future__ import annotations

from typing import NamedTuple

from reszoo.lazy import tf
from reszoo.types import Tensor

# TensorFlow's name of each kernel, and its reach in pixels of the smaller of the two images.
# Pillow's bicubic kernel has a = -0.5, as Keys' has.
KERNELS = {"bilinear": ("triangle", 1), "bicubic": ("keyscubic", 2)}


def scale_shorter_side(shape: Tensor, length: Tensor | int) -> Tensor:
    """Return `shape` (int32 [..., 2]) scaled so that its shorter side is `length`.

    The other side is rounded down, as torchvision does.
    """
    wide = tf.cast(shape, tf.int64)  # a product of two lengths may not fit 32 bits
    scaled = wide * tf.cast(length, tf.int64) // tf.reduce_min(wide, axis=-1, keepdims=True)
    return tf.cast(scaled, tf.int32)


def center_window(shape: Tensor, height: int, width: int) -> Tensor:
    """Return the middle [height, width] of an image of `shape` (int32 [h, w]).

    Where the middle lies between two pixels, the even offset is taken, as torchvision does.

    Returns:
        int32 [y, x, height, width].
    """
    offset = tf.round((shape - tf.constant([height, width])) / 2)
    return tf.concat([tf.cast(offset, tf.int32), [height, width]], axis=0)


def resize(
    image: Tensor,
    size: tuple[int, int] | Tensor,
    interpolation: str = "bilinear",
    window: Tensor | None = None,
) -> Tensor:
    """Resize an image as Pillow does, antialiased. Unchanged if it has the size already.

    Pillow resizes rows first, then columns, and rounds after each. (Pillow 13 starts with columns
    if the height shrinks far more than the width.)

    Args:
        image: [h, w, c], values 0..255.
        size: Height and width.
        interpolation: "bilinear" or "bicubic".
        window: The part of the resized image to return, int32 [y, x, height, width]. Default: all.

    Returns:
        uint8 [*size, c], or of the window's size.
    """
    own = image.shape[:2].as_list()
    if window is None and image.dtype == tf.uint8 and isinstance(size, tuple) and own == list(size):
        return image
    kernel, reach = KERNELS[interpolation]
    top, left, height, width = (0, 0, size[0], size[1]) if window is None else tf.unstack(window)
    down = _make_span(tf.shape(image)[0], size[0], top, height, reach)
    across = _make_span(tf.shape(image)[1], size[1], left, width, reach)
    image = image[down.first : down.last, across.first : across.last]
    rows, channels = tf.shape(image)[0], image.shape[2]
    # Columns are made rows and back: resizing the first axis sums long rows, which is several times
    # as fast. In float32, because oneDNN transposes no uint8 and complains on standard error. The
    # minimum changes nothing, but keeps TensorFlow from swapping the two.
    columns = tf.transpose(tf.minimum(tf.cast(tf.reshape(image, [rows, -1]), tf.float32), 255.0))
    columns = _resample(tf.reshape(columns, [-1, channels * rows]), across, kernel)
    lines = _resample(tf.transpose(tf.reshape(columns, [-1, rows])), down, kernel)
    return tf.cast(tf.reshape(lines, [height, width, channels]), tf.uint8)


class _Span(NamedTuple):
    """`count` pixels of a resized axis, made of old pixels `first`..`last`.

    The position of a new pixel is old * `scale` + `shift`.
    """

    first: Tensor
    last: Tensor
    count: Tensor
    scale: Tensor
    shift: Tensor


def _make_span(old: Tensor, new: Tensor, start: Tensor, count: Tensor, reach: int) -> _Span:
    """Return the span of new pixels `start` ... `start` + `count` of an axis of `old` pixels."""
    ratio = tf.cast(old, tf.float64) / tf.cast(new, tf.float64)
    margin = reach * tf.maximum(ratio, 1.0) + 1.0
    begin, end = tf.cast(start, tf.float64), tf.cast(start + count, tf.float64)
    first = tf.maximum(tf.cast(tf.floor(begin * ratio - margin), tf.int32), 0)
    last = tf.minimum(tf.cast(tf.math.ceil(end * ratio + margin), tf.int32), old)
    shift = tf.cast(first, tf.float64) / ratio - begin
    return _Span(first, last, count, tf.cast(1 / ratio, tf.float32), tf.cast(shift, tf.float32))


def _resample(lines: Tensor, span: _Span, kernel: str) -> Tensor:
    """Resize the first axis of [old, k], values 0..255, to whole numbers, float32 [count, k]."""
    # tf.image.resize calls this operation too, but cannot return a part of the image.
    resampled = tf.raw_ops.ScaleAndTranslate(
        images=lines[tf.newaxis, :, tf.newaxis],
        size=tf.stack([span.count, 1]),
        scale=tf.stack([span.scale, 1.0]),
        translation=tf.stack([span.shift, 0.0]),
        kernel_type=kernel,
        antialias=True,
    )
    # Halves are rounded up, as Pillow does.
    return tf.floor(tf.clip_by_value(resampled[0, :, 0] + 0.5, 0.0, 255.0))
