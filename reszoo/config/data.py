"""The tables [data] and [augment]: dataset, splits, scaling and augmentation."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from reszoo.config.augmentation import Fraction, RandomChanges
from reszoo.references import is_reference
from reszoo.validation.table import AS_TUPLE, Table

Pixels = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Point = Annotated[tuple[Share, Pixels], AS_TUPLE]


def _reject_bool(value: Any) -> Any:
    if isinstance(value, bool):  # True equals 1, which a Literal accepts
        raise ValueError
    return value


class DataConfig(Table):
    """The dataset of a recipe, its splits, and how an image becomes an input."""

    TABLE: ClassVar[str] = "data"

    name: str = Field(
        examples=["cifar10"],
        description='`"digits"`, `"synthetic"`, `"folder:PATH"` (class folders of image files) or '
        "the name of a dataset of TensorFlow Datasets. Or your own function, as "
        '`"package.module:attribute"`, that returns `{"train": (images, labels), "test": ...}`.',
    )
    labels: str = Field(
        "",
        examples=["labels.csv"],
        description="CSV file in the folder that states the class of each image, in place of class "
        "folders; see [Label files](data.md#label-files).",
    )
    multi_label: bool = Field(
        False,
        description="An image may have any number of the classes: the labels of `labels` are "
        'separated, or your own labels are 0 and 1, [n, classes]. `train.loss = "bce"` sets it; '
        "see [Several labels per image](data.md#several-labels-per-image).",
    )
    dir: str = Field(
        "",
        description="Folder of prepared TensorFlow Datasets, or where CIFAR lies in another form. "
        "Empty: `$RESZOO_DATA`, else `~/.cache/reszoo/data`.",
    )
    validation: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)] = Field(
        0,
        examples=[5000],
        description="Training images held out for model selection: their number, or their fraction "
        "if the dataset has no validation split of its own. The choice depends on the dataset, not "
        "on the seed.",
    )
    image_size: Annotated[tuple[Pixels, Pixels], AS_TUPLE] | None = Field(
        None,
        examples=[[32, 32]],
        description="[height, width] of the model's input. By default the size of the dataset's "
        "images. For a folder whose images differ in size or are large, a square is found: see "
        "[Image sizes](data.md#image-sizes).",
    )
    resize: int = Field(
        0,
        ge=0,
        description="Evaluation: length in pixels of the shorter side before a center crop of "
        "`image_size`. 0: resize to `image_size` and ignore the aspect ratio.",
    )
    interpolation: Literal["bilinear", "bicubic"] = Field(
        "bilinear", description="Interpolation of the resizing. Both are antialiased."
    )
    channels: Annotated[Literal[1, 3], BeforeValidator(_reject_bool)] | None = Field(
        None, examples=[3], description="1 (luminance) or 3 (RGB). By default as the dataset."
    )
    normalize: Literal["pixel_mean", "channel", "unit", "weights"] = Field(
        "pixel_mean",
        description="Pixels are scaled to 0..1. Then `pixel_mean` subtracts the mean training "
        "image, `channel` subtracts the mean of each channel and divides by its standard "
        "deviation, `unit` does nothing, `weights` does what the published weights expect.",
    )
    on_corrupt: Literal["error", "skip"] = Field(
        "error",
        description="`error` stops at a file of a folder that cannot be decoded, `skip` leaves it "
        "out with a warning.",
    )
    examples: int = Field(
        0,
        ge=0,
        description="Number of training images to use, stratified by class. 0: all.",
    )
    sampler: Literal["shuffle", "balanced"] = Field(
        "shuffle",
        description="Which training images an epoch shows: each once (`shuffle`), or as many of "
        "every class (`balanced`), so that images of rare classes come more often. An epoch keeps "
        "its length. Not for TFRecord files that are streamed.",
    )
    lanes: int = Field(
        1,
        ge=1,
        examples=[8],
        description="Streamed TFRecord files: parts of an epoch that are read side by side, an "
        "equal number of rows of each in every batch. Several hosts share the lanes; the number of "
        "hosts must divide it, and it must divide `train.batch_size`. It changes the order.",
    )
    on_device: bool = Field(
        False,
        description="Keep the images in the memory of the training device, and make the batches "
        "there.",
    )

    train_sizes: Annotated[tuple[Point, ...], AS_TUPLE] = Field(
        (),
        examples=[[[0, 112], [0.5, 112], [0.8, 224]]],
        description="Sizes of the training images, as points [share of the training, pixels of the "
        "shorter side]. Between two points the size changes evenly, at the start of an epoch. "
        "Validation, test and exports use `image_size`. Empty: training does too.",
    )
    size_multiple: int = Field(
        4,
        ge=1,
        description="`train_sizes` are rounded to multiples of it. The size of `image_size` is "
        "kept as it is.",
    )

    def check(self) -> None:
        """Raise ReszooError for keys that contradict each other or have no effect."""
        shares = [share for share, _ in self.train_sizes]
        if shares and (shares[0] or shares != sorted(shares)):
            expected = "points of rising shares, the first of share 0"
            raise self.contradiction("train_sizes", expected, [[0, 112], [0.8, 224]])
        if not shares:
            self.reject_unused("size_multiple", "train_sizes")
        if self.name.strip() in ("", "folder:"):
            raise self.contradiction("name", "a dataset, or folder:PATH", "cifar10")
        if self.resize and self.image_size is None:
            expected = "data.image_size too, the size of the crop"
            raise self.contradiction("resize", expected, "data.image_size=[224, 224]")
        if self.resize and self.image_size and self.resize < max(self.image_size):
            expected = f"at least data.image_size = {list(self.image_size)}"
            raise self.contradiction("resize", expected, 0)
        is_folder = self.name.startswith("folder:")
        if not is_folder:
            self.reject_unused("on_corrupt", "name")
        if self.labels and not is_folder:
            expected = f"an existing folder with data.labels = {self.labels}"
            raise self.contradiction("name", expected, "folder:photos")
        if is_folder or self.name in ("digits", "synthetic") or is_reference(self.name):
            self.reject_unused("dir", "name")
            self.reject_unused("lanes", "name")
        if self.multi_label and self.sampler == "balanced":
            expected = '"shuffle" with data.multi_label = true, where an image has several classes'
            raise self.contradiction("sampler", expected, "train.class_weights=balanced")
        if self.on_device:
            self.reject_unused("lanes", "on_device")
            self.reject_unused("train_sizes", "on_device")
        if self.name == "synthetic":
            self.reject_unused("resize", "name")
            self.reject_unused("interpolation", "name")

    def train_size(self, share: float, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the training images after a share of the training.

        Args:
            share: In [0, 1).
            image_size: Height and width in evaluation, whose ratio is kept.
        """
        points, shorter = self.train_sizes or ((0, min(image_size)),), min(image_size)
        last = max(index for index, (start, _) in enumerate(points) if start <= share)
        (start, size), *following = points[last : last + 2]
        side = float(size)
        for end, goal in following:
            side += (goal - size) * (share - start) / (end - start)
        if side == shorter:
            return image_size
        height, width = (
            self.size_multiple * max(1, int(side * each / shorter / self.size_multiple + 0.5))
            for each in image_size
        )
        return height, width


