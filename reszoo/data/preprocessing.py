"""How an image becomes a net's input at evaluation: one definition for evaluating, predicting and exporting."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from reszoo.data.decode import decode_file, decode_upright, to_channels
from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.weights.transforms import CHANNEL_ORDERS, INTERPOLATIONS, Transforms, fit_resize

# TensorFlow's name of each kernel, and how far it reaches, in pixels of the smaller of the two images. PIL's bicubic kernel
# has a = -0.5, as Keys' has.
KERNELS = {"bilinear": ("triangle", 1), "bicubic": ("keyscubic", 2)}


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """Resize, centre crop and normalise: input = (pixel / 255 - mean) / std. Sizes and pixels are those of torchvision on PIL.

    image_size: (height, width) of the net's input.
    channels: 1 or 3.
    resize: shorter side before the centre crop; 0 resizes straight to `image_size`, whatever the aspect ratio.
    mean: float32 [channels] or, for a mean image, [height, width, channels]; of pixels in 0..1, in `channel_order`.
    std: float32 [channels], of pixels in 0..1, in `channel_order`.
    interpolation: `bilinear` or `bicubic`.
    channel_order: of the net's input, `RGB` or `BGR`. Images are RGB everywhere else.

    Raises `ReszooError` for fields that do not fit together.
    """

    image_size: tuple[int, int]
    channels: int
    resize: int
    mean: np.ndarray
    std: np.ndarray
    interpolation: str = "bilinear"
    channel_order: str = "RGB"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ReszooError(
                f"images are prepared in 1 or 3 channels, but this net takes {self.channels}"
            )
        shape = (*self.image_size, self.channels)
        if self.mean.shape not in (shape, shape[2:]) or self.std.shape != shape[2:]:
            raise ReszooError(
                f"preprocessing: mean of shape {self.mean.shape} and std of shape {self.std.shape} do not fit "
                f"images of shape {shape}"
            )
        if self.resize and self.resize < max(self.image_size):
            raise ReszooError(
                f"preprocessing: resize = {self.resize} is smaller than the crop after it, {list(self.image_size)}"
            )
        for name, choices in (("interpolation", INTERPOLATIONS), ("channel_order", CHANNEL_ORDERS)):
            if getattr(self, name) not in choices:
                raise ReszooError(
                    f"preprocessing: {name} must be {' or '.join(choices)}, got {getattr(self, name)!r}"
                )

    @classmethod
    def from_transforms(cls, transforms: Transforms) -> Preprocessing:
        """Return what carries out the record that came with a net's weights."""
        return cls(
            image_size=(transforms.image_size[0], transforms.image_size[1]),
            channels=len(transforms.mean),
            resize=transforms.resize,
            mean=np.array(transforms.mean, np.float32),
            std=np.array(transforms.std, np.float32),
            interpolation=transforms.interpolation,
            channel_order=transforms.channel_order,
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the net's input."""
        return (*self.image_size, self.channels)

    def apply(self, images: Any) -> Any:
        """Normalise RGB or grey images [..., height, width, channels], values 0..255, of the input's size, to float32."""
        images = tf.convert_to_tensor(images)
        if self.channel_order == "BGR":
            images = tf.reverse(images, axis=[-1])
        width, shape = self.image_size[1], tf.shape(images)
        # Normalized = pixel * scale - shift: float32 [channels] and, as `mean`, [channels] or [h, w, c].
        scale = (1 / (255 * self.std.astype(np.float64))).astype(np.float32)
        shift = (self.mean / self.std).astype(np.float32)
        # Whole rows of pixels at a time: broadcasting over a last axis of three takes two to six times as long.
        scale = np.tile(scale, width)
        shift = np.tile(shift, width) if shift.ndim == 1 else shift.reshape(shift.shape[0], -1)
        rows = tf.reshape(images, tf.concat([shape[:-2], [len(scale)]], axis=0))
        rows = tf.cast(rows, tf.float32) * (scale[0] if (scale == scale[0]).all() else scale)
        return tf.ensure_shape(
            tf.reshape(rows - shift if shift.any() else rows, shape), images.shape
        )

    def to_input(self, image: Any) -> Any:
        """Bring one image [h, w, c] of any size, values 0..255 of any dtype, to uint8 [height, width, channels]."""
        image = to_channels(tf.convert_to_tensor(image), self.channels)
        height, width = self.image_size
        if self.resize:
            size = shorter_side(tf.shape(image)[:2], self.resize)
            image = resize(image, size, self.interpolation, centre_window(size, height, width))
        else:
            image = resize(image, (height, width), self.interpolation)
        return tf.ensure_shape(image, self.input_shape)

    def from_image(self, image: Any) -> Any:
        """Bring one image [h, w, c] of any size, values 0..255 of any dtype, to the net's float32 [height, width, channels]."""
        return self.apply(self.to_input(image))

    def pixels(self, picture: Any) -> Any:
        """Return one image as uint8 [h, w, channels] of its own size: the bytes of a file decoded and turned upright, an array as it is.

        Not for a graph that is exported: see `from_bytes`.
        """
        return (
            decode_file(picture, self.channels)
            if isinstance(picture, bytes)
            else to_channels(tf.convert_to_tensor(picture), self.channels)
        )

    def from_bytes(self, contents: Any) -> Any:
        """Bring the bytes of one JPEG or PNG file (scalar string), turned upright, to the net's float32 [height, width, channels]."""
        return self.from_image(decode_upright(contents, self.channels))

    def at(self, image_size: tuple[int, int]) -> Preprocessing:
        """Return the same for an input of another (height, width); the side resized to keeps its ratio to the crop.

        Raises `ReszooError` where a mean image ties it to its own size.
        """
        if self.mean.ndim == 3 and image_size != self.image_size:
            raise ReszooError(
                f"its images are normalised by a mean image of {self.image_size[0]} x {self.image_size[1]}, so no other size "
                "can be taken"
            )
        resize = fit_resize(self.resize, self.image_size, image_size)
        return dataclasses.replace(self, image_size=image_size, resize=resize)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict; a mean image is base64 of little-endian float32."""
        if self.mean.ndim == 1:
            mean: Any = [float(m) for m in self.mean]
        else:
            mean = {"float32": base64.b64encode(self.mean.astype("<f4").tobytes()).decode()}
        return {
            "image_size": list(self.image_size),
            "channels": self.channels,
            "resize": self.resize,
            "mean": mean,
            "std": [float(s) for s in self.std],
            "interpolation": self.interpolation,
            "channel_order": self.channel_order,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`, exact to the bit; raises `ReszooError` where `values` is no such dict.

        Older records say neither interpolation nor channel order; they mean `bilinear` and `RGB`.
        """
        try:
            height, width = values["image_size"]
            channels, mean = int(values["channels"]), values["mean"]
            if isinstance(mean, Mapping):
                mean = np.frombuffer(base64.b64decode(mean["float32"]), "<f4").reshape(
                    height, width, channels
                )
            return cls(
                image_size=(int(height), int(width)),
                channels=channels,
                resize=int(values["resize"]),
                mean=np.asarray(mean, np.float32),
                std=np.asarray(values["std"], np.float32),
                interpolation=values.get("interpolation", "bilinear"),
                channel_order=values.get("channel_order", "RGB"),
            )
        except ReszooError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ReszooError(
                f"preprocessing is not readable: {type(error).__name__}: {error}"
            ) from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Preprocessing) and self.to_dict() == other.to_dict()


