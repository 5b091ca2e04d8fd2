"""Class folders of JPEG and PNG files: which files belong to which part and class, and which of them cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from reszoo.data import pictures
from reszoo.data.corrupt import report_corrupt
from reszoo.data.decode import decode
from reszoo.data.parts import Arrays, Files
from reszoo.data.preprocessing import Preprocessing
from reszoo.data.splits import rest, stratified
from reszoo.errors import ReszooError
from reszoo.lazy import on_tensorflow, tf

SUFFIXES = (".jpg", ".jpeg", ".png")
SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}

# A folder without a test part gives a fifth of each class to one, as digits does.
TEST_SHARE = 5


def list_folder(root: str) -> tuple[tuple[str, ...], dict[str, Files]]:
    """Return the class names, sorted, and the files of each part, sorted by class and name.

    Layouts: `root/train/CLASS/*` with `root/test/CLASS/*` or `root/val/CLASS/*` (or `validation`) or both; or `root/CLASS/*`.
    With one part beside `train`, it is the test part whatever its name. With none, a fifth of each class, always the same.
    Raises `ReszooError` for a missing, empty or unreadable folder, an empty class, and classes that differ between parts.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        raise ReszooError(f"data.name: no folder {str(path)!r}")
    folders = _subfolders(path)
    if "train" in folders:
        odd = [name for name in folders if name not in SPLITS]
        if odd:
            raise ReszooError(f"{path}: unexpected folder {odd[0]!r} beside 'train'; parts are train, val and test")
        if {"val", "validation"} <= set(folders):
            raise ReszooError(f"{path}: both 'val' and 'validation'; remove or rename one")
        roles = {SPLITS[name]: path / name for name in ["train", *(name for name in folders if name != "train")]}
    elif set(folders) & set(SPLITS):
        raise ReszooError(f"{path}: a folder {folders[0]!r} but no 'train' beside it")
    else:
        roles = {"train": path}
    if roles.keys() == {"train", "validation"}:
        roles = {"train": roles["train"], "test": roles["validation"]}
    names = _same_classes({role: _subfolders(folder) for role, folder in roles.items()}, roles)
    parts = {role: _list_classes(folder, names) for role, folder in roles.items()}
    if "test" not in parts:
        whole = parts["train"]
        if whole.count // TEST_SHARE > whole.count - len(names) or whole.count < TEST_SHARE:
            raise ReszooError(f"{path}: {whole.count} images are too few to test on some; put them in train and test")
        test = stratified(whole.labels, whole.count // TEST_SHARE)
        parts["train"], parts["test"] = whole.take(rest(whole.count, test)), whole.take(test)
    return names, parts


def own_shape(files: Iterable[Files], sample: int = 64) -> tuple[int, int, int]:
    """Return (height, width, channels) by the first file that can be decoded, and 3 channels unless `sample` files are grey.

    The sample is spread evenly over the set, because a few grey files among many in colour are common.
    """
    paths = np.concatenate([part.paths for part in files])
    size, colour = None, False
    for path in paths[np.unique(np.linspace(0, len(paths) - 1, sample).astype(int))]:
        image = _read(path)
        if image is None:
            continue
        size = size or (image.shape[0], image.shape[1])
        colour = colour or bool((image != image[..., :1]).any())
    if size is None:
        raise ReszooError(f"none of {min(sample, len(paths))} files tried can be decoded, {paths[0]!r} among them")
    return (*size, 3 if colour else 1)


def read_folder(
    parts: dict[str, Files], preprocessing: Preprocessing, *, skip: bool, resized: bool
) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    """Decode every file into memory at the input's size; return the parts and the undecodable paths, left out if `skip`.

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
                    f"{files.paths[indices[odd[0]]]} is {height}x{width} where others are "
                    f"{'x'.join(map(str, preprocessing.image_size))}; set data.image_size, e.g. [224, 224]"
                )
        bad += [str(path) for path in files.paths[~read]]
        arrays[role] = Arrays(images, files.labels)
        if not read.all():
            arrays[role] = arrays[role].take(np.flatnonzero(read))
    report_corrupt(bad, sum(files.count for files in parts.values()), skip=skip)
    return arrays, tuple(bad)


def _read(path: str) -> np.ndarray | None:
    if not on_tensorflow():
        return pictures.read_picture(path)
    try:
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3).numpy()
    except tf.errors.OpError:
        return None


def _decoded(paths: np.ndarray, preprocessing: Preprocessing) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Give, in pieces, (indices, sizes before [n, 2], uint8 images at the input's size) of the files that can be decoded."""
    if not on_tensorflow():
        return pictures.decoded(paths, preprocessing)

    def load(index: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = decode(tf.io.read_file(path), preprocessing.channels)
        return index, tf.shape(image)[:2], preprocessing.to_input(image)

    numbered = tf.data.Dataset.from_tensor_slices(paths).enumerate()
    decoded = numbered.map(load, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors().batch(256)
    return decoded.prefetch(2).as_numpy_iterator()


def _subfolders(path: Path) -> list[str]:
    return sorted(entry.name for entry in _scan(path) if entry.is_dir() and not entry.name.startswith("."))


def _scan(path: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            yield from entries
    except OSError as error:
        raise ReszooError(f"{path} cannot be read: {error.strerror}") from error


def _same_classes(classes: dict[str, list[str]], roles: dict[str, Path]) -> tuple[str, ...]:
    names = classes["train"]
    if not names:
        raise ReszooError(f"{roles['train']} holds no class folders")
    for role, others in classes.items():
        for where, odd in ((roles["train"], set(names) - set(others)), (roles[role], set(others) - set(names))):
            if odd:
                shown = ", ".join(map(repr, sorted(odd)[:3])) + (" and more" if len(odd) > 3 else "")
                raise ReszooError(
                    f"class folders differ between {roles['train']} and {roles[role]}: only in {where}: {shown}"
                )
    if len(names) < 2:
        raise ReszooError(f"{roles['train']} holds one class folder, {names[0]!r}; at least two classes are needed")
    return tuple(names)


def _list_classes(folder: Path, names: tuple[str, ...]) -> Files:
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        entries = _scan(folder / name)
        found = sorted(e.path for e in entries if e.name.lower().endswith(SUFFIXES) and not e.name.startswith("."))
        if not found:
            raise ReszooError(f"class folder {folder / name} holds no JPEG or PNG file")
        paths += found
        labels += [label] * len(found)
    return Files(np.array(paths, dtype=object), np.array(labels, np.int32))
