"""CIFAR in every form that it is found in: the same images and digest, and the same split where the order is known."""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import struct
import tarfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from reszoo.cli.main import main
from reszoo.config.data import DataConfig, NoCrop
from reszoo.data import cifar
from reszoo.data.catalog import KNOWN
from reszoo.data.cifar import CLASSES, FORMS, find_cifar, load_cifar
from reszoo.data.loading import load_dataset
from reszoo.data.preparation import prepare_dataset
from reszoo.errors import ReszooError
from reszoo.training.data_location import missing, relocate

COUNTS = {"cifar10": (50, 10), "cifar100": (200, 100)}
BINARY, PYTHON = range(2)


def make_split(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 3072] as the archives hold them, and their labels in random order."""
    random = np.random.default_rng(split == "test")
    count = COUNTS[name][split == "test"]
    labels = random.permutation(np.arange(count) % len(CLASSES[name]))
    return random.integers(0, 256, (count, 3072), dtype=np.uint8), labels


def pickle_as_python2(key: bytes, labels: np.ndarray, pixels: np.ndarray) -> bytes:
    """The instructions that Python 2 wrote for such a dictionary, by hand."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def listed(items: list[bytes]) -> bytes:
        return b"]q\x05(" + b"".join(items) + b"e"

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t(K\x01"
        + b"M" + struct.pack("<H", len(pixels)) + b"M\x00\x0c\x86cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b(K\x03"
        + b"U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<I", pixels.nbytes)
        + pixels.tobytes() + b"tb"
    )  # fmt: skip
    numbers = [b"K" + bytes([label]) for label in labels]
    return (
        b"\x80\x02}q\x01(" + text(b"batch_label") + b"q\x02" + text(b"batch 1 of 5") + b"q\x03"
        + text(b"coarse_labels") + listed([b"K\x07"] * len(labels))
        + text(key) + b"q\x04" + listed(numbers) + text(b"data") + array
        + text(b"filenames") + listed([text(b"labels_s_%d.png" % label) for label in labels]) + b"u."
    )  # fmt: skip


def files_of(name: str, form: cifar.Form) -> dict[str, bytes]:
    """The files of one form, by name."""
    made = {}
    pixels, labels = make_split(name, "train")
    parts = [
        *zip(np.split(pixels, len(form.train)), np.split(labels, len(form.train)), strict=True)
    ]
    for file, (own, classes) in zip(form.files, [*parts, make_split(name, "test")], strict=True):
        coarse = np.full((len(classes), form.labels and form.labels - 1), 7, np.uint8)
        rows = np.concatenate([coarse, classes[:, None].astype(np.uint8), own], axis=1)
        made[file] = rows.tobytes() if form.labels else pickle_as_python2(form.key, classes, own)
    return made


def pack(path: Path, folder: str, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, contents in {"readme.html": b"x", **files}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))


