"""Operations on uint8 images, each with the pixels of Pillow, on a whole batch at once.

Every image of a batch has its own operation and argument. Images that need the same kind of work
are gathered, changed together and put back, so the cost per image stays low for small images.

Reference: Pillow 13, ImageOps, ImageEnhance and Image.transform; arXiv 1805.09501, table 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from reszoo.lazy import tf
from reszoo.types import Tensor

TABLES = (
    "auto_contrast",
    "equalize",
    "invert",
    "posterize",  # argument: bits to keep
    "solarize",  # argument: the first value to invert
    "solarize_add",  # argument: what is added to values below 128
    "brightness",  # argument: 0 is black, 1 the image
    "contrast",  # argument: 0 is gray, 1 the image
)
AFFINE = (
    "shear_x",  # argument: columns per row
    "shear_y",
    "translate_x",  # argument: columns to the left
    "translate_y",  # argument: rows upwards
    "rotate",  # argument: degrees counterclockwise
)
COLORS = (
    "color",  # argument: 0 is gray, 1 the image
    "hue",  # argument: turn in 1/256
)
OPERATIONS = ("identity", *TABLES, *AFFINE, *COLORS, "sharpness")  # sharpness: 0 is smooth
"""The names of all operations. A kind is an index into them."""

SMOOTH_WEIGHT = 13  # Pillow's ImageFilter.SMOOTH: 8 neighbors count once, the center 5 times

LARGE = 128 * 128  # pixels of an image

# Pillow's weights of R, G and B in luminance, in 1/65536.
LUMINANCE = (19595, 38470, 7471)


def apply_operations(
    images: Tensor,
    kinds: Tensor,
    arguments: Tensor,
    fill: Sequence[int],
    interpolation: str = "bilinear",
) -> Tensor:
    """Apply one operation to each image.

    Args:
        images: uint8 [n, h, w, 1 or 3], at least 3 by 3 pixels.
        kinds: Which operation, int32 [n].
        arguments: Its argument, float64 [n].
        fill: The value of each channel outside the image, for rotations and their like.
        interpolation: "bilinear" or "bicubic", of the same.

    Returns:
        uint8 [n, h, w, c].
    """
    groups = (("identity",), TABLES, AFFINE, ("color",), ("hue",), ("sharpness",))
    group = tf.constant(
        [next(at for at, group in enumerate(groups) if name in group) for name in OPERATIONS]
    )
    parts = [
        tf.dynamic_partition(each, tf.gather(group, kinds), len(groups))
        for each in (images, kinds, arguments, tf.range(tf.size(kinds)))
    ]
    images_of, kinds_of, arguments_of, places = parts
    changed = [
        images_of[0],
        _apply_tables(images_of[1], kinds_of[1], arguments_of[1]),
        _transform(images_of[2], kinds_of[2], arguments_of[2], fill, interpolation),
        _blend(to_gray(images_of[3]), images_of[3], arguments_of[3]),
        turn_hue(images_of[4], arguments_of[4]),
        _blend(_smooth(images_of[5]), images_of[5], arguments_of[5]),
    ]
    return tf.ensure_shape(tf.dynamic_stitch(places, changed), images.shape)


def _blend(other: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """Return other + factor * (image - other), cut to 0..255 and rounded down, as uint8."""
    factors = tf.reshape(tf.cast(factors, tf.float32), [-1, 1, 1, 1])
    other, images = tf.cast(other, tf.float32), tf.cast(images, tf.float32)
    mixed = tf.clip_by_value(other + factors * (images - other), 0.0, 255.0)
    return tf.cast(mixed, tf.uint8)


def to_gray(images: Tensor) -> Tensor:
    """Return the luminance of RGB or gray images: whole numbers, float32 [n, h, w, 1]."""
    images = tf.cast(images, tf.float32)
    if images.shape[-1] == 1:
        return images
    # Whole numbers below 2**24, so float32 is exact.
    weighted = tf.linalg.matvec(images, tf.constant(LUMINANCE, tf.float32))
    return tf.floor((weighted + 32768.0) / 65536.0)[..., tf.newaxis]


def _smooth(images: Tensor) -> Tensor:
    """Return images filtered by Pillow's 3 x 3 kernel SMOOTH; the border stays as it is."""
    images = tf.cast(images, tf.float32)
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * images[:, 1:-1, 1:-1]
    inner = tf.floor(around / SMOOTH_WEIGHT + 0.5)
    middle = tf.concat([images[:, 1:-1, :1], inner, images[:, 1:-1, -1:]], axis=2)
    return tf.concat([images[:, :1], middle, images[:, -1:]], axis=1)


