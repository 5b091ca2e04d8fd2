"""Weights files: what a name means, and what a file holds by its first bytes.

Uses the standard library only.
"""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from reszoo.errors import ReszooError
from reszoo.files import expand_user

TORCH = (".pth", ".pth.tar", ".pt", ".th", ".bin", ".ckpt")
SUPPORTED = (".safetensors", ".h5", ".hdf5", ".keras", *TORCH, ".index.json")
# Suffixes of files that hold weights but are not supported. Their names must not be taken for tags.
OTHERS: tuple[str, ...] = (
    ".index",
    ".json",
    ".npz",
    ".npy",
    ".pkl",
    ".pickle",
    ".pb",
    ".onnx",
    ".tflite",
)
OTHERS += (".tar", ".gz", ".zip", ".msgpack")
PACKAGED = "package:"  # begins the URL of a file that is installed with reszoo
RAW = "raw"  # the entry of a file that means the weights that are not averaged

HDF5 = b"\x89HDF\r\n\x1a\n"
TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save wrote before 1.6
TABLE_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # the end of a TensorFlow checkpoint's index
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")
SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)")

ADVICE = {
    "checkpoint": "a TensorFlow checkpoint; its names depend on the program that wrote it. Load it "
    "in that program and call model.save_weights('NAME.weights.h5')",
    "script": "a TorchScript archive, which is a program. Load it with torch.jit.load and save its "
    "state_dict() with torch.save",
    "pickle": "a Python pickle that torch.save did not write, and reading it could run any "
    "program. Save the tensors as safetensors",
    "archive": "an archive or a compressed file; unpack it and give the weights file in it",
    "npz": "a NumPy archive; save its arrays as safetensors",
    "page": "a page of HTML, not weights: the download failed. Download the file again",
    "lfs": "a pointer of Git LFS, not the file itself. Run: git lfs pull",
    "savedmodel": "a SavedModel, whose weights have no names known here. Give the run's folder or "
    "the Keras file it was exported from",
    "onnx": "an ONNX model, whose weights are folded into its graph. Give the checkpoint it was "
    "exported from",
    "litert": "a LiteRT model, whose weights are folded into its graph. Give the checkpoint it was "
    "exported from",
    "empty": "an empty file",
    "other": "not a weights file: its content is not safetensors, HDF5, a .keras archive or a "
    "PyTorch checkpoint",
    "damaged": "damaged: the file ends too early. Copy or download it again",
}


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A weights file or folder of the user.

    Attributes:
        path: Where it lies.
        entry: Which of several models in it is meant, such as "student"; "raw" for the weights that
            are not averaged; "" if the file decides.
    """

    path: Path
    entry: str = ""

    def check(self) -> None:
        """Raise ReszooError if nothing lies at `path`."""
        if self.path.exists() or Path(f"{self.path}.index").is_file():
            return
        text = os.fspath(self.path)
        if "://" in text or text.startswith(("http:/", "https:/", "hf-hub:", "hf_hub:")):
            raise ReszooError(
                f"weights: {text!r} is invalid; an address is not downloaded. Download the file "
                "and give its path"
            )
        raise ReszooError(f"no weights file {text}")


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A published file.

    Attributes:
        url: Where it is, or `package:` and the name of a file in reszoo/weights/trained.
        digest: `sha256:` and all 64 hexadecimal digits or the first 8, `md5:` and all 32, or `hub`:
            the sha256 that the Hugging Face hub states for the file.
    """

    url: str
    digest: str


def packaged_path(url: str) -> Path:
    """Return the path of a file that is installed with reszoo; of "", that of its folder."""
    return Path(__file__).parent / "trained" / url.removeprefix(PACKAGED)


def is_file_name(weights: str | os.PathLike[str]) -> bool:
    """Return whether `weights` names a file or folder and not published weights."""
    if not isinstance(weights, str):
        return True
    name, _ = split_entry(weights)
    if name.lower().endswith((*SUPPORTED, *OTHERS)):
        return True
    return name.startswith(("/", "./", "../", "~")) or (os.sep in name and os.path.exists(name))


def split_entry(weights: str | os.PathLike[str]) -> tuple[str, str]:
    """Split `FILE#ENTRY` into the file and the entry of it that is meant ("" for none).

    A path that exists is not split, so that a `#` in a file name is allowed.
    """
    text = os.fspath(weights)
    file, _, entry = text.rpartition("#")
    return (text, "") if not file or os.path.exists(text) else (file, entry)


def local_file(weights: str | os.PathLike[str]) -> LocalFile:
    """Return the file and entry that `weights` means. Raises ReszooError if nothing lies there."""
    name, entry = split_entry(weights)
    file = LocalFile(path=expand_user(name), entry=entry)
    file.check()
    return file


def find_in_folder(folder: Path) -> Path:
    """Return the weights file of a run's folder or of one that Hugging Face's libraries wrote.

    Raises:
        ReszooError: If there is none.
    """
    names = ["model.keras"]
    for name in ("model.safetensors", "pytorch_model.bin"):
        names += [f"{name}.index.json", name]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if (folder / "saved_model.pb").is_file() or list(folder.glob("*/saved_model.pb")):
        raise _unsupported(folder, "savedmodel")
    if (folder / "checkpoint").is_file():
        raise _unsupported(folder, "checkpoint")
    if (folder / "recipe.toml").is_file():
        raise ReszooError(
            f"{folder} holds no trained model yet. Finish the run: "
            f"reszoo train --resume --run-dir {folder}"
        )
    raise ReszooError(
        f"{folder} is a folder without weights; expected a file, or a folder with model.safetensors"
    )


def find_content(path: Path) -> str:
    """Return what a file holds: "safetensors", "hdf5", "keras", "torch" or "index" (of shards).

    Raises:
        ReszooError: If it holds anything else, with the reason.
    """
    kind = _identify(path)
    if kind in ADVICE:
        raise _unsupported(path, kind)
    return kind


def _unsupported(path: Path, kind: str) -> ReszooError:
    return ReszooError(f"{path} cannot be read as weights: it is {ADVICE[kind]}")


def _identify(path: Path) -> str:
    if not path.is_file() and Path(f"{path}.index").is_file():
        return "checkpoint"
    size = path.stat().st_size
    if not size:
        return "empty"
    with open(path, "rb") as file:
        head = file.read(512)
        # HDF5 may start at byte 512, 1024, 2048 and so on.
        for start in (0, *(512 << power for power in range(7))):
            file.seek(start)
            if file.read(len(HDF5)) == HDF5:
                return "hdf5"
        file.seek(max(0, size - len(TABLE_END)))
        end = file.read()
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _identify_zip(path)
    if end == TABLE_END or re.search(r"\.data-\d{5}-of-\d{5}$", path.name):
        return "checkpoint"
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length:
        return "safetensors" if 8 + length <= size else "damaged"
    if head.startswith(TORCH_LEGACY):
        return "torch"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "pickle"
    start_of_text = head.lstrip().lower()
    if start_of_text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "page"
    if start_of_text.startswith(b"version https://git-lfs"):
        return "lfs"
    if start_of_text.startswith(b"{"):
        return "index"
    if head.startswith(COMPRESSED) or head[257:262] == b"ustar":
        return "archive"
    if head[4:8] == b"TFL3":
        return "litert"
    return {".onnx": "onnx", ".pb": "savedmodel"}.get(path.suffix.lower(), "other")


def _identify_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "damaged"
    ends = {os.path.basename(name) for name in names}
    if "model.weights.h5" in names:
        return "keras"
    if "constants.pkl" in ends:
        return "script"
    if "data.pkl" in ends:
        return "torch"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "archive"
