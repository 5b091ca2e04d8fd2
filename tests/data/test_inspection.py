"""A folder with every problem that an inspection reports, and a folder without one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reszoo.cli.main import main
from reszoo.data.inspection import Inspection, inspect_folder
from reszoo.data.preparation import prepare_dataset
from reszoo.errors import ReszooError

Photo = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photo: Photo) -> Path:
    """Three images of each class and split, and then one of each problem."""
    root = tmp_path_factory.mktemp("inspected") / "photos"
    for number, place in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        (root / place).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(photo(40, 60, seed=10 * number + i)).save(root / place / f"{i}.png")
    for place, gray in (("train", 10), ("test", 12)):  # alike, but without anything to compare
        Image.new("RGB", (30, 30), (gray, gray, gray)).save(root / place / "cat" / "flat.png")
    shutil.copy(root / "train/cat/0.png", root / "train/cat/copy.png")
    shutil.copy(root / "train/cat/1.png", root / "test/dog/equal.png")
    small = Image.open(root / "train/dog/2.png").resize((30, 20))
    small.save(root / "test/dog/similar.jpg", quality=50)
    (root / "test/dog/broken.jpg").write_bytes((root / "test/dog/similar.jpg").read_bytes()[:300])
    (root / "train/dog/notes.txt").touch()
    return root


@pytest.fixture(scope="module")
def found(folder: Path) -> Inspection:
    return inspect_folder(str(folder))


def test_every_problem_is_found(found: Inspection) -> None:
    assert found.class_counts == {"train": [5, 3], "test": [4, 6]} and found.count == 18
    assert found.sizes == {"smallest": (20, 30), "median": (40, 60), "largest": (40, 60)}
    assert found.formats == {"PNG": 16, "JPEG": 2} and found.ignored == {".txt": 1}
    assert found.corrupt == {"test/dog/broken.jpg": "damaged JPEG"}
    assert found.copies == [["train/cat/0.png", "train/cat/copy.png"]]
    assert found.conflicts == [["train/cat/1.png", "test/dog/equal.png"]]
    equal, similar = found.leaks
    assert equal.paths == ("train/cat/1.png", "test/dog/equal.png")
    assert (equal.distance, equal.same_class, equal.splits) == (-1, False, ("train", "test"))
    assert similar.paths == ("train/dog/2.png", "test/dog/similar.jpg")
    assert 0 <= similar.distance <= 6 and similar.same_class
    assert [Path(path).parent.name for path in found.samples] == ["cat", "dog"]


def test_lines_table_json_and_page_of_the_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["data", "inspect", str(folder), "--html", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f"{folder}: 2 classes, 8 train, 10 test",
        "height x width: 20x30 to 40x60, median 40x60; formats: 16 PNG, 2 JPEG",
    ]
    assert [line for line in lines if line.startswith("warning")] == [
        "warning: images that cannot be decoded (1): test/dog/broken.jpg (damaged JPEG)",
        "warning: equal files in one split (1): train/cat/0.png = train/cat/copy.png",
        "warning: equal files in two classes (1): train/cat/1.png = test/dog/equal.png",
        "warning: equal images in two splits (1): train/cat/1.png = test/dog/equal.png",
        "warning: similar images in two splits (1): train/dog/2.png ~ test/dog/similar.jpg",
    ]
    assert lines[-5:-2] == ["class\ttrain\ttest", "cat\t5\t4", "dog\t3\t6"]
    text = page.read_text()
    assert text.count("data:image/svg+xml") == 4  # pairs and samples, light and dark
    assert "damaged JPEG" in text and "test/dog/similar.jpg" in text
    assert main(["data", "inspect", f"folder:{folder}", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["leaks"][0]["distance"] == -1 and values["class_names"] == ["cat", "dog"]


def test_prepare_summarizes_and_rejects_damage(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ReszooError, match=r"1 of 18 images cannot be decoded: .*broken.jpg \(dam"):
        prepare_dataset(f"folder:{folder}")
    clean = shutil.copytree(folder, tmp_path / "photos")
    for path in ("train/cat/copy.png", "test/dog/equal.png", "test/dog/similar.jpg"):
        (clean / path).unlink()
    (clean / "test/dog/broken.jpg").unlink()
    assert prepare_dataset(f"folder:{clean}").splitlines()[1:] == [
        "height x width: 30x30 to 40x60, median 40x60; formats: 14 PNG",
        "train images per class: cat 4, dog 3",
        "test images per class: cat 4, dog 3",
        "files not read: 1 .txt",
    ]
