"""Image files to upright pixels, the same for training, evaluation, prediction and export.

TensorFlow decodes JPEG and PNG files, in training as in an exported model. Pillow, which an
exported model does not have, decodes GIF, BMP, WebP and TIFF files.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reszoo.images import exif, header
from reszoo.images.formats import decode_pixels, read_layout
from reszoo.lazy import tf
from reszoo.types import Array, Tensor

# Weights of red, green and blue in luminance (ITU-R BT.601), as in the JPEG format itself.
LUMINANCE = (0.299, 0.587, 0.114)


def decode(contents: Tensor, channels: int) -> Tensor:
    """Decode a JPEG or PNG file as it is stored.

    Alpha is dropped. Of 16 bits per channel, the high byte is taken.

    Args:
        contents: The file, a scalar string.
        channels: 1 or 3.

    Returns:
        uint8 [h, w, channels].

    Raises:
        tf.errors.InvalidArgumentError: If the file is damaged or of another format.
    """
    # Always by way of RGB, because TensorFlow cannot decode CMYK files to one channel.
    # INTEGER_ACCURATE is the transform that libjpeg (so Pillow, and most viewers) uses by default.
    return to_channels(
        tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE"), channels
    )


def decode_upright(contents: Tensor, channels: int) -> Tensor:
    """Decode a JPEG or PNG file and rotate it upright, with TensorFlow operations alone."""
    return header.rotate_upright(decode(contents, channels), header.read_orientation(contents))


def decode_file(contents: Tensor, channels: int) -> Tensor:
    """Decode a file of any supported format, upright.

    The pixels of JPEG and PNG files are those of `decode_upright`. The graph calls Python, so it
    cannot be exported.

    Args:
        contents: The file, a scalar string.
        channels: 1 or 3.

    Returns:
        uint8 [h, w, channels].

    Raises:
        tf.errors.InvalidArgumentError: If the file cannot be decoded.
    """
    start = tf.strings.substr(contents, 0, 8)
    is_native = (start == b"\x89PNG\r\n\x1a\n") | (
        tf.strings.substr(start, 0, 3) == b"\xff\xd8\xff"
    )

    def decode_native() -> Tensor:
        image, orientation = decode(contents, 3), find_layout(contents)[2]
        # One call of Python: operations of a branch that is not taken cost time, and few images
        # need it.
        return tf.cond(
            orientation > 1,
            lambda: _call_python(exif.rotate_upright, tf.uint8, image, orientation),
            lambda: image,
        )

    image = tf.cond(
        is_native, decode_native, lambda: _call_python(decode_pixels, tf.uint8, contents)
    )
    return to_channels(tf.ensure_shape(image, [None, None, 3]), channels)


def decode_window(
    contents: Tensor, window: Tensor, channels: int, layout: Tensor | None = None
) -> Tensor:
    """Decode a window of an upright image.

    Of a JPEG that is stored upright, only the blocks that the window touches are decoded in full.

    Args:
        contents: The file, a scalar string.
        window: int32 [y, x, height, width] within the upright image.
        channels: 1 or 3.
        layout: The file's layout as `find_layout` returns it; None finds it.

    Returns:
        uint8 [height, width, channels].
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


def find_layout(contents: Tensor) -> Tensor:
    """Return int32 [height, width, orientation] of a file from its header; see `read_layout`."""
    length = tf.strings.length(contents)

    def starts(at: int, text: bytes) -> Tensor:
        return tf.strings.substr(contents, tf.minimum(at, length), len(text)) == text

    def numbers(at: int, count: int) -> Tensor:
        text = tf.strings.substr(contents, tf.minimum(at, length), 4 * count)
        return tf.io.decode_raw(text, tf.int32, little_endian=False, fixed_length=4 * count)

    # Two common kinds of files without EXIF are recognized here, because a call of Python takes as
    # long as decoding a small image: a JFIF segment and then a quantization table, and a PNG of
    # three chunks (header, pixels, end).
    plain_jpeg = starts(0, b"\xff\xd8\xff\xe0\0\x10JFIF") & starts(20, b"\xff\xdb")
    plain_png = starts(0, b"\x89PNG\r\n\x1a\n") & starts(37, b"IDAT")
    plain_png &= numbers(33, 1)[0] == length - 57
    found = tf.cond(
        plain_jpeg,
        lambda: tf.concat([tf.image.extract_jpeg_shape(contents)[:2], [1]], axis=0),
        lambda: tf.cond(
            plain_png,
            lambda: tf.concat([numbers(16, 2)[::-1], [1]], axis=0),
            lambda: _call_python(
                lambda given: np.array(read_layout(given), np.int32), tf.int32, contents
            ),
        ),
    )
    return tf.ensure_shape(found, [3])


def crop(image: Tensor, window: Tensor) -> Tensor:
    """Cut `window` (int32 [y, x, height, width]) out of `image` [h, w, c]."""
    part = tf.slice(image, [window[0], window[1], 0], [window[2], window[3], -1])
    return tf.ensure_shape(part, [None, None, image.shape[2]])


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Convert images [..., c] of 1 to 4 channels to 1 or 3 channels of the same dtype.

    Alpha (the channel behind gray or RGB) is dropped. Gray is the luminance of RGB, rounded if the
    dtype is an integer.
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


def _call_python(function: Callable[..., Array], dtype: tf.DType, *arguments: Tensor) -> Tensor:
    """Apply `function` to the values of tensors, in a graph or eagerly.

    Its ValueError becomes tf.errors.InvalidArgumentError.
    """
    if not tf.executing_eagerly():
        # Stateful functions are called for one image at a time where runs are deterministic.
        return tf.numpy_function(function, arguments, dtype, stateful=False)
    try:  # numpy_function would cut zeros off the end of a string
        return tf.constant(function(*(tf.convert_to_tensor(one).numpy() for one in arguments)))
    except ValueError as error:
        raise tf.errors.InvalidArgumentError(None, None, str(error)) from error
