"""Prediction from files of every kind, and files that are no images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from reszoo.errors import ReszooError
from reszoo.evaluation.predict import predict
from reszoo.training.run import Run

DIGITS = [
    Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))
    for image in load_digits().images[:70]
]


def by_hand(run: Path, images: list[Image.Image]) -> np.ndarray:
    opened = Run.open(run)
    pixels = np.stack([np.asarray(image, np.float32)[..., None] for image in images])
    logits = (
        opened.load_model()
        .predict(pixels / 255 - opened.preprocessing.mean, verbose=0)
        .astype(float)
    )
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_probabilities_of_many_files_in_the_order_given(finished: Path, tmp_path: Path) -> None:
    paths = []
    for number, image in enumerate(DIGITS):
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    expected = by_hand(finished, DIGITS)
    predictions = predict(finished, reversed(paths), top=3)
    assert [p.path for p in predictions] == [str(path) for path in reversed(paths)]
    for prediction, row in zip(predictions, expected[::-1], strict=True):
        best = np.argsort(-row)[:3]
        assert prediction.labels == tuple(str(i) for i in best)
        assert prediction.probabilities == pytest.approx(row[best], abs=1e-5)


@pytest.mark.parametrize(
    "kind",
    [
        "png",
        "colour.png",
        "alpha.png",
        "palette.png",
        "bmp",
        "palette.bmp",
        "webp",
        "tif",
        "gif",
        "jpg",
        "grey.jpg",
    ],
)
def test_every_kind_of_file_gives_its_pixels(kind: str, finished: Path, tmp_path: Path) -> None:
    image, other = DIGITS[3], DIGITS[4]
    path = tmp_path / f"x.{kind}"
    exact = by_hand(finished, [image])[0]
    if kind == "gif":
        image.save(path, save_all=True, append_images=[other, other])
    elif kind.endswith("jpg"):
        (image if "grey" in kind else image.convert("RGB")).save(path, quality=100)
        exact = by_hand(finished, [Image.open(path).convert("L")])[0]
    else:
        mode = {
            "png": "L",
            "colour.png": "RGB",
            "alpha.png": "RGBA",
            "palette.png": "P",
            "palette.bmp": "P",
        }.get(kind, "RGB")
        image.convert(mode).save(path, **({"lossless": True} if kind == "webp" else {}))
    (prediction,) = predict(finished, [path], top=10)
    given = dict(zip(prediction.labels, prediction.probabilities, strict=True))
    assert [given[str(i)] for i in range(10)] == pytest.approx(
        exact, abs=2e-3 if kind == "jpg" else 1e-5
    )


def test_an_image_of_any_size_is_brought_to_the_nets_input(finished: Path, tmp_path: Path) -> None:
    Image.new("L", (301, 97), 200).save(tmp_path / "flat.png")
    (prediction,) = predict(finished, [tmp_path / "flat.png"], top=1)
    row = by_hand(finished, [Image.new("L", (8, 8), 200)])[0]
    assert prediction.labels == (str(row.argmax()),)
    assert prediction.probabilities[0] == pytest.approx(row.max(), abs=1e-5)


def png(mode: str = "L") -> bytes:
    file = io.BytesIO()
    DIGITS[0].convert(mode).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"hello",
        b"BM",
        b"GIF89a",
        b"\xff\xd8\xff",
        png()[:-30],
        b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
    ],
    ids=["empty", "text", "bmp", "gif", "jpeg", "cut", "zeros"],
)
def test_a_file_that_is_no_image_is_named(contents: bytes, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(contents)
    with pytest.raises(
        ReszooError,
        match=r"x\.png: (cannot be decoded: damaged|(not an image|empty); expected a file in JPEG, PNG)",
    ) as caught:
        predict(finished, [tmp_path / "x.png"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("most", "read"), [(65535, True), (9000, True), (4095, False)])
def test_twelve_bit_values_are_rejected(
    most: int, read: bool, finished: Path, tmp_path: Path
) -> None:
    values = np.linspace(0, most, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    if read:
        given = predict(finished, [tmp_path / "x.png"], top=10)[0]
        wanted = by_hand(finished, [Image.fromarray((values >> 8).astype(np.uint8))])[0]
        assert dict(zip(given.labels, given.probabilities, strict=True))["3"] == pytest.approx(
            wanted[3], abs=1e-5
        )
    else:
        with pytest.raises(
            ReszooError, match=r"x\.png: 16 bits per channel with no value above 4095 is invalid"
        ):
            predict(finished, [tmp_path / "x.png"])


def test_too_many_pixels_are_rejected_in_every_format(finished: Path, tmp_path: Path) -> None:
    Image.new("1", (2**13 + 1, 2**13)).save(tmp_path / "x.tif", compression="group4")
    with pytest.raises(
        ReszooError, match=r"x\.tif: 67,117,056 pixels are more than the 67,108,864 that are read"
    ):
        predict(finished, [tmp_path / "x.tif"])


def test_all_unreadable_files_are_counted_and_the_first_named(
    finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "good.png").write_bytes(png())
    (tmp_path / "p.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    missing = [tmp_path / f"missing{i}" for i in range(3)]
    with pytest.raises(ReszooError) as caught:
        predict(finished, [missing[0], tmp_path / "good.png", tmp_path / "p.heic", *missing[1:]])
    message = str(caught.value)
    assert message.startswith("4 of 5 images cannot be read: ")
    assert (
        f"{missing[0]}: No such file" in message
        and "p.heic: HEIC; expected a file in JPEG" in message
    )
    assert f"{missing[1]}: No such file" in message and message.endswith("; and 1 more")


def test_no_images_and_impossible_tops(finished: Path, tmp_path: Path) -> None:
    assert predict(finished, []) == []
    with pytest.raises(ReszooError, match="top must be at least 1, got 0"):
        predict(finished, [], top=0)
    (tmp_path / "x.png").write_bytes(png())
    assert len(predict(finished, [tmp_path / "x.png"], top=99)[0].labels) == 10
    with pytest.raises(ReszooError, match="no run folder"):
        predict(tmp_path / "none", [])


def test_a_turned_picture_is_stood_up_first(finished: Path, tmp_path: Path) -> None:
    upright = DIGITS[3].resize((64, 64))
    tag = Image.Exif()
    tag[0x0112] = 6  # stored lying: to be turned a quarter clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.jpg", quality=100, exif=tag)
    upright.save(tmp_path / "standing.png")
    lying, standing = predict(finished, [tmp_path / "lying.jpg", tmp_path / "standing.png"], top=10)
    given = dict(zip(lying.labels, lying.probabilities, strict=True))
    wanted = dict(zip(standing.labels, standing.probabilities, strict=True))
    assert [given[str(i)] for i in range(10)] == pytest.approx(
        [wanted[str(i)] for i in range(10)], abs=0.02
    )


def test_a_picture_of_too_many_pixels_is_refused_undecoded(finished: Path, tmp_path: Path) -> None:
    file = io.BytesIO()
    DIGITS[0].save(file, "PNG")
    contents = file.getvalue()
    (tmp_path / "bomb.png").write_bytes(contents[:16] + b"\0\1\0\0\0\1\0\0" + contents[24:])
    with pytest.raises(
        ReszooError,
        match=r"bomb.png: 4,294,967,296 pixels are more than the 67,108,864 that are read",
    ):
        predict(finished, [tmp_path / "bomb.png"])