def shorter_side(shape: Any, length: Any) -> Any:
    """Return int32 [..., 2]: `shape` (int32 [..., 2]) scaled so that its shorter side is `length`; the other is rounded down."""
    wide = tf.cast(shape, tf.int64)  # a product of two lengths may not fit 32 bits
    return tf.cast(
        wide * tf.cast(length, tf.int64) // tf.reduce_min(wide, axis=-1, keepdims=True), tf.int32
    )


def centre_window(shape: Any, height: int, width: int) -> Any:
    """Return the middle [height, width] of an image of `shape` (int32 [h, w]): int32 [y, x, height, width].

    Where the middle lies between two pixels, the even offset is taken, as torchvision does.
    """
    offset = tf.round((shape - tf.constant([height, width])) / 2)
    return tf.concat([tf.cast(offset, tf.int32), [height, width]], axis=0)


def resize(image: Any, size: Any, interpolation: str = "bilinear", window: Any = None) -> Any:
    """Resize [h, w, c], values 0..255, to uint8 [*size, c] as PIL does, antialiased; exact where sizes agree.

    window: the part of the resized image to return, int32 [y, x, height, width]; all of it by default.

    PIL goes across first, then down, and rounds after each. (Pillow 13 goes down first where the height shrinks far more than
    the width.) Images held in memory are stored as uint8 too, so what is predicted is what was evaluated.
    """
    own = image.shape[:2].as_list()
    if window is None and image.dtype == tf.uint8 and isinstance(size, tuple) and own == list(size):
        return image
    kernel, reach = KERNELS[interpolation]
    top, left, height, width = (0, 0, size[0], size[1]) if window is None else tf.unstack(window)
    down = _span(tf.shape(image)[0], size[0], top, height, reach)
    across = _span(tf.shape(image)[1], size[1], left, width, reach)
    image = image[down.first : down.last, across.first : across.last]
    rows, channels = tf.shape(image)[0], image.shape[2]
    # Columns in the place of rows and back: going down an axis is a sum of long rows, several times as fast as going across.
    # In float32, because oneDNN transposes no uint8 and complains on standard error; the minimum, which changes nothing, keeps
    # TensorFlow from swapping the two.
    columns = tf.transpose(tf.minimum(tf.cast(tf.reshape(image, [rows, -1]), tf.float32), 255.0))
    columns = _resample(tf.reshape(columns, [-1, channels * rows]), across, kernel)
    lines = _resample(tf.transpose(tf.reshape(columns, [-1, rows])), down, kernel)
    return tf.cast(tf.reshape(lines, [height, width, channels]), tf.uint8)


