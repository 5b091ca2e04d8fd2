"""`reszoo data` at the prompt."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reszoo.cli.main import main


def test_list_names_every_first_class_dataset_and_which_are_present(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").write_text("{}")
    (tmp_path / "cifar10" / "3.0.2.incompleteAB").mkdir(parents=True)
    (tmp_path / "cifar10" / "3.0.2.incompleteAB" / "dataset_info.json").write_text("{}")
    assert main(["data", "list", "--dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    here = {line.split()[0]: line.split()[-1] for line in out.splitlines()[1:10]}
    assert here == {
        "digits": "always",
        "synthetic": "always",
        "mnist": "yes",
        "fashion_mnist": "no",
        "cifar10": "no",
        "cifar100": "no",
        "svhn_cropped": "no",
        "imagenette": "no",
        "imagenet2012": "no",
    }
    assert str(tmp_path) in out


def test_prepare_reports_the_content(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "digits"]) == 0
    assert capsys.readouterr().out == "digits needs no preparation\n"


def test_prepare_of_nothing_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "prepare", f"folder:{tmp_path / 'none'}"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.strip().endswith(f"no folder '{tmp_path / 'none'}'")
    assert len(said.err.splitlines()) == 1


def test_prepare_of_a_folder_counts_what_it_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for label, count in (("cat", 50), ("dog", 10)):
        (tmp_path / label / "phone").mkdir(parents=True)
        for i in range(count):
            side = 8 if i else 9
            image = Image.fromarray(rng.integers(0, 256, (8, side, 3), np.uint8))
            image.save(
                tmp_path
                / label
                / ("phone" if i % 2 else "")
                / f"{i}.{['png', 'webp', 'bmp', 'gif', 'tif'][i % 5]}"
            )
    (tmp_path / "cat" / "labels.csv").write_text("x")
    assert main(["data", "prepare", f"folder:{tmp_path}"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines() == [
        f"{tmp_path}: 2 classes, 48 train, 12 test",
        "height x width: 8x8 to 8x9, median 8x8; formats: 12 BMP, 12 GIF, 12 PNG, 12 TIFF, 12 WebP",
        "train images per class: cat 40, dog 8",
        "test images per class: cat 10, dog 2",
        "files not read: 1 .csv",
        "warning: the classes are imbalanced: cat has 5 times the training images of dog (40 and 8); 83.3 % of all are cat; try train.class_weights=balanced or data.sampler=balanced",
    ]


@pytest.mark.parametrize("name", ["dog\nold", b"caf\xe9"])
def test_prepare_rejects_what_training_would(
    name: str | bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in (b"cat", os.fsencode(name)):
        folder = os.fsencode(tmp_path) + b"/" + label
        os.mkdir(folder)
        for i in range(5):
            Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(os.fsdecode(folder) + f"/{i}.png")
    assert main(["data", "prepare", f"folder:{tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("reszoo: class name: ") and len(said.splitlines()) == 1
    run = tmp_path.parent / f"{tmp_path.name}-run"
    command = [
        "train",
        "quickstart",
        "--run-dir",
        str(run),
        "--set",
        f"data.name=folder:{tmp_path}",
        "data.validation=0",
    ]
    assert main(command) == 2
    assert capsys.readouterr().err == said and not run.exists()
