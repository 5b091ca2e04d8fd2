"""A set by name, ready to be read: which images, split how, and the size at which a net sees them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from reszoo.config.data import AugmentConfig, DataConfig
from reszoo.data import fingerprint
from reszoo.data.corrupt import drop_corrupt
from reszoo.data.decode import to_channels
from reszoo.data.folder import list_folder, own_shape, read_folder
from reszoo.data.memory import SYNTHETIC_COUNTS, SYNTHETIC_SHAPE, load_digits, load_synthetic
from reszoo.data.parts import Arrays, ImageSet, Part, fits_memory
from reszoo.data.preprocessing import Preprocessing
from reszoo.data.splits import rest, stratified
from reszoo.data.statistics import plain
from reszoo.errors import ReszooError
from reszoo.lazy import tf


def load_set(data: DataConfig, augment: AugmentConfig) -> tuple[ImageSet, Preprocessing]:
    """Load the set that `data` names, its validation part held out, with preprocessing that sizes but does not normalise.

    Its parts are `Arrays` at the input's size wherever they fit in memory and `augment` does not crop out of larger images.
    """
    whole = augment.crop in ("scale", "inception")
    by_class = True
    if data.name.startswith("folder:"):
        images, preprocessing = _load_folder(data, whole)
    elif data.name in ("digits", "synthetic"):
        images, preprocessing = _load_embedded(data, whole)
    else:
        try:
            from reszoo.data.tfds import load_tfds
        except ModuleNotFoundError as error:
            if error.name not in ("tensorflow", "tensorflow_datasets"):
                raise
            raise ReszooError(
                f"data.name = {data.name!r} is read with {error.name}, which is not installed; install it, or give 'folder:PATH'"
            ) from error

        images, preprocessing = load_tfds(data, whole)
        # TensorFlow Datasets mixes the classes when it writes a set (CIFAR: see there), so a stretch of it is a fair sample.
        by_class = False
    return hold_out(images, data, by_class=by_class), preprocessing


def hold_out(images: ImageSet, data: DataConfig, *, by_class: bool) -> ImageSet:
    """Move `data.validation` training examples to a validation part and keep `data.examples` of the rest (0: all).

    by_class: take each class in proportion, for sets sorted by class; else the last examples are held out, the first kept.
    He et al. 2015, section 4.2, split CIFAR's 50,000 into 45,000 and 5,000 without saying which; the last 5,000 in the archive's
    order are half of its fifth batch file, and the archive's batches are in random order.
    """
    train, parts = images.parts["train"], dict(images.parts)
    if data.validation and "validation" in parts:
        raise ReszooError(
            f"data.validation = {data.validation}: {images.name} brings a validation part of its own; leave it out"
        )
    if data.validation >= train.count:
        raise ReszooError(
            f"data.validation = {data.validation} leaves none of {images.name}'s {train.count} training examples"
        )
    if data.validation:
        held = _last(train, data.validation, by_class)
        parts["validation"], train = train.take(held), train.take(rest(train.count, held))
    if data.examples > train.count:
        raise ReszooError(
            f"data.examples = {data.examples} is more than {images.name}'s {train.count} training examples"
        )
    if data.examples:
        train = train.take(rest(train.count, _last(train, train.count - data.examples, by_class)))
    parts["train"] = train
    return replace(images, parts=parts)


def _last(part: Part, count: int, by_class: bool) -> np.ndarray:
    """The last `count` examples, or a fixed choice of as many from all classes."""
    if by_class:
        return stratified(part.labels, count)  # type: ignore[attr-defined]
    return np.arange(part.count - count, part.count)


def _load_folder(data: DataConfig, whole: bool) -> tuple[ImageSet, Preprocessing]:
    listing = list_folder(data.name.removeprefix("folder:"))
    names, files = listing.class_names, listing.parts
    identity = fingerprint.of_files({role: part.paths for role, part in files.items()})
    height, width, channels = own_shape(files.values())
    preprocessing = plain(data.image_size or (height, width), data.channels or channels, data)
    skip = data.on_corrupt == "skip"
    parts: dict[str, Part]
    if not whole and fits_memory((f.count for f in files.values()), preprocessing.input_shape):
        arrays, skipped = read_folder(
            files, preprocessing, skip=skip, resized=data.image_size is not None
        )
        parts = dict(arrays)
    else:
        if data.image_size is None:
            raise ReszooError(
                f"data.image_size is needed to stream {data.name}, e.g. data.image_size=[224, 224]"
            )
        kept, skipped = drop_corrupt(files, skip=skip)
        parts = dict(kept)
    missing = set(range(len(names))) - set(parts["train"].labels)  # type: ignore[attr-defined]
    if missing:
        raise ReszooError(
            f"{data.name}: no training image of class {names[min(missing)]!r} can be decoded"
        )
    return ImageSet(data.name, names, parts, skipped, listing.ignored, identity), preprocessing


def _load_embedded(data: DataConfig, whole: bool) -> tuple[ImageSet, Preprocessing]:
    if data.name == "digits":
        images = load_digits()
    else:
        shape = (*(data.image_size or SYNTHETIC_SHAPE[:2]), data.channels or SYNTHETIC_SHAPE[2])
        if not fits_memory(SYNTHETIC_COUNTS.values(), shape):
            raise ReszooError(
                f"data.image_size = {list(shape[:2])} makes synthetic images too large for memory"
            )
        images = load_synthetic(shape)
    own = images.parts["train"].images.shape[1:]  # type: ignore[attr-defined]
    preprocessing = plain(data.image_size or own[:2], data.channels or own[2], data)
    stored = {role: (part.images, part.labels) for role, part in images.parts.items()}  # type: ignore[attr-defined]
    parts: dict[str, Part] = {
        role: at_input(part, preprocessing, whole) for role, part in images.parts.items()
    }
    return replace(images, parts=parts, fingerprint=fingerprint.of_arrays(stored)), preprocessing


def at_input(part: Part, preprocessing: Preprocessing, whole: bool) -> Arrays:
    """Bring a part held in memory to the input's channels and, unless crops are to be taken of `whole` images, its size."""
    assert isinstance(part, Arrays)
    shape = part.images.shape[1:]
    if shape == preprocessing.input_shape or (whole and shape[2] == preprocessing.channels):
        return part
    change = (
        partial(to_channels, channels=preprocessing.channels) if whole else preprocessing.to_input
    )
    images = tf.data.Dataset.from_tensor_slices(part.images).map(
        change, num_parallel_calls=tf.data.AUTOTUNE
    )
    return Arrays(np.stack(list(images.as_numpy_iterator())), part.labels)