def _apply_tables(images: Tensor, kinds: Tensor, arguments: Tensor) -> Tensor:
    """Apply the operations that replace each value of a channel by another one."""
    count, (height, width, channels) = tf.shape(images)[0], images.shape[1:]
    pixels = height * width
    levels = tf.range(256)
    values = tf.transpose(
        tf.cast(tf.reshape(images, [count, pixels, channels]), tf.int32), [0, 2, 1]
    )
    histogram = tf.raw_ops.DenseBincount(
        input=tf.reshape(values, [-1, pixels]),
        size=256,
        weights=tf.constant([], tf.int32),
        binary_output=False,
    )
    histogram = tf.reshape(histogram, [count, channels, 256])
    used = histogram > 0
    low = tf.reduce_min(tf.where(used, levels, 255), axis=-1, keepdims=True)
    high = tf.reduce_max(tf.where(used, levels, 0), axis=-1, keepdims=True)
    amounts = tf.cast(arguments, tf.int32)[:, tf.newaxis, tf.newaxis]
    gray = tf.reduce_sum(tf.cast(to_gray(images), tf.float64), axis=[1, 2, 3])
    mean = tf.floor(gray / pixels + 0.5)[:, tf.newaxis, tf.newaxis]
    factors = tf.cast(arguments, tf.float32)[:, tf.newaxis, tf.newaxis]
    thresholds = arguments[:, tf.newaxis, tf.newaxis]
    inverted = 255 - levels

    def blend(other: Tensor) -> Tensor:
        steps = tf.cast(levels, tf.float32) - other
        return tf.cast(tf.clip_by_value(other + factors * steps, 0.0, 255.0), tf.int32)

    tables = {
        "auto_contrast": _stretch(levels, low, high),
        "equalize": _equalize(levels, histogram, high, pixels),
        "invert": inverted,
        "posterize": tf.bitwise.bitwise_and(levels, 256 - tf.bitwise.left_shift(1, 8 - amounts)),
        "solarize": tf.where(tf.cast(levels, tf.float64) < thresholds, levels, inverted),
        "solarize_add": tf.where(levels < 128, tf.minimum(levels + amounts, 255), levels),
        "brightness": blend(tf.constant(0.0)),
        "contrast": blend(tf.cast(mean, tf.float32)),
    }
    shape = [count, channels, 256]
    stacked = tf.stack([tf.broadcast_to(tables[name], shape) for name in TABLES], axis=1)
    chosen = tf.gather(stacked, kinds - OPERATIONS.index(TABLES[0]), batch_dims=1)
    start = 256 * tf.reshape(tf.range(count * channels), [count, 1, 1, channels])
    found = tf.gather(tf.reshape(chosen, [-1]), start + tf.cast(images, tf.int32))
    return tf.cast(found, tf.uint8)


