"""What stands at the head of an image file, read before anything is decoded: how many pixels, and which way up.

TensorFlow operations alone, so that an exported net reads it too.
"""

from __future__ import annotations

from typing import Any

from reszoo.lazy import tf

MAX_PIXELS = 2**26
"""The most pixels that a file of strangers may decode to: 8192 x 8192, 200 MB in RGB. A few kilobytes can hold far more."""

HEAD = 2**18  # bytes in which the EXIF segment is looked for; it is at most 2**16 long and stands near the front
SEGMENTS = 64  # that are stepped over before the search is given up: cameras write about five
ENTRIES = 256  # of the EXIF directory that are looked at: cameras write about twenty
EXIF = tuple(b"Exif\0\0")
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # the signature, and the one chunk that must come first


def pixel_count(contents: Any) -> Any:
    """Return how many pixels (int64) one JPEG or PNG file (scalar string) says it holds; 0 for another file.

    Raises TensorFlow's InvalidArgumentError for a JPEG whose header is damaged.
    """

    def of_png() -> Any:
        start = tf.strings.substr(contents, 0, 24)
        is_png = (tf.strings.substr(start, 0, len(PNG)) == PNG) & (tf.strings.length(start) == 24)
        sides = tf.cond(
            is_png, lambda: tf.io.decode_raw(tf.strings.substr(start, 16, 8), tf.uint8), lambda: tf.zeros([8], tf.uint8)
        )
        height, width = tf.unstack(_whole(tf.reshape(sides, [2, 4]), False))
        return tf.minimum(height, 2**31) * tf.minimum(width, 2**31)  # of a damaged file: a product must fit 64 bits

    def of_jpeg() -> Any:
        return tf.reduce_prod(tf.cast(tf.image.extract_jpeg_shape(contents)[:2], tf.int64))

    is_long = tf.strings.length(contents) >= 4
    return tf.cond(is_long, lambda: tf.cond(tf.io.is_jpeg(contents), of_jpeg, of_png), lambda: tf.constant(0, tf.int64))


def orientation(contents: Any) -> Any:
    """Return the EXIF orientation (int32, 1 to 8) of one JPEG file (scalar string); 1, upright, where it says none that holds.

    Exif 2.32, tag 0x0112 of the first directory. A PNG's eXIf chunk is not read.
    """
    return tf.cond(tf.io.is_jpeg(contents), lambda: _exif_orientation(contents), lambda: tf.constant(1))


def upright(image: Any, orientation: Any) -> Any:
    """Turn an image [h, w, c] the way up that its EXIF orientation (int32, 1 to 8) means; 5 to 8 swap height and width."""

    def turned() -> Any:
        # By index, because oneDNN transposes no uint8 and complains on standard error.
        shape = tf.shape(image)
        swapped, mirrored, upended = (
            tf.reduce_any(orientation == tf.constant(some)) for some in ((5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8))
        )
        height, width = tf.where(swapped, shape[1], shape[0]), tf.where(swapped, shape[0], shape[1])
        y, x = tf.range(height)[:, tf.newaxis], tf.range(width)[tf.newaxis]
        y, x = tf.where(upended, height - 1 - y, y), tf.where(mirrored, width - 1 - x, x)
        index = tf.where(swapped, x * shape[1] + y, y * shape[1] + x)
        return tf.gather(tf.reshape(image, [-1, image.shape[2]]), index)

    shape = [None, None, image.shape[2]]
    return tf.ensure_shape(tf.cond(orientation > 1, turned, lambda: image), shape)


def _exif_orientation(contents: Any) -> Any:
    raw = tf.io.decode_raw(tf.strings.substr(contents, 0, HEAD), tf.uint8)
    size = tf.size(raw)
    raw = tf.concat([raw, tf.zeros([1], tf.uint8)], axis=0)

    def byte(index: Any) -> Any:  # 0 behind the end
        return tf.gather(raw, tf.cast(tf.clip_by_value(tf.cast(index, tf.int64), 0, tf.cast(size, tf.int64)), tf.int32))

    def step(at: Any, found: Any) -> tuple[Any, Any]:
        start, marker = byte(at), byte(at + 1)
        length = tf.cast(_whole(byte(at + 2 + tf.range(2)), False), tf.int32)
        is_exif = (marker == 0xE1) & tf.reduce_all(byte(at + 4 + tf.range(6)) == tf.constant(EXIF, tf.uint8))
        last = (
            (start != 0xFF) | (marker == 0xDA) | (marker == 0xD9) | (length < 2)
        )  # pixels follow, or it is no segment
        after = tf.where(
            marker == 0xFF, at + 1, tf.where(last, size, at + 2 + length)
        )  # 0xFF may be repeated before a marker
        return after, tf.where(is_exif & ~last, at + 10, found)

    _, tiff = tf.while_loop(
        lambda at, found: (found < 0) & (at < size),
        step,
        (tf.constant(2), tf.constant(-1)),
        maximum_iterations=SEGMENTS,
    )

    def read() -> Any:
        little = byte(tiff) == ord("I")
        at = tf.cast(tiff, tf.int64)
        first = at + _whole(byte(at + 4 + tf.range(4, dtype=tf.int64)), little)
        entries = first + 2 + 12 * tf.range(ENTRIES, dtype=tf.int64)
        fields = _whole(byte(entries[:, tf.newaxis, tf.newaxis] + [[0, 1], [2, 3], [8, 9]]), little)  # tag, type, value
        known = tf.range(ENTRIES, dtype=tf.int64) < _whole(byte(first + tf.range(2, dtype=tf.int64)), little)
        match = known & (fields[:, 0] == 0x0112) & (fields[:, 1] == 3)
        value = tf.gather(tf.concat([fields[:, 2], [1]], axis=0), tf.argmax(tf.concat([match, [True]], axis=0)))
        is_tiff = (byte(at) == byte(at + 1)) & (little | (byte(at) == ord("M")))
        return tf.where(is_tiff & (value >= 1) & (value <= 8), tf.cast(value, tf.int32), 1)

    return tf.cond(tiff >= 0, read, lambda: tf.constant(1))


def _whole(octets: Any, little: Any) -> Any:
    """Return unsigned numbers (int64 [...]) of bytes uint8 [..., k], in little-endian order where `little`."""
    powers = [256**i for i in range(octets.shape[-1])]
    scale = tf.where(little, tf.constant(powers, tf.int64), tf.constant(powers[::-1], tf.int64))
    return tf.reduce_sum(tf.cast(octets, tf.int64) * scale, axis=-1)