class _Span(NamedTuple):
    """Pixels of one resized axis: `count` of them, made from old pixels `first` ... `last`, at new = old * scale + shift."""

    first: Any
    last: Any
    count: Any
    scale: Any
    shift: Any


def _span(old: Any, new: Any, start: Any, count: Any, reach: int) -> _Span:
    """Return what new pixels `start` ... `start` + `count` of an axis resized from `old` to `new` pixels are made from."""
    ratio = tf.cast(old, tf.float64) / tf.cast(new, tf.float64)
    margin = reach * tf.maximum(ratio, 1.0) + 1.0
    begin, end = tf.cast(start, tf.float64), tf.cast(start + count, tf.float64)
    first = tf.maximum(tf.cast(tf.floor(begin * ratio - margin), tf.int32), 0)
    last = tf.minimum(tf.cast(tf.math.ceil(end * ratio + margin), tf.int32), old)
    shift = tf.cast(first, tf.float64) / ratio - begin
    return _Span(first, last, count, tf.cast(1 / ratio, tf.float32), tf.cast(shift, tf.float32))


def _resample(lines: Any, span: _Span, kernel: str) -> Any:
    """Make `span` out of the first axis of [old, k], values 0..255: whole numbers, float32 [count, k]."""
    resampled = tf.raw_ops.ScaleAndTranslate(  # what tf.image.resize calls, which has no way to ask for a part
        images=lines[tf.newaxis, :, tf.newaxis],
        size=tf.stack([span.count, 1]),
        scale=tf.stack([span.scale, 1.0]),
        translation=tf.stack([span.shift, 0.0]),
        kernel_type=kernel,
        antialias=True,
    )
    return tf.floor(
        tf.clip_by_value(resampled[0, :, 0] + 0.5, 0.0, 255.0)
    )  # halves go up, as PIL's do
