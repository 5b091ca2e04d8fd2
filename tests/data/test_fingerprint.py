"""The fingerprint of a dataset: equal wherever and however the same images are read, different for any other images."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reszoo.config.data import DataConfig, NoCrop
from reszoo.data import fingerprint, parts
from reszoo.data.fingerprint import difference
from reszoo.data.pipeline import open_dataset


def write_images(
    root: Path, classes: tuple[str, ...] = ("ant", "bee", "cow"), count: int = 10
) -> Path:
    """Write one-color PNG files, all of the same size in bytes and with the same names in each class."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(np.full((8, 8, 3), 60 * number + index, np.uint8)).save(
                root / name / f"{index:02d}.png", compress_level=0
            )
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos")


def describe(root: Path, **fields: Any) -> dict[str, Any]:
    data = DataConfig(
        name=f"folder:{root}", **{"image_size": (8, 8), "normalize": "unit", **fields}
    )
    return open_dataset(data, NoCrop(), batch_size=4, seed=0).info.to_dict()


def test_all_files_have_one_size(photos: Path) -> None:
    assert len({path.stat().st_size for path in photos.rglob("*.png")}) == 1, (
        "else the tests below show too little"
    )


def test_it_is_equal_wherever_the_images_lie(photos: Path, tmp_path: Path) -> None:
    before = describe(photos)
    shutil.copytree(photos, tmp_path / "deep" / "er" / "copy [1]")
    for path in (tmp_path / "deep").rglob("*.png"):
        os.utime(path, (0, 0))
    (tmp_path / "link").symlink_to(photos)
    for place in (
        tmp_path / "deep" / "er" / "copy [1]",
        tmp_path / "link",
        photos / ".." / "photos",
    ):
        assert difference(before, describe(place)) == ""
        assert describe(place)["fingerprint"] == before["fingerprint"]


def test_it_does_not_depend_on_the_order_of_the_file_system(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = describe(photos)
    scan = os.scandir

    class Mixed:
        def __init__(self, path: Any) -> None:
            with scan(path) as entries:
                self._entries = sorted(entries, key=lambda entry: entry.name, reverse=True)
            random.Random(1).shuffle(self._entries)

        def __enter__(self) -> Any:
            return iter(self._entries)

        def __exit__(self, *_: Any) -> None: ...

        def __iter__(self) -> Any:
            return iter(self._entries)

    monkeypatch.setattr(os, "scandir", Mixed)
    assert describe(photos)["fingerprint"] == before["fingerprint"]


def test_streamed_and_in_memory_are_one_dataset(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = describe(photos)
    monkeypatch.setattr(parts, "MEMORY_LIMIT", 0)
    assert describe(photos)["fingerprint"] == before["fingerprint"]


def test_settings_of_the_recipe_do_not_count(photos: Path) -> None:
    before = describe(photos)
    for fields in ({"validation": 6}, {"examples": 12}, {"image_size": (16, 16)}, {"channels": 1}):
        assert describe(photos, **fields)["fingerprint"] == before["fingerprint"]


def rename(root: Path) -> None:
    (root / "ant").rename(root / "zebra_ant")


def swap(root: Path) -> None:
    (root / "ant").rename(root / "x")
    (root / "bee").rename(root / "ant")
    (root / "x").rename(root / "bee")


def add(root: Path) -> None:
    shutil.copy(root / "ant" / "00.png", root / "ant" / "99.png")


def remove(root: Path) -> None:
    (root / "ant" / "00.png").unlink()


def rename_file(root: Path) -> None:
    (root / "ant" / "00.png").rename(root / "ant" / "0a.png")


def replace_same_size(root: Path) -> None:
    size = (root / "ant" / "03.png").stat().st_size
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(
        root / "ant" / "03.png", compress_level=0
    )
    assert (root / "ant" / "03.png").stat().st_size == size


def replace_other_size(root: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)).save(
        root / "ant" / "03.png"
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (rename, "the class names differ: missing 'ant'; new 'zebra_ant'"),
        (swap, "the content of train and test differs (file names, sizes, contents)"),
        (add, "the number of images differs: train had 24 and has 25"),
        (remove, "the number of images differs: test had 6 and has 5"),
        (rename_file, " differs (file names, sizes, contents)"),
        (replace_same_size, " differs (file names, sizes, contents)"),
        (replace_other_size, " differs (file names, sizes, contents)"),
    ],
)
def test_every_change_is_seen_and_named(
    change: Callable[[Path], None], why: str, photos: Path
) -> None:
    before = describe(photos)
    change(photos)
    assert why in difference(before, describe(photos))


def test_the_split_that_changed_is_named(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_images(tmp_path / "set" / split, count=3)
    before = describe(tmp_path / "set")
    (tmp_path / "set" / "val").rename(tmp_path / "set" / "validation")
    assert difference(before, describe(tmp_path / "set")) == "", "another name of the same split"
    replace_other_size(tmp_path / "set" / "test")
    (tmp_path / "set" / "test" / "ant" / "03.png").rename(
        tmp_path / "set" / "test" / "ant" / "02.png"
    )
    assert difference(before, describe(tmp_path / "set")).startswith("the content of test differs")


def test_a_large_folder_is_compared_by_names_sizes_and_a_sample(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "READ_LIMIT", 0)
    monkeypatch.setattr(fingerprint, "SAMPLED", 8)
    before = describe(photos)
    assert (
        before["fingerprint"]["compares"] == "file names, sizes, contents of 8 files of each split"
    )
    replace_other_size(photos)
    assert "the content of" in difference(before, describe(photos)), "another size"
    shutil.rmtree(photos)
    write_images(photos)
    assert difference(before, describe(photos)) == ""
    swap(photos)
    assert "the content of" in difference(before, describe(photos)), (
        "classes of equal names and sizes, by the sample"
    )


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_images_in_memory_are_compared_by_their_pixels(name: str) -> None:
    def described(**fields: Any) -> dict[str, Any]:
        return open_dataset(
            DataConfig(name=name, **fields), NoCrop(), batch_size=8, seed=0
        ).info.to_dict()

    before = described()
    assert difference(before, described()) == ""
    images, labels = np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1], np.int32)
    whole = fingerprint.of_arrays({"train": (images, labels)})
    for other in (
        (images + 1, labels),
        (images, labels[::-1]),
        (images.reshape(2, 2, 8, 1), labels),
    ):
        assert fingerprint.of_arrays({"train": other})["splits"] != whole["splits"]


def test_classes_in_another_order_are_named() -> None:
    one = {"class_names": ["a", "b", "c"], "examples": {"train": 3}}
    assert (
        difference(one, one | {"class_names": ["a", "c", "b"]})
        == "the class names are in another order: class 1 was 'b' and is 'c'"
    )


def test_a_record_of_version_0_1_is_compared_by_names_and_counts(photos: Path) -> None:
    old = describe(photos)
    del old["fingerprint"]
    replace_same_size(photos)
    assert difference(old, describe(photos)) == ""
    add(photos)
    assert "train had 24 and has 25" in difference(old, describe(photos))


def test_files_that_vanish_while_they_are_read_are_not_an_error(tmp_path: Path) -> None:
    paths = np.array([str(tmp_path / "a" / "0.png"), str(tmp_path / "b" / "0.png")], dtype=object)
    assert set(fingerprint.of_files({"train": paths})["splits"]) == {"train"}
