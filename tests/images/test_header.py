"""Orientation and size in headers: the graph and Python against Pillow, and against damaged files."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from reszoo.images.decoding import decode_upright, find_layout
from reszoo.images.formats import MAX_PIXELS, read_layout
from reszoo.images.header import pixel_count, read_orientation, rotate_upright

IMAGE = np.random.default_rng(0).integers(0, 256, (11, 7, 3), np.uint8)
orientation = tf.function(read_orientation, input_signature=[tf.TensorSpec((), tf.string)])
count_pixels = tf.function(pixel_count, input_signature=[tf.TensorSpec((), tf.string)])


def exif(value: int, *, little: bool = True, kind: int = 3, before: int = 2, far: int = 0) -> bytes:
    """An EXIF block with `before` other entries, its directory `far` bytes behind its usual place."""
    order = "<" if little else ">"
    entries = [struct.pack(order + "HHII", 0x0100 + i, 4, 1, 6) for i in range(before)]
    entries.append(struct.pack(order + "HHIHH", 0x0112, kind, 1, value, 0))
    start = (b"II" if little else b"MM") + struct.pack(order + "HI", 42, 8 + far) + bytes(far)
    count = struct.pack(order + "H", len(entries))
    return b"Exif\0\0" + start + count + b"".join(entries) + bytes(4)


def encode(kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.fromarray(IMAGE).convert(mode).save(file, kind)
    return file.getvalue()


def jpeg(segment: bytes = b"", *, before: bytes = b"") -> bytes:
    """A JPEG with an APP1 segment right behind its start, and `before` in front of that."""
    contents = encode("JPEG")
    inserted = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment if segment else b""
    return contents[:2] + before + inserted + contents[2:]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int) -> bytes:
    """A PNG that states these sides."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(30)))
    return b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b"")


def png_with_exif(body: bytes, *, last: bool) -> bytes:
    """A PNG with an eXIf chunk in front of its pixels or behind them."""
    contents = encode("PNG")
    at = contents.rindex(b"IEND") - 4 if last else 33
    return contents[:at] + chunk(b"eXIf", body) + contents[at:]


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize(
    "kind", ["little JPEG", "big JPEG", "PNG", "PNG with a prefix", "late PNG"]
)
def test_images_are_rotated_as_pillow_does(kind: str, value: int) -> None:
    contents = {
        "little JPEG": lambda: jpeg(exif(value)),
        "big JPEG": lambda: jpeg(exif(value, little=False)),
        "PNG": lambda: png_with_exif(exif(value)[6:], last=False),
        "PNG with a prefix": lambda: png_with_exif(exif(value), last=False),
        "late PNG": lambda: png_with_exif(exif(value)[6:], last=True),
    }[kind]()
    assert int(orientation(contents)) == value == read_layout(contents)[2]
    assert find_layout(tf.constant(contents)).numpy().tolist() == list(read_layout(contents))
    stored = Image.open(io.BytesIO(contents))
    shown = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(rotate_upright(np.asarray(stored), tf.constant(value)), shown)
    decoded = decode_upright(tf.constant(contents), 3)
    assert np.abs(decoded.numpy().astype(int) - shown).max() <= (4 if "JPEG" in kind else 0)


APP0 = b"\xff\xe0" + struct.pack(">H", 2002) + bytes(2000)


@pytest.mark.parametrize(
    ("contents", "expected"),
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
        (png(3, 3), 1),
        (b"", 1),
    ],
    ids=range(22),
)
def test_the_tag_is_found_only_at_its_position(contents: bytes, expected: int) -> None:
    assert int(orientation(contents)) == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=80), st.integers(0, 90), st.booleans(), st.booleans())
def test_python_reads_damaged_headers_as_the_graph_does(
    noise: bytes, at: int, little: bool, is_png: bool
) -> None:
    whole = png_with_exif(exif(6)[6:], last=False) if is_png else jpeg(exif(6, little=little))
    for contents in (
        whole[:at] + noise + whole[at + len(noise) :],
        noise,
        b"\xff\xd8\xff" + noise,
    ):
        seen = int(orientation(contents))
        assert 1 <= seen <= 8
        try:
            height, width, found = read_layout(contents)
        except ValueError:
            continue
        assert found == seen
        try:
            layout = find_layout(tf.constant(contents)).numpy()
            assert height * width == int(count_pixels(contents)) == np.prod(layout[:2])
        except tf.errors.OpError:
            # Damage that libjpeg finds and a look at the header does not.
            assert contents.startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize("length", [0, 3, 8, 14, 2**16, 2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize("start", [0, 6], ids=["with prefix", "without"])
@pytest.mark.parametrize("last", [False, True])
def test_the_length_of_an_exif_chunk_bounds_what_is_read(
    length: int, start: int, last: bool
) -> None:
    contents = png_with_exif(exif(6)[start:], last=last)
    at = contents.index(b"eXIf") - 4
    contents = contents[:at] + length.to_bytes(4, "big") + contents[at + 4 :]
    assert int(orientation(contents)) == read_layout(contents)[2] == (1 if length < 20 else 6)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_counted_before_anything_is_decoded(mode: str) -> None:
    assert int(count_pixels(encode("JPEG", mode))) == 77
    assert int(count_pixels(encode("PNG", mode)[:24])) == 77
    contents = bytearray(encode("JPEG", mode))
    at = contents.index(b"\xff\xc0") + 5
    contents[at : at + 4] = struct.pack(">HH", 60_000, 50_000)
    assert int(count_pixels(bytes(contents))) == 3_000_000_000
    assert read_layout(encode("JPEG", mode)[:-60]) == (11, 7, 1)


@pytest.mark.parametrize(
    ("contents", "expected"),
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
def test_a_wrong_header_is_counted_by_the_size_that_it_states(
    contents: bytes, expected: int
) -> None:
    assert int(count_pixels(contents)) == expected


def test_a_phone_photo_is_below_the_limit_and_pillow_would_not_warn() -> None:
    assert 48_000_000 < MAX_PIXELS < Image.MAX_IMAGE_PIXELS


def test_it_works_in_a_pipeline() -> None:
    files = [jpeg(exif(3)), b"", jpeg(exif(8, little=False)), png(3, 3)]
    found = tf.data.Dataset.from_tensor_slices(files).map(read_orientation)
    assert [int(value) for value in found] == [3, 1, 8, 1]
