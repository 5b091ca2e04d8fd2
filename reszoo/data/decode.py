"""Bytes of a JPEG or PNG file to pixels, one way for training, evaluation, prediction and export.

Training and evaluation take pixels as they are stored, as the peers do whose figures are compared; what a person or a camera
sends, to predict or to an exported net, is turned upright as its EXIF tag says.
"""

from __future__ import annotations

from typing import Any

from reszoo.data.header import orientation, upright
from reszoo.lazy import tf

# Weights of red, green and blue in luminance (ITU-R BT.601), as in the JPEG format itself.
LUMINANCE = (0.299, 0.587, 0.114)


def decode(contents: Any, channels: int) -> Any:
    """Decode one JPEG or PNG file: scalar string -> uint8 [h, w, channels], channels 1 or 3.

    Grey, palette, alpha (dropped), 16-bit (high byte) and CMYK files all come out as asked. Raises TensorFlow's
    InvalidArgumentError on anything else.
    """
    # Always by way of RGB: TensorFlow cannot decode CMYK files to one channel. INTEGER_ACCURATE is the transform
    # libjpeg (so PIL, and most viewers) uses by default.
    return to_channels(tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE"), channels)


def decode_upright(contents: Any, channels: int) -> Any:
    """As `decode`, turned as the file's EXIF tag says."""
    return upright(decode(contents, channels), orientation(contents))


def decode_window(contents: Any, window: Any, channels: int) -> Any:
    """Decode the part `window` (int32 [y, x, height, width]) of one JPEG or PNG file: uint8 [height, width, channels].

    Of a JPEG only the blocks that the window touches are decoded in full.
    """
    rgb = tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.image.decode_and_crop_jpeg(contents, window, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: crop(decode(contents, 3), window),
    )
    return to_channels(rgb, channels)


def image_shape(contents: Any) -> Any:
    """Return int32 [height, width] of one file; of a JPEG the header alone is read."""
    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.image.extract_jpeg_shape(contents)[:2],
        lambda: tf.shape(decode(contents, 3))[:2],
    )


def crop(image: Any, window: Any) -> Any:
    """Cut `window` (int32 [y, x, height, width]) out of `image` [h, w, c]."""
    return tf.ensure_shape(
        tf.slice(image, [window[0], window[1], 0], [window[2], window[3], -1]), [None, None, image.shape[2]]
    )


def to_channels(images: Any, channels: int) -> Any:
    """Bring images [..., c] of 1 to 4 channels (grey, grey + alpha, RGB, RGB + alpha) to 1 or 3 channels, same dtype.

    Alpha is dropped; RGB to grey is luminance, rounded where the dtype is an integer.
    """
    own = images.shape[-1]
    assert own is not None, "the number of channels must be known when the graph is made"
    if own in (2, 4):
        images, own = images[..., :-1], own - 1
    if own == channels:
        return images
    if own == 1:
        return tf.repeat(images, channels, axis=-1)
    grey = tf.reduce_sum(tf.cast(images, tf.float32) * LUMINANCE, axis=-1, keepdims=True)
    return tf.cast(tf.round(grey) if images.dtype.is_integer else grey, images.dtype)
