"""What a recipe says of its images: which set, how it is split and scaled, how it is augmented. Standard library only."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from typing import Any

from reszoo.errors import ReszooError, did_you_mean

NORMALIZE = ("pixel_mean", "channel", "unit", "weights")
INTERPOLATIONS = ("bilinear", "bicubic")
ON_CORRUPT = ("error", "skip")
CROPS = ("none", "pad", "scale", "inception")
COLORS = ("none", "pca")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The `[data]` table of a recipe. Every field is checked where it is given; an impossible one raises `ReszooError`.

    name: `digits`, `synthetic`, `folder:PATH` (class folders of image files) or any TensorFlow Datasets name.
    dir: where prepared TensorFlow Datasets lie; empty means `$RESZOO_DATA`, else `~/.cache/reszoo/data`.
    validation: how many training examples are held out to choose by. Which ones is fixed by the set, never by the seed.
    image_size: (height, width) of the net's input; None keeps the set's own, which must then be the same for all images.
    resize: length of the shorter side before the centre crop in evaluation; 0 resizes straight to `image_size`.
    interpolation: `bilinear` or `bicubic`, of that resizing; both antialiased.
    channels: 1 (luminance), 3 (RGB) or None for the set's own.
    normalize: of x in 0..1, `pixel_mean` takes away the training part's mean image, `channel` its mean colour and divides by
        its deviation, `unit` leaves x, `weights` does as the published weights that training starts from want it.
    on_corrupt: whether an undecodable file in a folder stops (`error`) or is left out with a warning (`skip`).
    examples: train on the first so many examples only (class-stratified where a set is sorted by class); 0 means all.
    on_device: whether the images stay in the memory of the training device, which gathers, normalizes and augments the batches.
    """

    name: str
    dir: str = ""
    validation: int = 0
    image_size: tuple[int, int] | None = None
    resize: int = 0
    interpolation: str = "bilinear"
    channels: int | None = None
    normalize: str = "pixel_mean"
    on_corrupt: str = "error"
    examples: int = 0
    on_device: bool = False

    def __post_init__(self) -> None:
        check_text("data.name", self.name)
        if self.name.strip() in ("", "folder:"):
            raise ReszooError("data.name is empty; give a set ('digits', 'cifar10', ...) or 'folder:PATH'")
        check_text("data.dir", self.dir)
        for key, low in (("validation", 0), ("resize", 0), ("examples", 0)):
            check_whole(f"data.{key}", getattr(self, key), low)
        if self.image_size is not None:
            object.__setattr__(self, "image_size", check_pair("data.image_size", self.image_size, int, "height, width"))
        if not isinstance(self.on_device, bool):
            raise ReszooError(
                f"data.on_device: {self.on_device!r} is invalid; expected true or false. Example: --set data.on_device=true"
            )
        if self.channels not in (None, 1, 3) or isinstance(self.channels, bool):
            raise ReszooError(f"data.channels must be 1 or 3, got {self.channels!r}")
        check_choice("data.interpolation", self.interpolation, INTERPOLATIONS)
        check_choice("data.normalize", self.normalize, NORMALIZE)
        check_choice("data.on_corrupt", self.on_corrupt, ON_CORRUPT)
        if self.resize and self.image_size is None:
            raise ReszooError(f"data.resize = {self.resize} needs data.image_size, the size of the crop taken after it")
        if self.resize and self.image_size and self.resize < max(self.image_size):
            raise ReszooError(f"data.resize = {self.resize} is smaller than data.image_size = {list(self.image_size)}")
        if not self.name.startswith("folder:"):
            _refuse(self, "data", "on_corrupt", "data.name is not a folder")
        if self.name.startswith("folder:") or self.name in ("digits", "synthetic"):
            _refuse(self, "data", "dir", f"data.name = {self.name!r} is not a TensorFlow Datasets set")
        if self.name == "synthetic":
            for key in ("resize", "interpolation"):
                _refuse(self, "data", key, "synthetic images are made at data.image_size")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """The `[augment]` table of a recipe; the default changes nothing. Impossible values raise `ReszooError`.

    crop: `pad` zero-pads by `pad` after normalisation and crops back (He et al. 2015, section 4.2); `scale` resizes the shorter
        side to a random length within `scale` and crops (section 3.4); `inception` crops a random area and aspect ratio
        (Szegedy et al. 2014, section 6) and resizes.
    pad: pixels on every side, for `pad`.
    flip: mirror left and right with probability one half.
    scale: (shortest, longest) shorter side in pixels, for `scale`.
    area: (least, greatest) share of the image's area, for `inception`.
    color: `pca` adds the colour noise of Krizhevsky et al. 2012, section 4.1.
    """

    crop: str = "none"
    pad: int = 4
    flip: bool = False
    scale: tuple[int, int] = (256, 480)
    area: tuple[float, float] = (0.08, 1.0)
    color: str = "none"

    def __post_init__(self) -> None:
        check_choice("augment.crop", self.crop, CROPS)
        check_choice("augment.color", self.color, COLORS)
        check_whole("augment.pad", self.pad, 1)
        if not isinstance(self.flip, bool):
            raise ReszooError(f"augment.flip must be true or false, got {self.flip!r}")
        object.__setattr__(self, "scale", check_pair("augment.scale", self.scale, int, "shortest, longest"))
        object.__setattr__(self, "area", check_pair("augment.area", self.area, float, "least, greatest"))
        if self.scale[0] > self.scale[1]:
            raise ReszooError(f"augment.scale = {list(self.scale)} must stand in rising order")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ReszooError(f"augment.area = {list(self.area)} must be two rising shares between 0 and 1")
        for key, crop in (("pad", "pad"), ("scale", "scale"), ("area", "inception")):
            if self.crop != crop:
                _refuse(self, "augment", key, f"augment.crop is {self.crop!r}, not {crop!r}")


def check_text(key: str, value: Any) -> None:
    """Raise `ReszooError` unless `value` is a string."""
    if not isinstance(value, str):
        raise ReszooError(f"{key} must be text, got {value!r}")


def check_whole(key: str, value: Any, low: int) -> None:
    """Raise `ReszooError` unless `value` is an int (and no bool) of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ReszooError(f"{key} must be a whole number of at least {low}, got {value!r}")


def check_choice(key: str, value: Any, options: tuple[str, ...]) -> None:
    """Raise `ReszooError` unless `value` is one of `options`."""
    if value not in options:
        raise ReszooError(
            f"{key} must be one of {', '.join(options)}, got {value!r}{did_you_mean(str(value), options)}"
        )


def check_pair(key: str, value: Any, kind: type[int] | type[float], what: str) -> tuple[Any, Any]:
    """Return `value`, two positive finite numbers, as a tuple of `kind`; raise `ReszooError` if it is anything else."""
    allowed = (int, float) if kind is float else (int,)
    if (
        not isinstance(value, list | tuple)
        or len(value) != 2
        or any(isinstance(v, bool) or not isinstance(v, allowed) or not math.isfinite(v) or v <= 0 for v in value)
    ):
        noun = "positive whole numbers" if kind is int else "positive numbers"
        raise ReszooError(f"{key} must be two {noun}, [{what}], got {value!r}")
    return kind(value[0]), kind(value[1])


def _refuse(config: DataConfig | AugmentConfig, table: str, key: str, why: str) -> None:
    """Raise `ReszooError` if the field `key`, which would have no effect, is not at its default."""
    default = next(f.default for f in fields(config) if f.name == key)
    assert default is not MISSING
    if getattr(config, key) != default:
        raise ReszooError(f"{table}.{key} = {getattr(config, key)!r} has no effect: {why}")
