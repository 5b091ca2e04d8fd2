"""Files that cannot be decoded: found, counted, named, and left out if the recipe says so."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from reszoo.data.decode import decode_file
from reszoo.data.formats import explain_damage, looks_whole, printable
from reszoo.data.parts import Files, ImageSet, Records, encode_paths
from reszoo.errors import ReszooError
from reszoo.lazy import tf

_log = logging.getLogger("reszoo")


def drop_corrupt(
    parts: dict[str, Files], *, skip: bool
) -> tuple[dict[str, Files], tuple[str, ...]]:
    """Read both ends of every file and decode the doubtful ones; return the splits and the bad paths, left out if `skip`."""
    bad: set[str] = set()
    with ThreadPoolExecutor(16) as pool:
        for files in parts.values():
            whole = pool.map(looks_whole, files.paths)
            bad |= {
                path
                for path, fine in zip(files.paths, whole, strict=True)
                if not fine and not _decodes(path)
            }
    report_corrupt(sorted(bad), sum(files.count for files in parts.values()), skip=skip)
    good = {
        role: files.take(np.flatnonzero([path not in bad for path in files.paths]))
        for role, files in parts.items()
    }
    return good, tuple(map(printable, sorted(bad)))


def report_corrupt(bad: list[str], total: int, *, skip: bool) -> None:
    """Name and count the undecodable files: a warning if they are to be skipped, else `ReszooError`."""
    if not bad:
        return
    line = f"{len(bad)} of {total} images cannot be decoded: {_named(bad)}"
    if not skip:
        raise ReszooError(f"{line}; repair or remove them, or set data.on_corrupt='skip'")
    _log.warning("%s; left out", line)


def find_corrupt(paths: np.ndarray) -> list[str]:
    """Decode every file, in parallel; return those that cannot be decoded."""
    return decode_all(paths)[0]


def decode_all(paths: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Decode every file, in parallel; return those that cannot be decoded, and the sizes of the others, int [n, (h, w)]."""

    def load(index: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # A pixel goes out too: an image that nothing uses would not be decoded at all.
        image = decode_file(tf.io.read_file(path), 3)
        return index, tf.shape(image)[:2], image[0, 0, 0]

    numbered = tf.data.Dataset.from_tensor_slices(encode_paths(paths)).enumerate()
    decoded = numbered.map(load, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    found = [(index, size) for index, size, _ in decoded.as_numpy_iterator()]
    sizes = np.array([size for _, size in found], int).reshape(-1, 2)
    return list(np.delete(paths, np.array([index for index, _ in found], int))), sizes


def explain(images: ImageSet, error: BaseException) -> ReszooError | None:
    """Return the one-line reason for an error that reading `images` raised: the files that cannot be decoded; None if there are none."""
    if not isinstance(
        error, tf.errors.InvalidArgumentError | tf.errors.DataLossError | tf.errors.NotFoundError
    ):
        return None
    bad = [
        path
        for part in images.parts.values()
        if isinstance(part, Files)
        for path in find_corrupt(part.paths)
    ]
    if bad:
        return ReszooError(
            f"{len(bad)} images cannot be decoded: {_named(bad)}; repair or remove them"
        )
    streamed = any(isinstance(part, Records) for part in images.parts.values())
    if streamed and (isinstance(error, tf.errors.DataLossError) or "JPEG" in str(error)):
        return ReszooError(
            f"a record of {images.name} is damaged; remove the prepared dataset and prepare it again"
        )
    return None


def _decodes(path: str) -> bool:
    try:
        decode_file(tf.io.read_file(os.fsencode(path)), 3)
    except tf.errors.OpError:
        return False
    return True


def _named(paths: list[str]) -> str:
    """Return the first three paths, why each cannot be decoded, and how many more there are."""
    some = ", ".join(f"{printable(path)} ({explain_damage(path)})" for path in paths[:3])
    return some + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
