"""Datasets known by name, and where prepared ones lie. Standard library only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from reszoo.errors import ReszooError
from reszoo.files import expand_user


@dataclass(frozen=True)
class KnownDataset:
    """One line of `reszoo data list`.

    Attributes:
        name: The recipe's `data.name`.
        title: What the images show.
        classes: Number of classes.
        train: Number of training images.
        test: Number of test images.
        shape: The images' own size.
        archives: The files that preparation needs, if TensorFlow Datasets lists those of other
            variants too.
        order: Text feature with an example's place in the original archive.
    """

    name: str
    title: str
    classes: int
    train: int
    test: int
    shape: str
    archives: tuple[str, ...] = ()
    order: str = ""


ILSVRC = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")

# Counts and sizes: the datasets' own pages and the catalog of TensorFlow Datasets. The `validation`
# split is the test split where `test` is absent or has no labels (imagenette, imagenet2012).
KNOWN = {
    known.name: known
    for known in (
        KnownDataset("digits", "handwritten digits", 10, 1437, 360, "8x8x1"),
        KnownDataset("synthetic", "synthetic stripes", 10, 1024, 256, "32x32x3"),
        KnownDataset("mnist", "handwritten digits", 10, 60000, 10000, "28x28x1"),
        KnownDataset("fashion_mnist", "articles of clothing", 10, 60000, 10000, "28x28x1"),
        KnownDataset("cifar10", "small photos", 10, 50000, 10000, "32x32x3", order="id"),
        KnownDataset("cifar100", "small photos", 100, 50000, 10000, "32x32x3", order="id"),
        KnownDataset("svhn_cropped", "house numbers", 10, 73257, 26032, "32x32x3"),
        KnownDataset(
            "imagenette", "ten ImageNet classes", 10, 9469, 3925, "varies", ("imagenette2.tgz",)
        ),
        KnownDataset("imagenet2012", "photos (ILSVRC)", 1000, 1281167, 50000, "varies", ILSVRC),
    )
}
EMBEDDED = ("digits", "synthetic")


def name_data(text: str) -> str:
    """Return the name of a dataset: `folder:PATH` for the path of a folder.

    Known names are datasets even where a folder has the same name.
    """
    path = text.startswith(("/", "./", "../", "~")) or expand_user(text).is_dir()
    return f"folder:{text}" if text not in KNOWN and path else text


def data_home(folder: str | Path | None = None) -> Path:
    """Return the prepared datasets' folder: `folder`, `$RESZOO_DATA` or `~/.cache/reszoo/data`."""
    named = folder or os.environ.get("RESZOO_DATA")
    if named:
        return expand_user(named)
    try:
        return expand_user("~/.cache/reszoo/data")
    except ReszooError:
        raise ReszooError(
            "RESZOO_DATA: the folder of prepared datasets is unknown, because neither it nor HOME "
            "is set. Example: export RESZOO_DATA=/data"
        ) from None


def is_prepared(name: str, home: Path) -> bool:
    """Return whether the files in `home` show that a dataset can be read without preparing it."""
    if name in EMBEDDED or Path(name).is_absolute():
        return name in EMBEDDED
    infos = (home / name).glob("**/dataset_info.json")
    return any(".incomplete" not in info.parent.name for info in infos)
