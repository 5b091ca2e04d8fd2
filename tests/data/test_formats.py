"""Image formats: recognized by their first bytes, decoded as Pillow decodes them, in a graph and in Python alike."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from reszoo.data.decode import decode_file, find_layout
from reszoo.data.formats import (
    FORMATS,
    decode_pixels,
    describe_file,
    explain_damage,
    image_format,
    looks_whole,
    printable,
    read_layout,
    value_range,
)

RGBA = np.random.default_rng(0).integers(0, 256, (12, 10, 4), np.uint8)
COLOR = Image.fromarray(RGBA).convert("RGB")
in_graph = tf.function(
    lambda contents: decode_file(contents, 3), input_signature=[tf.TensorSpec((), tf.string)]
)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def animated(kind: str, **options: object) -> bytes:
    return encode(COLOR, kind, save_all=True, append_images=[COLOR.rotate(180)], **options)


def palette() -> Image.Image:
    return COLOR.quantize(16)


FILES: dict[str, Callable[[], bytes]] = {
    "animated PNG": lambda: animated("PNG"),
    "animated WebP": lambda: animated("WebP", lossless=True),
    "animated GIF": lambda: animated("GIF"),
    **{
        f"1 bit {kind}": lambda kind=kind: encode(COLOR.convert("1"), kind)
        for kind in ("PNG", "BMP", "TIFF", "GIF")
    },
    **{
        f"palette {kind}": lambda kind=kind: encode(palette(), kind)
        for kind in ("PNG", "BMP", "TIFF", "GIF")
    },
    **{
        f"gray and alpha {kind}": lambda kind=kind: encode(COLOR.convert("LA"), kind)
        for kind in ("PNG", "TIFF")
    },
    **{
        f"color and alpha {kind}": lambda kind=kind: encode(Image.fromarray(RGBA), kind)
        for kind in ("PNG", "TIFF")
    },
    "color and alpha WebP": lambda: encode(
        Image.fromarray(RGBA), "WebP", lossless=True, exact=True
    ),
    "transparent palette PNG": lambda: encode(palette(), "PNG", transparency=3),
    "half transparent palette PNG": lambda: encode(
        palette(), "PNG", transparency=bytes([0, 128] * 8)
    ),
    "transparent palette GIF": lambda: encode(palette(), "GIF", transparency=3),
    "transparent color PNG": lambda: encode(COLOR, "PNG", transparency=(1, 2, 3)),
    **{
        f"CMYK {kind}": lambda kind=kind: encode(COLOR.convert("CMYK"), kind)
        for kind in ("JPEG", "TIFF")
    },
    "progressive JPEG": lambda: encode(COLOR, "JPEG", progressive=True),
    "lossy WebP": lambda: encode(COLOR, "WebP"),
    "LZW TIFF": lambda: encode(COLOR, "TIFF", compression="tiff_lzw"),
    "JPEG TIFF": lambda: encode(COLOR, "TIFF", compression="jpeg"),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_pillows_without_alpha(name: str) -> None:
    contents = FILES[name]()
    with Image.open(io.BytesIO(contents)) as file:
        expected = np.asarray(file.convert("RGBA"))[..., :3]
    assert image_format(contents[:32]) in FORMATS
    np.testing.assert_array_equal(decode_pixels(contents), expected)
    np.testing.assert_array_equal(in_graph(contents), expected)
    np.testing.assert_array_equal(decode_file(tf.constant(contents), 3), expected)
    assert read_layout(contents) == (12, 10, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WebP"])
def test_every_orientation_is_turned_as_pillow_turns_it(kind: str) -> None:
    for value, endian in itertools.product(range(1, 9), "<>"):
        exif = Image.Exif()
        exif.endian, exif[0x0112] = endian, value
        contents = encode(COLOR, kind, exif=exif)
        with Image.open(io.BytesIO(contents)) as file:
            expected = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
        np.testing.assert_array_equal(decode_pixels(contents), expected)
        assert read_layout(contents) == (
            *expected.shape[:2],
            value if kind in ("JPEG", "PNG") else 1,
        )


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_high_byte_is_taken_of_sixteen_bits(kind: str) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (5, 7)).astype(np.uint16)
    contents = encode(Image.fromarray(values), kind)
    expected = np.repeat((values >> 8)[..., np.newaxis], 3, axis=-1)
    np.testing.assert_array_equal(decode_pixels(contents), expected)
    np.testing.assert_array_equal(in_graph(contents), expected)


def test_the_range_of_sixteen_bits(tmp_path: Path) -> None:
    values = np.array([[7, 300], [1200, 4000]], np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    Image.fromarray(values).save(tmp_path / "x.tif")
    COLOR.save(tmp_path / "eight.png")
    (tmp_path / "deep.png").write_bytes(
        tf.io.encode_png(np.full((4, 4, 3), 4000, np.uint16)).numpy()
    )
    assert [
        value_range(str(tmp_path / name)) for name in ("x.png", "x.tif", "eight.png", "none.png")
    ] == [(7, 4000), (7, 4000), None, None]
    assert value_range(tmp_path / "deep.png") == (4095, 4095), "colors are read as their high bytes"


BROKEN = {
    "empty": b"",
    "text": b"hello",
    "JPEG start": b"\xff\xd8\xff",
    "PNG start": b"\x89PNG\r\n\x1a\n",
    "GIF start": b"GIF89a",
    "cut JPEG": encode(COLOR, "JPEG")[:-200],
    "cut PNG": encode(COLOR, "PNG")[:-60],
    "cut WebP": encode(COLOR, "WebP")[:60],
    "floating point": encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"),
    "32 bits": encode(Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_decoded_is_an_error_everywhere(name: str) -> None:
    contents = BROKEN[name]
    for decoder in (in_graph, lambda given: decode_file(tf.constant(given), 3)):
        with pytest.raises(tf.errors.OpError):
            decoder(contents)
    with pytest.raises(ValueError):
        decode_pixels(contents)


def test_damage_is_explained(tmp_path: Path) -> None:
    said = {}
    for name, contents in BROKEN.items():
        (tmp_path / name).write_bytes(contents)
        said[name] = explain_damage(tmp_path / name)
    assert said["empty"] == "empty" and said["text"] == "not an image"
    assert said["cut JPEG"] == "damaged JPEG" and said["cut WebP"] == "damaged WebP"
    assert (
        said["floating point"]
        == said["32 bits"]
        == "32-bit or floating-point values; convert it to 8 bits per channel"
    )
    assert explain_damage(tmp_path / "none") == "no such file or directory"


@pytest.mark.parametrize("kind", FORMATS)
def test_both_ends_of_a_file_show_whether_it_is_whole(kind: str, tmp_path: Path) -> None:
    contents = encode(COLOR, kind)
    (tmp_path / "whole").write_bytes(contents)
    (tmp_path / "cut").write_bytes(contents[: len(contents) * 2 // 3])
    assert looks_whole(str(tmp_path / "whole"))
    assert not looks_whole(str(tmp_path / "cut"))
    assert not looks_whole(str(tmp_path / "none"))


def test_a_tiled_tiff_that_lacks_its_end_is_not_whole(tmp_path: Path) -> None:
    """Pillow reads such files, and writes none."""
    tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: 16, 323: 16, 324: 134, 325: 256}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    contents = b"II*\0" + struct.pack("<IH", 8, len(tags)) + fields + bytes(4) + bytes(range(256))
    np.testing.assert_array_equal(decode_pixels(contents)[..., 0].ravel(), range(256))
    (tmp_path / "whole").write_bytes(contents)
    (tmp_path / "cut").write_bytes(contents[:-1])
    assert looks_whole(str(tmp_path / "whole")) and not looks_whole(str(tmp_path / "cut"))


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"BMW is a car maker, as are many others", None),
        (b"BM" + bytes(12) + b"\x28\0\0\0" + bytes(14), "BMP"),
        (b"RIFF\x10\0\0\0WAVEfmt ", None),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"GIF or so", None),
        (b"", None),
    ],
)
def test_formats_by_the_first_bytes(start: bytes, kind: str | None) -> None:
    assert image_format(start) == kind


def test_other_files_are_named_by_format_or_suffix() -> None:
    assert describe_file("x.jpg", b"\0\0\0\x18ftypheic") == "HEIC"
    assert describe_file("x", b"\0\0\0\x18ftypavif") == "AVIF"
    assert describe_file("x.xml", b"<?xml version='1.0'?>\n<svg>") == "SVG"
    assert describe_file("notes.TXT", b"x") == ".txt"
    assert describe_file("README", b"x") == "no suffix"


def test_names_are_printable() -> None:
    assert printable("caf\udce9\n\N{SNOWMAN}") == "caf\\xe9\\n\N{SNOWMAN}"
    assert printable("Screenshot 9.41\N{NARROW NO-BREAK SPACE}AM \u2028.png") == (
        "Screenshot 9.41\N{NARROW NO-BREAK SPACE}AM \\u2028.png"
    )


def test_a_header_is_read_without_its_pixels() -> None:
    contents = encode(COLOR.resize((300, 200)), "JPEG")
    assert read_layout(contents[:700]) == (200, 300, 1)
    assert find_layout(tf.constant(contents)).numpy().tolist() == [200, 300, 1]
