"""A user's own dataset: arrays, or a `tf.data.Dataset`, of each split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reszoo.config.data import DataConfig
from reszoo.data.dataset import MEMORY_LIMIT, ArraySplit
from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.references import call_function, invalid_reference, is_passed
from reszoo.types import Array

SPLITS = ("train", "validation", "test")


def load_own(data: DataConfig) -> tuple[dict[str, ArraySplit], tuple[str, ...]]:
    """Return the splits and the class names that the user's function returns, or that were given.

    Raises:
        ReszooError: If they are not images and labels of the splits train and test.
    """
    found: Any = data.load_object("name")
    if not is_passed(data.name):
        found = call_function("data.name", data.name, found, {})

    def error(why: str) -> ReszooError:
        return invalid_reference("data.name", data.name, why)

    known = {*SPLITS, "class_names"}
    if not isinstance(found, Mapping) or not {"train", "test"} <= found.keys() <= known:
        shown = list(found) if isinstance(found, Mapping) else type(found).__name__
        raise error(
            f"expected a dict of train, test and perhaps validation and class_names, not {shown}"
        )
    splits = {}
    for split in (name for name in SPLITS if name in found):
        try:
            images, labels = _read(found[split])
            labels = labels.astype(np.int32) if labels.dtype == bool else labels
        except (TypeError, ValueError) as problem:
            raise error(f"{split}: {problem}") from problem
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise error(
                f"{split}: its images are {images.dtype} {list(images.shape)}; expected uint8 "
                "[n, height, width, 1 or 3]"
            )
        if data.multi_label:
            fits = labels.ndim == 2 and bool(np.isin(labels, (0, 1)).all())
            expected = f"0 and 1, [{len(images)}, classes], with data.multi_label = true"
        else:
            fits = labels.ndim == 1 and labels.dtype.kind in "iu"
            expected = f"one integer for each of {len(images)} images"
        if not fits or len(labels) != len(images) or not len(labels):
            raise error(
                f"{split}: its labels are {labels.dtype} {list(labels.shape)}; expected {expected}"
            )
        kind = np.float32 if data.multi_label else np.int32
        splits[split] = ArraySplit(images, labels.astype(kind))
    every = [split.labels for split in splits.values()]
    classes = max(each.shape[1] if data.multi_label else 1 + int(each.max()) for each in every)
    names = tuple(map(str, found.get("class_names", range(classes))))
    if data.multi_label and {each.shape[1] for each in every} != {len(names)}:
        raise error(f"its labels have {classes} columns; expected one for each of {len(names)}")
    if min(int(each.min()) for each in every) < 0 or classes > len(names):
        raise error(f"a label is not one of the classes 0..{len(names) - 1}")
    if len({split.images.shape[1:] for split in splits.values()}) > 1:
        raise error("its splits have images of different sizes; expected one size")
    return splits, names


def _read(given: Any) -> tuple[Array, Array]:
    """Return images and labels as arrays."""
    if not isinstance(given, tf.data.Dataset):
        images, labels = map(np.asarray, given)
        return (images[..., np.newaxis] if images.ndim == 3 else images), labels
    if given.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("its dataset does not end; expected each image once, without repeat()")
    spec = given.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(f"its elements are {spec}; expected (image, label)")
    if spec[0].shape.rank == 4:
        given = given.unbatch()
    examples, size = [], 0
    for image, label in given.as_numpy_iterator():
        examples.append((image, label))
        size += image.nbytes
        if size > MEMORY_LIMIT:
            raise ValueError(
                f"its images have more than {MEMORY_LIMIT >> 30} GiB; expected a dataset that fits "
                "in memory. Example of a larger one: folder:PATH"
            )
    return np.stack([image for image, _ in examples]), np.array([label for _, label in examples])
