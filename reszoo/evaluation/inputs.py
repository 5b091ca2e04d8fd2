"""Images to predict on, in whatever form they are given: files, folders, bytes, arrays, Pillow images, or a mixture."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from reszoo.errors import ReszooError
from reszoo.images.formats import find_format, printable, read_start

Image: TypeAlias = str | os.PathLike[str] | bytes | np.ndarray
Images: TypeAlias = Image | Iterable[Image]

CHANNELS = (1, 3, 4)
EXPECTED = "expected pixels [h, w, c] or [n, h, w, c] with c of 1, 3 or 4, values 0..255"


@dataclass(frozen=True)
class Item:
    """One image: what to call it, and either the file it lies in, or its pixels [h, w, c], 0..255."""

    name: str
    path: Path | None = None
    contents: bytes | None = None
    pixels: np.ndarray | None = None

    def read(
        self, read_file: Callable[[Path], Any], read_pixels: Callable[[np.ndarray], Any]
    ) -> Any:
        """Return the input of a model, by one of two readers. Raises ReszooError if the image cannot be read."""
        if self.pixels is not None:
            return read_pixels(self.pixels)
        if self.path is not None:
            return read_file(self.path)
        assert self.contents is not None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image"
            path.write_bytes(self.contents)
            try:
                return read_file(path)
            except ReszooError as error:
                raise ReszooError(str(error).replace(str(path), self.name)) from None


def list_images(images: Images) -> list[Item]:
    """Return one item per image, in the order given; a folder's images by name, its sub-folders included.

    Files in a folder that do not begin as an image are skipped, and a line on standard error counts them.
    Raises ReszooError for a folder without images, and for what is not an image.
    """
    given: Iterable[Any] = [images] if _is_one(images) else images  # type: ignore[assignment]
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise ReszooError(f"images: {type(images).__name__} is invalid; {_expected()}")
    items: list[Item] = []
    for one in given:
        items += _items(one, len(items))
    return items


def check_pixels(array: np.ndarray, name: str = "array") -> list[np.ndarray]:
    """Return the images [h, w, c] of an array of one or of several. Raises ReszooError unless its values are pixels, 0..255."""
    if array.ndim == 2:
        array = array[..., np.newaxis]
    if array.ndim not in (3, 4) or 0 in array.shape[-3:]:
        raise ReszooError(f"{name}: shape {list(array.shape)} is invalid; {EXPECTED}")
    if array.shape[-1] not in CHANNELS:
        first = array.shape[-3] in CHANNELS
        order = [*range(array.ndim - 3), array.ndim - 2, array.ndim - 1, array.ndim - 3]
        hint = f". Example: array.transpose({', '.join(map(str, order))})" if first else ""
        raise ReszooError(f"{name}: shape {list(array.shape)} is invalid; {EXPECTED}{hint}")
    if array.dtype != np.uint8:
        _check_values(array, name)
        array = np.rint(array).astype(np.uint8)  # whole numbers, as in a file
    return [array] if array.ndim == 3 else list(array)


def _check_values(array: np.ndarray, name: str) -> None:
    if array.dtype.kind not in "iuf":
        raise ReszooError(f"{name}: numbers of type {array.dtype} are invalid; {EXPECTED}")
    if not array.size:
        return
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ReszooError(f"{name}: values that are not finite are invalid; {EXPECTED}")
    if low < 0 or high > 255:
        more = (
            ". Normalized images are not taken: give pixels, which are prepared as in training"
            if low < 0
            else ""
        )
        raise ReszooError(f"{name}: values {low:g}..{high:g} are invalid; {EXPECTED}{more}")
    if array.dtype.kind == "f" and 0 < high <= 1:
        raise ReszooError(
            f"{name}: values {low:g}..{high:g} are invalid; {EXPECTED}. Example: array * 255"
        )


def _is_one(images: object) -> bool:
    return (
        isinstance(images, str | os.PathLike | bytes | bytearray | memoryview)
        or _is_array(images)
        or _is_pillow(images)
    )


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray) or (
        hasattr(value, "__array__") and hasattr(value, "shape")
    )


def _is_pillow(value: object) -> bool:
    return type(value).__module__.startswith("PIL.") and hasattr(value, "convert")


def _items(one: Any, index: int) -> list[Item]:
    if isinstance(one, str | os.PathLike):
        path = Path(one)
        return list(_files(path)) if path.is_dir() else [Item(str(path), path=path)]
    name = f"[{index}]"
    if isinstance(one, bytes | bytearray | memoryview):
        return [Item(name, contents=bytes(one))]
    if _is_pillow(one):
        return [Item(name, pixels=_of_pillow(one, name))]
    if _is_array(one):
        found = check_pixels(np.asarray(one), name)
        return [Item(f"[{index + row}]", pixels=pixels) for row, pixels in enumerate(found)]
    raise ReszooError(f"{name}: {type(one).__name__} is invalid; {_expected()}")


def _of_pillow(image: Any, name: str) -> np.ndarray:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        raise ReszooError(
            f"{name}: a Pillow image of mode {image.mode} is invalid; expected 8 bits per channel"
        )
    if image.mode not in ("L", "RGB"):
        # Alpha is dropped, not blended, as where files are read.
        image = (
            image.convert("RGBA").convert("RGB")
            if "transparency" in image.info
            else image.convert("RGB")
        )
    return check_pixels(np.asarray(image), name)[0]


def _files(folder: Path) -> Iterator[Item]:
    found, skipped = [], 0
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent) / name
            if not name.startswith(".") and path.is_file():
                found.append(path) if _begins_as_image(path) else (skipped := skipped + 1)
    if not found:
        raise ReszooError(
            f"{printable(str(folder))}: no image in this folder; {skipped} other files. Expected JPEG, PNG, GIF or BMP files"
        )
    if skipped:
        print(
            f"{printable(str(folder))}: {skipped} files that are not images were skipped",
            file=sys.stderr,
        )
    return (Item(str(path), path=path) for path in sorted(found))


def _begins_as_image(path: Path) -> bool:
    try:
        return find_format(read_start(path)) is not None
    except OSError:
        return True  # reading it says why


def _expected() -> str:
    return "expected a file, a folder, the bytes of a file, an array of pixels 0..255, or a list of these"
