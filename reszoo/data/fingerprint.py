"""What identifies a dataset wherever it lies: class names, counts, and a digest of each split.

A run records the fingerprint of its data. Resuming, evaluating and exporting compare it with the
data that is found then.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np

from reszoo.types import Array, JsonMapping, JsonObject

# Every file of a folder is read up to this many bytes in total; of larger folders, `SAMPLED` files
# of each split.
READ_LIMIT = 2**28
SAMPLED = 1024

THREADS = 8

FORMAT, UNORDERED = 1, 2
"""Digests of different formats are not compared."""

Fingerprint: TypeAlias = JsonObject
"""`format`, `compares` (what the digests are made of) and `splits`.

`splits` holds a SHA-256 digest of each split as it is stored.
"""


def of_files(splits: Mapping[str, Array]) -> Fingerprint:
    """Return the fingerprint of image files.

    The digest of a split covers the path below the split's folder, the size and the bytes of each
    file. Of more than `READ_LIMIT` bytes, it covers the bytes of `SAMPLED` files spread evenly over
    the split. Absolute paths and times do not matter. 1.3 million files take one `stat` each, and
    reading 1,024 files of each split.

    Args:
        splits: The paths of each split in listed order; "train" holds at least two classes.
    """
    encoded = {split: [os.fsencode(path) for path in paths] for split, paths in splits.items()}
    root = os.path.commonpath([min(encoded["train"]), max(encoded["train"])])
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = {split: list(pool.map(_size, paths)) for split, paths in encoded.items()}
        whole = sum(map(sum, sizes.values())) <= READ_LIMIT
        digests = {}
        for split, paths in encoded.items():
            own = root if all(path.startswith(root + b"/") for path in paths) else _folder(paths)
            digest = hashlib.sha256()
            for path, size in zip(paths, sizes[split], strict=True):
                digest.update(b"%s\0%d\0" % (path[len(own) + 1 :], size))
            chosen = paths if whole else [paths[index] for index in _spread(len(paths))]
            for contents in pool.map(_digest, chosen):
                digest.update(contents)
            digests[split] = digest.hexdigest()
    read = "contents" if whole else f"contents of {SAMPLED:,} files of each split"
    return {"format": FORMAT, "compares": f"file names, sizes, {read}", "splits": digests}


def of_labels(class_names: Sequence[str], labels: Mapping[str, Array]) -> str:
    """Return the digest of labels that are not in the paths of the files.

    Args:
        class_names: In label order.
        labels: Of each split, int [n].
    """
    stated = [list(class_names), {split: each.tolist() for split, each in labels.items()}]
    return hashlib.sha256(repr(stated).encode()).hexdigest()


def of_arrays(splits: Mapping[str, tuple[Array, Array]]) -> Fingerprint:
    """Return the fingerprint of images and labels in memory.

    Args:
        splits: Images uint8 [n, h, w, c] and labels int32 [n] of each split.
    """
    digests = {}
    for split, (images, labels) in splits.items():
        digest = hashlib.sha256(repr((images.shape, images.dtype.str)).encode())
        digest.update(np.ascontiguousarray(images).data)
        digest.update(np.ascontiguousarray(labels.astype("<i4")).data)
        digests[split] = digest.hexdigest()
    return {"format": FORMAT, "compares": "images and labels", "splits": digests}


def of_images(splits: Mapping[str, tuple[Array, Array]]) -> Fingerprint:
    """Return a fingerprint that the order of the images does not change; else as `of_arrays`."""
    digests = {}
    for split, (images, labels) in splits.items():
        pairs = zip(np.ascontiguousarray(images), labels.astype("<i4"), strict=True)
        each = sorted(
            hashlib.sha256(label.tobytes() + image.tobytes()).digest() for image, label in pairs
        )
        digests[split] = hashlib.sha256(b"".join(each)).hexdigest()
    return {"format": UNORDERED, "compares": "images and labels in any order", "splits": digests}


def of_versions(facts: Mapping[str, Sequence[Any]]) -> Fingerprint:
    """Return the fingerprint of a dataset with versions, as TensorFlow Datasets prepares them.

    Args:
        facts: What identifies each split: name, configuration, version, examples of each file.
    """
    digests = {
        split: hashlib.sha256(repr(list(known)).encode()).hexdigest()
        for split, known in facts.items()
    }
    return {"format": FORMAT, "compares": "name, version, examples of each file", "splits": digests}


def difference(recorded: JsonMapping, found: JsonMapping) -> str:
    """Return how the data found differs from the data recorded; "" if they are the same.

    Both are dicts of `DataInfo.to_dict`: class_names, examples, fingerprint. What a record lacks is
    not compared; records of version 0.1 lack the fingerprint.
    """
    return (
        _different_names(
            list(recorded.get("class_names") or found["class_names"]), list(found["class_names"])
        )
        or _different_counts(recorded["examples"], found["examples"])
        or _different_contents(recorded.get("fingerprint") or {}, found.get("fingerprint") or {})
    )


def _different_names(before: list[str], now: list[str]) -> str:
    if before == now:
        return ""
    missing = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    if not missing and not new:
        place = next(
            place for place, pair in enumerate(zip(before, now, strict=True)) if len(set(pair)) > 1
        )
        return (
            f"the class names are in another order: class {place} was {before[place]!r} "
            f"and is {now[place]!r}"
        )
    parts = [
        f"{title} {_listed(names)}"
        for title, names in (("missing", missing), ("new", new))
        if names
    ]
    return f"the class names differ: {'; '.join(parts)}"


def _different_counts(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    parts = [
        f"{split} had {before[split]:,} and has {now.get(split, 0):,}"
        for split in before
        if before[split] != now.get(split, 0)
    ]
    return f"the number of images differs: {', '.join(parts)}" if parts else ""


def _different_contents(before: JsonMapping, now: JsonMapping) -> str:
    if not before or not now or before.get("format") != now.get("format"):
        return ""
    ours, theirs = before.get("splits") or {}, now.get("splits") or {}
    changed = [
        split for split in dict.fromkeys([*ours, *theirs]) if ours.get(split) != theirs.get(split)
    ]
    if not changed:
        return ""
    return f"the content of {' and '.join(changed)} differs ({before.get('compares') or 'digests'})"


def _listed(names: list[str], count: int = 3) -> str:
    return ", ".join(map(repr, names[:count])) + (
        f" and {len(names) - count} more" if len(names) > count else ""
    )


def _folder(paths: list[bytes]) -> bytes:
    """Return the folder that holds all `paths` of a split outside the training images' folder."""
    found = os.path.commonpath([min(paths), max(paths)])
    return os.path.dirname(found) if found in (paths[0], paths[-1]) else found


def _spread(count: int) -> list[int]:
    return [int(index) for index in np.unique(np.linspace(0, count - 1, SAMPLED).astype(np.int64))]


def _size(path: bytes) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # reported where the file is decoded
        return 0


def _digest(path: bytes) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return bytes(32)
