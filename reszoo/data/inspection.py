"""Inspect a folder of images before training: counts, formats, damage, duplicates and leakage."""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from reszoo.data.dataset import count_images
from reszoo.data.file_reading import decode_all
from reszoo.data.folder import list_folder
from reszoo.data.summary import describe_classes, describe_ignored, warn_of_imbalance
from reszoo.files import expand_user
from reszoo.images.formats import START, describe_file, explain_damage, find_format, printable
from reszoo.types import Array, JsonObject

# Different bits of two 64-bit hashes. The hashes of 100 photos differ by at most 4 bits after
# halving their size, and by at most 6 after saving them as JPEG of quality 30. No two of the photos
# are nearer than 18.
NEAR = 6
FLAT = 8.0  # deviation of the gray values below which a hash says nothing
THREADS = 8
COMPARED = 2**24  # pairs of images that are compared at once


@dataclass(frozen=True)
class Leak:
    """Two images of different splits that are equal or look alike.

    Attributes:
        paths: Both files.
        splits: Their splits.
        distance: Different bits of their perceptual hashes; -1 for files of equal content.
        same_class: Whether their classes are the same.
    """

    paths: tuple[str, str]
    splits: tuple[str, str]
    distance: int
    same_class: bool


@dataclass(frozen=True)
class Inspection:
    """What a folder of images holds.

    Attributes:
        folder: The folder.
        class_names: In label order.
        examples: For each split, the number of images.
        class_counts: For each split, the number of images of each class.
        multi_label: Whether an image may have several classes.
        sizes: Height and width of the smallest, the median and the largest image.
        formats: How many images each format has.
        corrupt: Images that cannot be decoded, with the reason.
        ignored: How many files are not read, by kind.
        copies: Files of equal content in one split: their paths.
        conflicts: Files of equal content in different classes: their paths.
        leaks: Images of different splits that are equal or look alike, nearest first.
        samples: One image of each class.
    """

    folder: str
    class_names: tuple[str, ...]
    examples: dict[str, int]
    class_counts: dict[str, list[int]]
    multi_label: bool
    sizes: dict[str, tuple[int, int]]
    formats: dict[str, int]
    corrupt: dict[str, str]
    ignored: dict[str, int]
    copies: list[list[str]]
    conflicts: list[list[str]]
    leaks: list[Leak]
    samples: tuple[str, ...]

    @property
    def count(self) -> int:
        """The number of images."""
        return sum(self.examples.values())

    def to_dict(self) -> JsonObject:
        """Return the fields for JSON."""
        return asdict(self)

    def describe(self, listed: int = 3) -> list[str]:
        """Return the lines for a person; of each kind of problem, `listed` examples."""
        counts = ", ".join(f"{n:,} {split}" for split, n in self.examples.items())
        least, middle, most = (f"{h}x{w}" for h, w in self.sizes.values())
        size = least if least == most else f"{least} to {most}, median {middle}"
        formats = ", ".join(f"{count:,} {kind}" for kind, count in self.formats.items())
        near = [leak for leak in self.leaks if leak.distance >= 0]
        equal = [leak for leak in self.leaks if leak.distance < 0]
        problems = [
            (
                "images that cannot be decoded",
                [f"{path} ({why})" for path, why in self.corrupt.items()],
            ),
            ("equal files in one split", [" = ".join(each) for each in self.copies]),
            ("equal files in two classes", [" = ".join(each) for each in self.conflicts]),
            ("equal images in two splits", [" = ".join(each.paths) for each in equal]),
            ("similar images in two splits", [" ~ ".join(each.paths) for each in near]),
        ]
        lines = [
            f"{self.folder}: {len(self.class_names)} classes, {counts}",
            f"height x width: {size}; formats: {formats}",
            *describe_classes(self.class_names, self.class_counts),
            *describe_ignored(self.ignored),
            *warn_of_imbalance(self.class_names, self.class_counts, multi_label=self.multi_label),
        ]
        for what, found in problems:
            if found:
                shown = f": {'; '.join(found[:listed])}" if listed else ""
                more = f" and {len(found) - listed:,} more" if 0 < listed < len(found) else ""
                lines.append(f"warning: {what} ({len(found):,}){shown}{more}")
        return lines


