"""Image formats: recognize a file by its first bytes, read its size and orientation, decode it with Pillow.

This module does not import TensorFlow. Suffixes never decide what a file is.
"""

from __future__ import annotations

import io
import os
import re
import struct
import unicodedata

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WebP", "TIFF")
"""The formats that are read."""

START = 32
"""The number of bytes at the start of a file that `image_format` needs."""

MAX_PIXELS = 2**26
"""The largest number of pixels that an untrusted file may decode to: 8192 x 8192, 200 MB in RGB. A few kilobytes can hold far more."""

# Suffixes of the formats above. A file with one of these that is not an image is reported as damaged instead of ignored.
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".bmp",
    ".dib",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
)

# Formats that people keep beside their images and that are not read, by their first bytes.
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

# Exif 2.32: the directory of an EXIF block and its orientation tag.
ORIENTATION, SHORT = 0x0112, 3
HEAD = (
    2**18
)  # the EXIF segment of a JPEG lies within these bytes; it is at most 2**16 long and stands near the front
SEGMENTS = 64  # JPEG segments that are searched for it; cameras write about five
ENTRIES = 256  # entries of an EXIF directory that are read; cameras write about twenty

BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
QUANTIZATION = 0xDB  # the marker of a JPEG's quantization tables; EXIF stands in front of them
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def image_format(start: bytes) -> str | None:
    """Return the format, one of `FORMATS`, of a file that begins with `start` (at least `START` bytes of it), or None."""
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
    # "BM" alone also begins many texts; the length of the second header is one of a few numbers.
    if start.startswith(b"BM") and int.from_bytes(start[14:18], "little") in BMP_HEADERS:
        return "BMP"
    return None


def read_start(path: str | os.PathLike[str]) -> bytes:
    """Return the first `START` bytes of a file. Raises OSError if it cannot be opened."""
    with open(path, "rb", buffering=0) as file:
        return file.read(START)


def describe_file(name: str, start: bytes) -> str:
    """Return what a file that is not read is called in a count: its format, else its suffix, else "no suffix".

    Args:
        name: the file's name, for its suffix.
        start: the first bytes of the file.
    """
    for label, pattern in OTHERS:
        if re.match(pattern, start, re.DOTALL):
            return label
    suffix = os.path.splitext(name)[1].lower()
    return printable(suffix) if suffix else "no suffix"


def printable(text: str) -> str:
    r"""Return `text` fit for a terminal and for UTF-8 files: bytes that are not UTF-8 and control characters become \x.. escapes."""
    decoded = (
        os.fsencode(text).decode("utf-8", "backslashreplace") if _has_surrogates(text) else text
    )
    return "".join(
        one.encode("unicode_escape").decode() if is_control(one) else one for one in decoded
    )


def is_control(character: str) -> bool:
    """Return whether a character is a control character or a line break, of which Unicode has several."""
    return unicodedata.category(character) in ("Cc", "Zl", "Zp")


def is_utf8(text: str) -> bool:
    """Return whether a file name, as Python reads it from the file system, is valid UTF-8."""
    return not _has_surrogates(text)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= one <= "\udfff" for one in text)


def read_layout(contents: bytes) -> tuple[int, int, int]:
    """Return (height, width, orientation) of one image file; only its header is read.

    Height and width are those of the upright image. The orientation (1 to 8) is the turn that a decoder of JPEG and PNG files
    still has to make; it is 1 for the formats that `decode_pixels` turns.

    Raises:
        ValueError: the file is not an image, or its header is damaged.
    """
    kind = image_format(contents[:START])
    if kind == "JPEG":
        height, width, orientation = _jpeg_layout(contents)
    elif kind == "PNG":
        if len(contents) < 24 or contents[8:16] != b"\0\0\0\rIHDR":
            raise ValueError("damaged PNG header")
        width, height = struct.unpack(">II", contents[16:24])
        if not (0 < width < 2**31 and 0 < height < 2**31):
            raise ValueError("damaged PNG header")
        orientation = _png_orientation(contents)
    else:
        with _open(contents) as file:
            width, height = file.size
            if (
                kind == "TIFF"
            ):  # some versions of Pillow give the size of the upright image, others the stored one
                width, height = int(file.tag_v2[256]), int(file.tag_v2[257])  # type: ignore[attr-defined]
            turned = file.getexif().get(ORIENTATION) in (5, 6, 7, 8)
        return (width, height, 1) if turned else (height, width, 1)
    return (width, height, orientation) if orientation >= 5 else (height, width, orientation)


