"""A label file gives the dataset of class folders; what is wrong with one is said in a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reszoo.config.data import DataConfig, NoCrop
from reszoo.data.folder import list_folder
from reszoo.data.inspection import inspect_folder
from reszoo.data.label_file import Row, read_label_file
from reszoo.data.pipeline import open_dataset
from reszoo.errors import ReszooError
from reszoo.evaluation.evaluate import other_data

CLASSES = {"cat": 7, "a dog": 5}


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory, photo: Callable[..., np.ndarray]) -> Path:
    """The same images in class folders, and flat with a label file in another order."""
    root, lines = tmp_path_factory.mktemp("labels"), ["Image;Class"]
    (root / "flat").mkdir()
    for label, count in CLASSES.items():
        (root / "folders" / label).mkdir(parents=True)
        for i in range(count):
            name = f"{label}{i}.png"
            image = Image.fromarray(photo(8, 8, seed=len(lines)))
            image.save(root / "folders" / label / name)
            image.save(root / "flat" / name)
            lines.insert(1, f"./{name} ; {label}")
    Image.fromarray(photo(8, 8)).save(root / "flat" / "unlabeled.png")
    (root / "flat" / "labels.csv").write_text("\n".join([*lines, "", ""]), encoding="utf-8-sig")
    return root / "flat"


def test_a_flat_folder_is_the_dataset_of_class_folders(flat: Path) -> None:
    ours = list_folder(str(flat), "labels.csv")
    theirs = list_folder(str(flat.parent / "folders"))
    assert ours.class_names == theirs.class_names == ("a dog", "cat")
    assert ours.ignored == {"images without a label": 1}
    assert list(ours.splits) == list(theirs.splits) == ["train", "test"]
    for split, each in theirs.splits.items():
        np.testing.assert_array_equal(ours.splits[split].labels, each.labels)
        assert [Path(p).name for p in ours.splits[split].paths] == [
            Path(p).name for p in each.paths
        ]
    data = DataConfig(name=f"folder:{flat}", labels="labels.csv", validation=0.2)
    info = open_dataset(data, NoCrop(), batch_size=4, seed=0).info
    assert info.examples == {"train": 8, "validation": 2, "test": 2}
    assert inspect_folder(str(flat), "labels.csv").class_counts == {"train": [4, 6], "test": [1, 1]}


def test_labels_are_part_of_what_identifies_a_dataset(flat: Path, tmp_path: Path) -> None:
    """The images stay the same files, so only the labels show that a row was changed."""
    other = tmp_path / "other.csv"
    text = (flat / "labels.csv").read_text(encoding="utf-8-sig")
    found: list[Any] = []
    for content in (text, text.replace("cat0.png ; cat", "cat0.png ; a dog")):
        other.write_text(content)
        data = DataConfig(name=f"folder:{flat}", labels=str(other))
        found.append(open_dataset(data, NoCrop(), batch_size=4, seed=0).info.fingerprint["splits"])
    assert found[0]["labels"] != found[1]["labels"]


def test_a_column_states_the_splits(flat: Path, tmp_path: Path) -> None:
    table = tmp_path / "splits.csv"
    splits = ["train", "val", "test"] * 4
    names = [f"{label}{i}.png,{label}" for label, count in CLASSES.items() for i in range(count)]
    rows = [
        f"{name.split(',')[0]},{s},{name.split(',')[1]}"
        for name, s in zip(names, splits, strict=True)
    ]
    table.write_text("\n".join(["file,split,label", *rows]))
    assert read_label_file(table).rows[1] == Row("cat1.png", ("cat",), "validation")
    listed = list_folder(str(flat), str(table)).splits
    assert {split: each.count for split, each in listed.items()} == dict.fromkeys(
        ("train", "validation", "test"), 4
    )
    table.write_text("\n".join(["file,split,label", *(r.replace("test", "train") for r in rows)]))
    listed = list_folder(str(flat), str(table)).splits
    assert {split: each.count for split, each in listed.items()} == {"train": 8, "test": 4}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "data.labels: no file "),
        (b"\xff\xfe", "it is not text in UTF-8; expected a CSV file"),
        (b"", "the header '' is invalid; expected file name, label and perhaps split. Example: f"),
        (b"file,split\na,train", "the header 'file,split' is invalid"),
        (b"file,label\ncat0.png", "line 2: 'cat0.png' is invalid; expected file,label"),
        (b"file,label\ncat0.png,", "line 2: 'cat0.png,' is invalid; expected file,label"),
        (
            b"file,label\ncat0.png,cat|dog",
            "Several labels per image need a loss for them. Example: --s",
        ),
        (b"file,label,split\ncat0.png,a,tset", "split 'tset' is invalid; expected train, val or t"),
        (b"file,label\ncat0.png,a\n./cat0.png,b", "line 3: './cat0.png,b'"),
        (b"file,label\ncat0.png,a\ncat1.png,a", "names 1 classes; expected at least two"),
        (b"file,label\ncat0.png,a\nx.png,b", "1 files are not in "),
        (b"file,label,split\ncat0.png,a,train\ncat1.png,b,val", "a class has no training image"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    text: bytes | None, said: str, flat: Path, tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    if text is not None:
        table.write_bytes(text)
    with pytest.raises(ReszooError) as caught:
        list_folder(str(flat), str(table))
    assert "\n" not in str(caught.value)
    assert said in str(caught.value) or ("has a row already" in str(caught.value) and "./" in said)


def test_several_labels_are_separated_or_columns(flat: Path, tmp_path: Path) -> None:
    """Both forms give the same targets, and each class its images."""
    names = [f"{label}{i}.png" for label, count in CLASSES.items() for i in range(count)]
    has = np.random.default_rng(0).integers(0, 2, (12, 3))
    has[2] = 0
    table = tmp_path / "several.csv"
    found = []
    for separator in (";", "|", ""):
        lines = ["file,labels,who" if separator else "file,sea,split,Air,land"]
        for number, (name, row) in enumerate(zip(names, has, strict=True)):
            listed = separator.join(np.array(["sea", "Air", "land"])[row == 1])
            split = "test" if number % 3 else "train"
            cells = ",".join([f"{row[0]}", split, *map(str, row[1:])])
            lines.append(f"{name},{listed if separator else cells}{',me' if separator else ''}")
        table.write_text("\n".join(lines))
        listing = list_folder(str(flat), str(table), multi_label=True)
        assert listing.class_names == ("Air", "land", "sea")
        order = np.concatenate([split.paths for split in listing.splits.values()])
        targets = np.concatenate([split.labels for split in listing.splits.values()])
        places = np.argsort([names.index(Path(path).name) for path in order])
        np.testing.assert_array_equal(targets[places], has[:, [1, 2, 0]])
        assert targets.dtype == np.float32
        found.append(inspect_folder(str(flat), str(table), multi_label=True))
    for one in found:
        assert one.count == 12 and np.sum([*one.class_counts.values()], axis=0).tolist() == [
            *has.sum(axis=0)[[1, 2, 0]]
        ]
        shown = [names.index(Path(path).name) for path in one.samples]
        assert has[shown, [1, 2, 0]].all()
        assert "% of all are" not in " ".join(one.describe())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "file,a,b\nx.png,1,0\ny.png,1,2",
            "line 3: 'y.png,1,2' is invalid; expected 0 or 1 for a, b",
        ),
        (
            "file,label\nx.png,a\nx.png,b",
            "'x.png' has a row already; expected one row per image, its",
        ),
        ("file,label\nx.png", "line 2: 'x.png' is invalid; expected file,label"),
    ],
)
def test_what_is_wrong_with_several_labels_is_said_in_a_line(
    text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ReszooError) as caught:
        read_label_file(tmp_path / "labels.csv", multi_label=True)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_other_images_are_read_by_their_own_label_file(flat: Path) -> None:
    own = DataConfig(name="folder:elsewhere", labels="labels.csv")
    shape = open_dataset(DataConfig(name="digits"), NoCrop(), batch_size=4, seed=0).preprocessing
    assert other_data(f"folder:{flat}", own, shape).labels == "labels.csv"
    assert other_data(f"folder:{flat.parent / 'folders'}", own, shape).labels == ""