def inspect_folder(root: str, label_file: str = "", *, multi_label: bool = False) -> Inspection:
    """Inspect a folder of images. Every image is decoded.

    Args:
        root: The folder, in a layout of `list_folder`.
        label_file: A CSV file in it that labels the images.
        multi_label: Whether the file may state several classes for an image, or none.

    Raises:
        ReszooError: If the folder cannot be read or has another layout.
    """
    listing = list_folder(root, label_file, multi_label=multi_label)
    names, base = listing.class_names, expand_user(root)
    paths = np.concatenate([split.paths for split in listing.splits.values()])
    labels = np.concatenate([split.labels for split in listing.splits.values()])
    splits = np.repeat(list(listing.splits), [split.count for split in listing.splits.values()])
    shown = [printable(str(Path(path).relative_to(base))) for path in paths]
    bad, sizes = decode_all(paths)
    whole = ~np.isin(paths, bad)
    of_class = ((labels[:, n] > 0) if multi_label else labels == n for n in range(len(names)))
    samples = tuple(paths[np.argmax(own & whole)] for own in of_class)
    if multi_label:  # images of the same classes get the same number
        _, labels = np.unique(labels, axis=0, return_inverse=True)
    ordered = sizes[np.argsort(sizes.prod(axis=1), kind="stable")] if len(sizes) else sizes
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(_identify, paths))
    kinds = Counter(kind for _, kind, _ in found)
    contents = defaultdict(list)
    for index, (digest, _, _) in enumerate(found):
        contents[digest].append(index)
    groups = [group for group in contents.values() if len(group) > 1]
    return Inspection(
        folder=root,
        class_names=names,
        examples={split: each.count for split, each in listing.splits.items()},
        class_counts={
            split: count_images(each.labels, len(names)).tolist()
            for split, each in listing.splits.items()
        },
        multi_label=multi_label,
        sizes={
            name: tuple(ordered[at].tolist()) if len(ordered) else (0, 0)
            for name, at in (("smallest", 0), ("median", len(ordered) // 2), ("largest", -1))
        },
        formats=dict(sorted(kinds.items(), key=lambda each: (-each[1], each[0]))),
        corrupt={shown[i]: explain_damage(paths[i]) for i in np.flatnonzero(~whole)},
        ignored=listing.ignored,
        copies=[[shown[i] for i in group] for group in groups if len(set(splits[group])) == 1],
        conflicts=[[shown[i] for i in group] for group in groups if len(set(labels[group])) > 1],
        leaks=[
            Leak(
                (shown[a], shown[b]),
                (str(splits[a]), str(splits[b])),
                distance,
                bool(labels[a] == labels[b]),
            )
            for a, b, distance in _find_leaks(splits, [hashed for _, _, hashed in found], groups)
        ],
        samples=samples,
    )


def _identify(path: str) -> tuple[bytes, str, Array | None]:
    """Return the digest of a file, its format, and its perceptual hash, bool [64].

    The hash is None for a file that Pillow does not decode, and for an image without contrast.
    """
    try:
        contents = Path(path).read_bytes()
    except OSError:
        return path.encode(errors="surrogateescape"), "unreadable", None
    kind = find_format(contents[:START]) or describe_file(path, contents[:START])
    try:
        with Image.open(io.BytesIO(contents)) as image:
            image.draft("L", (64, 64))  # decodes a JPEG at about this size
            small = image.convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return hashlib.sha256(contents).digest(), kind, None
    hashed = imagehash.phash(small).hash.ravel() if np.asarray(small).std() >= FLAT else None
    return hashlib.sha256(contents).digest(), kind, hashed


def _find_leaks(
    splits: Array, hashes: list[Array | None], groups: list[list[int]]
) -> list[tuple[int, int, int]]:
    """Return (index, index, distance) of images in different splits, nearest first.

    Args:
        splits: The split of each image.
        hashes: Their perceptual hashes.
        groups: The indices of files of equal content.
    """
    leaks = {
        (a, b): -1 for group in groups for a, b in combinations(group, 2) if splits[a] != splits[b]
    }
    hashed = np.array([index for index, each in enumerate(hashes) if each is not None], int)
    if len(hashed):
        signs = np.where(np.stack([hashes[index] for index in hashed]), 1, -1).astype(np.float32)
    for first, second in combinations(dict.fromkeys(splits.tolist()), 2):
        rows, columns = (np.flatnonzero(splits[hashed] == each) for each in (first, second))
        step = max(1, COMPARED // max(1, len(rows)))
        for start in range(0, len(columns), step):
            part = columns[start : start + step]
            distances = (64 - signs[rows] @ signs[part].T) / 2
            for row, column in np.argwhere(distances <= NEAR):
                pair = int(hashed[rows[row]]), int(hashed[part[column]])
                leaks.setdefault(pair, int(distances[row, column]))
    return sorted(((a, b, d) for (a, b), d in leaks.items()), key=lambda leak: leak[2])