class Augmentation(RandomChanges):
    """Random changes to training images. The subclasses differ in how an image is cropped."""

    CHOICE: ClassVar[str] = "crop"
    DEFAULT: ClassVar[str | None] = "none"


class NoCrop(Augmentation):
    """The whole image."""

    crop: Literal["none"] = "none"


class PadCrop(Augmentation):
    """Zero-pad after normalization and crop back to the size (arXiv 1512.03385, section 4.2)."""

    crop: Literal["pad"] = "pad"
    pad: int = Field(4, ge=1, description="Pixels of padding on every side.")


class ScaleCrop(Augmentation):
    """Resize the shorter side to a random length and crop (arXiv 1512.03385, section 3.4)."""

    crop: Literal["scale"] = "scale"
    scale: Annotated[tuple[Pixels, Pixels], AS_TUPLE] = Field(
        (256, 480), description="[shortest, longest] shorter side in pixels."
    )

    def check(self) -> None:
        """Raise ReszooError for a falling range, and as `RandomChanges` does."""
        super().check()
        if self.scale[0] > self.scale[1]:
            raise self.contradiction("scale", "two integers in rising order", [256, 480])


class InceptionCrop(Augmentation):
    """Crop a random area and aspect ratio, and resize (arXiv 1409.4842, section 6)."""

    crop: Literal["inception"] = "inception"
    area: Annotated[tuple[Fraction, Fraction], AS_TUPLE] = Field(
        (0.08, 1.0), description="[least, greatest] fraction of the image's area."
    )

    def check(self) -> None:
        """Raise ReszooError for a falling range, and as `RandomChanges` does."""
        super().check()
        if self.area[0] > self.area[1]:
            raise self.contradiction("area", "two numbers in rising order", [0.08, 1.0])


AugmentConfig: TypeAlias = NoCrop | PadCrop | ScaleCrop | InceptionCrop