def decode_pixels(contents: bytes) -> np.ndarray:
    """Decode one image file of any of `FORMATS` with Pillow, upright: uint8 [h, w, 3]. Of an animation, the first frame.

    Alpha is dropped. Of 16 bits per channel, the high byte is taken.

    Raises:
        ValueError: the file cannot be decoded, holds 32-bit values, or has more than `MAX_PIXELS` pixels.
    """
    with _open(contents) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"more than {MAX_PIXELS:,} pixels")
        deep = has_32_bits(file)
        try:
            file.load()
            # JPEG and PNG are turned by the same reading of EXIF as in TensorFlow's graph.
            native = file.format in ("JPEG", "MPO", "PNG")
            image = _to_rgb(file if native else ImageOps.exif_transpose(file), deep)
        except (
            OSError,
            SyntaxError,
            struct.error,
            EOFError,
            IndexError,
            TypeError,
            KeyError,
        ) as error:
            raise ValueError(str(error) or type(error).__name__) from error
    if native:
        image = turn(image, read_layout(contents)[2])
    return image


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image [h, w, c] upright from its EXIF orientation, 1 to 8."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image[:, ::-1] if orientation in (2, 3, 6, 7) else image)


def has_32_bits(file: Image.Image) -> bool:
    """Return whether an opened image holds 32-bit or floating-point values, whose range is not known."""
    return file.mode == "F" or (file.mode == "I" and file.format != "PNG")


