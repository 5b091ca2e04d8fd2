"""Image formats: recognized by their first bytes, decoded as Pillow does, in a graph and in Python."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from reszoo.images.bit_depth import value_range
from reszoo.images.decoding import decode_file, decode_window, find_layout
from reszoo.images.formats import (
    FORMATS,
    decode_pixels,
    describe_file,
    explain_damage,
    find_format,
    looks_whole,
    printable,
    read_layout,
)

RGBA = np.random.default_rng(0).integers(0, 256, (12, 10, 4), np.uint8)
COLOR = Image.fromarray(RGBA).convert("RGB")
PALETTE = COLOR.quantize(16)
in_graph = tf.function(
    lambda contents: decode_file(contents, 3), input_signature=[tf.TensorSpec((), tf.string)]
)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


ANIMATED = {"save_all": True, "append_images": [COLOR.rotate(180)]}
FILES: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
    "animated PNG": (COLOR, "PNG", ANIMATED),
    "animated WebP": (COLOR, "WebP", {**ANIMATED, "lossless": True}),
    "animated GIF": (COLOR, "GIF", ANIMATED),
    **{f"1 bit {kind}": (COLOR.convert("1"), kind, {}) for kind in ("PNG", "BMP", "TIFF", "GIF")},
    **{f"palette {kind}": (PALETTE, kind, {}) for kind in ("PNG", "BMP", "TIFF", "GIF")},
    **{f"gray {kind}": (COLOR.convert("L"), kind, {}) for kind in ("PNG", "JPEG")},
    **{f"gray and alpha {kind}": (COLOR.convert("LA"), kind, {}) for kind in ("PNG", "TIFF")},
    **{f"RGBA {kind}": (Image.fromarray(RGBA), kind, {}) for kind in ("PNG", "TIFF")},
    "RGBA WebP": (Image.fromarray(RGBA), "WebP", {"lossless": True, "exact": True}),
    "transparent palette PNG": (PALETTE, "PNG", {"transparency": 3}),
    "half transparent palette PNG": (PALETTE, "PNG", {"transparency": bytes([0, 128] * 8)}),
    "transparent palette GIF": (PALETTE, "GIF", {"transparency": 3}),
    "transparent color PNG": (COLOR, "PNG", {"transparency": (1, 2, 3)}),
    **{f"CMYK {kind}": (COLOR.convert("CMYK"), kind, {}) for kind in ("JPEG", "TIFF")},
    "progressive JPEG": (COLOR, "JPEG", {"progressive": True}),
    "halved chroma JPEG": (COLOR, "JPEG", {"subsampling": 2}),
    "lossy WebP": (COLOR, "WebP", {}),
    "LZW TIFF": (COLOR, "TIFF", {"compression": "tiff_lzw"}),
    "JPEG TIFF": (COLOR, "TIFF", {"compression": "jpeg"}),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_pillows_without_alpha(name: str) -> None:
    image, kind, options = FILES[name]
    contents = encode(image, kind, **options)
    with Image.open(io.BytesIO(contents)) as file:
        expected = np.asarray(file.convert("RGBA"))[..., :3]
    assert find_format(contents[:32]) in FORMATS
    np.testing.assert_array_equal(decode_pixels(contents), expected)
    np.testing.assert_array_equal(in_graph(contents), expected)
    np.testing.assert_array_equal(decode_file(tf.constant(contents), 3), expected)
    assert read_layout(contents) == (12, 10, 1)
    gray = decode_file(tf.constant(contents), 1)[..., 0].numpy().astype(int)
    assert np.abs(gray - expected @ [0.299, 0.587, 0.114]).max() <= 0.51


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WebP"])
def test_every_orientation_is_rotated_as_pillow_does(kind: str, endian: str) -> None:
    options = {"WebP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    native = kind in ("JPEG", "PNG")
    for value in range(1, 9):
        exif = Image.Exif()
        exif.endian, exif[0x0112] = endian, value
        contents = encode(COLOR, kind, exif=exif, **options)
        with Image.open(io.BytesIO(contents)) as file:
            expected = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
        np.testing.assert_array_equal(decode_pixels(contents), expected)
        np.testing.assert_array_equal(in_graph(contents), expected)
        layout = (*expected.shape[:2], value if native else 1)
        assert read_layout(contents) == layout
        found = find_layout(tf.constant(contents))
        assert tuple(found.numpy()) == layout
        cut = decode_window(tf.constant(contents), tf.constant([3, 2, 5, 6]), 3, found).numpy()
        # At a window's edge, colors of a JPEG may be smoothed.
        off = np.abs(cut.astype(int) - expected[3:8, 2:8]).max()
        assert off <= (2 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_give_their_high_byte_and_their_range(kind: str, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(7, 4000, (5, 7)).astype(np.uint16)
    values[0, :2] = 7, 4000
    contents = encode(Image.fromarray(values), kind)
    expected = np.repeat((values >> 8)[..., np.newaxis], 3, axis=-1)
    np.testing.assert_array_equal(decode_pixels(contents), expected)
    np.testing.assert_array_equal(in_graph(contents), expected)
    (tmp_path / "x").write_bytes(contents)
    assert value_range(tmp_path / "x") == (7, 4000)


def test_other_files_have_no_range_of_sixteen_bits(tmp_path: Path) -> None:
    COLOR.save(tmp_path / "eight.png")
    assert value_range(tmp_path / "eight.png") is None and value_range(tmp_path / "no") is None
    deep = tf.io.encode_png(np.full((4, 4, 3), 4000, np.uint16)).numpy()
    (tmp_path / "deep.png").write_bytes(deep)
    assert value_range(tmp_path / "deep.png") == (4095, 4095), "colors are read as high bytes"


BROKEN = {
    "empty": (b"", "empty"),
    "text": (b"hello", "not an image"),
    "JPEG start": (b"\xff\xd8\xff", "damaged JPEG"),
    "PNG start": (b"\x89PNG\r\n\x1a\n", "damaged PNG"),
    "GIF start": (b"GIF89a", "damaged GIF"),
    "cut JPEG": (encode(COLOR, "JPEG")[:-200], "damaged JPEG"),
    "cut PNG": (encode(COLOR, "PNG")[:-60], "damaged PNG"),
    "cut WebP": (encode(COLOR, "WebP")[:60], "damaged WebP"),
    "floating point": (encode(Image.fromarray(np.zeros((4, 4), "f4")), "TIFF"), "32-bit or "),
    "32 bits": (encode(Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF"), "32-bit or "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damage_is_an_error_everywhere_and_explained(name: str, tmp_path: Path) -> None:
    contents, reason = BROKEN[name]
    for decoder in (in_graph, lambda given: decode_file(tf.constant(given), 3)):
        with pytest.raises(tf.errors.OpError):
            decoder(contents)
    with pytest.raises(ValueError):
        decode_pixels(contents)
    (tmp_path / "x").write_bytes(contents)
    assert explain_damage(tmp_path / "x").startswith(reason)
    assert explain_damage(tmp_path / "none") == "no such file or directory"


@pytest.mark.parametrize("kind", FORMATS)
def test_both_ends_of_a_file_show_whether_it_is_whole(kind: str, tmp_path: Path) -> None:
    contents = encode(COLOR, kind)
    (tmp_path / "whole").write_bytes(contents)
    (tmp_path / "cut").write_bytes(contents[: len(contents) * 2 // 3])
    assert looks_whole(str(tmp_path / "whole")) is (kind != "TIFF")
    assert not looks_whole(str(tmp_path / "cut")) and not looks_whole(str(tmp_path / "none"))


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
    assert find_format(start) == kind


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
