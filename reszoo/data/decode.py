"""Image files to pixels, one way for training, evaluation, prediction and export.

Every image is turned upright by its EXIF orientation. JPEG and PNG files are decoded by TensorFlow, in training as in an exported
model; GIF, BMP, WebP and TIFF files by Pillow, which an exported model does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from reszoo.data.formats import decode_pixels, read_layout, turn
from reszoo.data.header import orientation, upright
from reszoo.lazy import tf

# Weights of red, green and blue in luminance (ITU-R BT.601), as in the JPEG format itself.
LUMINANCE = (0.299, 0.587, 0.114)


def decode(contents: Any, channels: int) -> Any:
    """Decode one JPEG or PNG file as it is stored: scalar string -> uint8 [h, w, channels], channels 1 or 3.

    Gray, palette, alpha (dropped), 16-bit (high byte) and CMYK files all come out as asked. Raises TensorFlow's
    InvalidArgumentError on anything else.
    """
    # Always by way of RGB: TensorFlow cannot decode CMYK files to one channel. INTEGER_ACCURATE is the transform
    # libjpeg (so PIL, and most viewers) uses by default.
    return to_channels(
        tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE"), channels
    )


def decode_upright(contents: Any, channels: int) -> Any:
    """Decode one JPEG or PNG file, turned upright by its EXIF orientation, with TensorFlow operations alone."""
    return upright(decode(contents, channels), orientation(contents))


def decode_file(contents: Any, channels: int) -> Any:
    """Decode one file of any format that is read, upright: scalar string -> uint8 [h, w, channels], channels 1 or 3.

    Of a JPEG or PNG file, the pixels are those of `decode_upright`. The graph calls Python, so it cannot be exported.
    Raises TensorFlow's InvalidArgumentError for a file that cannot be decoded.
    """
    # The turn is one call of Python: operations of a branch that is not taken cost time too, and few images need it.
    decoded = tf.cond(
        _is_native(contents),
        lambda: _turned(decode(contents, 3), find_layout(contents)[2]),
        lambda: _in_python(decode_pixels, tf.uint8, contents),
    )
    return to_channels(tf.ensure_shape(decoded, [None, None, 3]), channels)


def decode_window(contents: Any, window: Any, channels: int, layout: Any = None) -> Any:
    """Decode the part `window` (int32 [y, x, height, width]) of one upright image: uint8 [height, width, channels].

    Of a JPEG that is stored upright, only the blocks that the window touches are decoded in full.

    Args:
        contents: the bytes of a file, a scalar string.
        window: within the upright image.
        channels: 1 or 3.
        layout: of that file, as `find_layout` returns it; None finds it.
    """
    layout = find_layout(contents) if layout is None else layout
    rgb = tf.cond(
        tf.io.is_jpeg(contents) & (layout[2] == 1),
        lambda: tf.image.decode_and_crop_jpeg(
            contents, window, channels=3, dct_method="INTEGER_ACCURATE"
        ),
        lambda: crop(decode_file(contents, 3), window),
    )
    return to_channels(rgb, channels)


def find_layout(contents: Any) -> Any:
    """Return int32 [height, width, orientation] of one file; see `formats.read_layout`. Only the header is read."""
    length = tf.strings.length(contents)

    def starts(at: int, text: bytes) -> Any:
        return tf.strings.substr(contents, tf.minimum(at, length), len(text)) == text

    def numbers(at: int, count: int) -> Any:
        text = tf.strings.substr(contents, tf.minimum(at, length), 4 * count)
        return tf.io.decode_raw(text, tf.int32, little_endian=False, fixed_length=4 * count)

    # Two common kinds of files without EXIF are recognized here, because a call of Python costs as much as decoding a small image:
    # a JFIF segment and then a quantization table, and a PNG of three chunks (header, pixels, end).
    plain_jpeg = starts(0, b"\xff\xd8\xff\xe0\0\x10JFIF") & starts(20, b"\xff\xdb")
    plain_png = (
        starts(0, b"\x89PNG\r\n\x1a\n") & starts(37, b"IDAT") & (numbers(33, 1)[0] == length - 57)
    )
    found = tf.cond(
        plain_jpeg,
        lambda: tf.concat([tf.image.extract_jpeg_shape(contents)[:2], [1]], axis=0),
        lambda: tf.cond(
            plain_png,
            lambda: tf.concat([numbers(16, 2)[::-1], [1]], axis=0),
            lambda: _in_python(
                lambda given: np.array(read_layout(given), np.int32), tf.int32, contents
            ),
        ),
    )
    return tf.ensure_shape(found, [3])


def crop(image: Any, window: Any) -> Any:
    """Cut `window` (int32 [y, x, height, width]) out of `image` [h, w, c]."""
    return tf.ensure_shape(
        tf.slice(image, [window[0], window[1], 0], [window[2], window[3], -1]),
        [None, None, image.shape[2]],
    )


def to_channels(images: Any, channels: int) -> Any:
    """Bring images [..., c] of 1 to 4 channels (gray, gray + alpha, RGB, RGB + alpha) to 1 or 3 channels, same dtype.

    Alpha is dropped; RGB to gray is luminance, rounded if the dtype is an integer.
    """
    own = images.shape[-1]
    assert own is not None, "the number of channels must be known when the graph is made"
    if own in (2, 4):
        images, own = images[..., :-1], own - 1
    if own == channels:
        return images
    if own == 1:
        return tf.repeat(images, channels, axis=-1)
    gray = tf.reduce_sum(tf.cast(images, tf.float32) * LUMINANCE, axis=-1, keepdims=True)
    return tf.cast(tf.round(gray) if images.dtype.is_integer else gray, images.dtype)


def _is_native(contents: Any) -> Any:
    """Return whether TensorFlow decodes the file: JPEG and PNG."""
    start = tf.strings.substr(contents, 0, 8)
    return (start == b"\x89PNG\r\n\x1a\n") | (tf.strings.substr(start, 0, 3) == b"\xff\xd8\xff")


def _turned(image: Any, orientation: Any) -> Any:
    return tf.cond(
        orientation > 1, lambda: _in_python(turn, tf.uint8, image, orientation), lambda: image
    )


def _in_python(function: Callable[..., np.ndarray], dtype: Any, *arguments: Any) -> Any:
    """Apply `function` to the values of tensors, in a graph or eagerly; its ValueError becomes InvalidArgumentError."""
    if not tf.executing_eagerly():
        # Not stateful, or tf.data would call it for one image at a time where runs are deterministic.
        return tf.numpy_function(function, arguments, dtype, stateful=False)
    try:  # numpy_function would cut zeros off the end of a string
        return tf.constant(function(*(tf.convert_to_tensor(one).numpy() for one in arguments)))
    except ValueError as error:
        raise tf.errors.InvalidArgumentError(None, None, str(error)) from error
