"""Datasets prepared from archives, and what is said where that cannot be. No network."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reszoo.config.data import DataConfig, NoCrop
from reszoo.data import preparation, tfds
from reszoo.data.pipeline import open_dataset
from reszoo.data.preparation import prepare_dataset
from reszoo.errors import ReszooError

CIFAR = "cifar-10-binary.tar.gz"


def refusal(name: str, **options: Any) -> str:
    with pytest.raises(ReszooError) as caught:
        prepare_dataset(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_offline_is_named_with_its_size_and_location(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(preparation.urllib.request, "urlopen", fail)
    assert refusal("cifar10", data_dir=tmp_path) == (
        f"cifar10 is absent and cannot be downloaded (no route to host); put {CIFAR} "
        "(170,052,171 bytes, 162.2 MiB) in a folder DIR and run: "
        f"reszoo data prepare cifar10 --from DIR --dir {tmp_path}"
    )
    assert list(tmp_path.iterdir()) == []


def test_datasets_that_need_an_account_name_their_archives(tmp_path: Path) -> None:
    line = refusal("imagenet2012", data_dir=tmp_path)
    expected = "ILSVRC2012_img_train.tar (147,897,477,120 bytes, 137.7 GiB), ILSVRC2012_img_val.tar"
    assert expected in line


def test_archives_missing_cut_or_foreign(tmp_path: Path) -> None:
    home, archives = tmp_path / "home", tmp_path / "archives"
    places = {"from_dir": archives, "data_dir": home}
    assert f"--from: no folder '{archives}'; put {CIFAR}" in refusal("cifar10", **places)
    archives.mkdir()
    assert f"archives lacks {CIFAR}; put" in refusal("cifar10", **places)
    (archives / CIFAR).write_bytes(b"cut")
    assert f"{CIFAR}: its md5 is " in refusal("cifar10", **places)
    for url, info in tfds.find_builder("mnist", home).url_infos.items():
        with open(archives / url.rsplit("/", 1)[-1], "wb") as file:
            file.truncate(int(info.size))
    (archives / "train-labels-idx1-ubyte.gz").write_bytes(b"cut")
    assert "has 3 bytes; expected 28,881" in refusal("mnist", **places)
    with open(archives / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.truncate(28881)
    assert "mnist: the sha256 of a file is not the expected one" in refusal("mnist", **places)
    with pytest.raises(ReszooError, match="mnist is not in"):
        tfds.open_source("mnist", home)


def test_embedded_datasets_and_folders_need_no_preparation(
    tmp_path: Path, photo: Callable[..., np.ndarray]
) -> None:
    assert "needs no preparation" in prepare_dataset("digits")
    for i in range(12):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(photo(8, 8, seed=i)).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    expected = [
        f"{tmp_path}: 2 classes, 10 train, 2 test",
        "height x width: 8x8; formats: 12 PNG",
        "train images per class: a 5, b 5",
        "test images per class: a 1, b 1",
    ]
    assert prepare_dataset(f"folder:{tmp_path}").splitlines() == expected
    Image.fromarray(photo(9, 8)).save(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "x.txt").touch()
    lines = prepare_dataset(f"folder:{tmp_path}").splitlines()
    assert lines[1] == "height x width: 8x8 to 9x8, median 8x8; formats: 12 PNG"
    assert lines[-1] == "files not read: 1 .txt"
    bad = bytearray((tmp_path / "a" / "4.png").read_bytes())
    bad[45:80] = bytes(35)
    (tmp_path / "a" / "4.png").write_bytes(bad)
    line = refusal(f"folder:{tmp_path}")
    assert line.startswith(f"1 of 12 images cannot be decoded: {tmp_path}/a/4.png (damaged PNG)")


@pytest.mark.shared
@pytest.mark.slow
def test_fashion_mnist_from_its_archives(shared_data: Path, tmp_path: Path) -> None:
    # The copies at hand lack the original gzip header (name and time); with it they are the original
    # files to the bit.
    for file in (shared_data / "fashion-mnist").glob("*.gz"):
        time = 1504176606 if file.name.startswith("train") else 1504176627
        header = b"\x1f\x8b\x08\x08" + struct.pack("<I", time) + b"\x00\x03"
        contents = header + file.stem.encode() + b"\0" + file.read_bytes()[10:]
        (tmp_path / file.name).write_bytes(contents)
    home = tmp_path / "home"
    line = prepare_dataset("fashion_mnist", from_dir=tmp_path, data_dir=home)
    assert line.endswith(": 60,000 train, 10,000 test")
    assert "is already in" in prepare_dataset("fashion_mnist", data_dir=home)
    data = DataConfig(name="fashion_mnist", dir=str(home), validation=5000)
    pipeline = open_dataset(data, NoCrop(), batch_size=100, seed=0)
    assert pipeline.info.examples == {"train": 55000, "validation": 5000, "test": 10000}
    splits: dict[str, Any] = pipeline.dataset.splits
    assert sum(np.bincount(split.labels) for split in splits.values()).tolist() == [7000] * 10
    assert np.bincount(splits["validation"].labels).min() > 400
