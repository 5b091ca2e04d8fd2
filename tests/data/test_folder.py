"""Class folders: layouts, decoding against PIL, streaming, and every way such a folder can be wrong."""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from reszoo.data import sets
from reszoo.data.config import AugmentConfig, DataConfig
from reszoo.data.corrupt import looks_whole
from reszoo.data.folder import list_folder
from reszoo.data.parts import Arrays, Files
from reszoo.data.pipeline import Pipeline, open_pipeline
from reszoo.errors import ReszooError

Photo = Callable[..., np.ndarray]
INCEPTION = AugmentConfig(crop="inception", flip=True)


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


def open_folder(path: Path, augment: AugmentConfig | None = None, batch_size: int = 4, **fields: Any) -> Pipeline:
    data = DataConfig(name=f"folder:{path}", **{"normalize": "channel", **fields})
    return open_pipeline(data, augment or AugmentConfig(), batch_size=batch_size, seed=1)


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
    assert open_folder(path, validation=2).info.examples == {"train": 10, "validation": 2, "test": 3}


def test_class_layout_gives_the_same_fifth_of_each_class_to_testing(make: Callable[..., Path]) -> None:
    path = make({"a": 10, "b": 20, "c": 5})
    names, parts = list_folder(str(path))
    assert names == ("a", "b", "c")
    assert np.bincount(parts["test"].labels).tolist() == [2, 4, 1]
    assert not set(parts["test"].paths) & set(parts["train"].paths)
    assert parts["train"].count == 28
    again = list_folder(str(shutil.copytree(path, path.parent / "copy")))[1]["test"].paths
    assert [Path(p).name for p in again] == [Path(p).name for p in parts["test"].paths]


def test_validation_is_held_out_class_by_class(make: Callable[..., Path]) -> None:
    path = make({"train/a": 12, "train/b": 6, "test/a": 1, "test/b": 1})
    parts: dict[str, Any] = open_folder(path, validation=6, examples=9)._images.parts
    assert np.bincount(parts["validation"].labels).tolist() == [4, 2]
    assert np.bincount(parts["train"].labels).tolist() == [6, 3]
    # Which ones is no matter of the run's seed.
    other = open_pipeline(
        DataConfig(name=f"folder:{path}", validation=6, normalize="channel"), AugmentConfig(), batch_size=1, seed=99
    )
    np.testing.assert_array_equal(parts["validation"].images, other._images.parts["validation"].images)  # type: ignore[attr-defined]


def test_memory_holds_what_pil_decodes(make: Callable[..., Path]) -> None:
    path = make({"train/a": 6, "train/b": 6, "test/a": 2, "test/b": 1})
    _, files = list_folder(str(path))
    part = open_folder(path)._images.parts["train"]
    assert isinstance(part, Arrays)
    for pixels, file in zip(part.images, files["train"].paths, strict=True):
        np.testing.assert_array_equal(pixels, as_stored(file))


def test_images_of_many_sizes_are_resized_into_memory(make: Callable[..., Path], photo: Photo) -> None:
    path = make({"train/a": 5, "train/b": 5, "test/a": 2, "test/b": 2})
    Image.fromarray(photo(50, 31)).save(path / "train" / "a" / "big.png")
    pipeline = open_folder(path, image_size=(16, 16))
    part = pipeline._images.parts["train"]
    assert isinstance(part, Arrays)
    _, files = list_folder(str(path))
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
        for (x, y), (u, v) in zip(held.train(4 * epoch).take(4), streamed.train(4 * epoch).take(4), strict=True):
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
                expected[str(file)] = (grey16 or Image.open(file)).convert("RGB" if channels == 3 else "L")
    if streamed:
        monkeypatch.setattr(sets, "fits_memory", lambda counts, shape: False)
    pipeline = open_folder(tmp_path, image_size=(20, 24), channels=channels, normalize="unit")
    images = np.concatenate([x for x, _ in pipeline.evaluation("test").as_numpy_iterator()])
    paths = list_folder(str(tmp_path))[1]["test"].paths
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


def test_evaluation_takes_pixels_as_stored_and_what_people_send_is_turned_upright(
    make: Callable[..., Path], photo: Photo
) -> None:
    path = make({"train/a": 5, "train/b": 5, "test/a": 1, "test/b": 1})
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter when shown
    file = path / "test" / "a" / "00.png"
    file.unlink()
    turned = path / "test" / "a" / "00.jpg"
    Image.fromarray(photo(20, 24)).save(turned, exif=exif)
    pipeline = open_folder(path)
    evaluated, _ = next(pipeline.evaluation("test").as_numpy_iterator())
    stored = Image.open(turned)
    prepare = pipeline.preprocessing
    np.testing.assert_allclose(evaluated[0], prepare.from_image(np.asarray(stored)), atol=1e-6)
    shown = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_allclose(prepare.from_bytes(turned.read_bytes()), prepare.from_image(shown), atol=1e-6)
    assert np.abs(prepare.from_image(shown) - evaluated[0]).max() > 0.5


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("harm", ["empty", "cut", "foreign", "headless"])
def test_corrupt_images_are_named_counted_and_skipped_if_asked(
    make: Callable[..., Path], caplog: pytest.LogCaptureFixture, streamed: bool, harm: str
) -> None:
    path = make({"train/a": 5, "train/b": 5, "test/a": 2, "test/b": 2})
    augment = INCEPTION if streamed else AugmentConfig()
    bad = [path / "train" / "b" / "03.jpg", path / "test" / "a" / "00.png"]
    for file in bad:
        whole = file.read_bytes()
        file.write_bytes(
            {"empty": b"", "cut": whole[: len(whole) // 2], "foreign": b"GIF or so" * 40, "headless": whole[9:]}[harm]
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
    assert refusal(path) == f"class folders differ between {path}/train and {path}/test: only in {path}/test: 'dog'"
    (path / "test" / "dog").rename(path / "train" / "dog")
    assert refusal(path) == f"class folders differ between {path}/train and {path}/test: only in {path}/train: 'dog'"
    (path / "test" / "dog").mkdir()
    assert refusal(path) == f"class folder {path}/train/dog holds no JPEG or PNG file"
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


def test_hidden_and_other_files_are_passed_over(make: Callable[..., Path]) -> None:
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
    pipeline = open_folder(tmp_path / "set", INCEPTION, batch_size=16, image_size=(224, 224), resize=256)
    images = np.concatenate([x for x, _ in pipeline.train().take(pipeline.steps_per_epoch).as_numpy_iterator()])
    assert images.shape == (pipeline.info.examples["train"], 224, 224, 3)
    assert np.isfinite(images).all() and 0.5 < images.std() < 2
    part: Any = pipeline._images.parts["test"]
    evaluated = next(pipeline.evaluation("test").as_numpy_iterator())[0]
    for pixels, path in zip(evaluated[:4], part.paths, strict=False):
        contents = Path(path).read_bytes()
        np.testing.assert_allclose(pixels, pipeline.preprocessing.from_bytes(contents), atol=1e-6)
        stored = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
        np.testing.assert_allclose(pixels, pipeline.preprocessing.from_image(stored), atol=1e-6)
