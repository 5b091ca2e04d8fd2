"""The number of pixels and the EXIF orientation in the header of a JPEG or PNG file.

Only TensorFlow operations are used, so that exported models read headers. `exif` does the same in
Python, faster, for training and evaluation.
"""

from __future__ import annotations

from collections.abc import Callable

from reszoo.images.exif import ENTRIES, HEAD, QUANTIZATION, SEGMENTS
from reszoo.lazy import tf
from reszoo.types import Tensor

EXIF = b"Exif\0\0"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # the signature, and the one chunk that must come first


def pixel_count(contents: Tensor) -> Tensor:
    """Return how many pixels a file states in its header.

    Args:
        contents: A JPEG or PNG file, a scalar string.

    Returns:
        A scalar int64; 0 for other files.

    Raises:
        tf.errors.InvalidArgumentError: If the header of a JPEG is damaged.
    """

    def count_png() -> Tensor:
        start = tf.strings.substr(contents, 0, 24)
        sides = tf.cond(
            _is_png(contents) & (tf.strings.length(start) == 24),
            lambda: tf.io.decode_raw(tf.strings.substr(start, 16, 8), tf.uint8),
            lambda: tf.zeros([8], tf.uint8),
        )
        # Sides of a damaged file are limited: their product must fit 64 bits.
        return tf.reduce_prod(tf.minimum(_to_integer(tf.reshape(sides, [2, 4]), False), 2**31))

    def count_jpeg() -> Tensor:
        return tf.reduce_prod(tf.cast(tf.image.extract_jpeg_shape(contents)[:2], tf.int64))

    return tf.cond(
        tf.strings.length(contents) >= 4,
        lambda: tf.cond(tf.io.is_jpeg(contents), count_jpeg, count_png),
        lambda: tf.constant(0, tf.int64),
    )


def read_orientation(contents: Tensor) -> Tensor:
    """Return the EXIF orientation of a file.

    The eXIf chunk of a PNG is found in front of the pixels or near the end of the file.

    Args:
        contents: A JPEG or PNG file, a scalar string.

    Returns:
        A scalar int32, 1 to 8; 1 (upright) if the file states no valid orientation.

    Reference: Exif 2.32, tag 0x0112; PNG third edition, section 11.3.3.4 (eXIf).
    """
    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: _jpeg_orientation(contents),
        lambda: tf.cond(
            _is_png(contents), lambda: _png_orientation(contents), lambda: tf.constant(1)
        ),
    )


def rotate_upright(image: Tensor, orientation: Tensor) -> Tensor:
    """Rotate or mirror an image [h, w, c] upright from its EXIF orientation (int32, 1 to 8)."""

    def rotate() -> Tensor:
        # By index, because oneDNN transposes no uint8 and complains on standard error.
        shape = tf.shape(image)
        swap, flip_x, flip_y = (
            tf.reduce_any(orientation == tf.constant(some))
            for some in ((5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8))
        )
        height, width = tf.where(swap, shape[1], shape[0]), tf.where(swap, shape[0], shape[1])
        y, x = tf.range(height)[:, tf.newaxis], tf.range(width)[tf.newaxis]
        y, x = tf.where(flip_y, height - 1 - y, y), tf.where(flip_x, width - 1 - x, x)
        index = tf.where(swap, x * shape[1] + y, y * shape[1] + x)
        return tf.gather(tf.reshape(image, [-1, image.shape[2]]), index)

    shape = [None, None, image.shape[2]]
    return tf.ensure_shape(tf.cond(orientation > 1, rotate, lambda: image), shape)


def _is_png(contents: Tensor) -> Tensor:
    return tf.strings.substr(contents, 0, len(PNG)) == PNG


