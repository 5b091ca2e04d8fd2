"""Class folders of image files: which files belong to which split and class, and which of them cannot be read."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reszoo.data.corrupt import report_corrupt
from reszoo.data.decode import decode_file
from reszoo.data.formats import (
    FORMATS,
    SUFFIXES,
    describe_file,
    image_format,
    is_control,
    is_utf8,
    may_have_16_bits,
    printable,
    read_start,
    value_range,
)
from reszoo.data.parts import Arrays, Files, encode_paths
from reszoo.data.preprocessing import Preprocessing
from reszoo.data.splits import rest, stratified
from reszoo.errors import ReszooError
from reszoo.files import expand_user
from reszoo.lazy import tf

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}

# Names that people give to splits. Two of these beside each other are not two classes.
SPLIT_LIKE = {
    "train",
    "training",
    "trn",
    "val",
    "valid",
    "validation",
    "dev",
    "test",
    "testing",
    "tst",
    "eval",
}

# A folder without a test split gives a fifth of each class to one, as digits does.
TEST_SHARE = 5

# Files and folders that operating systems and tools leave behind. Names that begin with a dot are hidden too.
CLUTTER = {
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "@eadir",
}
HIDDEN, LOOSE = "hidden", "images outside the class folders"

# Files at 16 bits per channel whose range is checked, at most, and the share of the range that they must use.
RANGE_CHECKED = 4096
RANGE_USED, RANGE_BLACK = 2**14, 2**8


@dataclass(frozen=True, eq=False)
class Listing:
    """The contents of a folder of class folders.

    class_names: the names of the class folders, sorted; the index is the label.
    parts: the image files of each split (`train`, `validation`, `test`), sorted by class and path.
    ignored: how many files were not taken, by kind: a format that is not read, a suffix, "hidden" and the like.
    """

    class_names: tuple[str, ...]
    parts: dict[str, Files]
    ignored: dict[str, int]


def list_folder(root: str) -> Listing:
    """List the image files of each split and class, decided by their first bytes.

    Layouts: `root/train/CLASS/**` with `root/test/CLASS/**` or `root/val/CLASS/**` (or `validation`) or both; or `root/CLASS/**`.
    With one split beside `train`, it is the test split whatever its name. With none, a fifth of each class, always the same.
    Sub-folders of a class belong to it.

    Raises:
        ReszooError: a missing, empty or unreadable folder, an empty class, class names that cannot be used or that differ
            between splits, or images at 16 bits that use a small part of their range.
    """
    path = expand_user(root)
    if not is_utf8(os.path.abspath(path)):
        raise ReszooError(
            f"data.name: folder:{printable(str(path))} is invalid; expected a path in UTF-8. Example: rename the folder"
        )
    if not path.is_dir():
        raise ReszooError(f"data.name: no folder {str(path)!r}")
    folders = _subfolders(path)
    if "train" in folders:
        odd = [name for name in folders if name not in SPLITS]
        if odd:
            raise ReszooError(
                f"{path}: unexpected folder {odd[0]!r} beside 'train'; splits are train, val and test"
            )
        if {"val", "validation"} <= set(folders):
            raise ReszooError(f"{path}: both 'val' and 'validation'; remove or rename one")
        roles = {
            SPLITS[name]: path / name
            for name in ["train", *(name for name in folders if name != "train")]
        }
    elif set(folders) & set(SPLITS):
        raise ReszooError(f"{path}: a folder {folders[0]!r} but no 'train' beside it")
    elif len(folders) > 1 and all(name.lower() in SPLIT_LIKE for name in folders):
        raise ReszooError(
            f"{path}: the folders {', '.join(map(repr, folders))} are splits by their names; expected 'train', 'val' and 'test'. "
            "Example: rename them"
        )
    else:
        roles = {"train": path}
    if roles.keys() == {"train", "validation"}:
        roles = {"train": roles["train"], "test": roles["validation"]}
    names = _same_classes({role: _subfolders(folder) for role, folder in roles.items()}, roles)
    check_class_names(names, str(roles["train"]))
    ignored: Counter[str] = Counter()
    for folder in {path, *roles.values()}:
        _count_loose(folder, ignored)
    deep: set[str] = set()
    parts = {role: _list_classes(folder, names, ignored, deep) for role, folder in roles.items()}
    _check_range(parts, names, deep)
    if "test" not in parts:
        whole = parts["train"]
        if whole.count // TEST_SHARE > whole.count - len(names) or whole.count < TEST_SHARE:
            raise ReszooError(
                f"{path}: {whole.count} images are too few to test on some; put them in train and test"
            )
        test = stratified(whole.labels, whole.count // TEST_SHARE)
        parts["train"], parts["test"] = whole.take(rest(whole.count, test)), whole.take(test)
    return Listing(names, parts, dict(sorted(ignored.items())))


def check_class_names(names: Iterable[str], where: str) -> None:
    """Raise ReszooError for a class name that is not UTF-8, or has a line break or another control character.

    Class names are written one per line beside an exported model.
    """
    for name in names:
        if not name or not is_utf8(name) or any(map(is_control, name)):
            raise ReszooError(
                f"class name: {ascii(name) if is_utf8(name) else printable(name)} is invalid; expected UTF-8 without line breaks "
                f"or control characters. Example: rename the folder in {where}"
            )


def own_shape(files: Iterable[Files], sample: int = 64) -> tuple[int, int, int]:
    """Return (height, width, channels) by the first file that can be decoded, and 3 channels unless `sample` files are gray.

    The sample is spread evenly over the dataset, because a few gray files among many in color are common.
    """
    paths = np.concatenate([part.paths for part in files])
    size, color = None, False
    for path in paths[np.unique(np.linspace(0, len(paths) - 1, sample).astype(int))]:
        image = _read(path)
        if image is None:
            continue
        size = size or (image.shape[0], image.shape[1])
        color = color or bool((image != image[..., :1]).any())
    if size is None:
        raise ReszooError(
            f"none of {min(sample, len(paths))} files tried can be decoded, {printable(paths[0])!r} among them"
        )
    return (*size, 3 if color else 1)


def read_folder(
    parts: dict[str, Files], preprocessing: Preprocessing, *, skip: bool, resized: bool
) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    """Decode every file into memory at the input's size; return the splits and the undecodable paths, left out if `skip`.

    resized: whether the recipe gives a size; if not, all images must be of the input's size already.
    """
    bad: list[str] = []
    arrays: dict[str, Arrays] = {}
    for role, files in parts.items():
        images = np.empty((files.count, *preprocessing.input_shape), np.uint8)
        read = np.zeros(files.count, bool)
        for indices, shapes, batch in _decoded(files.paths, preprocessing):
            images[indices], read[indices] = batch, True
            odd = np.flatnonzero((shapes != preprocessing.image_size).any(axis=1))
            if len(odd) and not resized:
                height, width = shapes[odd[0]]
                raise ReszooError(
                    f"{printable(files.paths[indices[odd[0]]])} is {height}x{width} where others are "
                    f"{'x'.join(map(str, preprocessing.image_size))}; set data.image_size, e.g. [224, 224]"
                )
        bad += list(files.paths[~read])
        arrays[role] = Arrays(images, files.labels)
        if not read.all():
            arrays[role] = arrays[role].take(np.flatnonzero(read))
    report_corrupt(bad, sum(files.count for files in parts.values()), skip=skip)
    return arrays, tuple(map(printable, bad))


def _read(path: str) -> np.ndarray | None:
    try:
        return decode_file(tf.io.read_file(os.fsencode(path)), 3).numpy()
    except tf.errors.OpError:
        return None


def _decoded(
    paths: np.ndarray, preprocessing: Preprocessing
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Give, in pieces, (indices, sizes before [n, 2], uint8 images at the input's size) of the files that can be decoded."""

    def load(index: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = decode_file(tf.io.read_file(path), preprocessing.channels)
        return index, tf.shape(image)[:2], preprocessing.to_input(image)

    numbered = tf.data.Dataset.from_tensor_slices(encode_paths(paths)).enumerate()
    decoded = numbered.map(load, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors().batch(256)
    return decoded.prefetch(2).as_numpy_iterator()


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in CLUTTER


def _subfolders(path: Path) -> list[str]:
    return sorted(
        entry.name for entry in _scan(path) if _is_folder(entry) and not _is_hidden(entry.name)
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _scan(path: str | Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            yield from entries
    except OSError as error:
        raise ReszooError(f"{printable(str(path))} cannot be read: {error.strerror}") from error


def _same_classes(classes: dict[str, list[str]], roles: dict[str, Path]) -> tuple[str, ...]:
    names = classes["train"]
    if not names:
        raise ReszooError(f"{roles['train']} holds no class folders")
    for role, others in classes.items():
        for where, odd in (
            (roles["train"], set(names) - set(others)),
            (roles[role], set(others) - set(names)),
        ):
            if odd:
                shown = ", ".join(map(repr, map(printable, sorted(odd)[:3]))) + (
                    " and more" if len(odd) > 3 else ""
                )
                raise ReszooError(
                    f"class folders differ between {roles['train']} and {roles[role]}: only in {where}: {shown}"
                )
    if len(names) < 2:
        raise ReszooError(
            f"{roles['train']} holds one class folder, {printable(names[0])!r}; at least two classes are needed"
        )
    return tuple(names)


def _count_loose(folder: Path, ignored: Counter[str]) -> None:
    """Count the images that lie beside the class folders instead of in one."""
    for entry in _scan(folder):
        if not _is_hidden(entry.name) and _is_regular(entry) and _kind(entry) in FORMATS:
            ignored[LOOSE] += 1


def _list_classes(
    folder: Path, names: tuple[str, ...], ignored: Counter[str], deep: set[str]
) -> Files:
    """List the images of each class; count the other files in `ignored` and name those at 16 bits per channel in `deep`."""
    paths: list[str] = []
    labels: list[int] = []
    with ThreadPoolExecutor(16) as pool:  # a file system across a network answers many at a time
        for label, name in enumerate(names):
            entries = sorted(_walk(folder / name, ignored), key=lambda entry: entry.path)
            found = []
            for entry, (kind, start) in zip(entries, pool.map(_look, entries), strict=True):
                if kind in FORMATS:
                    found.append(entry.path)
                    if may_have_16_bits(start):
                        deep.add(entry.path)
                else:
                    ignored[kind] += 1
            if not found:
                raise ReszooError(
                    f"class folder {folder / name} holds no image ({', '.join(FORMATS)})"
                )
            paths += found
            labels += [label] * len(found)
    return Files(np.array(paths, dtype=object), np.array(labels, np.int32))


def _walk(folder: Path, ignored: Counter[str]) -> Iterator[os.DirEntry[str]]:
    """Give every file below `folder` that is not hidden. Each folder is entered once, so that links in a circle end."""
    waiting: list[str | Path] = [folder]
    entered = {_identity(folder)}
    while waiting:
        for entry in sorted(_scan(waiting.pop()), key=lambda entry: entry.name):
            if _is_hidden(entry.name):
                ignored[HIDDEN] += 1
            elif not _is_folder(entry):
                yield entry
            elif (identity := _identity(entry.path)) not in entered:
                entered.add(identity)
                waiting.append(entry.path)


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _look(entry: os.DirEntry[str]) -> tuple[str, bytes]:
    """Return what a file is, one of `FORMATS` or the kind to count it as, and its first bytes.

    A file that has the suffix of an image, or cannot be opened, is listed as one: decoding it then fails, and names it.
    """
    claims = entry.name.lower().endswith(SUFFIXES)
    try:
        if not _is_regular(entry):
            broken = entry.is_symlink() and not os.path.exists(entry.path)
            return (
                FORMATS[0]
                if broken and claims
                else "broken link"
                if broken
                else "not a regular file"
            ), b""
        start = read_start(entry.path)
    except OSError:
        return (FORMATS[0] if claims else "unreadable"), b""
    return image_format(start) or (
        FORMATS[0] if claims else describe_file(entry.name, start)
    ), start


def _is_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return False


def _kind(entry: os.DirEntry[str]) -> str | None:
    try:
        return image_format(read_start(entry.path))
    except OSError:
        return None


def _check_range(parts: dict[str, Files], names: tuple[str, ...], deep: set[str]) -> None:
    """Raise ReszooError for images at 16 bits per channel that use a small part of their range, as 12-bit cameras write them.

    Of 16 bits the high byte is taken, so that such an image would be nearly black.
    """
    if not deep:
        return
    found = [
        (path, int(label))
        for files in parts.values()
        for path, label in zip(files.paths, files.labels, strict=True)
    ]
    found = [(path, label) for path, label in found if path in deep]
    chosen = [
        found[i] for i in np.unique(np.linspace(0, len(found) - 1, RANGE_CHECKED).astype(int))
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ranges = list(pool.map(value_range, [path for path, _ in chosen]))
    by_class: dict[int, list[tuple[int, str]]] = {}
    for (path, label), values in zip(chosen, ranges, strict=True):
        if values is None:
            continue
        by_class.setdefault(label, []).append((values[1], path))
        if values[0] < values[1] < RANGE_BLACK:
            raise ReszooError(_low_range(path, values[1], "would be black"))
    for label, values_of in by_class.items():
        largest, path = max(values_of)
        if 0 < largest < RANGE_USED:
            raise ReszooError(
                _low_range(path, largest, f"is the brightest of class {names[label]!r}")
            )


def _low_range(path: str, largest: int, why: str) -> str:
    factor = 65535 // largest
    return (
        f"{printable(path)}: 16 bits per channel with no value above {largest} is invalid, and {why}; "
        f"expected values up to 65535. Example: multiply the values of the dataset by one factor, such as {factor}, or save 8-bit files"
    )
