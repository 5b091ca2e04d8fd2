"""Which examples are held out. Every choice here is a function of the set alone, never of a run's seed."""

from __future__ import annotations

import numpy as np

from reszoo.errors import ReszooError


def stratified(labels: np.ndarray, count: int) -> np.ndarray:
    """Choose `count` of the examples, each class in proportion (largest remainders first) but never all of one: sorted int64.

    The choice is drawn once with a fixed generator whose stream NumPy has frozen, so it is the same on every machine.
    Raises `ReszooError` where so many cannot be taken without emptying a class.
    """
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if count > len(labels) - len(sizes):
        raise ReszooError(
            f"{count} of {len(labels)} examples cannot be held out of {len(sizes)} classes: some would be empty"
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


def rest(count: int, chosen: np.ndarray) -> np.ndarray:
    """The indices in 0 ... count - 1 that are not `chosen`, in order: int64."""
    keep = np.ones(count, bool)
    keep[chosen] = False
    return np.flatnonzero(keep)
