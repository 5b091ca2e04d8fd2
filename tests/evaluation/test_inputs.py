"""Images in every form that people hold them in give what their file gives; anything else is one line."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from reszoo import ReszooError, predict
from reszoo.evaluation.inputs import check_pixels, list_images

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (3, 11, 9, 3), np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, pixels in enumerate(PIXELS):
        path = tmp_path / "photos" / ("b" if number == 1 else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(pixels))
    return tmp_path / "photos"


def check_answers(found: list[Any], expected: list[Any]) -> None:
    """Compare labels, and probabilities but for rounding, which differs between batch sizes."""
    assert [one.labels for one in found] == [one.labels for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_every_form_of_an_image_gives_what_its_file_gives(finished: Path, folder: Path) -> None:
    file = folder / "0.png"
    (expected,) = predict(finished, [file], top=10)
    forms: dict[str, Any] = {
        "text": str(file),
        "path": file,
        "bytes": file.read_bytes(),
        "memory": memoryview(file.read_bytes()),
        "array": PIXELS[0],
        "whole numbers": PIXELS[0].astype(np.int64),
        "floats": PIXELS[0].astype(np.float32),
        "doubles": PIXELS[0].astype(np.float64),
        "alpha": np.concatenate([PIXELS[0], np.full((11, 9, 1), 7, np.uint8)], -1),
        "a tensor": tf.constant(PIXELS[0]),
        "Pillow": Image.fromarray(PIXELS[0]),
        "a batch of one": PIXELS[:1],
        "a list": [file],
        "a generator": (path for path in [file]),
    }
    for form, given in forms.items():
        (found,) = predict(finished, given, top=10)
        assert (found.labels, found.probabilities) == (expected.labels, expected.probabilities), (
            form
        )
        assert found.path == (
            str(file) if form in ("text", "path", "a list", "a generator") else "[0]"
        ), form


def test_a_batch_a_folder_and_a_mixture_keep_their_order(
    finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    each = [predict(finished, pixels)[0] for pixels in PIXELS]
    check_answers(predict(finished, PIXELS), each)
    (folder / "notes.txt").write_text("no image")
    (folder / "fake.png").write_text("no image either")
    (folder / ".hidden.png").write_bytes(encoded(PIXELS[0]))
    capsys.readouterr()
    whole = predict(finished, folder)
    assert [Path(one.path).relative_to(folder).as_posix() for one in whole] == [
        "0.png",
        "2.png",
        "b/1.png",
    ]
    check_answers(whole, [each[0], each[2], each[1]])
    assert capsys.readouterr().err == f"{folder}: 2 files that are not images were skipped\n"
    mixed = predict(finished, [PIXELS[:2], folder / "2.png", encoded(PIXELS[0]), str(folder / "b")])
    check_answers(mixed, [each[0], each[1], each[2], each[0], each[1]])
    assert [one.path for one in mixed] == [
        "[0]",
        "[1]",
        str(folder / "2.png"),
        "[3]",
        str(folder / "b" / "1.png"),
    ]


def test_gray_arrays_of_two_and_three_axes_are_one_image(finished: Path) -> None:
    gray = PIXELS[0, ..., 0]
    expected = predict(finished, encoded(gray))
    for given in (gray, gray[..., None]):
        check_answers(predict(finished, given), expected)


def test_pillow_images_are_turned_upright_and_their_alpha_is_dropped(
    tmp_path: Path, finished: Path
) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    with Image.open(io.BytesIO(encoded(PIXELS[0], exif=tag))) as turned:
        np.testing.assert_array_equal(list_images(turned)[0].pixels, np.rot90(PIXELS[0], -1))
    clear = np.concatenate([PIXELS[0], np.zeros((11, 9, 1), np.uint8)], -1)
    np.testing.assert_array_equal(list_images(Image.fromarray(clear))[0].pixels, PIXELS[0])
    palette = Image.fromarray(PIXELS[0]).convert("P")
    np.testing.assert_array_equal(
        list_images(palette)[0].pixels, np.asarray(palette.convert("RGB"))
    )
    with pytest.raises(ReszooError, match=r"\[0\]: a Pillow image of mode I;16 is invalid"):
        list_images(Image.fromarray(np.zeros((2, 2), np.uint16)))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (
            np.zeros((3, 8, 8), np.uint8),
            r"shape \[3, 8, 8\] is invalid; .* Example: array.transpose\(1, 2, 0\)",
        ),
        (np.zeros((2, 3, 8, 8), np.uint8), r"Example: array.transpose\(0, 2, 3, 1\)"),
        (np.zeros((8, 8, 5), np.uint8), r"shape \[8, 8, 5\] is invalid; expected pixels"),
        (np.zeros(8, np.uint8), r"shape \[8\] is invalid"),
        (np.zeros((1, 1, 8, 8, 3), np.uint8), "shape"),
        (np.zeros((0, 8, 3), np.uint8), "shape"),
        (np.full((8, 8, 3), 0.5), r"values 0.5..0.5 are invalid; .* Example: array \* 255"),
        (np.full((8, 8, 3), 1.0, np.float16), r"Example: array \* 255"),
        (np.full((8, 8, 3), -1.0), "Normalized images are not taken"),
        (np.full((8, 8, 3), 256), "values 256..256 are invalid"),
        (np.full((8, 8, 3), 40000, np.uint16), "values 40000..40000 are invalid"),
        (np.full((8, 8, 3), np.nan), "values that are not finite"),
        (np.full((8, 8, 3), np.inf), "values that are not finite"),
        (np.zeros((8, 8, 3), bool), "numbers of type bool are invalid"),
        (np.zeros((8, 8, 3), complex), "numbers of type complex128"),
        (np.array([["a"]]), "numbers of type <U1"),
    ],
)
def test_arrays_that_are_not_pixels_are_one_line(array: np.ndarray, says: str) -> None:
    with pytest.raises(ReszooError, match=says) as caught:
        list_images(array)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("[0]: ")


def test_pixels_at_the_ends_of_the_range_are_taken() -> None:
    for dtype in (np.uint8, np.int32, np.float32):
        (image,) = check_pixels(np.array([[[0], [255]]], dtype))
        assert image.tolist() == [[[0], [255]]] and image.dtype == np.uint8
    assert check_pixels(np.array([[[2.4], [2.6]]]))[0].tolist() == [[[2], [3]]]
    assert check_pixels(np.zeros((4, 4, 3), np.float32))[0].max() == 0
    assert check_pixels(np.zeros((0, 4, 4, 3), np.uint8)) == []


@pytest.mark.parametrize("given", [3, None, {"a": 1}, [3], [None], [["a.png"]], ...], ids=repr)
def test_what_is_not_an_image_is_one_line(given: Any, finished: Path) -> None:
    with pytest.raises(
        ReszooError,
        match="is invalid; expected a file, a folder, the bytes of a file, an array of pixels",
    ):
        predict(finished, given)


def test_bytes_that_are_not_an_image_and_folders_without_one(
    finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(ReszooError, match=r"^\[0\]: ") as caught:
        predict(finished, b"hello")
    assert "/image" not in str(caught.value)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ReszooError, match=f"{tmp_path}: no image in this folder; 1 other files"):
        predict(finished, tmp_path)
    assert predict(finished, []) == []
    with pytest.raises(ReszooError, match="none.jpg: No such file"):
        predict(finished, "none.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_of_a_folder_that_may_not_be_read_is_named(finished: Path, folder: Path) -> None:
    (folder / "0.png").chmod(0)
    with pytest.raises(ReszooError, match="0.png: Permission denied"):
        predict(finished, folder)
