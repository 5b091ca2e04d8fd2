"""How an image becomes a model's input in evaluation, prediction and export.

Importing this module imports neither NumPy nor TensorFlow, because the list of published weights
holds one record per row.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.types import Array, JsonMapping, JsonObject, Tensor

INTERPOLATIONS = ("bilinear", "bicubic")
CHANNEL_ORDERS = ("RGB", "BGR")


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """Resize, center crop and normalize: input = (pixel / 255 - mean) / std.

    Sizes and pixels are those of torchvision on Pillow images.

    Attributes:
        image_size: Height and width of the model's input.
        channels: Channels of the model's input. Image files are decoded to 1 or 3.
        resize: Shorter side before the center crop; 0 resizes to `image_size` in any aspect ratio.
        mean: float32 [channels], or a mean image [height, width, channels], of pixels in 0..1, in
            `channel_order`. A sequence is converted.
        std: float32 [channels] of pixels in 0..1, in `channel_order`. A sequence is converted.
        interpolation: "bilinear" or "bicubic", antialiased.
        channel_order: "RGB", or "BGR" (Caffe's, which the v1 models of keras.applications kept), of
            the model's input. Images are RGB everywhere else.

    Raises:
        ReszooError: If the fields contradict each other.
    """

    image_size: tuple[int, int]
    channels: int
    resize: int
    mean: Array
    std: Array
    interpolation: str = "bilinear"
    channel_order: str = "RGB"

    def __post_init__(self) -> None:
        import numpy as np

        object.__setattr__(self, "image_size", tuple(self.image_size))
        for name in ("mean", "std"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))
        if len(self.image_size) != 2 or min(*self.image_size, self.channels) < 1 or self.resize < 0:
            raise ReszooError(
                f"preprocessing: image_size {self.image_size}, channels {self.channels} and resize "
                f"{self.resize} are invalid; expected pixels"
            )
        shape = self.input_shape
        if self.mean.shape not in (shape, shape[2:]) or self.std.shape != shape[2:]:
            raise ReszooError(
                f"preprocessing: mean of shape {self.mean.shape} and std of shape {self.std.shape} "
                f"are invalid; expected one number per channel of images of shape {shape}"
            )
        if not (self.std > 0).all():
            raise ReszooError(f"preprocessing: std {self.std} is invalid; expected values above 0")
        if self.resize and self.resize < max(self.image_size):
            raise ReszooError(
                f"preprocessing: resize {self.resize} is invalid; expected at least the crop after "
                f"it, {list(self.image_size)}"
            )
        for name, choices in (("interpolation", INTERPOLATIONS), ("channel_order", CHANNEL_ORDERS)):
            if getattr(self, name) not in choices:
                raise ReszooError(
                    f"preprocessing: {name} {getattr(self, name)!r} is invalid; expected "
                    f"{' or '.join(choices)}"
                )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the model's input."""
        return (*self.image_size, self.channels)

    @property
    def scale_and_shift(self) -> tuple[Array, Array]:
        """Normalization as input = pixel * scale - shift: float32, shaped as `std` and `mean`."""
        return (1 / (255 * self.std.astype("f8"))).astype("f4"), (self.mean / self.std).astype("f4")

    def apply(self, images: Any) -> Tensor:
        """Normalize images of the input's size.

        Args:
            images: RGB or gray [..., height, width, channels], values 0..255.

        Returns:
            float32 of the same shape.
        """
        import numpy as np

        images = tf.convert_to_tensor(images)
        if self.channel_order == "BGR":
            images = tf.reverse(images, axis=[-1])
        width, shape = self.image_size[1], tf.shape(images)
        scale, shift = self.scale_and_shift
        # Whole rows of pixels at a time: broadcasting over a last axis of three takes two to six
        # times as long.
        scale = np.tile(scale, width)
        shift = np.tile(shift, width) if shift.ndim == 1 else shift.reshape(shift.shape[0], -1)
        rows = tf.reshape(images, tf.concat([shape[:-2], [len(scale)]], axis=0))
        rows = tf.cast(rows, tf.float32) * (scale[0] if (scale == scale[0]).all() else scale)
        normalized = tf.reshape(rows - shift if shift.any() else rows, shape)
        return tf.ensure_shape(normalized, images.shape)

    def to_input(self, image: Any) -> Tensor:
        """Convert an image [h, w, c] of any size, 0..255, to uint8 [height, width, channels]."""
        from reszoo.images.decoding import to_channels
        from reszoo.images.resizing import center_window, resize, scale_shorter_side

        image = to_channels(tf.convert_to_tensor(image), self.channels)
        if self.resize:
            size = scale_shorter_side(tf.shape(image)[:2], self.resize)
            window = center_window(size, *self.image_size)
            image = resize(image, size, self.interpolation, window)
        else:
            image = resize(image, self.image_size, self.interpolation)
        return tf.ensure_shape(image, self.input_shape)

    def __call__(self, image: Any) -> Tensor:
        """Convert an image to the model's input, as evaluation does; also in `Dataset.map`.

        Args:
            image: The bytes of a JPEG or PNG file (scalar string), or pixels [h, w, c] in 0..255.

        Returns:
            float32 [height, width, channels].
        """
        image = tf.convert_to_tensor(image)
        return self.from_bytes(image) if image.dtype == tf.string else self.from_image(image)

    def __str__(self) -> str:
        height, width = self.image_size
        size = f"{height}x{width}"
        if self.resize:
            size = f"shorter side {self.resize}, crop {size}"
        mean = "an image" if self.mean.ndim == 3 else _format(self.mean)
        order = f", {self.channel_order}" if self.channels == 3 else ""
        return f"{size}, {self.interpolation}{order}, mean {mean}, std {_format(self.std)}"

    def from_image(self, image: Any) -> Tensor:
        """Convert an image [h, w, c] of any size, values 0..255, to the model's float32 input."""
        return self.apply(self.to_input(image))

    def from_bytes(self, contents: Any) -> Tensor:
        """Convert the bytes of a JPEG or PNG file (scalar string) to the model's float32 input."""
        from reszoo.images.decoding import decode_upright

        return self.from_image(decode_upright(contents, self.channels))

    def pixels(self, image: Any) -> Tensor:
        """Return an image as uint8 [h, w, channels] of its own size.

        Not for a graph to be exported.

        Args:
            image: The bytes of a file, which are decoded upright, or an array [h, w, c].
        """
        from reszoo.images.decoding import decode_file, to_channels

        if isinstance(image, bytes):
            return decode_file(image, self.channels)
        return to_channels(tf.convert_to_tensor(image), self.channels)

    def fit(self, input_shape: Sequence[int | None]) -> Preprocessing:
        """Return the preprocessing for another input shape; None keeps a side.

        `resize` keeps its ratio to the crop's shorter side, but is never below the longer. One
        channel takes the mean of the channels' numbers; more channels repeat them.

        Raises:
            ReszooError: If a mean image fixes the shape.
        """
        import numpy as np

        height, width, channels = (
            own or default for own, default in zip(input_shape, self.input_shape, strict=True)
        )
        size = (height, width)
        if self.mean.ndim == 3 and (*size, channels) != self.input_shape:
            raise ReszooError(
                "preprocessing: images are normalized by a mean image of "
                f"{self.image_size[0]} x {self.image_size[1]}; expected that size"
            )
        resize = self.resize and max(*size, round(self.resize * min(size) / min(self.image_size)))
        fitted = dataclasses.replace(self, image_size=size, resize=resize)
        if channels == self.channels:
            return fitted
        mean, std = (
            values.mean(dtype="f8", keepdims=True) if channels == 1 else np.resize(values, channels)
            for values in (self.mean, self.std)
        )
        order = self.channel_order if channels == 3 else "RGB"
        return dataclasses.replace(
            fitted, channels=channels, mean=mean, std=std, channel_order=order
        )

    def to_dict(self) -> JsonObject:
        """Return a JSON-able dict; a mean image is base64 of little-endian float32."""
        mean: Any = self.mean.tolist()
        if self.mean.ndim == 3:
            mean = {"float32": base64.b64encode(self.mean.astype("<f4").tobytes()).decode()}
        return {
            "image_size": list(self.image_size),
            "channels": self.channels,
            "resize": self.resize,
            "mean": mean,
            "std": self.std.tolist(),
            "interpolation": self.interpolation,
            "channel_order": self.channel_order,
        }

    @classmethod
    def from_dict(cls, values: JsonMapping) -> Preprocessing:
        """Return the preprocessing that `to_dict` wrote, exact to the bit.

        Records of version 0.1 lack interpolation and channel order: bilinear and RGB.

        Raises:
            ReszooError: If `values` is not such a dict.
        """
        import numpy as np

        try:
            height, width = map(int, values["image_size"])
            channels, mean = int(values["channels"]), values["mean"]
            if isinstance(mean, Mapping):
                mean = np.frombuffer(base64.b64decode(mean["float32"]), "<f4")
                mean = mean.reshape(height, width, channels)
            optional = {
                key: values[key] for key in ("interpolation", "channel_order") if key in values
            }
            return cls(
                (height, width), channels, int(values["resize"]), mean, values["std"], **optional
            )
        except ReszooError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ReszooError(
                f"preprocessing is not readable: {type(error).__name__}: {error}"
            ) from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Preprocessing) and self.to_dict() == other.to_dict()


def _format(values: Array) -> str:
    return " ".join(f"{value:.4g}" for value in values)
