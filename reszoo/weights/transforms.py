"""How an image must be prepared for a net's weights, as a record that travels with them. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reszoo.errors import ReszooError

INTERPOLATIONS = ("bilinear", "bicubic")
CHANNEL_ORDERS = ("RGB", "BGR")


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """Resize, centre crop, and normalise: input = (pixel / 255 - mean) / std, channels in `channel_order`.

    image_size: (height, width) of the crop, which is the net's input.
    resize: shorter side before the crop, in pixels; 0 resizes straight to `image_size` whatever the aspect ratio.
    interpolation: "bilinear" or "bicubic", antialiased as PIL's.
    mean, std: of pixels in 0..1, one number a channel, in `channel_order`.
    channel_order: "RGB", or "BGR" (Caffe's, which keras.applications' v1 nets kept).

    Raises ReszooError for a value that is none of these.
    """

    image_size: tuple[int, int]
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    channel_order: str = "RGB"

    def __post_init__(self) -> None:
        for name in ("image_size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.interpolation not in INTERPOLATIONS:
            raise ReszooError(
                f"interpolation is '{self.interpolation}', but must be bilinear or bicubic"
            )
        if self.channel_order not in CHANNEL_ORDERS:
            raise ReszooError(f"channel_order is '{self.channel_order}', but must be RGB or BGR")
        if len(self.image_size) != 2 or min(self.image_size) < 1 or self.resize < 0:
            raise ReszooError(
                f"image_size {self.image_size} and resize {self.resize} are no sizes in pixels"
            )
        if len(self.mean) != len(self.std) or min(self.std, default=0) <= 0:
            raise ReszooError("mean and std must hold one number a channel each, std above 0")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Transforms:
        """Return the record that `to_dict` wrote; raises ReszooError for anything else."""
        try:
            return cls(**fields)
        except TypeError as error:
            raise ReszooError(f"transforms are not readable: {error}") from error


def fit_transforms(transforms: Transforms, input_shape: Sequence[int | None]) -> Transforms:
    """Return the transforms for a net of another input size or number of channels.

    The resized side keeps its ratio to the crop's shorter side, and is never below the longer. One channel takes the
    mean of the channels' numbers, more repeat them.
    """
    height, width, channels = (
        own or default
        for own, default in zip(input_shape, (*transforms.image_size, 3), strict=True)
    )
    resize = fit_resize(transforms.resize, transforms.image_size, (height, width))
    mean, std = transforms.mean, transforms.std
    if channels != len(mean):
        mean, std = (
            (sum(values) / len(values),)
            if channels == 1
            else tuple(values[i % len(values)] for i in range(channels))
            for values in (mean, std)
        )
    order = transforms.channel_order if channels == 3 else "RGB"
    return dataclasses.replace(
        transforms,
        image_size=(height, width),
        resize=resize,
        mean=mean,
        std=std,
        channel_order=order,
    )


def fit_resize(resize: int, before: Sequence[int], after: Sequence[int]) -> int:
    """Return the shorter side before the crop for a crop of size `after`, as `resize` is for `before`; never below the crop."""
    return resize and max(*after, round(resize * min(after) / min(before)))
