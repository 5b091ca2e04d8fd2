"""The tables [data] and [augment]: which dataset, how it is split and scaled, how it is augmented."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from reszoo.errors import ReszooError
from reszoo.validation.messages import contradiction
from reszoo.validation.table import AS_TUPLE, Table

Pixels = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]


def _reject_bool(value: Any) -> Any:
    if isinstance(value, bool):  # True equals 1, which a Literal accepts
        raise ValueError
    return value


class DataConfig(Table):
    """The dataset of a recipe, its splits, and how an image becomes an input."""

    TABLE: ClassVar[str] = "data"

    name: str = Field(
        examples=["cifar10"],
        description='"digits", "synthetic", "folder:PATH" (class folders of image files) or a name of '
        "TensorFlow Datasets.",
    )
    dir: str = Field(
        "",
        description="Folder of prepared TensorFlow Datasets; by default $RESZOO_DATA, else ~/.cache/reszoo/data.",
    )
    validation: int = Field(
        0,
        ge=0,
        examples=[5000],
        description="Number of training images held out for model selection. Which ones depends on the dataset, "
        "not on the seed.",
    )
    image_size: Annotated[tuple[Pixels, Pixels], AS_TUPLE] | None = Field(
        None,
        examples=[[32, 32]],
        description="[height, width] of the model's input; by default the dataset's own, which must be the same "
        "for all images.",
    )
    resize: int = Field(
        0,
        ge=0,
        description="Shorter side in pixels before the center crop in evaluation; 0 resizes to image_size.",
    )
    interpolation: Literal["bilinear", "bicubic"] = Field(
        "bilinear", description="Interpolation of that resizing; both are antialiased."
    )
    channels: Annotated[Literal[1, 3], BeforeValidator(_reject_bool)] | None = Field(
        None, examples=[3], description="1 (luminance) or 3 (RGB); by default the dataset's own."
    )
    normalize: Literal["pixel_mean", "channel", "unit", "weights"] = Field(
        "pixel_mean",
        description="Of pixels in 0..1: subtract the mean image of the training split (pixel_mean), subtract the "
        "mean color and divide by its deviation (channel), nothing (unit), or as the published weights "
        "that training starts from expect it (weights).",
    )
    on_corrupt: Literal["error", "skip"] = Field(
        "error", description="Stop at an undecodable file of a folder, or skip it with a warning."
    )
    examples: int = Field(
        0, ge=0, description="Train on this many examples only, stratified by class; 0 means all."
    )
    on_device: bool = Field(
        False,
        description="Keep the images in the memory of the training device, which makes the batches there.",
    )

    def check(self) -> None:
        """Raise ReszooError for keys that contradict each other or have no effect."""
        if self.name.strip() in ("", "folder:"):
            raise ReszooError(
                f'data.name: "{self.name}" is invalid; expected a dataset, or folder:PATH. '
                "Example: --set data.name=cifar10"
            )
        if self.resize and self.image_size is None:
            raise contradiction(
                "data.resize",
                self.resize,
                "data.image_size too, the size of the crop",
                "data.image_size=[224, 224]",
            )
        if self.resize and self.image_size and self.resize < max(self.image_size):
            raise contradiction(
                "data.resize",
                self.resize,
                f"at least data.image_size = {list(self.image_size)}",
                "data.resize=0",
            )
        is_folder = self.name.startswith("folder:")
        if not is_folder:
            self._reject_unused("on_corrupt", "with a folder of images")
        if is_folder or self.name in ("digits", "synthetic"):
            self._reject_unused("dir", "with a dataset of TensorFlow Datasets")
        if self.name == "synthetic":
            for key in ("resize", "interpolation"):
                self._reject_unused(
                    key, "with real images; synthetic ones have the size data.image_size"
                )

    def _reject_unused(self, key: str, where: str) -> None:
        value = getattr(self, key)
        if value != type(self).model_fields[key].default:
            raise ReszooError(
                f'data.{key}: not used with data.name = "{self.name}"; expected only {where}. Remove data.{key}'
            )


class Augmentation(Table):
    """Random changes to training images. The subclasses differ in how an image is cropped."""

    TABLE: ClassVar[str] = "augment"
    CHOICE: ClassVar[str] = "crop"
    DEFAULT: ClassVar[str | None] = "none"

    flip: bool = Field(False, description="Mirror left and right with probability 0.5.")
    color: Literal["none", "pca"] = Field(
        "none", description="pca: color noise of Krizhevsky et al. 2012, section 4.1."
    )


class NoCrop(Augmentation):
    """The whole image."""

    crop: Literal["none"] = Field("none", description="How an image is cropped.")


class PadCrop(Augmentation):
    """Zero-pad after normalization and crop back to the size (arXiv 1512.03385, section 4.2)."""

    crop: Literal["pad"] = Field("pad", description="How an image is cropped.")
    pad: int = Field(4, ge=1, description="Pixels on every side.")


class ScaleCrop(Augmentation):
    """Resize the shorter side to a random length and crop (arXiv 1512.03385, section 3.4)."""

    crop: Literal["scale"] = Field("scale", description="How an image is cropped.")
    scale: Annotated[tuple[Pixels, Pixels], AS_TUPLE] = Field(
        (256, 480), description="[shortest, longest] shorter side in pixels."
    )

    def check(self) -> None:
        """Raise ReszooError for a falling range."""
        if self.scale[0] > self.scale[1]:
            raise contradiction(
                "augment.scale",
                self.scale,
                "two integers in rising order",
                "augment.scale=[256, 480]",
            )


class InceptionCrop(Augmentation):
    """Crop a random area and aspect ratio, and resize (Szegedy et al. 2014, arXiv 1409.4842, section 6)."""

    crop: Literal["inception"] = Field("inception", description="How an image is cropped.")
    area: Annotated[tuple[Fraction, Fraction], AS_TUPLE] = Field(
        (0.08, 1.0), description="[least, greatest] fraction of the image's area."
    )

    def check(self) -> None:
        """Raise ReszooError for a falling range."""
        if self.area[0] > self.area[1]:
            raise contradiction(
                "augment.area", self.area, "two numbers in rising order", "augment.area=[0.08, 1.0]"
            )


AugmentConfig: TypeAlias = NoCrop | PadCrop | ScaleCrop | InceptionCrop