def to_images(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A small CIFAR-10 and CIFAR-100 in each form; `data.dir` of each."""
    root, places = tmp_path_factory.mktemp("cifar"), {}
    with pytest.MonkeyPatch.context() as patch:
        for name, (train, test) in COUNTS.items():
            patch.setitem(KNOWN, name, replace(KNOWN[name], train=train, test=test))
            known = []
            for form in FORMS[name]:
                kind = f"{name} {'binary' if form.labels else 'python'}"
                files = files_of(name, form)
                (root / kind / form.folder).mkdir(parents=True)
                for file, contents in files.items():
                    (root / kind / form.folder / file).write_bytes(contents)
                (root / f"{kind} archive").mkdir()
                archive = root / f"{kind} archive" / form.archive
                pack(archive, form.folder, files)
                known.append(replace(form, md5=hashlib.md5(archive.read_bytes()).hexdigest()))
                places |= {kind: root / kind, f"{kind} archive": archive.parent}
            patch.setitem(FORMS, name, tuple(known))
            folder = places[f"{name} folders"] = root / f"{name} folders"
            for split in ("train", "test"):
                pixels, labels = make_split(name, split)
                # The names, as those of the original photos, do not tell the order.
                names = np.random.default_rng(9).permutation(len(labels))
                for image, label, number in zip(to_images(pixels), labels, names, strict=True):
                    path = folder / split / CLASSES[name][label] / f"{number:04d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image).save(path)
        places["cifar10 prepared"] = write_tfds(root / "prepared")
        yield places


def write_tfds(home: Path) -> Path:
    """CIFAR-10 as TensorFlow Datasets prepares it: shuffled, with ids."""
    splits = {}
    for split in ("train", "test"):
        pixels, labels = make_split("cifar10", split)
        order = np.random.default_rng(5).permutation(len(labels))
        examples = {
            "image": to_images(pixels)[order],
            "label": labels[order],
            "id": [f"{split}_{number:05d}" for number in order],
        }
        splits[split] = tf.data.Dataset.from_tensor_slices(examples)
    features = {
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(names=CLASSES["cifar10"]),
        "id": tfds.features.Text(),
    }
    tfds.disable_progress_bar()
    tfds.dataset_builders.store_as_tfds_dataset(
        name="cifar10", version="3.0.2", features=tfds.features.FeaturesDict(features),
        split_datasets=splits, data_dir=str(home),
    )  # fmt: skip
    return home


def load(name: str, place: Path, **fields: Any) -> Any:
    return load_dataset(DataConfig(name=name, dir=str(place), **fields), NoCrop(), 224)[0]


def digest(name: str, split: str) -> str:
    """The digest of a split, whatever its order."""
    pixels, labels = make_split(name, split)
    each = sorted(
        hashlib.sha256(int(label).to_bytes(4, "little") + image.tobytes()).digest()
        for image, label in zip(to_images(pixels), labels, strict=True)
    )
    return hashlib.sha256(b"".join(each)).hexdigest()


KINDS = ["binary", "binary archive", "python", "python archive"]


@pytest.mark.parametrize(
    "kind", [f"{name} {kind}" for name in COUNTS for kind in KINDS] + ["cifar10 prepared"]
)
def test_forms_in_the_archives_order_are_equal(forms: dict[str, Path], kind: str) -> None:
    name = kind.split()[0]
    found = load(name, forms[kind], validation=20)
    pixels, labels = make_split(name, "train")
    parts = {"train": slice(0, -20), "validation": slice(-20, None)}
    for split, part in parts.items():
        np.testing.assert_array_equal(found.splits[split].images, to_images(pixels)[part])
        np.testing.assert_array_equal(found.splits[split].labels, labels[part])
    assert found.class_names == CLASSES[name]
    assert found.splits["test"].count == COUNTS[name][1]
    assert found.fingerprint["splits"] == {
        split: digest(name, split) for split in ("train", "test")
    }


@pytest.mark.parametrize("name", COUNTS)
def test_class_folders_hold_out_the_images_of_the_plain_folder(
    forms: dict[str, Path], name: str
) -> None:
    place = forms[f"{name} folders"]
    count = len(CLASSES[name]) // 2
    found = load(name, place, validation=count)
    assert found.fingerprint["splits"]["train"] == digest(name, "train")
    plain = load_dataset(DataConfig(name=f"folder:{place}", validation=count), NoCrop(), 224)[0]
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(found.splits[split].images, plain.splits[split].images)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(found.splits[split].labels, plain.splits[split].labels)  # type: ignore[attr-defined]
    assert np.bincount(found.splits["validation"].labels).max() == 1


def test_the_hand_written_pickle_is_what_python_reads(forms: dict[str, Path]) -> None:
    form = FORMS["cifar10"][PYTHON]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core moved
        held = pickle.loads(files_of("cifar10", form)["test_batch"], encoding="bytes")
    pixels, labels = make_split("cifar10", "test")
    assert held[b"labels"] == labels.tolist() and (held[b"data"] == pixels).all()


def test_nothing_in_a_pickle_is_run(forms: dict[str, Path], tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    form = FORMS["cifar10"][PYTHON]
    for file, contents in files_of("cifar10", form).items():
        attack = pickle.dumps({"labels": Attack(), "data": Attack()})
        (tmp_path / file).write_bytes(attack if file == "data_batch_3" else contents)
    with pytest.raises(ReszooError, match="data_batch_3 is damaged or another file"):
        load("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("kind", "file", "change", "message"),
    [
        ("binary archive", "cifar-10-binary.tar.gz", lambda b: b + b"\0", "its md5 is .*; expected .*. It is inc"),
        ("binary", "cifar-10-batches-bin/data_batch_2.bin", lambda b: b[:-1], "data_batch_2.bin is damaged or an"),
        ("binary", "cifar-10-batches-bin/data_batch_2.bin", lambda b: b[3073:], "49 images in 10 classes, the sma"),
        ("binary", "cifar-10-batches-bin/data_batch_2.bin", lambda b: None, "lacks data_batch_2.bin; unpack cif"),
        ("python", "cifar-10-batches-py/test_batch", lambda b: b[:900], "test_batch is damaged or another file"),
        ("folders", "train/cat/0003.png", lambda b: b[:40], "1 of 60 images cannot be decoded"),
    ],
)  # fmt: skip
def test_damage_is_reported_in_one_line(
    forms: dict[str, Path], tmp_path: Path, kind: str, file: str, change: Any, message: str
) -> None:
    place = Path(shutil.copytree(forms[f"cifar10 {kind}"], tmp_path / "copy"))
    path = place / file
    if not path.exists() and "cat" in file:
        path = next((place / "train/cat").iterdir())
    changed = change(path.read_bytes())
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
    with pytest.raises(ReszooError, match=message) as caught:
        load("cifar10", place)
    assert "\n" not in str(caught.value)


def test_folders_of_other_classes_are_no_cifar(forms: dict[str, Path], tmp_path: Path) -> None:
    place = Path(shutil.copytree(forms["cifar10 folders"], tmp_path / "copy"))
    for split in ("train", "test"):
        (place / split / "cat").rename(place / split / "cow")
    with pytest.raises(ReszooError, match="copy does not hold cifar10: its splits are train, test"):
        load("cifar10", place)


def test_prepare_copies_files_and_checks_folders(
    forms: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = forms["cifar10 python archive"] / "cifar-10-python.tar.gz"
    line = prepare_dataset("cifar10", from_dir=source, data_dir=tmp_path)
    assert line == f"cifar10 is in {tmp_path}/cifar-10-batches-py: 50 train, 10 test"
    assert "is already in" in prepare_dataset("cifar10", data_dir=tmp_path)
    again = load("cifar10", tmp_path)
    assert again.fingerprint == load("cifar10", source).fingerprint, "the archive's path works too"
    moved = relocate(DataConfig(name="cifar10", dir="/gone"), str(source))  # a run's data
    assert moved.dir == str(source) and missing(moved) == ""
    assert main(["data", "list", "--dir", str(tmp_path)]) == 0
    listed = {
        line.split()[0]: line.split()[-1]
        for line in capsys.readouterr().out.splitlines()[:12]
        if line
    }
    assert (listed["cifar10"], listed["cifar100"]) == ("yes", "no")
    line = prepare_dataset("cifar100", from_dir=forms["cifar100 folders"], data_dir=tmp_path)
    assert "200 train, 100 test; nothing was copied. Example: --set data.name=cifar100" in line
    assert find_cifar("cifar100", tmp_path) is None


def test_other_sizes_are_resized_or_read_when_needed(
    forms: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = forms["cifar10 binary"]
    found = load("cifar10", place, image_size=(16, 16), channels=1)
    assert found.splits["train"].images.shape == (50, 16, 16, 1)
    monkeypatch.setattr("reszoo.data.dataset.MEMORY_LIMIT", 10**5)
    assert load("cifar10", place, image_size=(64, 64)).splits["test"].images.shape[1:3] == (32, 32)


@pytest.mark.shared
@pytest.mark.slow
def test_the_real_cifar10(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 60,000 images, whose digest docs/data.md states, in class folders and as binary files."""
    known = replace(KNOWN["cifar10"], train=50_000, test=10_000)  # `forms` may have made it small
    monkeypatch.setitem(KNOWN, "cifar10", known)
    with tarfile.open(shared_data / "cifar10-png.tar.xz") as archive:
        archive.extractall(tmp_path / "png", filter="data")
    root = next(path.parent for path in (tmp_path / "png").rglob("train"))
    place = find_cifar("cifar10", root)
    assert place is not None
    found = load_cifar("cifar10", place)
    form = FORMS["cifar10"][BINARY]
    train: Any = found.splits["train"]
    order = np.random.default_rng(0).permutation(50_000)
    parts = [train.take(part) for part in np.split(order, 5)] + [found.splits["test"]]
    for file, split in zip(form.files, parts, strict=True):
        planes = split.images.transpose(0, 3, 1, 2).reshape(-1, 3072)
        rows = np.concatenate([split.labels[:, None].astype(np.uint8), planes], axis=1)
        (tmp_path / file).write_bytes(rows.tobytes())
    assert load("cifar10", tmp_path).fingerprint == found.fingerprint
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert all(digest in page for digest in found.fingerprint["splits"].values())
