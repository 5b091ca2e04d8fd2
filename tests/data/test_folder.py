"""Class folders: layouts, decoding against Pillow, streaming, and every way a folder can be wrong."""

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
from reszoo.data import loading
from reszoo.data.dataset import ArraySplit, FileSplit
from reszoo.data.file_reading import find_shape
from reszoo.data.folder import list_folder
from reszoo.data.pipeline import Pipeline, open_dataset
from reszoo.errors import ReszooError
from reszoo.evaluation.reading import read_pixels
from reszoo.images.formats import looks_whole

Photo = Callable[..., np.ndarray]
Make = Callable[..., Path]
INCEPTION = InceptionCrop(flip=True)


@pytest.fixture
def make(tmp_path: Path, photo: Photo) -> Make:
    """A maker of folders: `make("train/cat", "test/cat", count=3)` writes 3 images per class."""

    def write(*classes: str, count: int = 3, **counts: int) -> Path:
        for number, name in enumerate([*classes, *counts]):
            (tmp_path / "set" / name).mkdir(parents=True)
            for i in range(counts.get(name, count)):
                image = Image.fromarray(photo(20, 24, seed=100 * number + i))
                image.save(tmp_path / "set" / name / f"{i:02d}.{'jpg' if i % 2 else 'png'}")
        return tmp_path / "set"

    return write


SPLIT_LAYOUT = ("train/a", "train/b", "test/a", "test/b")


def open_folder(path: Path, augment: AugmentConfig | None = None, **fields: Any) -> Pipeline:
    data = DataConfig(name=f"folder:{path}", **{"normalize": "channel", **fields})
    return open_dataset(data, augment or NoCrop(), batch_size=4, seed=1)


def refusal(path: Path, augment: AugmentConfig | None = None, **fields: Any) -> str:
    with pytest.raises(ReszooError) as caught:
        open_folder(path, augment, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def as_shown(path: str | Path) -> np.ndarray:
    """The upright pixels of a file by Pillow, uint8 [h, w, 3]."""
    with Image.open(path) as file:
        return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))


