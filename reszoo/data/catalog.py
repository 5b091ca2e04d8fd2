"""The sets known by name, and where prepared ones lie. Standard library only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from reszoo.errors import ReszooError
from reszoo.files import expand_user


@dataclass(frozen=True, kw_only=True)
class Known:
    """One line of `reszoo data list`.

    shape: the images' own size. archives: the files that preparing needs, where TensorFlow Datasets lists those of other
    variants too. order: the text feature that gives an example's place in the original archive.
    """

    name: str
    title: str
    classes: int
    train: int
    test: int
    shape: str
    archives: tuple[str, ...] = ()
    order: str = ""


# Counts and sizes: the sets' own pages and TensorFlow Datasets' catalogue. A set's `validation` split serves as the test part
# where it has no labelled `test` split (imagenette, imagenet2012).
KNOWN = {
    known.name: known
    for known in (
        Known(
            name="digits",
            title="handwritten digits",
            classes=10,
            train=1437,
            test=360,
            shape="8x8x1",
        ),
        Known(
            name="synthetic",
            title="made-up stripes",
            classes=10,
            train=1024,
            test=256,
            shape="32x32x3",
        ),
        Known(
            name="mnist",
            title="handwritten digits",
            classes=10,
            train=60000,
            test=10000,
            shape="28x28x1",
        ),
        Known(
            name="fashion_mnist",
            title="articles of clothing",
            classes=10,
            train=60000,
            test=10000,
            shape="28x28x1",
        ),
        Known(
            name="cifar10",
            title="small photographs",
            classes=10,
            train=50000,
            test=10000,
            shape="32x32x3",
            order="id",
        ),
        Known(
            name="cifar100",
            title="small photographs",
            classes=100,
            train=50000,
            test=10000,
            shape="32x32x3",
            order="id",
        ),
        Known(
            name="svhn_cropped",
            title="house numbers",
            classes=10,
            train=73257,
            test=26032,
            shape="32x32x3",
        ),
        Known(
            name="imagenette",
            title="ten ImageNet classes",
            classes=10,
            train=9469,
            test=3925,
            shape="varies",
            archives=("imagenette2.tgz",),
        ),
        Known(
            name="imagenet2012",
            title="photographs (ILSVRC)",
            classes=1000,
            train=1281167,
            test=50000,
            shape="varies",
            archives=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
        ),
    )
}
EMBEDDED = ("digits", "synthetic")


def data_home(folder: str | Path | None = None) -> Path:
    """Where prepared sets lie: `folder` if given, else `$RESZOO_DATA`, else `~/.cache/reszoo/data`."""
    named = folder or os.environ.get("RESZOO_DATA")
    if named:
        return expand_user(named)
    try:
        return expand_user("~/.cache/reszoo/data")
    except ReszooError:
        raise ReszooError(
            "RESZOO_DATA: the folder of prepared datasets is unknown, because neither it nor HOME is set. "
            "Example: export RESZOO_DATA=/data"
        ) from None


def is_prepared(name: str, home: Path) -> bool:
    """Whether set `name` can be read without preparing it first, by the files in `home`."""
    infos = (home / name).glob("**/dataset_info.json")
    return name in EMBEDDED or any(".incomplete" not in info.parent.name for info in infos)
