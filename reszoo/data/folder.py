"""Class folders of image files: which files belong to which split and class."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reszoo.data.dataset import FileSplit, count_images
from reszoo.data.holdout import choose_stratified, complement
from reszoo.data.label_file import SPLITS, make_targets, read_label_file
from reszoo.errors import ReszooError
from reszoo.files import expand_user
from reszoo.images.bit_depth import check_range, may_have_16_bits
from reszoo.images.formats import (
    FORMATS,
    SUFFIXES,
    describe_file,
    find_format,
    is_control,
    is_utf8,
    printable,
    read_start,
)

# Names that people give to splits. Folders that all have such names are not classes.
SPLIT_NAMES = {"train", "training", "trn", "val", "valid", "validation", "dev"}
SPLIT_NAMES |= {"test", "testing", "tst", "eval"}

TEST_SHARE = 5  # without a test split, a fifth of each class is for testing, as in digits

# Names that operating systems and tools leave behind. Names that begin with a dot are hidden too.
CLUTTER = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir"}
CLUTTER |= {"system volume information"}


@dataclass(frozen=True, eq=False)
class Listing:
    """The contents of a folder of class folders.

    Attributes:
        class_names: Names of the class folders, sorted; the index is the label.
        splits: The files of each split, sorted by class and path.
        ignored: How many files are not images, by kind: a format, a suffix, "hidden" and so on.
    """

    class_names: tuple[str, ...]
    splits: dict[str, FileSplit]
    ignored: dict[str, int]


@dataclass
class _Scan:
    """What a scan counts: files that are not images, and images of possibly 16 bits per channel."""

    ignored: Counter[str] = field(default_factory=Counter)
    deep: dict[str, list[str]] = field(default_factory=dict)


def list_folder(root: str, labels: str = "", *, multi_label: bool = False) -> Listing:
    """List the image files of each split and class, decided by their first bytes.

    Layouts: `root/train/CLASS/**` with `test`, `val` (or `validation`) or both next to `train`; or
    `root/CLASS/**`. With one split next to `train`, it is the test split whatever its name. With
    none, a fifth of each class is, always the same. Sub-folders of a class belong to it.

    Args:
        root: The folder.
        labels: A CSV file below it that labels the images, which may then lie anywhere below it.
        multi_label: Whether the file may state several classes for an image, or none.

    Raises:
        ReszooError: If the folder cannot be read or has another layout, a class is empty or has an
            invalid name, or images with 16 bits per channel use a small part of their range.
    """
    path = expand_user(root)
    if not is_utf8(os.path.abspath(path)):
        raise ReszooError(
            f"data.name: folder:{printable(str(path))} is invalid; expected a path in UTF-8. "
            "Example: rename the folder"
        )
    if not path.is_dir():
        raise ReszooError(f"data.name: no folder {str(path)!r}")
    scan = _Scan()
    if labels:
        names, splits = _list_labeled(path, path / labels, scan, multi_label=multi_label)
    else:
        folders = _find_splits(path)
        names = _find_classes(folders)
        check_class_names(names, str(folders["train"]))
        for folder in {path, *folders.values()}:
            _count_loose(folder, scan)
        splits = {split: _list_classes(folder, names, scan) for split, folder in folders.items()}
    check_range(scan.deep)
    if "test" not in splits:
        whole = splits["train"]
        count = whole.count // TEST_SHARE
        if count > whole.count - len(names) or not count:
            raise ReszooError(
                f"{path}: {whole.count} images in {len(names)} classes are too few to test on a "
                "fifth; expected at least 5 images and 2 per class, or folders train and test"
            )
        test = choose_stratified(whole.labels, count)
        splits = {"train": whole.take(complement(whole.count, test)), "test": whole.take(test)}
    return Listing(names, splits, dict(sorted(scan.ignored.items())))


def check_class_names(names: Iterable[str], where: str) -> None:
    """Check that class names are UTF-8 without control characters: exports write one per line."""
    for name in names:
        if not name or not is_utf8(name) or any(map(is_control, name)):
            raise ReszooError(
                f"class name: {ascii(name) if is_utf8(name) else printable(name)} is invalid; "
                "expected UTF-8 without line breaks or control characters. "
                f"Example: rename the folder in {where}"
            )


def _list_labeled(
    root: Path, table: Path, scan: _Scan, *, multi_label: bool
) -> tuple[tuple[str, ...], dict[str, FileSplit]]:
    """Return the class names and splits that a CSV file states."""
    found = read_label_file(table, multi_label=multi_label)
    names, rows = found.class_names, {row.file: row for row in found.rows}
    check_class_names(names, str(table))
    if len(names) < 2:
        raise ReszooError(f"{table} names {len(names)} classes; expected at least two")
    files: dict[str, list[tuple[list[int], str]]] = {}
    entries = [entry for entry in _walk(root, scan) if entry.path != str(table)]
    with ThreadPoolExecutor(16) as pool:
        for entry, (kind, start) in zip(entries, pool.map(_identify, entries), strict=True):
            row = rows.pop(os.path.relpath(entry.path, root), None)
            if row is None or kind not in FORMATS:
                scan.ignored["images without a label" if kind in FORMATS else kind] += 1
                continue
            indices = [names.index(label) for label in row.labels]
            files.setdefault(row.split, []).append((indices, entry.path))
            if may_have_16_bits(start):
                scan.deep.setdefault("; ".join(row.labels), []).append(entry.path)
    if rows:
        some = ", ".join(map(repr, map(printable, list(rows)[:3])))
        raise ReszooError(f"{table}: {len(rows)} files are not in {root}: {some}")
    if files.keys() == {"train", "validation"}:
        files["test"] = files.pop("validation")
    order = [split for split in ("", "train", "validation", "test") if split in files]
    splits: dict[str, FileSplit] = {}
    for split in order:
        labels, paths = zip(*sorted(files[split]), strict=True)
        own = make_targets(labels, len(names)) if multi_label else np.array(labels, np.int32)[:, 0]
        splits[split or "train"] = FileSplit(np.array(paths, dtype=object), own)
    if "train" not in splits or not count_images(splits["train"].labels, len(names)).all():
        raise ReszooError(f"{table}: a class has no training image; expected one of each class")
    return names, splits


def _find_splits(path: Path) -> dict[str, Path]:
    """Return the folder of each split."""
    folders = _subfolders(path)
    if "train" not in folders:
        if set(folders) & set(SPLITS):
            raise ReszooError(f"{path}: a folder {folders[0]!r} but no 'train' next to it")
        if len(folders) > 1 and all(name.lower() in SPLIT_NAMES for name in folders):
            raise ReszooError(
                f"{path}: the folders {', '.join(map(repr, folders))} are splits by their names; "
                "expected 'train', 'val' and 'test'. Example: rename them"
            )
        return {"train": path}
    if odd := [name for name in folders if name not in SPLITS]:
        raise ReszooError(
            f"{path}: unexpected folder {odd[0]!r} next to 'train'; expected train, val and test"
        )
    if {"val", "validation"} <= set(folders):
        raise ReszooError(f"{path}: both 'val' and 'validation'; remove or rename one")
    found = {SPLITS[name]: path / name for name in ["train", *folders]}
    if found.keys() == {"train", "validation"}:
        return {"train": found["train"], "test": found["validation"]}
    return found


def _find_classes(folders: dict[str, Path]) -> tuple[str, ...]:
    """Return the class names, which must be the same in each split."""
    train = folders["train"]
    names = _subfolders(train)
    if not names:
        raise ReszooError(f"{train} holds no class folders")
    for folder in folders.values():
        others = _subfolders(folder)
        for where, extra in ((train, set(names) - set(others)), (folder, set(others) - set(names))):
            if extra:
                shown = ", ".join(map(repr, map(printable, sorted(extra)[:3])))
                more = " and more" if len(extra) > 3 else ""
                raise ReszooError(
                    f"class folders differ between {train} and {folder}: only in {where}: "
                    f"{shown}{more}"
                )
    if len(names) < 2:
        raise ReszooError(
            f"{train} holds one class folder, {printable(names[0])!r}; expected at least two"
        )
    return tuple(names)


def _list_classes(folder: Path, names: tuple[str, ...], scan: _Scan) -> FileSplit:
    """List the images of each class below a split's folder."""
    paths: list[str] = []
    labels: list[int] = []
    with ThreadPoolExecutor(16) as pool:  # a network file system answers many at a time
        for label, name in enumerate(names):
            entries = sorted(_walk(folder / name, scan), key=lambda entry: entry.path)
            before = len(paths)
            for entry, (kind, start) in zip(entries, pool.map(_identify, entries), strict=True):
                if kind in FORMATS:
                    paths.append(entry.path)
                    if may_have_16_bits(start):
                        scan.deep.setdefault(name, []).append(entry.path)
                else:
                    scan.ignored[kind] += 1
            if len(paths) == before:
                raise ReszooError(
                    f"class folder {folder / name} holds no image ({', '.join(FORMATS)})"
                )
            labels += [label] * (len(paths) - before)
    return FileSplit(np.array(paths, dtype=object), np.array(labels, np.int32))


