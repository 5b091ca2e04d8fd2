"""Which files hold weights, by how their names end. Standard library only."""

from __future__ import annotations

import os

SAFETENSORS = (".safetensors",)
TORCH = (".pth", ".pth.tar", ".pt", ".th", ".bin")
HDF5 = (".h5", ".hdf5")
KERAS = (".keras",)
SUFFIXES = (*SAFETENSORS, *HDF5, *KERAS, *TORCH)


def is_file_name(weights: str | os.PathLike[str]) -> bool:
    """Return whether `weights` names a file rather than published weights."""
    return not isinstance(weights, str) or weights.endswith(SUFFIXES)
