"""Load a dataset by name: its images, their splits, and the size at which a model sees them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from reszoo.config.data import AugmentConfig, DataConfig, InceptionCrop, ScaleCrop
from reszoo.data import fingerprint
from reszoo.data.catalog import data_home, is_prepared
from reszoo.data.cifar import FORMS, SHAPE, Place, find_cifar, load_cifar
from reszoo.data.corruption import report_corrupt, skip_corrupt
from reszoo.data.dataset import (
    ArraySplit,
    FileSplit,
    ImageDataset,
    Split,
    count_images,
    fits_memory,
)
from reszoo.data.embedded import (
    SYNTHETIC_CLASSES,
    SYNTHETIC_COUNTS,
    SYNTHETIC_SHAPE,
    load_digits,
    load_synthetic,
)
from reszoo.data.file_reading import find_shape, read_files
from reszoo.data.folder import list_folder
from reszoo.data.holdout import hold_out
from reszoo.data.normalization import unnormalized
from reszoo.data.own_data import load_own
from reszoo.errors import ReszooError
from reszoo.images.decoding import to_channels
from reszoo.images.formats import printable
from reszoo.images.preprocessing import Preprocessing
from reszoo.lazy import tf
from reszoo.references import is_reference


def load_dataset(
    data: DataConfig, augment: AugmentConfig, largest: int
) -> tuple[ImageDataset, Preprocessing]:
    """Load the dataset of a recipe, its validation split held out.

    Splits are `ArraySplit` at the input's size if they fit in memory and `augment` does not crop
    out of larger images. `largest` is the longest side of an input whose size is found.

    Returns:
        The dataset, and preprocessing that resizes but does not normalize.

    Raises:
        ReszooError: If the dataset cannot be read.
    """
    if data.multi_label and not data.labels and not is_reference(data.name):
        raise ReszooError(
            "data.labels: none is given; expected a CSV file that states the labels of each image, "
            f"because of data.multi_label = true, for {data.name}. Example: data.labels=labels.csv"
        )
    whole = isinstance(augment, ScaleCrop | InceptionCrop)
    if data.name.startswith("folder:"):
        dataset, preprocessing = _load_folder(data, whole, largest)
    elif data.name in ("digits", "synthetic") or is_reference(data.name):
        dataset, preprocessing = _load_embedded(data, whole)
    elif place := find_raw(data):
        dataset, preprocessing = _load_cifar(data, place, whole)
        labels = dataset.splits["train"].labels  # type: ignore[attr-defined]
        # Class folders: the order of the archive is unknown, and the last images are of one class.
        in_class_order = bool((np.diff(labels) >= 0).all())
        return hold_out(dataset, data, by_class=in_class_order), preprocessing
    else:
        try:
            from reszoo.data.tfds import load_tfds
        except ModuleNotFoundError as error:
            if error.name not in ("tensorflow", "tensorflow_datasets"):
                raise
            raise ReszooError(
                f"data.name: {data.name!r} needs {error.name}, which is not installed. "
                f"Example: pip install {error.name}"
            ) from error
        # TensorFlow Datasets shuffles the classes when it writes a dataset (CIFAR: see there), so a
        # range of it is a fair sample.
        dataset, preprocessing = load_tfds(data, whole)
        return hold_out(dataset, data, by_class=False), preprocessing
    return hold_out(dataset, data, by_class=True), preprocessing


def find_raw(data: DataConfig) -> Place | None:
    """Return where CIFAR-10 or CIFAR-100 lies if TensorFlow Datasets did not prepare it."""
    if data.name not in FORMS:
        return None
    home = data_home(data.dir)
    return None if is_prepared(data.name, home) else find_cifar(data.name, home)


def _load_cifar(data: DataConfig, place: Place, whole: bool) -> tuple[ImageDataset, Preprocessing]:
    dataset = load_cifar(data.name, place)
    size, channels = data.image_size or SHAPE[:2], data.channels or SHAPE[2]
    preprocessing = unnormalized(size, channels, data)
    counts = [split.count for split in dataset.splits.values()]
    # What does not fit in memory at the input's size is resized when it is read.
    whole = whole or not fits_memory(counts, preprocessing.input_shape)
    splits: dict[str, Split] = {
        name: _to_input(split, preprocessing, whole)  # type: ignore[arg-type]
        for name, split in dataset.splits.items()
    }
    return replace(dataset, splits=splits), preprocessing


def _load_folder(data: DataConfig, whole: bool, largest: int) -> tuple[ImageDataset, Preprocessing]:
    folder = data.name.removeprefix("folder:")
    listing = list_folder(folder, data.labels, multi_label=data.multi_label)
    names, files = listing.class_names, listing.splits
    identity = fingerprint.of_files({name: split.paths for name, split in files.items()})
    if data.labels:
        identity["splits"]["labels"] = fingerprint.of_labels(
            names, {name: split.labels for name, split in files.items()}
        )
    (height, width, channels), note = find_shape(files.values(), largest)
    preprocessing = unnormalized(
        data.image_size or (height, width), data.channels or channels, data
    )
    loaded: dict[str, ArraySplit] | dict[str, FileSplit]
    if not whole and fits_memory((f.count for f in files.values()), preprocessing.input_shape):
        loaded, bad = read_files(files, preprocessing)
    else:
        loaded, bad = skip_corrupt(files)
    total = sum(split.count for split in files.values())
    report_corrupt(bad, total, skip=data.on_corrupt == "skip")
    if (counts := count_images(loaded["train"].labels, len(names))).min() == 0:
        raise ReszooError(
            f"{data.name}: no training image of class {names[counts.argmin()]!r} can be decoded"
        )
    splits: dict[str, Split] = dict(loaded)
    skipped = tuple(map(printable, bad))
    note = "" if data.image_size else note
    dataset = ImageDataset(data.name, names, splits, skipped, listing.ignored, identity, note)
    return dataset, preprocessing


def _load_embedded(data: DataConfig, whole: bool) -> tuple[ImageDataset, Preprocessing]:
    if is_reference(data.name):
        stored, names = load_own(data)
    elif data.name == "digits":
        stored, names = load_digits(), tuple("0123456789")
    else:
        shape = (*(data.image_size or SYNTHETIC_SHAPE[:2]), data.channels or SYNTHETIC_SHAPE[2])
        if not fits_memory(SYNTHETIC_COUNTS.values(), shape):
            raise ReszooError(
                f"data.image_size: {list(shape[:2])} is invalid; synthetic images of this size do "
                "not fit in memory. Example: --set data.image_size=[32,32]"
            )
        stored, names = load_synthetic(shape), SYNTHETIC_CLASSES
    height, width, channels = stored["train"].images.shape[1:]
    preprocessing = unnormalized(
        data.image_size or (height, width), data.channels or channels, data
    )
    identity = fingerprint.of_arrays({k: (s.images, s.labels) for k, s in stored.items()})
    splits: dict[str, Split] = {k: _to_input(s, preprocessing, whole) for k, s in stored.items()}
    return ImageDataset(data.name, names, splits, fingerprint=identity), preprocessing


def _to_input(split: ArraySplit, preprocessing: Preprocessing, whole: bool) -> ArraySplit:
    """Convert images to the input's channels, and to its size unless `whole` images are cropped."""
    shape = split.images.shape[1:]
    if shape == preprocessing.input_shape or (whole and shape[2] == preprocessing.channels):
        return split
    change = (
        partial(to_channels, channels=preprocessing.channels) if whole else preprocessing.to_input
    )
    images = tf.data.Dataset.from_tensor_slices(split.images).map(
        change, num_parallel_calls=tf.data.AUTOTUNE
    )
    return ArraySplit(np.stack(list(images.as_numpy_iterator())), split.labels)
