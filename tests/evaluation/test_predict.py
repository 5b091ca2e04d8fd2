"""Predictions for files of every format, compared with NumPy, and files that are not images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from reszoo.errors import ReszooError
from reszoo.evaluation.predict import Prediction, predict, predict_each
from reszoo.evaluation.source import open_source
from reszoo.types import Array

DIGITS = np.round(load_digits().images[:70] * (255 / 16)).astype(np.uint8)
DIGIT = Image.fromarray(DIGITS[3])


def by_class(prediction: Prediction) -> list[float]:
    found = dict(zip(prediction.labels, prediction.probabilities, strict=True))
    return [found[str(label)] for label in range(10)]


def test_probabilities_of_many_files_in_the_given_order(
    digits_run: Path, tmp_path: Path, classify: Any
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(len(DIGITS))]
    for path, image in zip(paths, DIGITS, strict=True):
        Image.fromarray(image).save(path)
    predictions = predict(digits_run, reversed(paths), top=3)
    assert [p.path for p in predictions] == [str(path) for path in reversed(paths)]
    for prediction, row in zip(predictions, classify(DIGITS)[::-1], strict=True):
        best = np.argsort(-row)[:3]
        assert prediction.labels == tuple(str(i) for i in best)
        assert prediction.probabilities == pytest.approx(row[best], abs=1e-5)


def test_every_format_gives_its_pixels(digits_run: Path, tmp_path: Path, classify: Any) -> None:
    other, twelve_bits = Image.fromarray(DIGITS[4]), np.linspace(0, 9000, 64).reshape(8, 8)
    formats: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("png", DIGIT, {}),
        ("color.png", DIGIT.convert("RGB"), {}),
        ("alpha.png", DIGIT.convert("RGBA"), {}),
        ("palette.png", DIGIT.convert("P"), {}),
        ("bmp", DIGIT.convert("RGB"), {}),
        ("palette.bmp", DIGIT.convert("P"), {}),
        ("webp", DIGIT.convert("RGB"), {"lossless": True}),
        ("tif", DIGIT.convert("RGB"), {}),
        ("gif", DIGIT, {"save_all": True, "append_images": [other, other]}),
        ("gray.jpg", DIGIT, {"quality": 100}),
        ("color.jpg", DIGIT.convert("RGB"), {"quality": 100}),
        ("16.png", Image.fromarray(twelve_bits.astype(np.uint16)), {}),
        ("flat.png", Image.new("L", (301, 97), 200), {}),
    ]
    paths, expected = [], []
    for name, image, options in formats:
        paths.append(tmp_path / f"x.{name}")
        image.save(paths[-1], **options)
        pixels = DIGITS[3]
        if name.endswith("jpg"):
            pixels = np.asarray(Image.open(paths[-1]).convert("L"))
        expected.append(pixels)
    expected[-2:] = [(twelve_bits.astype(np.uint16) >> 8).astype(np.uint8), np.full((8, 8), 200)]
    for path, prediction, row in zip(
        paths, predict(digits_run, paths, top=99), classify(np.stack(expected)), strict=True
    ):
        tolerance = 1e-2 if path.name == "x.color.jpg" else 1e-5
        assert by_class(prediction) == pytest.approx(row, abs=tolerance), path.name


def png(image: Image.Image = DIGIT) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


NOT_AN_IMAGE = "(not an image|empty); expected a file in JPEG, PNG"
DAMAGED = "cannot be decoded: damaged"
DARK = np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", NOT_AN_IMAGE),
        (b"hello", NOT_AN_IMAGE),
        (b"BM", NOT_AN_IMAGE),
        (b"GIF89a", DAMAGED),
        (b"\xff\xd8\xff", DAMAGED),
        (png()[:-30], DAMAGED),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, DAMAGED),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC; expected a file in JPEG"),
        (png(Image.fromarray(DARK)), "16 bits per channel with no value above 4095 is invalid"),
        (
            png()[:16] + b"\0\1\0\0\0\1\0\0" + png()[24:],
            "4,294,967,296 pixels are more than the 67,108,864 that are read",
        ),
    ],
    ids="empty text bmp gif jpeg cut zeros heic dark bomb".split(),
)
def test_a_file_that_cannot_be_read_is_named(
    contents: bytes, message: str, digits_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.png").write_bytes(contents)
    for given, name in ((tmp_path / "x.png", r".*x\.png"), (contents, r"\[0\]")):
        with pytest.raises(ReszooError, match=f"^{name}: {message}") as caught:
            predict(digits_run, given)
        assert "\n" not in str(caught.value)


def test_images_are_read_as_they_are_needed(
    digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reszoo.evaluation.predict.BATCH", 2)
    taken: list[int] = []
    images = (taken.append(number) or DIGITS[number] for number in range(5))  # type: ignore[func-returns-value]
    seen = [len(taken) for _ in predict_each(open_source(digits_run), images, top=1)]
    assert seen == [2, 2, 4, 4, 5]


def test_too_many_pixels_are_rejected_in_other_formats(digits_run: Path, tmp_path: Path) -> None:
    Image.new("1", (2**13 + 1, 2**13)).save(tmp_path / "x.tif", compression="group4")
    with pytest.raises(ReszooError, match=r"x\.tif: 67,117,056 pixels are more than"):
        predict(digits_run, tmp_path / "x.tif")


def test_unreadable_files_are_counted_and_the_first_named(digits_run: Path, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(png())
    missing = [tmp_path / f"missing{number}" for number in range(4)]
    with pytest.raises(ReszooError) as caught:
        predict(digits_run, [missing[0], tmp_path / "good.png", *missing[1:]])
    named = "; ".join(f"{path}: No such file or directory" for path in missing[:3])
    assert str(caught.value) == f"4 of 5 images cannot be read: {named}; and 1 more"


def test_no_images_and_invalid_arguments(digits_run: Path, tmp_path: Path) -> None:
    assert predict(digits_run, []) == []
    with pytest.raises(ReszooError, match="top: 0 is invalid; expected an integer >= 1"):
        predict(digits_run, [], top=0)
    with pytest.raises(ReszooError, match="no run folder"):
        predict(tmp_path / "none", [])


def test_images_are_rotated_by_their_exif_orientation(digits_run: Path, tmp_path: Path) -> None:
    upright: Array | Image.Image = DIGIT.resize((64, 64))
    tag = Image.Exif()
    tag[0x0112] = 6  # to be rotated by a quarter clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", quality=100, exif=tag)
    upright.save(tmp_path / "b.png")
    rotated, expected = predict(digits_run, [tmp_path / "a.jpg", tmp_path / "b.png"], top=10)
    assert by_class(rotated) == pytest.approx(by_class(expected), abs=0.02)
