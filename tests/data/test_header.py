"""Which way up a picture is and how large it would be, against PIL, and against files that lie."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from reszoo.data.decode import decode, decode_upright, find_layout
from reszoo.data.formats import read_layout
from reszoo.data.header import MAX_PIXELS, orientation, pixel_count, upright

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (11, 7, 3), np.uint8)
oriented = tf.function(orientation, input_signature=[tf.TensorSpec((), tf.string)])
counted = tf.function(pixel_count, input_signature=[tf.TensorSpec((), tf.string)])


def exif(value: int, *, little: bool = True, kind: int = 3, before: int = 2, far: int = 0) -> bytes:
    """An EXIF segment's contents with `before` other entries, the directory `far` bytes behind its usual place."""
    order = "<" if little else ">"
    entries = [struct.pack(order + "HHII", 0x0100 + i, 4, 1, 6) for i in range(before)]
    entries.append(struct.pack(order + "HHIHH", 0x0112, kind, 1, value, 0))
    start = (b"II" if little else b"MM") + struct.pack(order + "HI", 42, 8 + far) + bytes(far)
    return (
        b"Exif\0\0" + start + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)
    )


def jpeg(segment: bytes = b"", *, before: bytes = b"", image: np.ndarray = IMAGE) -> bytes:
    """A JPEG with an APP1 segment right behind its start, and `before` in front of that."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95)
    contents = file.getvalue()
    inserted = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment if segment else b""
    return contents[:2] + before + inserted + contents[2:]


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that says it has these sides."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("little", [True, False])
def test_a_turned_picture_stands_as_pil_stands_it(value: int, little: bool) -> None:
    contents = jpeg(exif(value, little=little))
    assert int(oriented(contents)) == value == int(find_layout(tf.constant(contents))[2])
    stored = Image.open(io.BytesIO(contents))
    np.testing.assert_array_equal(
        upright(np.asarray(stored), tf.constant(value)), ImageOps.exif_transpose(stored)
    )
    own = decode_upright(tf.constant(contents), 3)
    assert own.shape == ((7, 11, 3) if value >= 5 else (11, 7, 3))
    stood = Image.fromarray(decode(contents, 3).numpy())
    stood.getexif()[0x0112] = value
    np.testing.assert_array_equal(own, ImageOps.exif_transpose(stood))


APP0 = b"\xff\xe0" + struct.pack(">H", 2002) + bytes(2000)


@pytest.mark.parametrize(
    ("contents", "wanted"),
    [
        (jpeg(), 1),
        (jpeg(exif(6), before=APP0), 6),
        (jpeg(exif(6), before=APP0 * 5), 6),
        (jpeg(exif(6), before=b"\xff\xff\xff"), 6),
        (jpeg(exif(6, before=100)), 6),
        (jpeg(exif(6, far=500)), 6),
        (jpeg(exif(0)), 1),
        (jpeg(exif(9)), 1),
        (jpeg(exif(6, kind=4, little=False)), 1),
        (jpeg(exif(6)[:30]), 1),
        (jpeg(b"Exif\0\0II"), 1),
        (jpeg(b"Exif\0\0II*\0\xff\xff\xff\xff"), 1),
        (jpeg(b"Exif\0\0XX" + exif(6)[8:]), 1),
        (jpeg(b"http://ns.adobe.com/xap/1.0/\0Exif\0\0"), 1),
        (jpeg(before=b"\xff\xe1\0\0"), 1),
        (jpeg(before=b"\xff\xe1\0\1"), 1),
        (jpeg() + b"\xff\xe1" + exif(6), 1),
        (b"\xff\xd8\xff", 1),
        (b"\xff\xd8" + b"\xff" * 300_000, 1),
        (b"\xff\xd8" + b"\xff\xe0\0\2" * 90_000, 1),
        (png(3, 3, bytes(30)), 1),
        (b"", 1),
    ],
    ids=range(22),
)
def test_a_tag_is_found_where_it_stands_and_nowhere_else(contents: bytes, wanted: int) -> None:
    assert int(oriented(contents)) == wanted


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 60), st.booleans())
def test_no_bytes_break_the_search(noise: bytes, at: int, little: bool) -> None:
    contents = jpeg(exif(6, little=little))
    for some in (
        noise,
        b"\xff\xd8\xff" + noise,
        contents[:at] + noise + contents[at + len(noise) :],
    ):
        assert 1 <= int(oriented(some)) <= 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_counted_off_the_header(kind: str, mode: str) -> None:
    file = io.BytesIO()
    Image.fromarray(IMAGE).convert(mode).save(file, kind)
    assert int(counted(file.getvalue())) == 77
    if kind == "PNG":
        assert int(counted(file.getvalue()[:24])) == 77, "before anything is decoded"


@pytest.mark.parametrize(
    ("contents", "wanted"),
    [
        (png(50_000, 40_000), 2_000_000_000),
        (png(2**31 - 1, 2**31 - 1), (2**31 - 1) ** 2),
        (png(2**32 - 1, 2**32 - 1), 2**62),
        (png(0, 5), 0),
        (b"", 0),
        (b"\x89PN", 0),
        (b"\x89PNG\r\n\x1a\n", 0),
        (b"GIF89a" + bytes(30), 0),
        (b"\x89PNG\r\n\x1a\n" + b"\xff" * 30, 0),
    ],
    ids=range(9),
)
def test_a_header_that_lies_is_counted_as_it_says(contents: bytes, wanted: int) -> None:
    assert int(counted(contents)) == wanted


def test_the_limit_is_what_pillow_would_warn_of_or_less() -> None:
    assert 48_000_000 < MAX_PIXELS < Image.MAX_IMAGE_PIXELS, "a telephone's picture passes"


def test_a_jpeg_of_many_pixels_is_counted_without_decoding() -> None:
    large = bytearray(jpeg(image=np.zeros((8, 8, 3), np.uint8)))
    at = large.index(b"\xff\xc0") + 5
    large[at : at + 4] = struct.pack(">HH", 60_000, 50_000)
    assert int(counted(bytes(large))) == 3_000_000_000


def with_chunk(contents: bytes, body: bytes, *, last: bool) -> bytes:
    """A PNG with an eXIf chunk in front of its pixels or behind them."""
    chunk = (
        struct.pack(">I", len(body))
        + b"eXIf"
        + body
        + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    )
    at = contents.rindex(b"IEND") - 4 if last else 33
    return contents[:at] + chunk + contents[at:]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("prefix", [0, 6])
@pytest.mark.parametrize("value", range(1, 9))
def test_a_png_is_turned_as_pil_turns_it(value: int, prefix: int, last: bool) -> None:
    file = io.BytesIO()
    Image.fromarray(IMAGE).save(file, "PNG")
    contents = with_chunk(file.getvalue(), exif(value)[6 - prefix :], last=last)
    assert int(oriented(contents)) == value == read_layout(contents)[2]
    assert find_layout(tf.constant(contents)).numpy().tolist() == list(read_layout(contents))
    np.testing.assert_array_equal(
        decode_upright(tf.constant(contents), 3),
        ImageOps.exif_transpose(Image.open(io.BytesIO(contents))),
    )


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 90), st.booleans(), st.booleans())
def test_python_reads_the_header_as_the_graph_does(
    noise: bytes, at: int, little: bool, is_png: bool
) -> None:
    file = io.BytesIO()
    Image.fromarray(IMAGE).save(file, "PNG")
    whole = (
        with_chunk(file.getvalue(), exif(6)[6:], last=False)
        if is_png
        else jpeg(exif(6, little=little))
    )
    contents = whole[:at] + noise + whole[at + len(noise) :]
    try:
        found = read_layout(contents)
    except ValueError:
        return
    assert found[2] == int(oriented(contents))
    try:
        assert (
            found[0] * found[1]
            == int(counted(contents))
            == np.prod(find_layout(tf.constant(contents)).numpy()[:2])
        )
    except tf.errors.OpError:
        assert not is_png, "damage that libjpeg finds and a look at the header does not"


def in_pipeline(contents: list[bytes]) -> list[Any]:
    return [int(value) for value in tf.data.Dataset.from_tensor_slices(contents).map(orientation)]


def test_it_works_inside_a_pipeline() -> None:
    assert in_pipeline([jpeg(exif(3)), b"", jpeg(exif(8, little=False)), png(3, 3)]) == [3, 1, 8, 1]
