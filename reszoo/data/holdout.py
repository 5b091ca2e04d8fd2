"""Which examples are held out. Each choice depends on the dataset alone, never on a run's seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reszoo.config.data import DataConfig
from reszoo.data.dataset import ImageDataset, Split
from reszoo.errors import ReszooError
from reszoo.types import Array


def hold_out(dataset: ImageDataset, data: DataConfig, *, by_class: bool) -> ImageDataset:
    """Hold out `data.validation` training examples and keep `data.examples` of the rest (0: all).

    A fraction of the training examples is held out only if the dataset has no validation split.

    He et al. split CIFAR's 50,000 images into 45,000 and 5,000 without saying which. The last 5,000
    in the archive's order are half of its fifth file; the archive's files are in random order.

    Args:
        dataset: The dataset.
        data: Its configuration.
        by_class: Take each class in proportion, for datasets sorted by class. Otherwise the last
            examples are held out and the first are kept.

    Raises:
        ReszooError: If the dataset has too few examples, or a validation split of its own.

    Reference: arXiv 1512.03385, section 4.2.
    """
    train, splits = dataset.splits["train"], dict(dataset.splits)
    count = data.validation
    if isinstance(count, float):
        count = 0 if "validation" in splits else max(1, round(count * train.count))
    if count:
        if "validation" in splits:
            raise ReszooError(
                f"data.validation: {data.validation} is invalid; {dataset.name} has a validation "
                "split of its own. Example: --set data.validation=0"
            )
        if count >= train.count:
            raise ReszooError(
                f"data.validation: {data.validation} is invalid; expected fewer than "
                f"{dataset.name}'s {train.count} training examples"
            )
        held = _choose(train, count, by_class)
        splits["validation"], train = train.take(held), train.take(complement(train.count, held))
    if data.examples > train.count:
        raise ReszooError(
            f"data.examples: {data.examples} is invalid; expected at most {dataset.name}'s "
            f"{train.count} training examples"
        )
    if data.examples:
        dropped = _choose(train, train.count - data.examples, by_class)
        train = train.take(complement(train.count, dropped))
    splits["train"] = train
    return replace(dataset, splits=splits)


def choose_stratified(labels: Array, count: int) -> Array:
    """Choose `count` examples, each class in proportion (largest remainders first).

    The choice is drawn with a fixed generator whose stream NumPy has frozen, so it is the same on
    every machine.

    Images of several classes are divided by the rarest of their classes.

    Args:
        labels: int [n], or 0 and 1, [n, classes].
        count: How many to choose. No class is chosen completely.

    Returns:
        Indices, int64 [count], sorted.

    Raises:
        ReszooError: If a class would be empty.
    """
    if labels.ndim == 2:
        sizes = np.append(np.count_nonzero(labels, axis=0), len(labels))
        has = np.column_stack([labels, ~labels.any(axis=1)]) > 0  # the last: without a class
        labels = np.where(has, sizes, np.inf).argmin(axis=1)
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if count > len(labels) - len(sizes):
        raise ReszooError(
            f"{count} of {len(labels)} examples cannot be held out of {len(sizes)} classes, "
            "because a class would be empty; expected fewer"
        )
    exact = sizes * count / len(labels)
    quota = np.minimum(np.floor(exact).astype(np.int64), sizes - 1)
    while (due := count - int(quota.sum())) > 0:
        spare = np.flatnonzero(quota < sizes - 1)
        quota[spare[np.argsort((quota - exact)[spare], kind="stable")][:due]] += 1
    chosen = [np.empty(0, np.int64)]
    for index, wanted in enumerate(quota):
        members = np.flatnonzero(inverse == index)
        chosen.append(np.random.RandomState(index).permutation(members)[:wanted])
    return np.sort(np.concatenate(chosen))


def complement(count: int, chosen: Array) -> Array:
    """Return the indices in 0 ... count - 1 that are not `chosen`, rising, int64."""
    keep = np.ones(count, bool)
    keep[chosen] = False
    return np.flatnonzero(keep)


def _choose(split: Split, count: int, by_class: bool) -> Array:
    if by_class:
        return choose_stratified(split.labels, count)  # type: ignore[attr-defined]
    return np.arange(split.count - count, split.count)
