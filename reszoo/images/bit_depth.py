"""Images with 16 bits per channel, whose values must use their range.

Of 16 bits the high byte is taken. Values of a 12-bit camera would therefore be nearly black.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from reszoo.errors import ReszooError
from reszoo.images.formats import find_format, has_32_bits, printable

CHECKED = 4096  # files of a dataset whose values are read, at most
LEAST_USED = 2**14  # the largest value of a class must reach this
BLACK = 2**8  # an image whose values are all smaller would be black


def may_have_16_bits(start: bytes) -> bool:
    """Return whether a file with these first bytes may hold 16 bits per channel (PNG and TIFF)."""
    kind = find_format(start)
    return kind == "TIFF" or (kind == "PNG" and start[24:25] == b"\x10")


def value_range(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return the least and largest value of a file with 16 bits per channel; None for other files.

    Pillow reads colors at 16 bits as their high bytes. For them, both numbers are the upper bound
    of the largest value.
    """
    try:
        with open(path, "rb") as opened, Image.open(opened, formats=("PNG", "TIFF")) as file:
            if has_32_bits(file):
                return None
            if file.mode.startswith("I"):
                values = np.asarray(file)
                return int(values.min()), int(values.max())
            if file.format == "PNG":
                with open(path, "rb") as again:
                    sixteen = again.read(25)[24:25] == b"\x10"
            else:
                sixteen = 16 in tuple(file.tag_v2.get(258, ()))  # type: ignore[attr-defined]
            if not sixteen:
                return None
            colors = np.asarray(file)[..., : 3 if len(file.getbands()) > 2 else 1]
            most = 256 * int(colors.max()) + 255
            return most, most
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def check_range(paths_by_class: Mapping[str, Sequence[str]]) -> None:
    """Check that the images of each class use their range.

    Args:
        paths_by_class: The files with 16 bits per channel of each class. `CHECKED` of them are
            read, spread evenly.

    Raises:
        ReszooError: If an image would be black, or all images of a class nearly black.
    """
    found = [(path, name) for name, paths in paths_by_class.items() for path in paths]
    if not found:
        return
    found = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, CHECKED).astype(int))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ranges = list(pool.map(value_range, [path for path, _ in found]))
    brightest: dict[str, tuple[int, str]] = {}
    for (path, name), values in zip(found, ranges, strict=True):
        if values is None:
            continue
        brightest[name] = max(brightest.get(name, (0, "")), (values[1], path))
        if values[0] < values[1] < BLACK:
            raise _range_error(path, values[1], "would be black")
    for name, (largest, path) in brightest.items():
        if 0 < largest < LEAST_USED:
            raise _range_error(path, largest, f"is the brightest of class {name!r}")


def _range_error(path: str, largest: int, why: str) -> ReszooError:
    return ReszooError(
        f"{printable(path)}: 16 bits per channel with no value above {largest} is invalid, and "
        f"{why}; expected values up to 65535. Example: multiply the values of the dataset by one "
        f"factor, such as {65535 // largest}, or save 8-bit files"
    )
