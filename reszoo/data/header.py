"""The header of a JPEG or PNG file, read before anything is decoded: the number of pixels and the EXIF orientation.

Only TensorFlow operations are used, so that an exported model reads headers too. `formats.read_layout` does the same in Python,
several times as fast, for training and evaluation.
"""

from __future__ import annotations

from typing import Any

from reszoo.data.formats import ENTRIES, HEAD, MAX_PIXELS, QUANTIZATION, SEGMENTS
from reszoo.lazy import tf

__all__ = ["MAX_PIXELS", "orientation", "pixel_count", "upright"]

EXIF = tuple(b"Exif\0\0")
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # the signature, and the one chunk that must come first


def pixel_count(contents: Any) -> Any:
    """Return how many pixels (int64) one JPEG or PNG file (scalar string) says it holds; 0 for another file.

    Raises TensorFlow's InvalidArgumentError for a JPEG whose header is damaged.
    """

    def of_png() -> Any:
        start = tf.strings.substr(contents, 0, 24)
        is_png = _is_png(contents) & (tf.strings.length(start) == 24)
        sides = tf.cond(
            is_png,
            lambda: tf.io.decode_raw(tf.strings.substr(start, 16, 8), tf.uint8),
            lambda: tf.zeros([8], tf.uint8),
        )
        height, width = tf.unstack(_whole(tf.reshape(sides, [2, 4]), False))
        return tf.minimum(height, 2**31) * tf.minimum(
            width, 2**31
        )  # of a damaged file: a product must fit 64 bits

    def of_jpeg() -> Any:
        return tf.reduce_prod(tf.cast(tf.image.extract_jpeg_shape(contents)[:2], tf.int64))

    is_long = tf.strings.length(contents) >= 4
    return tf.cond(
        is_long,
        lambda: tf.cond(tf.io.is_jpeg(contents), of_jpeg, of_png),
        lambda: tf.constant(0, tf.int64),
    )


def orientation(contents: Any) -> Any:
    """Return the EXIF orientation (int32, 1 to 8) of one JPEG or PNG file (scalar string); 1, upright, if it states none that holds.

    A PNG's eXIf chunk is found in front of the pixels, or near the end of the file.

    Reference: Exif 2.32, tag 0x0112 of the first directory; PNG third edition, section 11.3.3.4 (eXIf).
    """
    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: _jpeg_orientation(contents),
        lambda: tf.cond(
            _is_png(contents), lambda: _png_orientation(contents), lambda: tf.constant(1)
        ),
    )


def upright(image: Any, orientation: Any) -> Any:
    """Turn an image [h, w, c] the way up that its EXIF orientation (int32, 1 to 8) means; 5 to 8 swap height and width."""

    def turned() -> Any:
        # By index, because oneDNN transposes no uint8 and complains on standard error.
        shape = tf.shape(image)
        swapped, mirrored, upended = (
            tf.reduce_any(orientation == tf.constant(some))
            for some in ((5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8))
        )
        height, width = tf.where(swapped, shape[1], shape[0]), tf.where(swapped, shape[0], shape[1])
        y, x = tf.range(height)[:, tf.newaxis], tf.range(width)[tf.newaxis]
        y, x = tf.where(upended, height - 1 - y, y), tf.where(mirrored, width - 1 - x, x)
        index = tf.where(swapped, x * shape[1] + y, y * shape[1] + x)
        return tf.gather(tf.reshape(image, [-1, image.shape[2]]), index)

    shape = [None, None, image.shape[2]]
    return tf.ensure_shape(tf.cond(orientation > 1, turned, lambda: image), shape)


def _is_png(contents: Any) -> Any:
    return tf.strings.substr(contents, 0, len(PNG)) == PNG


def _jpeg_orientation(contents: Any) -> Any:
    byte, size = _bytes_of(tf.strings.substr(contents, 0, HEAD))

    def step(at: Any, found: Any) -> tuple[Any, Any]:
        start, marker = byte(at), byte(at + 1)
        length = tf.cast(_whole(byte(at + 2 + tf.range(2)), False), tf.int32)
        is_exif = (marker == 0xE1) & tf.reduce_all(
            byte(at + 4 + tf.range(6)) == tf.constant(EXIF, tf.uint8)
        )
        last = (
            (start != 0xFF)
            | (marker == 0xDA)
            | (marker == 0xD9)
            | (marker == QUANTIZATION)
            | (length < 2)
        )  # tables and pixels follow, or it is not a segment
        after = tf.where(
            marker == 0xFF, at + 1, tf.where(last, size, at + 2 + length)
        )  # 0xFF may be repeated before a marker
        return after, tf.where(is_exif & ~last, at + 10, found)

    _, block = tf.while_loop(
        lambda at, found: (found < 0) & (at < size),
        step,
        (tf.constant(2), tf.constant(-1)),
        maximum_iterations=SEGMENTS,
    )
    return tf.cond(block >= 0, lambda: _exif_orientation(byte, block), lambda: tf.constant(1))