def save_oriented(path: Path, kind: str, orientation: int, image: np.ndarray) -> None:
    """Write an image with an EXIF orientation, without losses unless it is a JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WebP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    Image.fromarray(image).save(path, kind, exif=exif, **options)


@pytest.mark.parametrize(
    ("folders", "examples"),
    [
        (("test", "val"), (6, 6, 6)),
        (("val",), (6, 0, 6)),
        (("validation",), (6, 0, 6)),
        (("test",), (6, 0, 6)),
    ],
)
def test_split_layouts(make: Make, folders: tuple[str, ...], examples: tuple[int, ...]) -> None:
    """One split beside `train` is the test split whatever its name."""
    path = make(*(f"{name}/{label}" for name in ("train", *folders) for label in "ba"))
    info = open_folder(path).info
    assert info.class_names == ("a", "b") and info.input_shape == (20, 24, 3)
    assert tuple(info.examples.values()) == examples


def test_class_layout_tests_on_the_same_fifth_of_each_class(make: Make) -> None:
    path = make(a=10, b=20, c=5)
    listing = list_folder(str(path))
    splits = listing.splits
    assert listing.class_names == ("a", "b", "c")
    assert np.bincount(splits["test"].labels).tolist() == [2, 4, 1]
    assert not set(splits["test"].paths) & set(splits["train"].paths)
    assert splits["train"].count == 28
    again = list_folder(str(shutil.copytree(path, path.parent / "copy"))).splits["test"].paths
    assert [Path(p).name for p in again] == [Path(p).name for p in splits["test"].paths]


def test_validation_is_held_out_class_by_class_whatever_the_seed(make: Make) -> None:
    path = make(a=15, b=8)
    splits: Any = open_folder(path, validation=6, examples=9).dataset.splits
    assert np.bincount(splits["validation"].labels).tolist() == [4, 2]
    assert np.bincount(splits["train"].labels).tolist() == [6, 3]
    data = DataConfig(name=f"folder:{path}", validation=6, normalize="channel")
    other: Any = open_dataset(data, NoCrop(), batch_size=1, seed=99).dataset.splits["validation"]
    np.testing.assert_array_equal(splits["validation"].images, other.images)


def test_a_fraction_is_held_out_unless_the_folder_has_a_validation_split(make: Make) -> None:
    own = make("train/a", "train/b", "val/a", "val/b", "test/a", "test/b")
    assert tuple(open_folder(own, validation=0.2).info.examples.values()) == (6, 6, 6)
    shutil.rmtree(own / "val")
    assert tuple(open_folder(own, validation=0.4).info.examples.values()) == (4, 2, 6)
    assert tuple(open_folder(own, validation=0.01).info.examples.values()) == (5, 1, 6)


def test_memory_holds_what_pillow_decodes_and_resizes(make: Make, photo: Photo) -> None:
    path = make(*SPLIT_LAYOUT)
    files = list_folder(str(path)).splits["train"]
    split: Any = open_folder(path).dataset.splits["train"]
    assert isinstance(split, ArraySplit)
    for pixels, file in zip(split.images, files.paths, strict=True):
        np.testing.assert_array_equal(pixels, as_shown(file))
    split = open_folder(path, image_size=(16, 16)).dataset.splits["train"]
    for pixels, file in zip(
        split.images, list_folder(str(path)).splits["train"].paths, strict=True
    ):
        expected = Image.open(file).resize((16, 16), Image.Resampling.BILINEAR)
        assert np.abs(pixels.astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize(
    ("sizes", "largest", "expected"),
    [
        ([(20, 24)] * 4, 64, (20, 24)),
        ([(20, 24)] * 3 + [(50, 31)] * 2, 64, (20, 24)),  # most have it
        ([(20, 24)] * 2 + [(50, 31)] * 2, 64, (24, 24)),  # median 25.5, a multiple of 8
        ([(300, 200), (180, 400), (90, 91)], 224, (176, 176)),
        ([(300, 200)] * 4, 64, (64, 64)),  # too large to keep
        ([(7, 9), (9, 7), (6, 5)], 64, (7, 7)),
    ],
)
def test_the_size_is_found_from_the_images(
    sizes: list[tuple[int, int]], largest: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    for number, size in enumerate(sizes):
        Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / f"{number}.png")
    paths = np.array([str(tmp_path / f"{number}.png") for number in range(len(sizes))], object)
    files = FileSplit(paths, np.zeros(len(paths), np.int32))
    shape, note = find_shape([files], largest)
    assert shape == (*expected, 1)
    assert note.startswith(f"{expected[0]}x{expected[1]}, found from images of ")


def test_streaming_resumes_where_it_stopped(make: Make) -> None:
    path = make("train/a", "train/b", "test/a", "test/b", count=5)
    pipeline, again = (open_folder(path, INCEPTION, image_size=(12, 12)) for _ in range(2))
    assert isinstance(pipeline.dataset.splits["train"], FileSplit)
    assert pipeline.steps_per_epoch == 3
    whole = list(pipeline.train().take(8).as_numpy_iterator())
    for start in (1, 3, 5):
        rest = again.train(start).take(8 - start).as_numpy_iterator()
        for (x, y), (u, v) in zip(whole[start:], rest, strict=True):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)


def test_streamed_batches_are_those_of_memory(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(*SPLIT_LAYOUT, count=5)
    fields: dict[str, Any] = {"image_size": (12, 12), "normalize": "unit"}
    held = open_folder(path, **fields)
    monkeypatch.setattr(loading, "fits_memory", lambda counts, shape: False)
    streamed = open_folder(path, **fields)
    assert isinstance(streamed.dataset.splits["train"], FileSplit)
    orders = []
    for epoch in range(2):
        images = []
        pair = (pipeline.train(3 * epoch).take(3) for pipeline in (held, streamed))
        for (x, y), (u, v) in zip(*pair, strict=True):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)
            images.append(u.numpy())
        orders.append(np.concatenate(images))
        assert len(np.unique(orders[-1], axis=0)) == 10
    assert not np.array_equal(*orders)
    for (x, y), (u, v) in zip(held.evaluation("test"), streamed.evaluation("test"), strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


def test_channels_are_rgb_unless_all_are_gray(make: Make, photo: Photo) -> None:
    path = make(*SPLIT_LAYOUT)
    assert open_folder(path).info.input_shape[2] == 3
    for file in path.rglob("*.*"):
        Image.open(file).convert("L").save(file)
    assert open_folder(path).info.input_shape[2] == 1
    Image.fromarray(photo(20, 24)).save(path / "train" / "b" / "00.png")
    assert open_folder(path).info.input_shape[2] == 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF"])
@pytest.mark.parametrize("held", [True, False])
def test_training_evaluation_prediction_and_exports_see_upright_images(
    tmp_path: Path, photo: Photo, kind: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        for orientation in range(1, 9):
            image = photo(20, 24) if orientation < 5 else photo(24, 20)
            name = f"{split}/{'ab'[orientation % 2]}/{orientation}.dat"
            save_oriented(tmp_path / name, kind, orientation, image)
    if not held:
        monkeypatch.setattr(loading, "fits_memory", lambda counts, shape: False)
    data = DataConfig(name=f"folder:{tmp_path}", image_size=(20, 24), normalize="unit")
    pipeline = open_dataset(data, NoCrop(), batch_size=8, seed=1)
    paths = list_folder(str(tmp_path)).splits["test"].paths
    evaluated, _ = next(pipeline.evaluation("test").as_numpy_iterator())
    trained, _ = next(pipeline.train().as_numpy_iterator())
    shown = np.stack([as_shown(path) for path in paths])
    assert len(np.unique(shown, axis=0)) > 4, "the rotations differ from each other"
    np.testing.assert_array_equal(np.round(255 * evaluated), shown)
    every = np.unique(np.round(255 * trained), axis=0)
    np.testing.assert_array_equal(every, np.unique(shown, axis=0))
    exported = tf.function(
        pipeline.preprocessing.from_bytes, input_signature=[tf.TensorSpec((), tf.string)]
    )
    for path, pixels in zip(map(Path, paths), evaluated, strict=True):
        read = read_pixels(path, pipeline.preprocessing)
        np.testing.assert_array_equal(pipeline.preprocessing.apply(read), pixels)
        if kind in ("JPEG", "PNG"):
            np.testing.assert_array_equal(exported(path.read_bytes()), pixels)


def test_random_crops_of_rotated_images_are_crops_of_upright_ones(
    tmp_path: Path, photo: Photo
) -> None:
    batches = []
    for name, orientation in (("plain", 1), ("rotated", 6)):
        for folder in SPLIT_LAYOUT:
            for i in range(3):
                image = photo(30, 40, seed=i + 10 * len(folder))
                stored = image if orientation == 1 else np.rot90(image)
                save_oriented(tmp_path / name / folder / f"{i}.png", "PNG", orientation, stored)
        pipeline = open_folder(tmp_path / name, INCEPTION, image_size=(12, 12), normalize="unit")
        batches.append([x for x, _ in pipeline.train().take(3).as_numpy_iterator()])
    for plain, rotated in zip(*batches, strict=True):
        np.testing.assert_array_equal(plain, rotated)


def test_files_are_decided_by_their_first_bytes(make: Make, photo: Photo) -> None:
    path = make(*SPLIT_LAYOUT)
    folder = path / "train" / "a"
    names = "webp.jpg/WebP tiff.png/TIFF jpeg/JPEG png.dat/PNG x.gif/GIF x.bmp/BMP x.webp/WebP"
    for name, kind in (pair.split("/") for pair in names.split()):
        Image.fromarray(photo(20, 24)).save(folder / name, kind)
    (folder / "notes.txt").write_text("BMW is not a bitmap")
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    (path / "train" / "b" / "README").write_text("x")
    pipeline = open_folder(path)
    assert pipeline.info.class_counts["train"] == [10, 3]
    assert pipeline.info.ignored == {".txt": 1, "HEIC": 1, "no suffix": 1}
    assert pipeline.info.to_dict()["ignored"] == pipeline.info.ignored
    images = pipeline.dataset.splits["train"].images  # type: ignore[attr-defined]
    for pixels, file in zip(images, list_folder(str(path)).splits["train"].paths, strict=True):
        np.testing.assert_array_equal(pixels, as_shown(file), err_msg=file)
    (folder / "text.jpg").write_text("hello")
    assert f"1 of 20 images cannot be decoded: {folder}/text.jpg (not an image)" in refusal(path)


def test_subfolders_of_a_class_belong_to_it_and_clutter_does_not(make: Make, photo: Photo) -> None:
    path = make(a=5, b=5)
    for folder in ("a/2024/may", "a/.ipynb_checkpoints", "a/__MACOSX", "__MACOSX", ".git"):
        (path / folder).mkdir(parents=True)
        Image.fromarray(photo(20, 24)).save(path / folder / "x.png")
    for name in ("Thumbs.db", "._00.jpg"):
        (path / "a" / name).write_bytes(b"x")
    os.mkfifo(path / "a" / "pipe.jpg")
    Image.fromarray(photo(20, 24)).save(path / "loose.png")
    (path / "a" / "2024" / "circle").symlink_to(path / "a")
    (path / "a" / "itself").symlink_to("itself")
    listing, again = list_folder(str(path)), list_folder(str(path))
    assert listing.class_names == ("a", "b")
    splits = listing.splits.values()
    every = [str(Path(p).relative_to(path)) for split in splits for p in split.paths]
    assert len(every) == 11 and "a/2024/may/x.png" in every
    assert listing.ignored == {
        "hidden": 4,
        "broken link": 1,
        "images outside the class folders": 1,
        "not a regular file": 1,
    }
    assert [*again.splits["train"].paths] == [*listing.splits["train"].paths]


@pytest.mark.parametrize("names", [("training", "testing"), ("Train", "Test"), ("train_", "x")])
def test_folders_named_as_splits_are_not_classes(make: Make, names: tuple[str, str]) -> None:
    path = make(*(f"{name}/{label}" for name in names for label in "ab"))
    if names[1] == "x":
        assert list_folder(str(path)).class_names == names
    else:
        assert "are splits by their names; expected 'train', 'val' and 'test'" in refusal(path)


def write_deep(root: Path, most: dict[str, int], suffix: str = "png") -> None:
    """Write 16-bit images with values up to `most`, by class."""
    rng = np.random.default_rng(0)
    for label, largest in most.items():
        (root / label).mkdir(parents=True)
        for i in range(5):
            values = rng.integers(0, largest + 1, (9, 9)).astype(np.uint16)
            Image.fromarray(values).save(root / label / f"{i}.{suffix}")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    ("dim", "bright", "message"),
    [
        (65535, 65535, ""),
        (30000, 30000, ""),
        (4095, 4095, "no value above 4"),
        (4095, 65535, "is the brightest of class 'dim'"),
        (200, 200, "would be black"),
    ],
)
def test_sixteen_bits_use_their_range_or_are_rejected(
    tmp_path: Path, suffix: str, dim: int, bright: int, message: str
) -> None:
    write_deep(tmp_path / "set", {"dim": dim, "bright": bright}, suffix)
    if message:
        for augment in (None, INCEPTION):
            line = refusal(tmp_path / "set", augment, image_size=(8, 8))
            assert message in line and str(tmp_path) in line
            assert "expected values up to 65535" in line
    else:
        splits: Any = open_folder(tmp_path / "set").dataset.splits
        largest = max(split.images.max() for split in splits.values())
        assert largest == pytest.approx(dim / 257, abs=2)


def test_a_black_image_at_sixteen_bits_is_an_image(tmp_path: Path) -> None:
    write_deep(tmp_path, {"a": 65535, "b": 65535})
    for label in "ab":
        Image.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / label / "0.png")
    assert open_folder(tmp_path).info.examples["train"] == 8


@pytest.mark.parametrize("augment", [None, INCEPTION])
def test_floating_point_tiffs_are_rejected_by_name(
    make: Make, augment: AugmentConfig | None
) -> None:
    path = make(a=5, b=5)
    Image.fromarray(np.random.rand(20, 24).astype(np.float32)).save(path / "a" / "float.tif")
    line = refusal(path, augment, image_size=(8, 8))
    assert "float.tif (32-bit or floating-point values" in line


@pytest.mark.parametrize("augment", [None, INCEPTION])
def test_file_names_need_not_be_utf8(
    make: Make, augment: AugmentConfig | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = make(a=5, b=5)
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
def test_class_names_that_cannot_be_written_are_rejected(make: Make, name: bytes) -> None:
    path = make(a=5, b=5)
    os.rename(path / "b", os.fsencode(path) + b"/" + name)
    line = refusal(path)
    assert line.startswith("class name: ") and line.encode()
    assert "expected UTF-8 without line breaks or control characters" in line


def test_a_folder_that_is_not_utf8_is_rejected(make: Make, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.rename(make(a=5, b=5), odd)
    line = refusal(Path(odd))
    assert "caf\\xe9 is invalid; expected a path in UTF-8" in line and line.encode()


@pytest.mark.parametrize("augment", [NoCrop(), INCEPTION], ids=["in memory", "streamed"])
@pytest.mark.parametrize("harm", ["empty", "cut", "foreign", "headless"])
def test_corrupt_images_are_named_counted_and_skipped_if_asked(
    make: Make, caplog: pytest.LogCaptureFixture, augment: AugmentConfig, harm: str
) -> None:
    path = make(*SPLIT_LAYOUT, count=4)
    bad = [path / "train" / "b" / "03.jpg", path / "test" / "a" / "00.png"]
    for file in bad:
        whole = file.read_bytes()
        harmed = {"empty": b"", "cut": whole[: len(whole) // 2], "foreign": b"GIF or so" * 40}
        file.write_bytes(harmed.get(harm, whole[9:]))
    line = refusal(path, augment, image_size=(12, 12))
    assert line.startswith("2 of 16 images cannot be decoded: ")
    assert all(str(file) in line for file in bad)
    assert line.endswith("set data.on_corrupt='skip'")
    with caplog.at_level(logging.WARNING, logger="reszoo"):
        pipeline = open_folder(path, augment, image_size=(12, 12), on_corrupt="skip")
    assert "2 of 16 images cannot be decoded" in caplog.text and "skipped" in caplog.text
    assert pipeline.info.examples == {"train": 7, "validation": 0, "test": 7}
    assert sorted(pipeline.info.skipped) == sorted(map(str, bad))
    assert sum(len(y) for _, y in pipeline.train().take(pipeline.steps_per_epoch)) == 7
    assert sum(len(y) for _, y in pipeline.evaluation("test")) == 7


def test_a_file_damaged_inside_is_named_when_it_stops_the_stream(make: Make) -> None:
    path = make(*SPLIT_LAYOUT)
    pipeline = open_folder(path, INCEPTION, image_size=(12, 12))
    bad = path / "train" / "b" / "02.png"
    whole = bytearray(bad.read_bytes())
    whole[50:90] = bytes(40)
    bad.write_bytes(whole)
    assert looks_whole(str(bad))
    with pytest.raises(Exception) as caught:
        list(pipeline.train().take(pipeline.steps_per_epoch))
    line = str(pipeline.explain(caught.value))
    assert str(bad) in line and "\n" not in line
    assert pipeline.explain(KeyError("x")) is None


def test_whole_files_with_other_ends_are_decoded(make: Make, photo: Photo) -> None:
    path = make(*SPLIT_LAYOUT)
    file = path / "train" / "a" / "01.jpg"
    file.write_bytes(file.read_bytes() + b"camera's remarks")
    Image.fromarray(photo(20, 24)).save(path / "train" / "a" / "x.tif")
    assert not looks_whole(str(file))
    assert open_folder(path, INCEPTION, image_size=(12, 12)).info.examples["train"] == 7


def test_wrong_folders_are_reported_in_one_line(make: Make) -> None:
    path = make(*SPLIT_LAYOUT)
    assert refusal(path / "nowhere") == f"data.name: no folder '{path}/nowhere'"
    assert refusal(path / "train" / "a" / "00.png").startswith("data.name: no folder")
    assert refusal(path / "train" / "a") == f"{path}/train/a holds no class folders"
    differ = f"class folders differ between {path}/train and {path}/test: only in {path}"
    (path / "test" / "dog").mkdir()
    assert refusal(path) == f"{differ}/test: 'dog'"
    (path / "test" / "dog").rename(path / "train" / "dog")
    assert refusal(path) == f"{differ}/train: 'dog'"
    (path / "test" / "dog").mkdir()
    formats = "JPEG, PNG, GIF, BMP, WebP, TIFF"
    assert refusal(path) == f"class folder {path}/train/dog holds no image ({formats})"
    for split in ("train", "test"):
        (path / split / "dog").rmdir()
    (path / "tests").mkdir()
    assert "unexpected folder 'tests' next to 'train'" in refusal(path)
    (path / "tests").rename(path / "val")
    (path / "validation").mkdir()
    assert "both 'val' and 'validation'" in refusal(path)
    for name in ("val", "validation"):
        (path / name).rmdir()
    shutil.rmtree(path / "train")
    assert refusal(path) == f"{path}: a folder 'test' but no 'train' next to it"


def test_too_few_classes_or_images(make: Make) -> None:
    path = make(a=2, b=2)
    assert "4 images in 2 classes are too few to test on a fifth" in refusal(path)
    shutil.rmtree(path / "b")
    assert "holds one class folder, 'a'; expected at least two" in refusal(path)


def test_no_whole_image_of_a_class_or_at_all(make: Make) -> None:
    path = make(*SPLIT_LAYOUT)
    for file in (path / "train" / "b").iterdir():
        file.write_bytes(b"")
    line = refusal(path, on_corrupt="skip")
    assert "no training image of class 'b' can be decoded" in line
    for file in path.rglob("*.*"):
        file.write_bytes(b"no image")
    assert "none of 12 files tried can be decoded" in refusal(path)


@pytest.mark.shared
def test_photos_stream_at_real_sizes(shared_data: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(shared_data / "photos-100.tar", tmp_path, filter="data")
    classes = next(tmp_path.rglob("*.*")).parent.parent
    for split in ("train", "test"):  # one photo per class, so both splits get it
        shutil.copytree(classes, tmp_path / "set" / split)
    pipeline = open_folder(tmp_path / "set", INCEPTION, image_size=(224, 224), resize=256)
    images = np.concatenate([x for x, _ in pipeline.train().take(5).as_numpy_iterator()])
    assert images.shape == (20, 224, 224, 3)
    assert np.isfinite(images).all() and 0.5 < images.std() < 2
    split: Any = pipeline.dataset.splits["test"]
    evaluated = next(pipeline.evaluation("test").as_numpy_iterator())[0]
    for pixels, path in zip(evaluated, split.paths, strict=False):
        contents = Path(path).read_bytes()
        np.testing.assert_allclose(pixels, pipeline.preprocessing.from_bytes(contents), atol=1e-6)
        stored = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
        np.testing.assert_allclose(pixels, pipeline.preprocessing.from_image(stored), atol=1e-6)
