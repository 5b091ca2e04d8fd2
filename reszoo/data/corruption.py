"""Files that cannot be decoded: find, count and name them, and skip them if the recipe says so."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from reszoo.data.dataset import FileSplit, ImageDataset, RecordSplit
from reszoo.data.file_reading import find_corrupt
from reszoo.errors import ReszooError
from reszoo.images.formats import explain_damage, looks_whole, printable
from reszoo.lazy import tf

_log = logging.getLogger("reszoo")


def skip_corrupt(
    splits: Mapping[str, FileSplit],
) -> tuple[dict[str, FileSplit], list[str]]:
    """Read both ends of every file and decode those that do not look whole.

    Returns:
        The splits without the undecodable files, and the paths of these files.
    """
    bad: set[str] = set()
    with ThreadPoolExecutor(16) as pool:
        for files in splits.values():
            whole = np.fromiter(pool.map(looks_whole, files.paths), bool, files.count)
            bad |= set(find_corrupt(files.paths[~whole]))
    good = {
        name: files.take(np.flatnonzero([path not in bad for path in files.paths]))
        for name, files in splits.items()
    }
    return good, sorted(bad)


def report_corrupt(bad: list[str], total: int, *, skip: bool) -> None:
    """Name and count undecodable files: a warning if they are skipped, else ReszooError."""
    if not bad:
        return
    line = f"{len(bad)} of {total} images cannot be decoded: {_name(bad)}"
    if not skip:
        raise ReszooError(f"{line}; repair or remove them, or set data.on_corrupt='skip'")
    _log.warning("%s; skipped", line)


def explain_error(dataset: ImageDataset, error: BaseException) -> ReszooError | None:
    """Return the one-line reason for an error that reading images raised; None if it is another."""
    kinds = (tf.errors.InvalidArgumentError, tf.errors.DataLossError, tf.errors.NotFoundError)
    if not isinstance(error, kinds):
        return None
    splits = dataset.splits.values()
    files = [split.paths for split in splits if isinstance(split, FileSplit)]
    if bad := [path for paths in files for path in find_corrupt(paths)]:
        return ReszooError(
            f"{len(bad)} images cannot be decoded: {_name(bad)}; repair or remove them"
        )
    streamed = any(isinstance(split, RecordSplit) for split in splits)
    if streamed and (isinstance(error, tf.errors.DataLossError) or "JPEG" in str(error)):
        return ReszooError(
            f"{dataset.name}: a record is damaged; remove the prepared dataset and prepare it again"
        )
    return None


def _name(paths: list[str]) -> str:
    some = ", ".join(f"{printable(path)} ({explain_damage(path)})" for path in paths[:3])
    return some + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
