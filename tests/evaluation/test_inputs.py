"""Images in every form give what their file gives; anything else is a one-line error."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from reszoo import ReszooError, predict
from reszoo.evaluation.inputs import Images, Item, check_pixels, iterate_images
from reszoo.types import Array

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 11, 9, 3), np.uint8)


def list_images(images: Images) -> list[Item]:
    return list(iterate_images(images))


def encode(pixels: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    for name, pixels in zip(("0.png", "b/1.png", "2.png"), PIXELS, strict=True):
        (folder / name).write_bytes(encode(pixels))
    return folder


def test_every_form_of_an_image_gives_what_its_file_gives(digits_run: Path, folder: Path) -> None:
    file, gray = folder / "0.png", np.asarray(Image.fromarray(PIXELS[0]).convert("L"))
    forms: dict[str, Any] = {
        "path": file,
        "text": str(file),
        "bytes": file.read_bytes(),
        "memory": memoryview(file.read_bytes()),
        "array": PIXELS[0],
        "integers": PIXELS[0].astype(np.int64),
        "floats": PIXELS[0].astype(np.float32),
        "alpha": np.concatenate([PIXELS[0], np.full((11, 9, 1), 7, np.uint8)], -1),
        "tensor": tf.constant(PIXELS[0]),
        "Pillow": Image.fromarray(PIXELS[0]),
        "batch": PIXELS[:1],
    }
    for form, given in forms.items():
        assert len(list_images(given)) == 1, form
    found = predict(digits_run, (given for given in forms.values()), top=10)
    for index, (form, given) in enumerate(zip(forms, found, strict=True)):
        assert given.labels == found[0].labels, form
        assert given.probabilities == pytest.approx(found[0].probabilities, abs=1e-6), form
        assert given.path == (str(file) if index < 2 else f"[{index}]"), form
    grays = predict(digits_run, [encode(gray), gray, gray[..., None]])
    assert grays[0].probabilities == grays[1].probabilities == grays[2].probabilities


def test_batches_folders_and_mixtures_keep_their_order(
    digits_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    each = [predict(digits_run, pixels)[0] for pixels in PIXELS]
    (folder / "notes.txt").write_text("no image")
    (folder / "fake.png").write_text("no image either")
    (folder / ".hidden.png").write_bytes(encode(PIXELS[0]))
    capsys.readouterr()
    given = [PIXELS[:2], folder, encode(PIXELS[0]), str(folder / "b")]
    found = predict(digits_run, given)
    assert capsys.readouterr().err == f"{folder}: 2 files that are not images were skipped\n"
    names = ["[0]", "[1]", *(f"{folder}/{name}" for name in ("0.png", "2.png", "b/1.png"))]
    assert [one.path for one in found] == [*names, "[5]", f"{folder}/b/1.png"]
    for one, number in zip(found, (0, 1, 0, 2, 1, 0, 1), strict=True):
        assert one.labels == each[number].labels
        assert one.probabilities == pytest.approx(each[number].probabilities, abs=1e-5)


def test_pillow_images_are_turned_upright_and_their_alpha_is_dropped() -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    clear = np.concatenate([PIXELS[0], np.zeros((11, 9, 1), np.uint8)], -1)
    palette = Image.fromarray(PIXELS[0]).convert("P")
    for image, expected in (
        (Image.open(io.BytesIO(encode(PIXELS[0], exif=tag))), np.rot90(PIXELS[0], -1)),
        (Image.fromarray(clear), PIXELS[0]),
        (palette, np.asarray(palette.convert("RGB"))),
    ):
        np.testing.assert_array_equal(list_images(image)[0].pixels, expected)
    with pytest.raises(ReszooError, match=r"\[0\]: a Pillow image of mode I;16 is invalid"):
        list_images(Image.fromarray(np.zeros((2, 2), np.uint16)))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"Example: array.transpose\(1, 2, 0\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"Example: array.transpose\(0, 2, 3, 1\)"),
        (np.zeros((8, 8, 5), np.uint8), r"shape \[8, 8, 5\] is invalid; expected pixels"),
        (np.zeros(8, np.uint8), r"shape \[8\] is invalid"),
        (np.zeros((1, 1, 8, 8, 3), np.uint8), "shape"),
        (np.zeros((0, 8, 3), np.uint8), "shape"),
        (np.full((8, 8, 3), 0.5), r"values 0.5..0.5 are invalid; .* Example: array \* 255"),
        (np.full((8, 8, 3), 1.0, np.float16), r"Example: array \* 255"),
        (np.full((8, 8, 3), -1.0), "Pass images before normalization"),
        (np.full((8, 8, 3), 256), "values 256..256 are invalid"),
        (np.full((8, 8, 3), 40000, np.uint16), "values 40000..40000 are invalid"),
        (np.full((8, 8, 3), np.nan), "values that are not finite"),
        (np.full((8, 8, 3), np.inf), "values that are not finite"),
        (np.zeros((8, 8, 3), bool), "numbers of type bool are invalid"),
        (np.zeros((8, 8, 3), complex), "numbers of type complex128"),
        (np.array([["a"]]), "numbers of type <U1"),
    ],
)
def test_arrays_that_are_not_pixels_are_rejected(array: Array, message: str) -> None:
    with pytest.raises(ReszooError, match=rf"^\[0\]: .*{message}") as caught:
        list_images(array)
    assert "\n" not in str(caught.value)


def test_values_at_the_ends_of_the_range_are_pixels() -> None:
    for dtype in (np.uint8, np.int32, np.float32):
        (image,) = check_pixels(np.array([[[0], [255]]], dtype))
        assert image.tolist() == [[[0], [255]]] and image.dtype == np.uint8
    assert check_pixels(np.array([[[2.4], [2.6]]]))[0].tolist() == [[[2], [3]]]
    assert check_pixels(np.zeros((4, 4, 3), np.float32))[0].max() == 0
    assert check_pixels(np.zeros((0, 4, 4, 3), np.uint8)) == []


@pytest.mark.parametrize("given", [3, None, {"a": 1}, [3], [None], [["a.png"]], ...], ids=repr)
def test_files_that_are_not_images_are_rejected(given: Any) -> None:
    with pytest.raises(ReszooError, match="is invalid; expected a file, a folder, the bytes of"):
        list_images(given)


def test_unreadable_bytes_and_folders_without_images_are_rejected(
    digits_run: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ReszooError, match=r"^\[0\]: not an image") as caught:
        predict(digits_run, b"hello")
    assert "/image" not in str(caught.value)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    with pytest.raises(ReszooError, match="texts: no image in this folder; 1 other files"):
        list_images(tmp_path / "texts")

    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("reszoo.evaluation.inputs.read_start", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ReszooError, match=r"^3 of 3 .*0\.png: Permission denied"):
        predict(digits_run, folder)