def _png_orientation(contents: Any) -> Any:
    size = tf.strings.length(contents)

    def part(at: Any, count: Any) -> Any:  # shorter at the end of the file
        return tf.strings.substr(contents, tf.minimum(at, size), count)

    def step(at: Any, found: Any) -> tuple[Any, Any]:
        byte, _ = _bytes_of(part(at, 8))
        length = tf.cast(tf.minimum(_whole(byte(tf.range(4)), False), 2**30), tf.int32)
        kind = part(at + 4, 4)
        after = tf.where(kind == b"IDAT", size, at + 12 + tf.minimum(length, size))
        return after, tf.where(kind == b"eXIf", at + 8, found)

    _, front = tf.while_loop(
        lambda at, found: (found < 0) & (at + 12 <= size),
        step,
        (tf.constant(8), tf.constant(-1)),
        maximum_iterations=SEGMENTS,
    )

    def near_end() -> Any:
        first = tf.maximum(size - HEAD, 8)
        tail = tf.io.decode_raw(
            tf.strings.substr(contents, tf.minimum(first, size), HEAD), tf.uint8
        )
        tail = tf.concat([tail, tf.zeros([4], tf.uint8)], axis=0)
        count = tf.size(tail) - 4
        match = tf.reduce_all(
            tf.stack([tail[i : count + i] == one for i, one in enumerate(b"eXIf")]), axis=0
        )
        places = tf.where(match)[:, 0]
        return tf.cond(
            tf.size(places) > 0,
            lambda: first + tf.cast(places[-1], tf.int32) + 4,
            lambda: tf.constant(-1),
        )

    block = tf.cond(front >= 0, lambda: front, near_end)

    def read() -> Any:
        prefixed = part(block, len(EXIF)) == bytes(EXIF)
        byte, _ = _bytes_of(part(block + tf.where(prefixed, len(EXIF), 0), HEAD))
        return _exif_orientation(byte, tf.constant(0))

    return tf.cond(block >= 0, read, lambda: tf.constant(1))


def _exif_orientation(byte: Any, block: Any) -> Any:
    """Return the orientation that the EXIF block at index `block` states; `byte` is `_bytes_of` the file."""
    little = byte(block) == ord("I")
    at = tf.cast(block, tf.int64)
    first = at + _whole(byte(at + 4 + tf.range(4, dtype=tf.int64)), little)
    entries = first + 2 + 12 * tf.range(ENTRIES, dtype=tf.int64)
    fields = _whole(
        byte(entries[:, tf.newaxis, tf.newaxis] + [[0, 1], [2, 3], [8, 9]]), little
    )  # tag, type, value
    known = tf.range(ENTRIES, dtype=tf.int64) < _whole(
        byte(first + tf.range(2, dtype=tf.int64)), little
    )
    match = known & (fields[:, 0] == 0x0112) & (fields[:, 1] == 3)
    value = tf.gather(
        tf.concat([fields[:, 2], [1]], axis=0), tf.argmax(tf.concat([match, [True]], axis=0))
    )
    is_tiff = (byte(at) == byte(at + 1)) & (little | (byte(at) == ord("M")))
    return tf.where(is_tiff & (value >= 1) & (value <= 8), tf.cast(value, tf.int32), 1)


def _bytes_of(text: Any) -> tuple[Any, Any]:
    """Return a function that gathers bytes (uint8) of a scalar string by index, 0 behind its end, and the number of bytes."""
    raw = tf.io.decode_raw(text, tf.uint8)
    size = tf.size(raw)
    raw = tf.concat([raw, tf.zeros([1], tf.uint8)], axis=0)

    def byte(index: Any) -> Any:
        return tf.gather(
            raw,
            tf.cast(
                tf.clip_by_value(tf.cast(index, tf.int64), 0, tf.cast(size, tf.int64)), tf.int32
            ),
        )

    return byte, size


def _whole(octets: Any, little: Any) -> Any:
    """Return unsigned numbers (int64 [...]) of bytes uint8 [..., k], in little-endian order where `little`."""
    powers = [256**i for i in range(octets.shape[-1])]
    scale = tf.where(little, tf.constant(powers, tf.int64), tf.constant(powers[::-1], tf.int64))
    return tf.reduce_sum(tf.cast(octets, tf.int64) * scale, axis=-1)
