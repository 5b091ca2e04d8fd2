"""Class folders: layouts, decoding against PIL, streaming, and every way such a folder can be wrong."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from reszoo.config.data import AugmentConfig, DataConfig, InceptionCrop, NoCrop
from reszoo.data import sets
from reszoo.data.decode import decode_window, find_layout
from reszoo.data.folder import list_folder
from reszoo.data.formats import looks_whole
from reszoo.data.parts import Arrays, Files
from reszoo.data.pipeline import Pipeline, open_dataset
from reszoo.errors import ReszooError
from reszoo.evaluation.predict import read_image

Photo = Callable[..., np.ndarray]
INCEPTION = InceptionCrop(flip=True)


@pytest.fixture
def make(tmp_path: Path, photo: Photo) -> Callable[..., Path]:
    """A maker of folders: `make({"train/cat": 3, ...})` writes so many JPEG images, each another, into each class."""

    def write(classes: dict[str, int], size: tuple[int, int] = (20, 24)) -> Path:
        for number, (name, count) in enumerate(classes.items()):
            (tmp_path / "set" / name).mkdir(parents=True)
            for i in range(count):
                image = Image.fromarray(photo(*size, seed=100 * number + i))
                image.save(tmp_path / "set" / name / f"{i:02d}.{'jpg' if i % 2 else 'png'}")
        return tmp_path / "set"

    return write


def open_folder(
    path: Path, augment: AugmentConfig | None = None, batch_size: int = 4, **fields: Any
) -> Pipeline:
    data = DataConfig(name=f"folder:{path}", **{"normalize": "channel", **fields})
    return open_dataset(data, augment or NoCrop(), batch_size=batch_size, seed=1)


def refusal(path: Path, augment: AugmentConfig | None = None, **fields: Any) -> str:
    with pytest.raises(ReszooError) as caught:
        open_folder(path, augment, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def as_stored(path: str, channels: int = 3) -> np.ndarray:
    pixels = np.asarray(Image.open(path).convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels)


def test_split_layout(make: Callable[..., Path]) -> None:
    path = make({"train/b": 4, "train/a": 3, "test/a": 2, "test/b": 1, "val/a": 1, "val/b": 2})
    info = open_folder(path).info
    assert info.class_names == ("a", "b")
    assert info.examples == {"train": 7, "validation": 3, "test": 3}
    assert info.input_shape == (20, 24, 3)


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_one_part_beside_train_is_the_test_part(make: Callable[..., Path], name: str) -> None:
    path = make({"train/a": 6, "train/b": 6, f"{name}/a": 2, f"{name}/b": 1})
    assert open_folder(path, validation=2).info.examples == {
        "train": 10,
        "validation": 2,
        "test": 3,
    }


def test_class_layout_gives_the_same_fifth_of_each_class_to_testing(
    make: Callable[..., Path],
) -> None:
    path = make({"a": 10, "b": 20, "c": 5})
    listing = list_folder(str(path))
    names, parts = listing.class_names, listing.parts
    assert names == ("a", "b", "c")
    assert np.bincount(parts["test"].labels).tolist() == [2, 4, 1]
    assert not set(parts["test"].paths) & set(parts["train"].paths)
    assert parts["train"].count == 28
    again = list_folder(str(shutil.copytree(path, path.parent / "copy"))).parts["test"].paths
    assert [Path(p).name for p in again] == [Path(p).name for p in parts["test"].paths]


def test_validation_is_held_out_class_by_class(make: Callable[..., Path]) -> None:
    path = make({"train/a": 12, "train/b": 6, "test/a": 1, "test/b": 1})
    parts: dict[str, Any] = open_folder(path, validation=6, examples=9)._images.parts
    assert np.bincount(parts["validation"].labels).tolist() == [4, 2]
    assert np.bincount(parts["train"].labels).tolist() == [6, 3]
    # Which ones is no matter of the run's seed.
    other = open_dataset(
        DataConfig(name=f"folder:{path}", validation=6, normalize="channel"),
        NoCrop(),
        batch_size=1,
        seed=99,
    )
    np.testing.assert_array_equal(
        parts["validation"].images, other._images.parts["validation"].images
    )  # type: ignore[attr-defined]


def test_memory_holds_what_pil_decodes(make: Callable[..., Path]) -> None:
    path = make({"train/a": 6, "train/b": 6, "test/a": 2, "test/b": 1})
    files = list_folder(str(path)).parts
    part = open_folder(path)._images.parts["train"]
    assert isinstance(part, Arrays)
    for pixels, file in zip(part.images, files["train"].paths, strict=True):
        np.testing.assert_array_equal(pixels, as_stored(file))


def test_images_of_many_sizes_are_resized_into_memory(
    make: Callable[..., Path], photo: Photo
) -> None:
    path = make({"train/a": 5, "train/b": 5, "test/a": 2, "test/b": 2})
    Image.fromarray(photo(50, 31)).save(path / "train" / "a" / "big.png")
    pipeline = open_folder(path, image_size=(16, 16))
    part = pipeline._images.parts["train"]
    assert isinstance(part, Arrays)
    files = list_folder(str(path)).parts
    for pixels, file in zip(part.images, files["train"].paths, strict=True):
        expected = Image.open(file).resize((16, 16), Image.Resampling.BILINEAR)
        assert np.abs(pixels.astype(int) - np.asarray(expected)).max() <= 1
    assert refusal(path).endswith("others are 20x24; set data.image_size, e.g. [224, 224]")
    assert "train/a/big.png is 50x31" in refusal(path)


def test_streaming_goes_on_where_it_stopped(make: Callable[..., Path]) -> None:
    path = make({"train/a": 6, "train/b": 5, "test/a": 1, "test/b": 1})
    pipeline = open_folder(path, INCEPTION, image_size=(12, 12))
    assert isinstance(pipeline._images.parts["train"], Files)
    assert pipeline.steps_per_epoch == 3
    whole = [(x.numpy(), y.numpy()) for x, y in pipeline.train().take(8)]
    again = open_folder(path, INCEPTION, image_size=(12, 12))
    for start in (1, 3, 5):
        for (x, y), (u, v) in zip(whole[start:], again.train(start).take(8 - start), strict=True):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)


def test_streamed_epochs_are_permutations_and_images_are_those_of_the_files(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make({"train/a": 7, "train/b": 6, "test/a": 2, "test/b": 1})
    held = open_folder(path, image_size=(12, 12), normalize="unit")
    monkeypatch.setattr(sets, "fits_memory", lambda counts, shape: False)
    streamed = open_folder(path, image_size=(12, 12), normalize="unit")
    assert isinstance(streamed._images.parts["train"], Files)
    # The same batches whether the set is held or streamed: order and pixels do not depend on where images are kept.
    orders = []
    for epoch in range(2):
        labels = []
        for (x, y), (u, v) in zip(
            held.train(4 * epoch).take(4), streamed.train(4 * epoch).take(4), strict=True
        ):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)
            labels.append(u.numpy())
        images = np.concatenate(labels)
        assert len(np.unique(images, axis=0)) == 13
        orders.append(images)
    assert not np.array_equal(orders[0], orders[1])
    for (x, y), (u, v) in zip(held.evaluation("test"), streamed.evaluation("test"), strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


KINDS: dict[str, Callable[[Image.Image], tuple[Image.Image, str, dict[str, Any]]]] = {
    "grey.jpg": lambda image: (image.convert("L"), "JPEG", {}),
    "cmyk.jpg": lambda image: (image.convert("CMYK"), "JPEG", {"quality": 95}),
    "progressive.JPEG": lambda image: (image, "JPEG", {"progressive": True}),
    "halved_chroma.jpg": lambda image: (image, "JPEG", {"quality": 75, "subsampling": 2}),
    "grey.png": lambda image: (image.convert("L"), "PNG", {}),
    "alpha.PNG": lambda image: (image.convert("RGBA"), "PNG", {}),
    "grey_alpha.png": lambda image: (image.convert("LA"), "PNG", {}),
    "palette.png": lambda image: (image.convert("P"), "PNG", {}),
    "sixteen_bit.png": lambda image: (
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
        "PNG",
        {},
    ),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("streamed", [False, True])
def test_every_kind_of_file_comes_out_in_the_channels_asked(
    tmp_path: Path, photo: Photo, channels: int, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {}
    for part in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / part / label).mkdir(parents=True)
            for name, make_kind in KINDS.items():
                image, kind, options = make_kind(Image.fromarray(photo(20, 24)))
                file = tmp_path / part / label / name
                image.save(file, kind, **options)
                grey16 = Image.fromarray(photo(20, 24)).convert("L") if "sixteen" in name else None
                expected[str(file)] = (grey16 or Image.open(file)).convert(
                    "RGB" if channels == 3 else "L"
                )
    if streamed:
        monkeypatch.setattr(sets, "fits_memory", lambda counts, shape: False)
    pipeline = open_folder(tmp_path, image_size=(20, 24), channels=channels, normalize="unit")
    images = np.concatenate([x for x, _ in pipeline.evaluation("test").as_numpy_iterator()])
    paths = list_folder(str(tmp_path)).parts["test"].paths
    for pixels, path in zip(images, paths, strict=True):
        # Luminance from decoded RGB, where PIL takes a JPEG's own: up to four grey values apart on saturated colours.
        off = np.abs(pixels * 255 - np.asarray(expected[path]).reshape(20, 24, channels)).max()
        assert off < (0.01 if channels == 3 else 4.01), path


def test_channels_are_rgb_unless_all_are_grey(make: Callable[..., Path], photo: Photo) -> None:
    path = make({"train/a": 5, "train/b": 5, "test/a": 1, "test/b": 1})
    assert open_folder(path).info.input_shape[2] == 3
    for file in path.rglob("*.*"):
        Image.open(file).convert("L").save(file)
    assert open_folder(path).info.input_shape[2] == 1
    Image.fromarray(photo(20, 24)).save(path / "train" / "b" / "00.png")
    assert open_folder(path).info.input_shape[2] == 3


def oriented_file(path: Path, kind: str, orientation: int, image: np.ndarray) -> Path:
    """Write an image with an EXIF orientation, without losses unless it is a JPEG."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WebP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    Image.fromarray(image).save(path, kind, exif=exif, **options)
    return path


