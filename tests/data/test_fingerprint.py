"""The fingerprint: equal wherever and however the same images are read, different for any others."""

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
from reszoo.data import dataset, fingerprint
from reszoo.data.fingerprint import difference
from reszoo.data.pipeline import open_dataset


def write_images(root: Path, count: int = 5) -> Path:
    """Write one-color PNG files, all of the same size in bytes and with the same names per class."""
    for number, name in enumerate(("ant", "bee", "cow")):
        (root / name).mkdir(parents=True)
        for index in range(count):
            write_color(root / name / f"{index:02d}.png", 60 * number + index)
    return root


def write_color(path: Path, color: int) -> None:
    Image.fromarray(np.full((8, 8, 3), color, np.uint8)).save(path, compress_level=0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos")


def describe(root: Path, **fields: Any) -> dict[str, Any]:
    fields = {"image_size": (8, 8), "normalize": "unit", **fields}
    data = DataConfig(name=f"folder:{root}", **fields)
    return open_dataset(data, NoCrop(), batch_size=4, seed=0).info.to_dict()


def test_it_is_the_same_for_every_location_of_the_images(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {path.stat().st_size for path in photos.rglob("*.png")}
    assert len(sizes) == 1, "else the tests below show too little"
    before = describe(photos)
    copy = Path(shutil.copytree(photos, tmp_path / "deep" / "er" / "copy [1]"))
    for path in copy.rglob("*.png"):
        os.utime(path, (0, 0))
    (tmp_path / "link").symlink_to(photos)
    for place in (copy, tmp_path / "link", photos / ".." / "photos"):
        found = describe(place)
        assert difference(before, found) == "" and found["fingerprint"] == before["fingerprint"]
    monkeypatch.setattr(dataset, "MEMORY_LIMIT", 0)
    assert describe(photos)["fingerprint"] == before["fingerprint"], "streamed"


@pytest.mark.parametrize(
    "fields", [{"validation": 6}, {"examples": 8}, {"image_size": (16, 16)}, {"channels": 1}]
)
def test_settings_of_the_recipe_do_not_matter(photos: Path, fields: dict[str, Any]) -> None:
    assert describe(photos, **fields)["fingerprint"] == describe(photos)["fingerprint"]


def test_it_does_not_depend_on_the_order_of_the_file_system(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = describe(photos)
    scan = os.scandir

    class Shuffled:
        def __init__(self, path: Any) -> None:
            with scan(path) as entries:
                self._entries = sorted(entries, key=lambda entry: entry.name, reverse=True)
            random.Random(1).shuffle(self._entries)

        def __enter__(self) -> Any:
            return iter(self._entries)

        def __exit__(self, *_: Any) -> None: ...

        def __iter__(self) -> Any:
            return iter(self._entries)

    monkeypatch.setattr(os, "scandir", Shuffled)
    assert describe(photos)["fingerprint"] == before["fingerprint"]


def swap(root: Path) -> None:
    (root / "ant").rename(root / "x")
    (root / "bee").rename(root / "ant")
    (root / "x").rename(root / "bee")


def add(root: Path) -> None:
    shutil.copy(root / "ant" / "00.png", root / "ant" / "99.png")


def replace_same_size(root: Path) -> None:
    write_color(root / "ant" / "03.png", 255)


def replace_other_size(root: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(pixels).save(root / "ant" / "03.png")


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "rename": (
        lambda root: (root / "ant").rename(root / "zebra_ant"),
        "the class names differ: missing 'ant'; new 'zebra_ant'",
    ),
    "swap": (swap, "the content of train and test differs (file names, sizes, contents)"),
    "add": (add, "the number of images differs: train had 12 and has 13"),
    "remove": (lambda root: (root / "ant" / "00.png").unlink(), "test had 3 and has 2"),
    "rename a file": (
        lambda root: (root / "ant" / "00.png").rename(root / "ant" / "0a.png"),
        " differs (file names, sizes, contents)",
    ),
    "same size": (replace_same_size, " differs (file names, sizes, contents)"),
    "other size": (replace_other_size, " differs (file names, sizes, contents)"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_seen_and_named(name: str, photos: Path) -> None:
    change, why = CHANGES[name]
    before = describe(photos)
    change(photos)
    assert why in difference(before, describe(photos))


def test_the_split_that_changed_is_named(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "val", "test"):
        write_images(root / split, count=3)
    before = describe(root)
    (root / "val").rename(root / "validation")
    assert difference(before, describe(root)) == "", "another name of the same split"
    write_color(root / "test" / "ant" / "02.png", 255)
    assert difference(before, describe(root)).startswith("the content of test differs")


def test_a_large_folder_is_compared_by_names_sizes_and_a_sample(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "READ_LIMIT", 0)
    monkeypatch.setattr(fingerprint, "SAMPLED", 8)
    before = describe(photos)
    compares = before["fingerprint"]["compares"]
    assert compares == "file names, sizes, contents of 8 files of each split"
    replace_other_size(photos)
    assert "the content of" in difference(before, describe(photos)), "another size"
    shutil.rmtree(photos)
    write_images(photos)
    assert difference(before, describe(photos)) == ""
    swap(photos)
    assert "the content of" in difference(before, describe(photos)), "by the sample"


def test_images_in_memory_are_compared_by_their_pixels() -> None:
    data = DataConfig(name="digits")
    before, again = (
        open_dataset(data, NoCrop(), batch_size=8, seed=seed).info.to_dict() for seed in (0, 1)
    )
    assert difference(before, again) == ""
    images, labels = np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1], np.int32)
    whole = fingerprint.of_arrays({"train": (images, labels)})
    changed = [(images + 1, labels), (images, labels[::-1]), (images.reshape(2, 2, 8, 1), labels)]
    for other in changed:
        assert fingerprint.of_arrays({"train": other})["splits"] != whole["splits"]


def test_classes_in_another_order_are_named() -> None:
    one = {"class_names": ["a", "b", "c"], "examples": {"train": 3}}
    found = difference(one, one | {"class_names": ["a", "c", "b"]})
    assert found == "the class names are in another order: class 1 was 'b' and is 'c'"


def test_a_record_of_version_0_1_is_compared_by_names_and_counts(photos: Path) -> None:
    old = describe(photos)
    del old["fingerprint"]
    replace_same_size(photos)
    assert difference(old, describe(photos)) == ""
    add(photos)
    assert "train had 12 and has 13" in difference(old, describe(photos))


def test_files_that_vanish_while_they_are_read_are_not_an_error(tmp_path: Path) -> None:
    paths = np.array([str(tmp_path / "a" / "0.png"), str(tmp_path / "b" / "0.png")], dtype=object)
    assert set(fingerprint.of_files({"train": paths})["splits"]) == {"train"}