def value_range(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return (least, largest) value of a file with 16 bits per channel, or None for another file or one that cannot be decoded.

    Pillow reads colors at 16 bits as their high bytes alone. For them, both numbers are the most that the largest value can be.
    """
    try:
        with open(path, "rb") as opened, Image.open(opened, formats=("PNG", "TIFF")) as file:
            if file.mode.startswith("I") and not has_32_bits(file):
                values = np.asarray(file)
                return int(values.min()), int(values.max())
            if file.format == "PNG":
                opened.seek(0)
                sixteen = opened.read(25)[24:25] == b"\x10"
                opened.seek(0)
            else:
                sixteen = 16 in tuple(file.tag_v2.get(258, ()))  # type: ignore[attr-defined]
            if not sixteen or has_32_bits(file):
                return None
            colors = np.asarray(file)[..., : 3 if len(file.getbands()) > 2 else 1]
            most = 256 * int(colors.max()) + 255
            return most, most
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def may_have_16_bits(start: bytes) -> bool:
    """Return whether a file that begins with `start` may hold 16 bits per channel: PNG files that say so, and TIFF files."""
    kind = image_format(start)
    return kind == "TIFF" or (kind == "PNG" and start[24:25] == b"\x10")


def looks_whole(path: str) -> bool:
    """Return whether both ends of a file are those of a whole image. Empty, cut and other files are not; nothing is decoded."""
    try:
        with open(path, "rb") as file:
            start = file.read(START)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            end = file.read()
            kind = image_format(start)
            if kind == "JPEG":
                return end.rstrip(b"\0").endswith(b"\xff\xd9")
            if kind == "PNG":
                return end == b"IEND\xaeB`\x82"
            if kind == "GIF":
                return end.rstrip(b"\0").endswith(b";")
            if kind == "WebP":
                return int.from_bytes(start[4:8], "little") + 8 <= size
            if kind == "BMP":
                return 0 < int.from_bytes(start[2:6], "little") <= size
            return kind == "TIFF" and _tiff_whole(path, size)
    except OSError:
        return False


def _tiff_whole(path: str, size: int) -> bool:
    try:
        with Image.open(path, formats=("TIFF",)) as file:
            tags = file.tag_v2  # type: ignore[attr-defined]
            for starts, lengths in ((273, 279), (324, 325)):
                if starts in tags:
                    ends = [
                        int(at) + int(many)
                        for at, many in zip(tags[starts], tags[lengths], strict=True)
                    ]
                    return max(ends) <= size and not has_32_bits(file)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, Image.DecompressionBombError):
        pass
    return False


def explain_damage(path: str | os.PathLike[str]) -> str:
    """Return why a file cannot be decoded, in a few words."""
    try:
        with open(path, "rb") as file:
            contents = file.read()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    if not contents:
        return "empty"
    kind = image_format(contents[:START])
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
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"not an image that can be read: {type(error).__name__}") from error


def _to_rgb(file: Image.Image, deep: bool) -> np.ndarray:
    if deep:
        raise ValueError("32-bit or floating-point values; convert it to 8 bits per channel")
    if file.mode.startswith("I"):  # 16 bits per pixel
        gray = (np.asarray(file).astype(np.int64) >> 8).astype(np.uint8)
        return np.repeat(gray[..., np.newaxis], 3, axis=-1)
    if file.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in file.info:
        return np.asarray(file.convert("RGBA"))[..., :3]  # alpha is dropped, not blended
    return np.asarray(file.convert("RGB"))


def _jpeg_layout(contents: bytes) -> tuple[int, int, int]:
    """Return (height, width) as stored and the orientation of a JPEG file."""
    at, searched, searching, height, width, orientation = 2, 0, True, 0, 0, 0
    while at + 4 <= len(contents) and contents[at] == 0xFF:
        marker = contents[at + 1]
        length = int.from_bytes(contents[at + 2 : at + 4], "big")
        searching = (
            searching
            and searched < SEGMENTS
            and at < HEAD
            and marker != QUANTIZATION
            and not orientation
        )
        searched += 1
        if marker == 0xFF:  # may be repeated before a marker
            at += 1
            continue
        if marker in (0xDA, 0xD9) or length < 2 or (height and not searching):
            break
        if searching and marker == 0xE1 and contents[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _exif_orientation(contents[:HEAD], at + 10)
        if marker in JPEG_FRAMES and not height and at + 9 <= len(contents):
            height, width = struct.unpack(">HH", contents[at + 5 : at + 9])
        at += 2 + length
    if not height or not width:
        raise ValueError("damaged JPEG header")
    return height, width, orientation or 1


def _png_orientation(contents: bytes) -> int:
    at = 8
    while at + 12 <= len(contents):
        length = int.from_bytes(contents[at : at + 4], "big")
        if contents[at + 4 : at + 8] == b"eXIf":
            exif = contents[at + 8 : at + 8 + min(length, HEAD)]
            return _exif_orientation(exif, 6 if exif.startswith(b"Exif\0\0") else 0)
        at += 12 + length
    return 1


def _exif_orientation(data: bytes, at: int) -> int:
    """Return the orientation that the EXIF block at `at` of `data` states; 1 if it states none that holds."""
    mark = data[at : at + 2]
    if mark not in (b"II", b"MM"):
        return 1
    order = "<" if mark == b"II" else ">"

    def number(where: int, count: int) -> int:  # bytes behind the end are 0
        raw = data[where : where + count].ljust(count, b"\0")
        return int(struct.unpack(order + ("H" if count == 2 else "I"), raw)[0])

    first = at + number(at + 4, 4)
    for entry in range(first + 2, first + 2 + 12 * min(number(first, 2), ENTRIES), 12):
        if entry >= len(data):
            break
        if number(entry, 2) == ORIENTATION and number(entry + 2, 2) == SHORT:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1
