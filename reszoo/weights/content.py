"""Decide by its first bytes what a weights file is, and say why a file of another kind is not read. Standard library only."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

from reszoo.errors import ReszooError

HDF5 = b"\x89HDF\r\n\x1a\n"
TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch.save wrote first before version 1.6
TABLE_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # the end of TensorFlow's index of a checkpoint
SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)")

ADVICE = {
    "checkpoint": "a TensorFlow checkpoint; its names depend on the program that wrote it. Load it in that program and call "
    "model.save_weights('NAME.weights.h5')",
    "script": "a TorchScript archive, which is a program. Load it with torch.jit.load and save its state_dict() with torch.save",
    "pickle": "a Python pickle that torch.save did not write, and reading it could run any program. Save the tensors as safetensors",
    "archive": "an archive or a compressed file; unpack it and give the weights file in it",
    "npz": "a NumPy archive; save its arrays as safetensors",
    "page": "a page of HTML, not weights: the download failed. Download the file again",
    "lfs": "a pointer of Git LFS, not the file itself. Run: git lfs pull",
    "savedmodel": "a SavedModel, whose weights have no names known here. Give the run's folder or the Keras file it was exported from",
    "onnx": "an ONNX model, whose weights are folded into its graph. Give the checkpoint it was exported from",
    "litert": "a LiteRT model, whose weights are folded into its graph. Give the checkpoint it was exported from",
    "empty": "an empty file",
    "other": "not a weights file: its content is not safetensors, HDF5, a .keras archive or a PyTorch checkpoint",
    "damaged": "damaged: the file ends too early. Copy or download it again",
}


def find_content(path: Path) -> str:
    """Return what the file at `path` holds: "safetensors", "hdf5", "keras", "torch" or "index" (of shards).

    Raises ReszooError, with the reason, for anything else.
    """
    kind = _kind(path)
    if kind in ADVICE:
        raise ReszooError(f"{path} cannot be read as weights: it is {ADVICE[kind]}")
    return kind


def find_in_folder(folder: Path) -> Path:
    """Return the weights file of a folder: a run's, or one that Hugging Face's libraries wrote. Raises ReszooError for none."""
    for name in (
        "model.keras",
        "model.safetensors.index.json",
        "model.safetensors",
        "pytorch_model.bin.index.json",
        "pytorch_model.bin",
    ):
        if (folder / name).is_file():
            return folder / name
    if (folder / "saved_model.pb").is_file() or list(folder.glob("*/saved_model.pb")):
        raise ReszooError(f"{folder} cannot be read as weights: it is {ADVICE['savedmodel']}")
    if (folder / "checkpoint").is_file():
        raise ReszooError(f"{folder} cannot be read as weights: it is {ADVICE['checkpoint']}")
    if (folder / "recipe.toml").is_file():
        raise ReszooError(
            f"{folder} holds no trained model yet. Finish the run: reszoo train --resume --run-dir {folder}"
        )
    raise ReszooError(
        f"{folder} is a folder without weights; expected a file, or a folder with model.safetensors"
    )


def _kind(path: Path) -> str:
    if not path.is_file() and Path(f"{path}.index").is_file():
        return "checkpoint"
    size = path.stat().st_size
    if not size:
        return "empty"
    with open(path, "rb") as file:
        head = file.read(512)
        file.seek(max(0, size - len(TABLE_END)))
        end = file.read()
    if head.startswith(HDF5) or _is_hdf5_behind_user_block(path, size):
        return "hdf5"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _kind_of_zip(path)
    if end == TABLE_END or re.search(r"\.data-\d{5}-of-\d{5}$", path.name):
        return "checkpoint"
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length:
        return "safetensors" if 8 + length <= size else "damaged"
    if head.startswith(TORCH_LEGACY):
        return "torch"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "pickle"
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "page"
    if start.startswith(b"version https://git-lfs"):
        return "lfs"
    if start.startswith(b"{"):
        return "index"
    if (
        head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd"))
        or head[257:262] == b"ustar"
    ):
        return "archive"
    if head[4:8] == b"TFL3":
        return "litert"
    return {".onnx": "onnx", ".pb": "savedmodel"}.get(path.suffix.lower(), "other")


def _is_hdf5_behind_user_block(path: Path, size: int) -> bool:
    """HDF5 may start at byte 512, 1024, 2048 and so on."""
    start = 512
    with open(path, "rb") as file:
        while start < min(size, 2**16):
            file.seek(start)
            if file.read(len(HDF5)) == HDF5:
                return True
            start *= 2
    return False


def _kind_of_zip(path: Path) -> str:
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
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    return "archive"
