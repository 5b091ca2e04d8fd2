"""Names of weights files, the entry of a file that is meant, and where a published file lies. Standard library only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from reszoo.errors import ReszooError
from reszoo.files import expand_user

SAFETENSORS = (".safetensors",)
TORCH = (".pth", ".pth.tar", ".pt", ".th", ".bin", ".ckpt")
HDF5 = (".h5", ".hdf5")
KERAS = (".keras",)
READ = (*SAFETENSORS, *HDF5, *KERAS, *TORCH, ".index.json")
# Suffixes of files that hold weights but are not read. Their names must not be taken for tags.
OTHERS = (
    ".index",
    ".json",
    ".npz",
    ".npy",
    ".pkl",
    ".pickle",
    ".pb",
    ".onnx",
    ".tflite",
    ".tar",
    ".gz",
    ".zip",
    ".msgpack",
)
RAW = "raw"


def is_file_name(weights: str | os.PathLike[str]) -> bool:
    """Return whether `weights` names a file or folder rather than published weights. The content decides what it holds."""
    if not isinstance(weights, str):
        return True
    name, _ = split_entry(weights)
    if name.lower().endswith((*READ, *OTHERS)) or name.startswith(("/", "./", "../", "~")):
        return True
    return os.sep in name and os.path.exists(name)


def split_entry(weights: str | os.PathLike[str]) -> tuple[str, str]:
    """Split `FILE#ENTRY` into the file and the entry of it that is meant ("" for none).

    A path that exists as it is written is not split, so that a `#` in a file name does no harm.
    """
    text = os.fspath(weights)
    file, mark, entry = text.rpartition("#")
    if not mark or not file or os.path.exists(text):
        return text, ""
    return file, entry


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A weights file or folder of the user's own.

    path: where it lies. entry: which of several models in it is meant, such as "student"; "raw" for the weights that are not
    averaged; "" where the file itself decides.
    """

    path: Path
    entry: str = ""

    def check(self) -> None:
        """Raise ReszooError if nothing lies at `path`."""
        if self.path.exists() or Path(f"{self.path}.index").is_file():
            return
        if "://" in os.fspath(self.path) or os.fspath(self.path).startswith(
            ("http:/", "https:/", "hf-hub:", "hf_hub:")
        ):
            raise ReszooError(
                f"weights: {str(self.path)!r} is invalid; an address is not downloaded. Download the file and give its path"
            )
        raise ReszooError(f"no weights file {self.path}")


def local_file(weights: str | os.PathLike[str]) -> LocalFile:
    """Return the file and entry that `weights` means. Raises ReszooError if nothing lies there."""
    name, entry = split_entry(weights)
    file = LocalFile(path=expand_user(name), entry=entry)
    file.check()
    return file


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A published file and its digest.

    url: where it is. digest: `sha256:` and all 64 hexadecimal digits or the first 8 of them, `md5:` and all 32, or `hub`: the
    sha256 that the Hugging Face hub states for the file.
    """

    url: str
    digest: str
