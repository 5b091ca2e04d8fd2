"""The argument IMAGE of the commands that take images, and how they report unreadable ones."""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from reszoo.errors import ReszooError

T = TypeVar("T")

STATUSES = "exit status: 0 if all images were read, 1 if some cannot be read, 2 if none can"


def add_images(parser: argparse.ArgumentParser) -> None:
    """Declare IMAGE."""
    files = (
        "JPEG, PNG, BMP, GIF, WebP or TIFF files, folders of them, patterns such as '*.jpg', or - "
        "for one path per line of standard input"
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help=files)
    parser.epilog = STATUSES


def list_paths(words: Sequence[str]) -> Iterator[str]:
    """Yield paths: patterns are expanded, and - is replaced by the lines of standard input."""
    for word in words:
        if word == "-":
            lines = (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer)
            yield from filter(None, lines)
        elif glob.has_magic(word) and not os.path.lexists(word):
            found = sorted(glob.glob(word, recursive=True))
            if "**" in word:  # whose folders would be read twice
                found = [path for path in found if not os.path.isdir(path)]
            if not found:
                raise ReszooError(f"IMAGE: {word} is invalid; it matches no file")
            yield from found
        else:
            yield word


class Readable(Generic[T]):
    """Iterates over results without errors, and reports each error on standard error.

    Args:
        results: For each image its result, or the error if it cannot be read.
    """

    def __init__(self, results: Iterable[T | ReszooError]) -> None:
        self._results = results
        self._read = self._unreadable = 0

    def __iter__(self) -> Iterator[T]:
        """Yield the results."""
        for result in self._results:
            if isinstance(result, ReszooError):
                self._unreadable += 1
                print(f"reszoo: {result}", file=sys.stderr, flush=True)
            else:
                self._read += 1
                yield result
        total = self._read + self._unreadable
        if self._unreadable and total > 1:
            count = f"{self._unreadable} of {total}"
            print(f"reszoo: {count} images cannot be read", file=sys.stderr)

    @property
    def status(self) -> int:
        """The exit status, see `STATUSES`."""
        return 0 if not self._unreadable else 1 if self._read else 2
