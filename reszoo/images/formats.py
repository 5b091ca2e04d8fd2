"""Recognize image files by their first bytes and decode them with Pillow.

Does not import TensorFlow. The suffix of a file never decides its format.
"""

from __future__ import annotations

import io
import os
import re
import struct
import unicodedata

import numpy as np
from PIL import Image, ImageOps

from reszoo.images.exif import read_jpeg_header, read_png_orientation, rotate_upright
from reszoo.types import Array

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WebP", "TIFF")
START = 32  # bytes at the start of a file that `find_format` needs
MAX_PIXELS = 2**26
"""Largest number of pixels of an untrusted file: 8192 x 8192, 200 MB in RGB.

Files of a few kB can hold more.
"""

# A file with one of these suffixes that is not an image is reported as damaged, not ignored.
SUFFIXES = tuple(".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .webp .tif .tiff".split())

# First bytes of other formats that people keep next to their images.
OTHERS = (
    ("HEIC", rb"....ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1)"),
    ("AVIF", rb"....ftypavi[fs]"),
    ("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL "),
    ("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("video", rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI "),
    ("Photoshop", rb"8BPS"),
    ("PDF", rb"%PDF-"),
    ("SVG", rb"\s*(<\?xml[^>]*>\s*)?<svg"),
    ("ZIP", rb"PK\x03\x04"),
)

BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
ORIENTATION = 0x0112  # the EXIF tag

# What Pillow raises for damaged files, in addition to ValueError.
PILLOW_ERRORS = (OSError, SyntaxError, struct.error, EOFError, LookupError, TypeError)


def find_format(start: bytes) -> str | None:
    """Return the format of a file, one of `FORMATS`, by its first `START` bytes; else None."""
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start.startswith((b"II*\0", b"MM\0*", b"II+\0\x08\0", b"MM\0+\0\x08")):
        return "TIFF"
    # Many texts begin with "BM"; the length of the second header is one of a few numbers.
    if start.startswith(b"BM") and int.from_bytes(start[14:18], "little") in BMP_HEADERS:
        return "BMP"
    return None


def read_start(path: str | os.PathLike[str]) -> bytes:
    """Return the first `START` bytes of a file. Raises OSError if it cannot be opened."""
    with open(path, "rb", buffering=0) as file:
        return file.read(START)


def describe_file(name: str, start: bytes) -> str:
    """Return what a file that is not read is counted as: its format, its suffix or "no suffix".

    Args:
        name: The file's name.
        start: The first bytes of the file.
    """
    for label, pattern in OTHERS:
        if re.match(pattern, start, re.DOTALL):
            return label
    return printable(os.path.splitext(name)[1].lower()) or "no suffix"


def printable(text: str) -> str:
    r"""Return a file name fit for a terminal and UTF-8 files, with other bytes as \x.. escapes."""
    if not is_utf8(text):
        text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(
        char.encode("unicode_escape").decode() if is_control(char) else char for char in text
    )


def is_control(character: str) -> bool:
    """Return whether a character is a control character or one of Unicode's line breaks."""
    return unicodedata.category(character) in ("Cc", "Zl", "Zp")


def is_utf8(text: str) -> bool:
    """Return whether a file name, as Python reads it from the file system, is valid UTF-8."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def read_layout(contents: bytes) -> tuple[int, int, int]:
    """Read the header of an image file.

    Returns:
        Height and width of the upright image, and the EXIF orientation (1 to 8) by which a decoder
        of JPEG and PNG files must still rotate it; 1 for the formats that `decode_pixels` rotates.

    Raises:
        ValueError: If the file is not an image or its header is damaged.
    """
    kind = find_format(contents[:START])
    orientation = 1
    if kind == "JPEG":
        height, width, orientation = read_jpeg_header(contents)
    elif kind == "PNG":
        width, height = struct.unpack(">II", contents[16:24].ljust(8, b"\0"))
        if contents[8:16] != b"\0\0\0\rIHDR" or not 0 < width < 2**31 or not 0 < height < 2**31:
            raise ValueError("damaged PNG header")
        orientation = read_png_orientation(contents)
    else:
        with _open(contents) as file:
            width, height = file.size
            if kind == "TIFF":  # Pillow's versions differ in whether `size` is upright
                width, height = int(file.tag_v2[256]), int(file.tag_v2[257])  # type: ignore[attr-defined]
            rotated = file.getexif().get(ORIENTATION) in (5, 6, 7, 8)
        return (width, height, 1) if rotated else (height, width, 1)
    return (width, height, orientation) if orientation >= 5 else (height, width, orientation)


def decode_pixels(contents: bytes) -> Array:
    """Decode an image file of any of `FORMATS` with Pillow, upright.

    Of an animation, the first frame is decoded. Alpha is dropped. Of 16 bits per channel, the high
    byte is taken.

    Returns:
        uint8 [h, w, 3].

    Raises:
        ValueError: If the file cannot be decoded, holds 32-bit values, or has more than
            `MAX_PIXELS` pixels.
    """
    with _open(contents) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"more than {MAX_PIXELS:,} pixels")
        if has_32_bits(file):
            raise ValueError("32-bit or floating-point values; convert it to 8 bits per channel")
        native = file.format in ("JPEG", "MPO", "PNG")
        try:
            file.load()
            image = _to_rgb(file if native else ImageOps.exif_transpose(file))
        except PILLOW_ERRORS as error:
            raise ValueError(str(error) or type(error).__name__) from error
    # JPEG and PNG files are rotated by the same reading of EXIF as in TensorFlow's graph.
    return rotate_upright(image, read_layout(contents)[2]) if native else image


def has_32_bits(file: Image.Image) -> bool:
    """Return whether an open image holds 32-bit or floating-point values, of unknown range."""
    return file.mode == "F" or (file.mode == "I" and file.format != "PNG")


def looks_whole(path: str) -> bool:
    """Return whether a file ends as its format demands. Nothing is decoded.

    False for cut files, other files, files with other bytes behind the image, and TIFF files, which
    have no marked end.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(START)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            end = file.read()
    except OSError:
        return False
    return {
        "JPEG": end.rstrip(b"\0").endswith(b"\xff\xd9"),
        "PNG": end == b"IEND\xaeB`\x82",
        "GIF": end.rstrip(b"\0").endswith(b";"),
        "WebP": int.from_bytes(start[4:8], "little") + 8 <= size,
        "BMP": 0 < int.from_bytes(start[2:6], "little") <= size,
    }.get(find_format(start) or "", False)


def explain_damage(path: str | os.PathLike[str]) -> str:
    """Return in a few words why a file cannot be decoded."""
    try:
        with open(path, "rb") as file:
            contents = file.read()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    if not contents:
        return "empty"
    kind = find_format(contents[:START])
    if kind is None:
        label = describe_file("", contents[:START])
        return "not an image" if label == "no suffix" else label
    try:
        decode_pixels(contents)
    except ValueError as error:
        if "32-bit" in str(error) or "pixels" in str(error):
            return str(error)
    return f"damaged {kind}"


def _open(contents: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(contents), formats=[one.upper() for one in FORMATS])
    except (*PILLOW_ERRORS, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"not an image that can be read: {type(error).__name__}") from error


def _to_rgb(file: Image.Image) -> Array:
    if file.mode.startswith("I"):  # 16 bits per pixel
        gray = (np.asarray(file).astype(np.int64) >> 8).astype(np.uint8)
        return np.repeat(gray[..., np.newaxis], 3, axis=-1)
    if file.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in file.info:
        return np.asarray(file.convert("RGBA"))[..., :3]  # alpha is dropped, not blended
    return np.asarray(file.convert("RGB"))
