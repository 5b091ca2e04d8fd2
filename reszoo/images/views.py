"""Views of a test image: crops, mirror images and scales, whose probabilities are averaged."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from reszoo.errors import ReszooError
from reszoo.images.preprocessing import INTERPOLATIONS, Preprocessing
from reszoo.lazy import tf
from reszoo.types import Tensor

PAD = 4  # zero pixels around images that are not resized, as in training: section 4.2 of the paper


@dataclass(frozen=True, kw_only=True)
class Views:
    """The test by which an error is measured: which views of each image are evaluated.

    Attributes:
        crops: 1: the center crop. 10: the four corners, the center, and their mirror images
            (Krizhevsky et al. 2012, section 4.1); images that are not resized before the crop are
            padded by 4 zero pixels after normalization, as in training.
        flip: Whether each view's mirror image is evaluated too.
        scales: Lengths of the shorter side at which the whole image is evaluated, without a crop.
            The model is applied as a convolution (arXiv 1512.03385, section 3.4).
        crop_ratio: Side of the crop / shorter side of the resized image; None keeps the
            preprocessing's.
        interpolation: "bilinear" or "bicubic"; None keeps the preprocessing's.

    Raises:
        ReszooError: If a value is invalid, or values contradict each other.
    """

    crops: int = 1
    flip: bool = False
    scales: tuple[int, ...] = ()
    crop_ratio: float | None = None
    interpolation: str | None = None

    def __post_init__(self) -> None:
        if self.crops not in (1, 10):
            raise ReszooError(f"crops: {self.crops!r} is invalid; expected 1 or 10")
        if self.flip and self.crops == 10:
            raise ReszooError("flip: true is invalid with crops=10, which mirrors every crop")
        sides = [side for side in self.scales if isinstance(side, int) and side >= 1]
        if len({*sides}) != len(self.scales):
            raise ReszooError(
                f"scales: {list(self.scales)} is invalid; expected different lengths in pixels. "
                "Example: 224,256,384,480,640"
            )
        for name, value in (("crops", self.crops != 1), ("crop_ratio", self.crop_ratio)):
            if self.scales and value:
                raise ReszooError(
                    f"{name}: {getattr(self, name)} is invalid with scales, which show whole images"
                )
        if self.crop_ratio is not None and not 0 < self.crop_ratio <= 1:
            raise ReszooError(
                f"crop_ratio: {self.crop_ratio!r} is invalid; expected a number above 0, at most 1"
            )
        if self.interpolation not in (None, *INTERPOLATIONS):
            raise ReszooError(
                f"interpolation: {self.interpolation!r} is invalid; expected "
                f"{' or '.join(INTERPOLATIONS)}"
            )

    def __str__(self) -> str:
        """Return the name of the test, such as "10-crop", which `parse` reads."""
        scales = ",".join(map(str, self.scales))
        parts = [f"scales {scales}" if scales else f"{self.crops}-crop"]
        parts += ["flip"] if self.flip else []
        parts += [] if self.crop_ratio is None else [f"ratio {self.crop_ratio:g}"]
        return " ".join([*parts, *filter(None, [self.interpolation])])

    @classmethod
    def parse(cls, text: str) -> Views:
        """Return the views of a test's name.

        Raises:
            ReszooError: If it is not such a name, or a value is invalid.
        """
        words, values = text.split(), dict[str, Any]()
        while words:
            word = words.pop(0)
            if word in ("1-crop", "10-crop"):
                values["crops"] = int(word.removesuffix("-crop"))
            elif word == "flip" or word in INTERPOLATIONS:
                values |= {"flip": True} if word == "flip" else {"interpolation": word}
            elif word == "scales" and words:
                values["scales"] = parse_scales(words.pop(0))
            elif word == "ratio" and words and words[0].replace(".", "", 1).isdecimal():
                values["crop_ratio"] = float(words.pop(0))
            else:
                words = [word]
                break
        if words or not values:
            raise ReszooError(
                f"test: {text!r} is invalid; expected 1-crop, 10-crop or scales A,B,..., then "
                "perhaps flip, ratio X, bilinear or bicubic"
            )
        return cls(**values)

    @property
    def count(self) -> int:
        """The number of views of an image."""
        return max(self.crops, len(self.scales)) * (2 if self.flip else 1)

    def adapt(self, preprocessing: Preprocessing) -> Preprocessing:
        """Return the preprocessing with the crop ratio and interpolation of this test.

        The shorter side is rounded down, as timm does (timm/data/transforms_factory.py).

        Raises:
            ReszooError: If the images are normalized by a mean image, which fixes the scale.
        """
        if self.scales and preprocessing.mean.ndim == 3:
            raise ReszooError(
                f"scales: {list(self.scales)} is invalid; the images are normalized by a mean "
                f"image of {list(preprocessing.image_size)} pixels, which fixes their size"
            )
        changes: dict[str, Any] = {}
        if self.crop_ratio is not None:
            changes["resize"] = int(min(preprocessing.image_size) / self.crop_ratio)
        if self.interpolation:
            changes["interpolation"] = self.interpolation
        return dataclasses.replace(preprocessing, **changes)

    def cut(self, image: Tensor, preprocessing: Preprocessing) -> Tensor:
        """Return the crops of an image, normalized: float32 [count, height, width, channels].

        Args:
            image: [h, w, c], values 0..255.
            preprocessing: As `adapt` returns it.
        """
        from reszoo.images.decoding import crop, to_channels
        from reszoo.images.resizing import center_window, resize, scale_shorter_side

        image, sides = tf.convert_to_tensor(image), tf.constant(preprocessing.image_size)
        if self.crops == 1:
            views = preprocessing.from_image(image)[tf.newaxis]
        else:
            if preprocessing.resize:
                image = to_channels(image, preprocessing.channels)
                size = scale_shorter_side(tf.shape(image)[:2], preprocessing.resize)
                image = resize(image, size, preprocessing.interpolation)
            else:
                margins = [[PAD, PAD], [PAD, PAD], [0, 0]]
                image = tf.pad(preprocessing.from_image(image), margins)
                size = sides + 2 * PAD
            slack = size - sides
            corners = [slack * tf.constant(corner) for corner in ((0, 0), (0, 1), (1, 0), (1, 1))]
            windows = [tf.concat([corner, sides], 0) for corner in corners]
            windows.append(center_window(size, *preprocessing.image_size))
            views = tf.stack([crop(image, window) for window in windows])
            views = tf.ensure_shape(views, (5, *preprocessing.input_shape))
            views = preprocessing.apply(views) if preprocessing.resize else views
        mirrored = self.flip or self.crops == 10
        return tf.concat([views, tf.reverse(views, axis=[2])], 0) if mirrored else views

    def rescale(self, image: Tensor, preprocessing: Preprocessing) -> tuple[Tensor, ...]:
        """Return the whole image at each scale, normalized: float32 [1 or 2, h, w, channels].

        Args:
            image: [h, w, c], values 0..255.
            preprocessing: As `adapt` returns it.
        """
        from reszoo.images.decoding import to_channels
        from reszoo.images.resizing import resize, scale_shorter_side

        image = to_channels(tf.convert_to_tensor(image), preprocessing.channels)
        scale, shift = preprocessing.scale_and_shift
        views = []
        for side in self.scales:
            size = scale_shorter_side(tf.shape(image)[:2], side)
            view = resize(image, size, preprocessing.interpolation)
            if preprocessing.channel_order == "BGR":
                view = tf.reverse(view, axis=[-1])
            view = (tf.cast(view, tf.float32) * scale - shift)[tf.newaxis]
            views.append(tf.concat([view, tf.reverse(view, axis=[2])], 0) if self.flip else view)
        return tuple(views)


def parse_scales(text: str) -> tuple[int, ...]:
    """Return the scales of a list such as "224,256".

    Raises:
        ReszooError: If it is not a list of integers.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise ReszooError(
            f"scales: {text!r} is invalid; expected lengths in pixels, separated by commas. "
            "Example: 224,256,384,480,640"
        )
    return tuple(map(int, parts))