def _jpeg_orientation(contents: Tensor) -> Tensor:
    byte, size = _make_reader(tf.strings.substr(contents, 0, HEAD))

    def step(at: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        start, marker = byte(at), byte(at + 1)
        length = tf.cast(_to_integer(byte(at + 2 + tf.range(2)), False), tf.int32)
        is_exif = (marker == 0xE1) & tf.reduce_all(
            byte(at + 4 + tf.range(6)) == tf.constant(tuple(EXIF), tf.uint8)
        )
        # Tables and pixels follow, or it is not a segment.
        last = (start != 0xFF) | (marker == 0xDA) | (marker == 0xD9) | (marker == QUANTIZATION)
        last |= length < 2
        # 0xFF may be repeated before a marker.
        after = tf.where(marker == 0xFF, at + 1, tf.where(last, size, at + 2 + length))
        return after, tf.where(is_exif & ~last, at + 10, found)

    _, block = tf.while_loop(
        lambda at, found: (found < 0) & (at < size),
        step,
        (tf.constant(2), tf.constant(-1)),
        maximum_iterations=SEGMENTS,
    )
    return tf.cond(block >= 0, lambda: _find_orientation(byte, block), lambda: tf.constant(1))


def _png_orientation(contents: Tensor) -> Tensor:
    size = tf.strings.length(contents)

    def part(at: Tensor, count: int | Tensor) -> Tensor:  # shorter at the end of the file
        return tf.strings.substr(contents, tf.minimum(at, size), count)

    def step(at: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        byte, _ = _make_reader(part(at, 8))
        length = tf.cast(tf.minimum(_to_integer(byte(tf.range(4)), False), 2**30), tf.int32)
        kind = part(at + 4, 4)
        after = tf.where(kind == b"IDAT", size, at + 12 + tf.minimum(length, size))
        return after, tf.where(kind == b"eXIf", at + 8, found)

    _, front = tf.while_loop(
        lambda at, found: (found < 0) & (at + 12 <= size),
        step,
        (tf.constant(8), tf.constant(-1)),
        maximum_iterations=SEGMENTS,
    )

    def find_near_end() -> Tensor:
        first = tf.maximum(size - HEAD, 8)
        tail = tf.io.decode_raw(part(first, HEAD), tf.uint8)
        tail = tf.concat([tail, tf.zeros([4], tf.uint8)], axis=0)
        count = tf.size(tail) - 4
        match = tf.stack([tail[i : count + i] == one for i, one in enumerate(b"eXIf")])
        places = tf.where(tf.reduce_all(match, axis=0))[:, 0]
        return tf.cond(
            tf.size(places) > 0,
            lambda: first + tf.cast(places[-1], tf.int32) + 4,
            lambda: tf.constant(-1),
        )

    block = tf.cond(front >= 0, lambda: front, find_near_end)

    def read() -> Tensor:
        byte, _ = _make_reader(part(block - 8, 4))
        length = tf.cast(tf.minimum(_to_integer(byte(tf.range(4)), False), HEAD), tf.int32)
        prefix = tf.where(part(block, len(EXIF)) == EXIF, len(EXIF), 0)
        byte, _ = _make_reader(part(block + prefix, tf.maximum(length - prefix, 0)))
        return _find_orientation(byte, tf.constant(0))

    return tf.cond(block >= 0, read, lambda: tf.constant(1))


def _find_orientation(byte: Callable[[Tensor], Tensor], block: Tensor) -> Tensor:
    """Return the orientation that the EXIF block at index `block` of a file states."""
    little = byte(block) == ord("I")
    at = tf.cast(block, tf.int64)
    first = at + _to_integer(byte(at + 4 + tf.range(4, dtype=tf.int64)), little)
    entries = first + 2 + 12 * tf.range(ENTRIES, dtype=tf.int64)
    fields = _to_integer(  # tag, type, value
        byte(entries[:, tf.newaxis, tf.newaxis] + [[0, 1], [2, 3], [8, 9]]), little
    )
    count = _to_integer(byte(first + tf.range(2, dtype=tf.int64)), little)
    match = (tf.range(ENTRIES, dtype=tf.int64) < count) & (fields[:, 0] == 0x0112)
    match &= fields[:, 1] == 3
    value = tf.gather(
        tf.concat([fields[:, 2], [1]], axis=0), tf.argmax(tf.concat([match, [True]], axis=0))
    )
    is_tiff = (byte(at) == byte(at + 1)) & (little | (byte(at) == ord("M")))
    return tf.where(is_tiff & (value >= 1) & (value <= 8), tf.cast(value, tf.int32), 1)


def _make_reader(text: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return a function that gathers bytes of a string by index, 0 behind its end, and its size."""
    raw = tf.io.decode_raw(text, tf.uint8)
    size = tf.size(raw)
    raw = tf.concat([raw, tf.zeros([1], tf.uint8)], axis=0)

    def byte(index: Tensor) -> Tensor:
        inside = tf.clip_by_value(tf.cast(index, tf.int64), 0, tf.cast(size, tf.int64))
        return tf.gather(raw, tf.cast(inside, tf.int32))

    return byte, size


def _to_integer(octets: Tensor, little: Tensor | bool) -> Tensor:
    """Return unsigned integers, int64 [...], of bytes uint8 [..., k] in either order."""
    powers = [256**i for i in range(octets.shape[-1])]
    scale = tf.where(little, tf.constant(powers, tf.int64), tf.constant(powers[::-1], tf.int64))
    return tf.reduce_sum(tf.cast(octets, tf.int64) * scale, axis=-1)
