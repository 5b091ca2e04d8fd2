"""What a file of weights is: by how its name ends, and where a published one lies. Standard library only, nothing of the network."""

from __future__ import annotations

import os
from dataclasses import dataclass

SAFETENSORS = (".safetensors",)
TORCH = (".pth", ".pth.tar", ".pt", ".th", ".bin")
HDF5 = (".h5", ".hdf5")
KERAS = (".keras",)
SUFFIXES = (*SAFETENSORS, *HDF5, *KERAS, *TORCH)


def is_file_name(weights: str | os.PathLike[str]) -> bool:
    """Return whether `weights` names a file rather than published weights."""
    return not isinstance(weights, str) or weights.endswith(SUFFIXES)


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A published file and what it must be.

    digest: `sha256:` with all 64 hexadecimal digits or at least the first 8, `md5:` with all 32, or `hub`: the sha256 that
    the Hugging Face hub states for a `.../resolve/REVISION/...` address. size: bytes, where known.
    """

    url: str
    digest: str
    size: int | None = None