def _stretch(levels: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the table that maps `low` to 0 and `high` to 255 linearly."""
    scale = 255.0 / tf.cast(tf.maximum(high - low, 1), tf.float64)
    offset = -tf.cast(low, tf.float64) * scale
    stretched = tf.cast(tf.cast(levels, tf.float64) * scale + offset, tf.int32)
    return tf.where(high > low, tf.clip_by_value(stretched, 0, 255), levels)


def _equalize(levels: Tensor, histogram: Tensor, high: Tensor, pixels: int) -> Tensor:
    """Return the table after which values are about equally frequent."""
    last = tf.gather(histogram, high, batch_dims=2)
    step = (pixels - last) // 255
    below = tf.cumsum(histogram, axis=-1, exclusive=True)
    equalized = (step // 2 + below) // tf.maximum(step, 1)
    return tf.where(step > 0, tf.minimum(equalized, 255), levels)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of RGB images by whole 1/256 of a circle, through Pillow's 8-bit HSV."""
    if images.shape[-1] == 1:
        return images
    double = tf.float64  # Pillow computes in float64 and keeps float32
    values = tf.cast(images, tf.float32)
    top, bottom = tf.reduce_max(values, axis=-1), tf.reduce_min(values, axis=-1)
    spread = tf.maximum(top - bottom, 1.0)
    away = tf.cast((top[..., tf.newaxis] - values) / spread[..., tf.newaxis], double)
    red, green, blue = tf.unstack(away, axis=-1)
    sector = tf.where(green == 0.0, 2.0 + red - blue, 4.0 + green - red)
    sector = tf.cast(tf.where(red == 0.0, blue - green, sector), tf.float32)
    share = tf.cast(tf.math.floormod(tf.cast(sector, double) / 6.0 + 1.0, 1.0), tf.float32)
    hue = tf.where(top > bottom, tf.cast(tf.cast(share, double) * 255.0, tf.int32), 0)
    saturation = tf.floor(tf.cast(spread / tf.maximum(top, 1.0), double) * 255.0)
    saturation = tf.where(top > bottom, saturation, 0.0)
    hue = (hue + tf.cast(turns, tf.int32)[:, tf.newaxis, tf.newaxis]) % 256
    place = tf.cast(hue, double) * 6.0 / 255.0
    side = tf.cast(tf.floor(place), tf.int32) % 6
    part = tf.cast(place - tf.floor(place), tf.float32)
    colored = tf.cast(saturation / 255.0, tf.float32)
    rest = tf.cast(1.0 - tf.cast(part, double), tf.float32)
    top = tf.cast(top, double)
    lowest, falling, rising = (
        tf.floor(top * (1.0 - tf.cast(each, double)) + 0.5)
        for each in (colored, colored * part, colored * rest)
    )
    cases = tf.stack([top, lowest, falling, rising], axis=-1)
    # Which of top, lowest, falling and rising each channel takes in the six sides of the hexagon.
    pick = tf.constant([[0, 3, 1], [2, 0, 1], [1, 0, 3], [1, 2, 0], [3, 1, 0], [0, 1, 2]])
    turned = tf.gather(cases, tf.gather(pick, side), batch_dims=3)
    return tf.cast(turned, tf.uint8)


def _transform(
    images: Tensor, kinds: Tensor, arguments: Tensor, fill: Sequence[int], interpolation: str
) -> Tensor:
    """Shear, translate or rotate; `apply_operations` describes the arguments."""
    height, width, channels = images.shape[1:]
    if height * width > LARGE and images.shape[0] != 1:  # one by one, which bounds the memory
        signature = tf.TensorSpec([height, width, channels], tf.uint8)

        def transform_one(element: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            image, kind, argument = (each[tf.newaxis] for each in element)
            return _transform(image, kind, argument, fill, interpolation)[0]

        elements = (images, kinds, arguments)
        return tf.map_fn(
            transform_one, elements, parallel_iterations=1, fn_output_signature=signature
        )
    columns, rows = _find_sources(kinds, arguments, height, width)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    columns, rows = columns - 0.5, rows - 0.5
    left, top = tf.floor(columns), tf.floor(rows)
    # In float64, as Pillow: values are rounded down, so a small error would change some by one.
    across, down = (columns - left)[..., tf.newaxis], (rows - top)[..., tf.newaxis]
    left, top = tf.cast(left, tf.int32), tf.cast(top, tf.int32)
    taps, mix = (
        ((0, 1), _mix_linear) if interpolation == "bilinear" else ((-1, 0, 1, 2), _mix_cubic)
    )
    # Four bytes are gathered as one number, which is several times as fast as three.
    spare = [[0, 0], [0, 0], [0, 0], [0, 4 - channels]]
    packed = tf.reshape(tf.bitcast(tf.pad(images, spare), tf.int32), [-1])
    first = height * width * tf.range(tf.shape(images)[0])[:, tf.newaxis, tf.newaxis]
    at = [tf.clip_by_value(left + tap, 0, width - 1) for tap in taps]
    lines = []
    for tap in taps:
        line = first + width * tf.clip_by_value(top + tap, 0, height - 1)
        pixels = [tf.bitcast(tf.gather(packed, line + column), tf.uint8) for column in at]
        values = [tf.cast(each[..., :channels], tf.float64) for each in pixels]
        lines.append(mix(values, across))
    limits = (tf.constant(limit, tf.float64) for limit in (0, 255))
    mixed = tf.cast(tf.clip_by_value(mix(lines, down), *limits), tf.uint8)
    return tf.where(inside[..., tf.newaxis], mixed, tf.constant(fill, tf.uint8))


def _find_sources(
    kinds: Tensor, arguments: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Return where each pixel of the result comes from: columns and rows, float64 [n, h, w]."""
    kinds, amount = kinds[:, tf.newaxis, tf.newaxis], arguments[:, tf.newaxis, tf.newaxis]
    rotated = kinds == OPERATIONS.index("rotate")

    def where(name: str) -> Tensor:
        return tf.where(kinds == OPERATIONS.index(name), amount, tf.constant(0.0, tf.float64))

    angle = -tf.math.floormod(where("rotate"), 360.0) * (math.pi / 180)
    digits = tf.constant(1e15, tf.float64)  # Pillow rounds, so that quarter turns are exact
    cos, sin = (tf.round(each * digits) / digits for each in (tf.cos(angle), tf.sin(angle)))
    middle_x, middle_y = width / 2, height / 2
    shift_x = tf.where(rotated, -cos * middle_x - sin * middle_y + middle_x, where("translate_x"))
    shift_y = tf.where(rotated, sin * middle_x - cos * middle_y + middle_y, where("translate_y"))
    x = tf.range(width, dtype=tf.float64) + 0.5
    y = (tf.range(height, dtype=tf.float64) + 0.5)[:, tf.newaxis]
    columns = cos * x + (sin + where("shear_x")) * y + shift_x
    rows = (where("shear_y") - sin) * x + cos * y + shift_y
    return columns, rows


def _mix_linear(values: Sequence[Tensor], part: Tensor) -> Tensor:
    return values[0] + (values[1] - values[0]) * part


def _mix_cubic(values: Sequence[Tensor], part: Tensor) -> Tensor:
    """Interpolate between the second and third of four values, with slopes of the cubic a = -1."""
    before, left, right, after = values
    square = 2.0 * (before - left) + right - after
    cube = left - before - right + after
    return left + part * ((right - before) + part * (square + part * cube))
