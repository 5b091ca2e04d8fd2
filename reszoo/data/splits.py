"""Which examples are held out. Every choice here is a function of the set alone, never of a run's seed."""

from __future__ import annotations

import numpy as np


def stratified(labels: np.ndarray, count: int) -> np.ndarray:
    """Choose `count` of the examples, each class in proportion (largest remainders first): sorted int64 indices.

    The choice is drawn once with a fixed generator whose stream NumPy has frozen, so it is the same on every machine.
    """
    classes, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    exact = sizes * count / len(labels)
    quota = np.floor(exact).astype(np.int64)
    most_due = np.argsort(quota - exact, kind="stable")[: count - int(quota.sum())]
    quota[most_due] += 1
    chosen = []
    for index, wanted in enumerate(quota):
        members = np.flatnonzero(inverse == index)
        chosen.append(np.random.RandomState(index).permutation(members)[:wanted])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def rest(count: int, chosen: np.ndarray) -> np.ndarray:
    """The indices in 0 ... count - 1 that are not `chosen`, in order: int64."""
    keep = np.ones(count, bool)
    keep[chosen] = False
    return np.flatnonzero(keep)
