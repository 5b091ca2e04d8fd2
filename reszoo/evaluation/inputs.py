"""Images to predict: files, folders, bytes, arrays, Pillow images, or a mixture."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union, cast

import numpy as np

from reszoo.errors import ReszooError
from reszoo.images.formats import find_format, printable, read_start
from reszoo.reporting.reporter import Reporter
from reszoo.types import Array

if TYPE_CHECKING:
    from PIL import Image as Pillow

Image: TypeAlias = Union[str, os.PathLike[str], bytes, Array, "Pillow.Image"]
Images: TypeAlias = Image | Iterable[Image]

CHANNELS = (1, 3, 4)
EXPECTED = (
    "expected a file, a folder, the bytes of a file, an array of pixels 0..255, or a list of these"
)
EXPECTED_PIXELS = "expected pixels [h, w, c] or [n, h, w, c] with c of 1, 3 or 4, values 0..255"


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        name: Its path, or its index among the images, such as "[2]".
        path: The file, if it is one.
        contents: The bytes of a file, if those were given.
        pixels: uint8 [h, w, c], if those were given.
    """

    name: str
    path: Path | None = None
    contents: bytes | None = None
    pixels: Array | None = None

    @contextmanager
    def open_file(self) -> Iterator[Path]:
        """Yield the path of the image file; that of a temporary one for `contents`."""
        if self.path is not None:
            yield self.path
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image"
            path.write_bytes(self.contents or b"")
            yield path


def iterate_images(images: Images) -> Iterator[Item]:
    """Yield images in the given order; those of a folder and its sub-folders by name.

    Files in a folder that are not images are skipped; a line on standard error counts them.

    Raises:
        ReszooError: A folder holds no image, or something is not an image.
    """
    is_one = _is_file(images) or _is_array(images) or _is_pillow(images)
    given = [images] if is_one else images
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise ReszooError(f"images: {type(images).__name__} is invalid; {EXPECTED}")
    count = 0
    for image in cast("Iterable[Image]", given):
        items = _list_items(image, count)
        count += len(items)
        yield from items


def check_pixels(array: Array, name: str = "array") -> list[Array]:
    """Split an array into images.

    Args:
        array: Pixels 0..255, [h, w], [h, w, c] or [n, h, w, c]. Floats are rounded.
        name: The name of the array in messages.

    Returns:
        The images, uint8 [h, w, c].

    Raises:
        ReszooError: The shape, type or values are not those of pixels.
    """
    if array.ndim == 2:
        array = array[..., np.newaxis]
    if array.ndim not in (3, 4) or 0 in array.shape[-3:] or array.shape[-1] not in CHANNELS:
        hint = ""
        if array.ndim in (3, 4) and array.shape[-3] in CHANNELS and array.shape[-1] > 0:
            axes = "1, 2, 0" if array.ndim == 3 else "0, 2, 3, 1"
            hint = f". Example: array.transpose({axes})"
        raise ReszooError(f"{name}: shape {list(array.shape)} is invalid; {EXPECTED_PIXELS}{hint}")
    if array.dtype != np.uint8:
        _check_values(array, name)
        array = np.rint(array).astype(np.uint8)
    return [array] if array.ndim == 3 else list(array)


def _check_values(array: Array, name: str) -> None:
    if array.dtype.kind not in "iuf":
        raise ReszooError(f"{name}: numbers of type {array.dtype} are invalid; {EXPECTED_PIXELS}")
    if not array.size:
        return
    low, high = float(array.min()), float(array.max())
    error = f"{name}: values {low:g}..{high:g} are invalid; {EXPECTED_PIXELS}"
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ReszooError(f"{name}: values that are not finite are invalid; {EXPECTED_PIXELS}")
    if low < 0:
        raise ReszooError(f"{error}. Pass images before normalization: they are prepared as files")
    if high > 255:
        raise ReszooError(error)
    if array.dtype.kind == "f" and 0 < high <= 1:
        raise ReszooError(f"{error}. Example: array * 255")


def _is_file(value: object) -> bool:
    return isinstance(value, str | os.PathLike | bytes | bytearray | memoryview)


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__") and hasattr(value, "shape")


def _is_pillow(value: object) -> bool:
    return type(value).__module__.startswith("PIL.") and hasattr(value, "convert")


def _list_items(image: Image, index: int) -> list[Item]:
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        return _list_folder(path) if path.is_dir() else [Item(str(path), path=path)]
    name = f"[{index}]"
    if isinstance(image, bytes | bytearray | memoryview):
        return [Item(name, contents=bytes(image))]
    if _is_pillow(image):
        return [Item(name, pixels=_convert_pillow(image, name))]  # type: ignore[arg-type]
    if _is_array(image):
        found = check_pixels(np.asarray(image), name)
        return [Item(f"[{index + row}]", pixels=pixels) for row, pixels in enumerate(found)]
    raise ReszooError(f"{name}: {type(image).__name__} is invalid; {EXPECTED}")


def _convert_pillow(image: Pillow.Image, name: str) -> Array:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        raise ReszooError(
            f"{name}: a Pillow image of mode {image.mode} is invalid; expected 8 bits per channel"
        )
    if image.mode not in ("L", "RGB"):
        if "transparency" in image.info:
            image = image.convert("RGBA")  # alpha is dropped, not blended, as in files
        image = image.convert("RGB")
    return check_pixels(np.asarray(image), name)[0]


def _list_folder(folder: Path) -> list[Item]:
    files: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent) / name for name in names if not name.startswith("."))
        files += filter(Path.is_file, paths)
    found = sorted(path for path in files if _starts_as_image(path))
    skipped, shown = len(files) - len(found), printable(str(folder))
    if not found:
        raise ReszooError(
            f"{shown}: no image in this folder; {skipped} other files. Expected JPEG, PNG, GIF, "
            "BMP, WebP or TIFF files"
        )
    if skipped:
        Reporter(stderr=True).line(f"{shown}: {skipped} files that are not images were skipped")
    return [Item(str(path), path=path) for path in found]


def _starts_as_image(path: Path) -> bool:
    try:
        return find_format(read_start(path)) is not None
    except OSError:
        return True  # reading it reports why
