"""Files that cannot be decoded: found, counted, named, and left out where the recipe says so."""

from __future__ import annotations

import logging
import os

import numpy as np

from reszoo.data.decode import decode
from reszoo.data.parts import Files, ImageSet, Records
from reszoo.errors import ReszooError
from reszoo.lazy import tf

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"

_log = logging.getLogger("reszoo")


def drop_corrupt(parts: dict[str, Files], *, skip: bool) -> tuple[dict[str, Files], tuple[str, ...]]:
    """Look at both ends of every file and decode the doubtful ones; return the parts and the bad paths, left out if `skip`."""
    bad = {path for files in parts.values() for path in files.paths if not looks_whole(path) and not _decodes(path)}
    report_corrupt(sorted(bad), sum(files.count for files in parts.values()), skip=skip)
    good = {
        role: files.take(np.flatnonzero([path not in bad for path in files.paths])) for role, files in parts.items()
    }
    return good, tuple(sorted(bad))


def report_corrupt(bad: list[str], total: int, *, skip: bool) -> None:
    """Name and count the undecodable files: a warning if they are to be skipped, else `ReszooError`."""
    if not bad:
        return
    line = f"{len(bad)} of {total} images cannot be decoded: {_named(bad)}"
    if not skip:
        raise ReszooError(f"{line}; mend or remove them, or set data.on_corrupt='skip'")
    _log.warning("%s; left out", line)


def find_corrupt(paths: np.ndarray) -> list[str]:
    """Decode every file, in parallel; return those that cannot be decoded."""

    def load(index: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # A pixel goes out too: an image that nothing uses would not be decoded at all.
        return index, decode(tf.io.read_file(path), 3)[0, 0, 0]

    numbered = tf.data.Dataset.from_tensor_slices(paths).enumerate()
    decoded = numbered.map(load, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    good = [index for index, _ in decoded.as_numpy_iterator()]
    return [str(path) for path in np.delete(paths, good)]


def explain(images: ImageSet, error: BaseException) -> ReszooError | None:
    """The one-line reason for an error that reading `images` raised: which files, if any, cannot be decoded; else None."""
    if not isinstance(error, tf.errors.InvalidArgumentError | tf.errors.DataLossError | tf.errors.NotFoundError):
        return None
    bad = [path for part in images.parts.values() if isinstance(part, Files) for path in find_corrupt(part.paths)]
    if bad:
        return ReszooError(f"{len(bad)} images cannot be decoded: {_named(bad)}; mend or remove them")
    streamed = any(isinstance(part, Records) for part in images.parts.values())
    if streamed and (isinstance(error, tf.errors.DataLossError) or "JPEG" in str(error)):
        return ReszooError(f"a record of {images.name} is damaged; remove the prepared set and prepare it again")
    return None


def looks_whole(path: str) -> bool:
    """Whether a file starts and ends as a JPEG or PNG file should; empty, cut and foreign files do not."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8))
            end = file.read()
    except OSError:
        return False
    return (start.startswith(JPEG_START) and end.rstrip(b"\0").endswith(JPEG_END)) or (start, end) == (
        PNG_START,
        PNG_END,
    )


def _decodes(path: str) -> bool:
    try:
        tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
    except tf.errors.OpError:
        return False
    return True


def _named(paths: list[str]) -> str:
    """The first three paths, and how many more."""
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