def as_shown(path: str | Path) -> np.ndarray:
    """The upright pixels of a file by Pillow, uint8 [h, w, 3]."""
    with Image.open(path) as file:
        return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF"])
@pytest.mark.parametrize("held", [True, False])
def test_training_evaluation_prediction_and_exports_see_upright_images(
    tmp_path: Path, photo: Photo, kind: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        for orientation in range(1, 9):
            folder = tmp_path / split / "ab"[orientation % 2]
            folder.mkdir(parents=True, exist_ok=True)
            image = photo(20, 24) if orientation < 5 else photo(24, 20)
            oriented_file(folder / f"{orientation}.dat", kind, orientation, image)
    if not held:
        monkeypatch.setattr(sets, "fits_memory", lambda counts, shape: False)
    pipeline = open_folder(tmp_path, image_size=(20, 24), normalize="unit", batch_size=8)
    paths = list_folder(str(tmp_path)).parts["test"].paths
    evaluated, _ = next(pipeline.evaluation("test").as_numpy_iterator())
    trained, _ = next(pipeline.train().as_numpy_iterator())
    shown = np.stack([as_shown(path) for path in paths])
    assert len(np.unique(shown, axis=0)) > 4, "the turns differ from each other"
    np.testing.assert_array_equal(np.round(255 * evaluated), shown)
    np.testing.assert_array_equal(
        np.unique(np.round(255 * trained), axis=0), np.unique(shown, axis=0)
    )
    for path, pixels in zip(paths, evaluated, strict=True):
        np.testing.assert_array_equal(read_image(Path(path), pipeline.preprocessing), pixels)
        if kind in ("JPEG", "PNG"):
            exported = tf.function(
                pipeline.preprocessing.from_bytes, input_signature=[tf.TensorSpec((), tf.string)]
            )
            np.testing.assert_array_equal(exported(Path(path).read_bytes()), pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF"])
def test_windows_are_cut_out_of_the_upright_image(tmp_path: Path, photo: Photo, kind: str) -> None:
    window = tf.constant([3, 5, 8, 11])
    for orientation in range(1, 9):
        file = oriented_file(tmp_path / str(orientation), kind, orientation, photo(40, 56))
        contents, shown = tf.constant(file.read_bytes()), as_shown(file)
        found = find_layout(contents)
        assert found.numpy()[:2].tolist() == list(shown.shape[:2])
        cut = decode_window(contents, window, 3, found).numpy().astype(int)
        off = np.abs(cut - shown[3:11, 5:16])
        # Pixels at the edge of a JPEG's window may be a level apart, where colors are smoothed across it.
        assert off.max() <= (2 if kind == "JPEG" else 0), (kind, orientation)


def test_random_crops_of_turned_images_are_crops_of_upright_ones(
    tmp_path: Path, photo: Photo
) -> None:
    batches = []
    for name, orientation in (("plain", 1), ("turned", 6)):
        for folder in ("train/a", "train/b", "test/a", "test/b"):
            (tmp_path / name / folder).mkdir(parents=True)
            for i in range(3):
                image = photo(30, 40, seed=i + 10 * len(folder))
                stored = image if orientation == 1 else np.rot90(image)
                oriented_file(tmp_path / name / folder / f"{i}.png", "PNG", orientation, stored)
        pipeline = open_folder(tmp_path / name, INCEPTION, image_size=(12, 12), normalize="unit")
        batches.append([x for x, _ in pipeline.train().take(4).as_numpy_iterator()])
    for plain, turned in zip(*batches, strict=True):
        np.testing.assert_array_equal(plain, turned)


def test_files_are_decided_by_their_first_bytes(make: Callable[..., Path], photo: Photo) -> None:
    path = make({"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1})
    image = Image.fromarray(photo(20, 24))
    for name, kind in (
        ("webp.jpg", "WebP"),
        ("tiff.png", "TIFF"),
        ("jpeg", "JPEG"),
        ("png.dat", "PNG"),
        ("x.gif", "GIF"),
        ("x.bmp", "BMP"),
        ("x.webp", "WebP"),
        ("x.tif", "TIFF"),
    ):
        image.save(path / "train" / "a" / name, kind)
    (path / "train" / "a" / "notes.txt").write_text("BMW is not a bitmap")
    (path / "train" / "a" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    (path / "train" / "b" / "README").write_text("x")
    pipeline = open_folder(path)
    assert pipeline.info.class_counts["train"] == [11, 3]
    assert pipeline.info.ignored == {".txt": 1, "HEIC": 1, "no suffix": 1}
    assert pipeline.info.to_dict()["ignored"] == pipeline.info.ignored
    images = pipeline._images.parts["train"].images  # type: ignore[attr-defined]
    for pixels, file in zip(images, list_folder(str(path)).parts["train"].paths, strict=True):
        np.testing.assert_array_equal(pixels, as_shown(file), err_msg=file)
    text = path / "train" / "a" / "text.jpg"
    text.write_text("hello")
    assert f"1 of 17 images cannot be decoded: {text} (not an image)" in refusal(path)


def test_subfolders_of_a_class_belong_to_it_and_clutter_does_not(
    make: Callable[..., Path], photo: Photo
) -> None:
    path = make({"a": 5, "b": 5})
    before = list_folder(str(path)).parts["train"].paths
    for folder in ("a/2024/may", "a/.ipynb_checkpoints", "a/__MACOSX", "__MACOSX", ".git"):
        (path / folder).mkdir(parents=True)
        Image.fromarray(photo(20, 24)).save(path / folder / "x.png")
    (path / "a" / "Thumbs.db").write_bytes(b"x")
    Image.fromarray(photo(20, 24)).save(path / "loose.png")
    (path / "a" / "2024" / "circle").symlink_to(path / "a")
    (path / "a" / "itself").symlink_to("itself")
    listing = list_folder(str(path))
    assert listing.class_names == ("a", "b")
    every = [str(Path(p).relative_to(path)) for part in listing.parts.values() for p in part.paths]
    assert len(every) == 11 and "a/2024/may/x.png" in every
    assert listing.ignored == {"hidden": 3, "broken link": 1, "images outside the class folders": 1}
    again = list_folder(str(path))
    assert [*again.parts["train"].paths] == [*listing.parts["train"].paths]
    assert len(before) == 8


def test_pipes_are_not_opened(make: Callable[..., Path]) -> None:
    path = make({"a": 5, "b": 5})
    os.mkfifo(path / "a" / "pipe.jpg")
    assert list_folder(str(path)).ignored == {"not a regular file": 1}


@pytest.mark.parametrize("names", [("training", "testing"), ("Train", "Test"), ("train_", "x")])
def test_folders_named_as_splits_are_not_classes(
    make: Callable[..., Path], names: tuple[str, str]
) -> None:
    path = make({f"{name}/{label}": 3 for name in names for label in "ab"})
    if names[1] == "x":
        assert list_folder(str(path)).class_names == names
    else:
        assert "are splits by their names; expected 'train', 'val' and 'test'" in refusal(path)


def sixteen(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16)).save(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_use_their_range_or_are_rejected(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    for most, said in (
        (65535, ""),
        (30000, ""),
        (4095, "no value above 4"),
        (200, "would be black"),
    ):
        root = tmp_path / str(most)
        for label in "ab":
            for i in range(5):
                sixteen(root / label / f"{i}.{suffix}", rng.integers(0, most + 1, (9, 9)))
        if said:
            line = refusal(root)
            assert said in line and str(root) in line and "expected values up to 65535" in line
        else:
            images = np.concatenate(
                [part.images for part in open_folder(root)._images.parts.values()]
            )  # type: ignore[attr-defined]
            assert images.max() == pytest.approx(most / 257, abs=2)


def test_a_class_at_twelve_bits_among_others_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label, most in (("bright", 65535), ("dim", 4095)):
        for i in range(5):
            sixteen(tmp_path / label / f"{i}.png", rng.integers(0, most + 1, (9, 9)))
    assert "is the brightest of class 'dim'" in refusal(tmp_path)
    assert "is the brightest of class 'dim'" in refusal(tmp_path, INCEPTION, image_size=(8, 8))


def test_a_black_image_at_sixteen_bits_is_an_image(tmp_path: Path) -> None:
    for label in "ab":
        for i in range(5):
            sixteen(tmp_path / label / f"{i}.png", np.full((9, 9), 60000 if i else 0))
    assert open_folder(tmp_path).info.examples["train"] == 8


def test_floating_point_tiffs_are_rejected_by_name(make: Callable[..., Path]) -> None:
    path = make({"a": 5, "b": 5})
    Image.fromarray(np.random.rand(20, 24).astype(np.float32)).save(path / "a" / "float.tif")
    for augment in (None, INCEPTION):
        assert "float.tif (32-bit or floating-point values" in refusal(
            path, augment, image_size=(8, 8)
        )


@pytest.mark.parametrize("augment", [None, INCEPTION])
def test_file_names_need_not_be_utf8(
    make: Callable[..., Path], augment: AugmentConfig | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = make({"a": 5, "b": 5})
    os.rename(path / "a" / "00.png", os.fsencode(path / "a") + b"/caf\xe9 [1].png")
    pipeline = open_folder(path, augment, image_size=(8, 8))
    assert sum(len(y) for _, y in pipeline.train().take(pipeline.steps_per_epoch)) == 8
    assert "do_not_convert" not in caplog.text, "TensorFlow has nothing to remark on"
    (bad,) = (path / "a").glob("caf*")
    bad.write_bytes(b"x")
    assert "a/caf\\xe9 [1].png (not an image)" in refusal(path, augment, image_size=(8, 8))
    info = open_folder(path, augment, image_size=(8, 8), on_corrupt="skip").info
    assert json.dumps(info.to_dict(), ensure_ascii=False).encode().count(b"caf\\\\xe9 [1].png") == 1


@pytest.mark.parametrize(
    "name", [b"dog\nold", b"caf\xe9", b"a\x1fb", "a\u2028b".encode(), b"a\x7f"]
)
def test_class_names_that_cannot_be_written_are_rejected(
    make: Callable[..., Path], name: bytes
) -> None:
    path = make({"a": 5, "b": 5})
    os.rename(path / "b", os.fsencode(path) + b"/" + name)
    line = refusal(path)
    assert (
        line.startswith("class name: ")
        and "expected UTF-8 without line breaks or control characters" in line
    )
    line.encode()


def test_a_folder_that_is_not_utf8_is_rejected(make: Callable[..., Path], tmp_path: Path) -> None:
    make({"a": 5, "b": 5})
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.rename(tmp_path / "set", odd)
    line = refusal(Path(odd))
    assert "caf\\xe9 is invalid; expected a path in UTF-8" in line
    line.encode()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("harm", ["empty", "cut", "foreign", "headless"])
def test_corrupt_images_are_named_counted_and_skipped_if_asked(
    make: Callable[..., Path], caplog: pytest.LogCaptureFixture, streamed: bool, harm: str
) -> None:
    path = make({"train/a": 5, "train/b": 5, "test/a": 2, "test/b": 2})
    augment = INCEPTION if streamed else NoCrop()
    bad = [path / "train" / "b" / "03.jpg", path / "test" / "a" / "00.png"]
    for file in bad:
        whole = file.read_bytes()
        file.write_bytes(
            {
                "empty": b"",
                "cut": whole[: len(whole) // 2],
                "foreign": b"GIF or so" * 40,
                "headless": whole[9:],
            }[harm]
        )
    line = refusal(path, augment, image_size=(12, 12))
    assert line.startswith("2 of 14 images cannot be decoded: ")
    assert all(str(file) in line for file in bad)
    assert line.endswith("set data.on_corrupt='skip'")
    with caplog.at_level(logging.WARNING, logger="reszoo"):
        pipeline = open_folder(path, augment, image_size=(12, 12), on_corrupt="skip")
    assert "2 of 14 images cannot be decoded" in caplog.text and "left out" in caplog.text
    assert pipeline.info.examples == {"train": 9, "validation": 0, "test": 3}
    assert sorted(pipeline.info.skipped) == sorted(map(str, bad))
    assert sum(len(y) for _, y in pipeline.train().take(pipeline.steps_per_epoch)) == 9
    assert sum(len(y) for _, y in pipeline.evaluation("test")) == 3


def test_a_file_damaged_inside_is_named_when_it_stops_the_stream(make: Callable[..., Path]) -> None:
    path = make({"train/a": 5, "train/b": 5, "test/a": 2, "test/b": 2})
    pipeline = open_folder(path, INCEPTION, image_size=(12, 12))
    bad = path / "train" / "b" / "02.png"
    whole = bytearray(bad.read_bytes())
    whole[50:90] = bytes(40)
    bad.write_bytes(whole)
    assert looks_whole(str(bad))
    with pytest.raises(Exception) as caught:
        list(pipeline.train().take(pipeline.steps_per_epoch))
    told = pipeline.explain(caught.value)
    assert told is not None and str(bad) in str(told) and "\n" not in str(told)
    assert pipeline.explain(KeyError("x")) is None


def test_trailing_bytes_do_not_condemn_a_file(make: Callable[..., Path]) -> None:
    path = make({"train/a": 5, "train/b": 5, "test/a": 2, "test/b": 2})
    file = path / "train" / "a" / "01.jpg"
    file.write_bytes(file.read_bytes() + b"camera's remarks")
    assert not looks_whole(str(file))
    assert open_folder(path, INCEPTION, image_size=(12, 12)).info.examples["train"] == 10


def test_wrong_folders_are_one_line(make: Callable[..., Path]) -> None:
    path = make({"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1})
    assert refusal(path / "nowhere") == f"data.name: no folder '{path}/nowhere'"
    assert refusal(path / "train" / "a" / "00.png").startswith("data.name: no folder")
    assert refusal(path / "train" / "a") == f"{path}/train/a holds no class folders"
    assert "data.image_size is needed" in refusal(path, INCEPTION)

    (path / "test" / "dog").mkdir()
    assert (
        refusal(path)
        == f"class folders differ between {path}/train and {path}/test: only in {path}/test: 'dog'"
    )
    (path / "test" / "dog").rename(path / "train" / "dog")
    assert (
        refusal(path)
        == f"class folders differ between {path}/train and {path}/test: only in {path}/train: 'dog'"
    )
    (path / "test" / "dog").mkdir()
    assert (
        refusal(path)
        == f"class folder {path}/train/dog holds no image (JPEG, PNG, GIF, BMP, WebP, TIFF)"
    )
    shutil.rmtree(path / "train" / "dog")
    shutil.rmtree(path / "test" / "dog")

    (path / "tests").mkdir()
    assert "unexpected folder 'tests' beside 'train'" in refusal(path)
    (path / "tests").rmdir()
    (path / "val").mkdir()
    (path / "validation").mkdir()
    assert "both 'val' and 'validation'" in refusal(path)
    for name in ("val", "validation"):
        (path / name).rmdir()
    shutil.rmtree(path / "train")
    assert refusal(path) == f"{path}: a folder 'test' but no 'train' beside it"


def test_too_few_classes_or_images(make: Callable[..., Path]) -> None:
    path = make({"a": 2, "b": 2})
    assert "4 images are too few to test on some" in refusal(path)
    shutil.rmtree(path / "b")
    assert "holds one class folder, 'a'; at least two classes are needed" in refusal(path)


def test_a_class_with_no_sound_image_is_refused(make: Callable[..., Path]) -> None:
    path = make({"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1})
    for file in (path / "train" / "b").iterdir():
        file.write_bytes(b"")
    assert "no training image of class 'b' can be decoded" in refusal(path, on_corrupt="skip")


def test_every_file_corrupt(make: Callable[..., Path]) -> None:
    path = make({"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1})
    for file in path.rglob("*.*"):
        file.write_bytes(b"no image")
    assert "none of 8 files tried can be decoded" in refusal(path)


def test_hidden_and_other_files_are_not_read(make: Callable[..., Path]) -> None:
    path = make({"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1})
    for name in ("._00.jpg", "notes.txt", ".DS_Store"):
        (path / "train" / "a" / name).write_bytes(b"no image")
    (path / ".cache").mkdir()
    assert open_folder(path).info.examples["train"] == 6


@pytest.mark.shared
def test_photographs_stream_at_real_sizes(shared_data: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(shared_data / "photos-100.tar", tmp_path, filter="data")
    classes = next(tmp_path.rglob("*.*")).parent.parent
    for part in ("train", "test"):  # one photograph a class, so both parts get it
        shutil.copytree(classes, tmp_path / "set" / part)
    pipeline = open_folder(
        tmp_path / "set", INCEPTION, batch_size=16, image_size=(224, 224), resize=256
    )
    images = np.concatenate(
        [x for x, _ in pipeline.train().take(pipeline.steps_per_epoch).as_numpy_iterator()]
    )
    assert images.shape == (pipeline.info.examples["train"], 224, 224, 3)
    assert np.isfinite(images).all() and 0.5 < images.std() < 2
    part: Any = pipeline._images.parts["test"]
    evaluated = next(pipeline.evaluation("test").as_numpy_iterator())[0]
    for pixels, path in zip(evaluated[:4], part.paths, strict=False):
        contents = Path(path).read_bytes()
        np.testing.assert_allclose(pixels, pipeline.preprocessing.from_bytes(contents), atol=1e-6)
        stored = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
        np.testing.assert_allclose(pixels, pipeline.preprocessing.from_image(stored), atol=1e-6)