def _walk(folder: Path, scan: _Scan) -> Iterator[os.DirEntry[str]]:
    """Yield every file below `folder` that is not hidden, entering each folder once."""
    waiting: list[str | Path] = [folder]
    entered = {_identity(folder)}
    while waiting:
        for entry in sorted(_scan_folder(waiting.pop()), key=lambda entry: entry.name):
            if _is_hidden(entry.name):
                scan.ignored["hidden"] += 1
            elif not _is_folder(entry):
                yield entry
            elif (identity := _identity(entry.path)) not in entered:
                entered.add(identity)
                waiting.append(entry.path)


def _identify(entry: os.DirEntry[str]) -> tuple[str, bytes]:
    """Return what a file is, one of `FORMATS` or the kind to count it as, and its first bytes.

    A file that has the suffix of an image, or cannot be opened, is listed as one. Decoding it then
    fails and names it.
    """
    claims = entry.name.lower().endswith(SUFFIXES)
    try:
        if not stat.S_ISREG(os.stat(entry.path).st_mode):  # a pipe is never opened
            return "not a regular file", b""
        start = read_start(entry.path)
    except OSError:
        broken = entry.is_symlink() and not os.path.exists(entry.path)
        return FORMATS[0] if claims else "broken link" if broken else "unreadable", b""
    kind = find_format(start) or (FORMATS[0] if claims else describe_file(entry.name, start))
    return kind, start


def _count_loose(folder: Path, scan: _Scan) -> None:
    """Count the images that lie next to the class folders."""
    for entry in _scan_folder(folder):
        if not _is_hidden(entry.name) and not _is_folder(entry):
            kind, start = _identify(entry)
            if start and find_format(start):
                scan.ignored["images outside the class folders"] += 1


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in CLUTTER


def _subfolders(path: Path) -> list[str]:
    entries = _scan_folder(path)
    return sorted(e.name for e in entries if _is_folder(e) and not _is_hidden(e.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _scan_folder(path: str | Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            yield from entries
    except OSError as error:
        raise ReszooError(f"{printable(str(path))} cannot be read: {error.strerror}") from error


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
