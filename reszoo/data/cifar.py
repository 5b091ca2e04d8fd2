"""CIFAR-10 and CIFAR-100 as they are found: archives, the files in them, or class folders.

Datasets that TensorFlow Datasets prepared are read by `reszoo.data.tfds`.
"""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path
from pickletools import genops

import numpy as np

from reszoo.config.data import DataConfig
from reszoo.data import fingerprint
from reszoo.data.catalog import KNOWN
from reszoo.data.corruption import report_corrupt
from reszoo.data.dataset import ArraySplit, ImageDataset
from reszoo.data.file_reading import read_files
from reszoo.data.folder import list_folder
from reszoo.data.normalization import unnormalized
from reszoo.errors import ReszooError
from reszoo.types import Array
from reszoo.weights.published import CIFAR10

SHAPE = (32, 32, 3)
PIXELS = 3072  # bytes of an image: 32 x 32 red values, then green, then blue

# In label order, which is the order of the alphabet, and so that of class folders.
CLASSES = {
    "cifar10": CIFAR10,
    "cifar100": tuple((Path(__file__).parent / "cifar100_classes.txt").read_text("ascii").split()),
}


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form in which the authors distribute a dataset.

    Attributes:
        archive: The archive's name.
        md5: Its digest, published by the authors.
        folder: The folder in the archive.
        train: The files of the training images in it, in order.
        test: The file of the test images.
        labels: Binary files: bytes of labels before each image, the class last.
        key: Python files: the entry of the dictionary that holds the classes.
    """

    archive: str
    md5: str
    folder: str
    train: tuple[str, ...]
    test: str
    labels: int = 0
    key: bytes = b""

    @property
    def files(self) -> tuple[str, ...]:
        """All files, the training images first."""
        return (*self.train, self.test)


# Digests and layouts: the dataset's page, https://www.cs.toronto.edu/~kriz/cifar.html
FORMS = {
    "cifar10": (
        Form(
            archive="cifar-10-binary.tar.gz",
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            folder="cifar-10-batches-bin",
            train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            test="test_batch.bin",
            labels=1,
        ),
        Form(
            archive="cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            folder="cifar-10-batches-py",
            train=tuple(f"data_batch_{number}" for number in range(1, 6)),
            test="test_batch",
            key=b"labels",
        ),
    ),
    "cifar100": (
        Form(
            archive="cifar-100-binary.tar.gz",
            md5="03b5dce01913d631647c71ecec9e9cb8",
            folder="cifar-100-binary",
            train=("train.bin",),
            test="test.bin",
            labels=2,
        ),
        Form(
            archive="cifar-100-python.tar.gz",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            folder="cifar-100-python",
            train=("train",),
            test="test",
            key=b"fine_labels",
        ),
    ),
}


@dataclass(frozen=True)
class Place:
    """Where a dataset was found: an archive, a folder of its files, or class folders (no form)."""

    path: Path
    form: Form | None


def find_cifar(name: str, home: Path) -> Place | None:
    """Return where `home` holds a dataset; None if it does not.

    Args:
        name: Any dataset; others than those of `FORMS` are not found.
        home: An archive, a folder that holds an archive or its folder, that folder itself, or a
            folder with `train/CLASS/` and `test/CLASS/`.
    """
    for form in FORMS.get(name, ()):
        for archive in (home, home / form.archive):
            if archive.name == form.archive and archive.is_file():
                return Place(archive, form)
        for folder in (home, home / form.folder):
            if (folder / form.test).is_file():
                return Place(folder, form)
    if name in FORMS and (home / "train").is_dir() and (home / "test").is_dir():
        return Place(home, None)
    return None


def load_cifar(name: str, place: Place) -> ImageDataset:
    """Read a dataset into memory, in the order of the archive or of the class folders.

    Raises:
        ReszooError: If a file is damaged, of another digest or missing, or classes or their images
            are not those of the dataset.
    """
    names, known = CLASSES[name], KNOWN[name]
    if place.form is None:
        splits = _read_folders(name, place.path, names)
    else:
        contents, form = read_contents(place), place.form
        parts = [_parse(form, str(place.path / file), contents[file]) for file in form.files]
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True))
        splits = {"train": ArraySplit(images, labels), "test": ArraySplit(*parts[-1])}
    for split, count in (("train", known.train), ("test", known.test)):
        found = np.bincount(splits[split].labels, minlength=len(names))
        if len(found) != len(names) or (found != count // len(names)).any():
            raise ReszooError(
                f"{place.path}: the {split} split has {found.sum():,} images in {len(found)} "
                f"classes, the smallest of {found.min():,}; expected {name}'s {count:,} in "
                f"{len(names)} of equal size"
            )
    identity = fingerprint.of_images({key: (s.images, s.labels) for key, s in splits.items()})
    return ImageDataset(name, names, dict(splits), fingerprint=identity)


def read_contents(place: Place) -> dict[str, bytes]:
    """Return the files of a dataset by name. An archive is opened only if its digest is right.

    Raises:
        ReszooError: If the digest is wrong or a file is missing.
    """
    path, form = place.path, place.form
    assert form is not None
    if path.is_file():
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if md5 != form.md5:
            raise ReszooError(
                f"{path}: its md5 is {md5}; expected {form.md5}. It is incomplete or another file"
            )
        contents = {}
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                if folder == form.folder and name in form.files:
                    stream = archive.extractfile(member)
                    contents[name] = stream.read() if stream else b""
    else:
        contents = {
            name: (path / name).read_bytes() for name in form.files if (path / name).is_file()
        }
    if missing := [name for name in form.files if name not in contents]:
        raise ReszooError(f"{path} lacks {', '.join(missing)}; unpack {form.archive} again")
    return contents


def _parse(form: Form, path: str, contents: bytes) -> tuple[Array, Array]:
    """Return the images, uint8 [n, 32, 32, 3], and labels, int32 [n], in a file."""
    try:
        read = _parse_binary if form.labels else _parse_pickle
        pixels, labels = read(form, contents)
        planes = pixels.reshape(len(labels), 3, 32, 32)
    except Exception as error:  # genops raises many kinds
        raise ReszooError(
            f"{path} is damaged or another file ({type(error).__name__}); unpack {form.archive} "
            "again"
        ) from error
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.astype(np.int32)


def _parse_binary(form: Form, contents: bytes) -> tuple[Array, Array]:
    rows = np.frombuffer(contents, np.uint8).reshape(-1, form.labels + PIXELS)
    return rows[:, form.labels :], rows[:, form.labels - 1]


def _parse_pickle(form: Form, contents: bytes) -> tuple[Array, Array]:
    """Read a pickled dictionary by its instructions, none of which is executed.

    Pixels are the longest string in the file. Labels are the integers that follow their key, up to
    the next string.
    """
    pixels, key, labels = b"", b"", []
    for instruction, argument, _ in genops(contents):
        if isinstance(argument, str | bytes):
            key = argument.encode("latin-1") if isinstance(argument, str) else argument
            pixels = max(pixels, key, key=len)
        elif key == form.key and "INT" in instruction.name:  # not BINPUT, whose number is a place
            labels.append(argument)
    return np.frombuffer(pixels, np.uint8), np.array(labels)


def _read_folders(name: str, root: Path, names: tuple[str, ...]) -> dict[str, ArraySplit]:
    listing = list_folder(str(root))
    if listing.class_names != names or set(listing.splits) != {"train", "test"}:
        raise ReszooError(
            f"{root} does not hold {name}: its splits are {', '.join(listing.splits)} and its "
            f"classes {', '.join(listing.class_names[:4])} ...; expected train and test, and "
            f"{', '.join(names[:4])} .... Other images: --set data.name=folder:{root}"
        )
    plain = unnormalized(SHAPE[:2], SHAPE[2], DataConfig(name=name))
    splits, bad = read_files(listing.splits, plain, resized=False)
    report_corrupt(bad, sum(split.count for split in splits.values()) + len(bad), skip=False)
    return splits
