"""How an image becomes a net's input at evaluation: one definition for evaluating, predicting and exporting."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from reszoo.data.decode import decode, to_channels
from reszoo.errors import ReszooError


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """Resize, centre crop and normalise: input = (pixel / 255 - mean) / std.

    image_size: (height, width) of the net's input.
    channels: 1 or 3.
    resize: shorter side before the centre crop; 0 resizes straight to `image_size`, whatever the aspect ratio.
    mean: float32 [channels] or, for a mean image, [height, width, channels]; of pixels in 0..1.
    std: float32 [channels], of pixels in 0..1.
    """

    image_size: tuple[int, int]
    channels: int
    resize: int
    mean: np.ndarray
    std: np.ndarray

    def __post_init__(self) -> None:
        shape = (*self.image_size, self.channels)
        if self.mean.shape not in (shape, shape[2:]) or self.std.shape != shape[2:]:
            raise ReszooError(
                f"preprocessing: mean of shape {self.mean.shape} and std of shape {self.std.shape} do not fit "
                f"images of shape {shape}"
            )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the net's input."""
        return (*self.image_size, self.channels)

    def apply(self, images: Any) -> Any:
        """Normalise images [..., height, width, channels] with values 0..255, of the input's size, to float32."""
        images = tf.convert_to_tensor(images)
        width, shape = self.image_size[1], tf.shape(images)
        # Whole rows of pixels at a time: broadcasting over a last axis of three takes two to six times as long.
        scale = np.tile(1 / (255 * self.std.astype(np.float64)), width).astype(np.float32)
        shift = (self.mean / self.std).astype(np.float32)
        shift = np.tile(shift, width) if shift.ndim == 1 else shift.reshape(shift.shape[0], -1)
        rows = tf.reshape(images, tf.concat([shape[:-2], [len(scale)]], axis=0))
        rows = tf.cast(rows, tf.float32) * (scale[0] if (scale == scale[0]).all() else scale)
        return tf.ensure_shape(tf.reshape(rows - shift if shift.any() else rows, shape), images.shape)

    def to_input(self, image: Any) -> Any:
        """Bring one image [h, w, c] of any size, values 0..255 of any dtype, to uint8 [height, width, channels]."""
        image = to_channels(tf.convert_to_tensor(image), self.channels)
        height, width = self.image_size
        if self.resize:
            image = centre_crop(resize(image, shorter_side(tf.shape(image)[:2], self.resize)), height, width)
        else:
            image = resize(image, (height, width))
        return tf.ensure_shape(image, self.input_shape)

    def from_image(self, image: Any) -> Any:
        """Bring one image [h, w, c] of any size, values 0..255 of any dtype, to the net's float32 [height, width, channels]."""
        return self.apply(self.to_input(image))

    def from_bytes(self, contents: Any) -> Any:
        """Bring the bytes of one JPEG or PNG file (scalar string) to the net's float32 [height, width, channels]."""
        return self.from_image(decode(contents, self.channels))

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
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`, exact to the bit; raises `ReszooError` where `values` is no such dict."""
        try:
            height, width = values["image_size"]
            channels, mean = int(values["channels"]), values["mean"]
            if isinstance(mean, Mapping):
                mean = np.frombuffer(base64.b64decode(mean["float32"]), "<f4").reshape(height, width, channels)
            return cls(
                image_size=(int(height), int(width)),
                channels=channels,
                resize=int(values["resize"]),
                mean=np.asarray(mean, np.float32),
                std=np.asarray(values["std"], np.float32),
            )
        except ReszooError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ReszooError(f"preprocessing is not readable: {type(error).__name__}: {error}") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Preprocessing) and self.to_dict() == other.to_dict()


def shorter_side(shape: Any, length: Any) -> Any:
    """Return int32 [h, w]: `shape` (int32 [h, w]) scaled so that its shorter side is `length`."""
    scale = tf.cast(length, tf.float64) / tf.cast(tf.reduce_min(shape), tf.float64)
    return tf.maximum(tf.cast(tf.round(tf.cast(shape, tf.float64) * scale), tf.int32), length)


def resize(image: Any, size: Any) -> Any:
    """Resize [h, w, c], values 0..255, to uint8 [*size, c]: bilinear, antialiased, rounded; exact where sizes agree.

    Rounded, because images held in memory are stored as uint8: what is predicted is then what was evaluated.
    """
    if image.dtype == tf.uint8 and isinstance(size, tuple) and image.shape[:2].as_list() == list(size):
        return image
    smooth = tf.image.resize(image, size, method="bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(smooth), 0, 255), tf.uint8)


def centre_crop(image: Any, height: int, width: int) -> Any:
    """Cut the middle [height, width, c] out of an image at least as large."""
    top, left = (tf.shape(image)[0] - height) // 2, (tf.shape(image)[1] - width) // 2
    return image[top : top + height, left : left + width]
