"""Read a weights file as named NumPy arrays. Nothing in it is executed or unpickled."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from reszoo.errors import ReszooError
from reszoo.types import Array, JsonMapping, JsonObject
from reszoo.weights.candidates import select_model
from reszoo.weights.files import SHARD, LocalFile, find_content, find_in_folder
from reszoo.weights.hdf5_file import load_hdf5
from reszoo.weights.torch_file import flatten, load_torch, to_array

Loaded: TypeAlias = tuple[JsonMapping, list[str], Callable[[Any], Array]]
"""Tensors by name, top-level names without tensors, and what makes an array of a tensor."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The tensors of the model in a file.

    Attributes:
        arrays: By the names of the model, without a wrapper's prefix.
        prefix: The prefix.
        lines: What was chosen and ignored; empty for a plain file of one model.
    """

    arrays: dict[str, Array]
    prefix: str = ""
    lines: tuple[str, ...] = ()


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the tensors of the model in a weights file, by name. See `read_checkpoint`."""
    return read_checkpoint(LocalFile(path=Path(path))).arrays


def read_checkpoint(source: LocalFile) -> Checkpoint:
    """Read the model in a weights file.

    Safetensors (also in shards with their index), Keras' HDF5 files and .keras, and PyTorch's files
    are supported; the content decides, not the suffix. A model inside another one, or below keys
    such as "state_dict", is found by the names of its tensors.

    Raises:
        ReszooError: If the file is absent, damaged, of another kind, or holds several models.
    """
    source.check()
    path = find_in_folder(source.path) if source.path.is_dir() else source.path
    try:
        values, others, convert = _load(path)
        if not values:
            raise ReszooError(f"{path} holds no tensors by name")
        selected = select_model(values, others=others, entry=source.entry, to_array=convert)
        arrays = {name: convert(values[stored]) for name, stored in selected.names.items()}
    except ReszooError as error:
        if str(path) in str(error):
            raise
        raise ReszooError(f"{path} cannot be read as weights: {error}") from error
    except Exception as error:  # a damaged file may raise any error of the readers
        first = str(error).strip().partition("\n")[0].partition(". ")[0]
        reason = first if " " in first else f"{type(error).__name__} {first}".strip()
        raise ReszooError(f"{path} cannot be read as weights: {reason}") from error
    lines = tuple(selected.describe(path.name))
    return Checkpoint(arrays=arrays, prefix=selected.prefix, lines=lines)


def _load(path: Path) -> Loaded:
    kind = find_content(path)
    if kind == "index":
        return _load_shards(path)
    if (shard := SHARD.fullmatch(path.name)) and shard[2] != "00001":
        index = path.with_name(f"{shard[1]}{shard[3]}.index.json")
        raise ReszooError(
            f"{path} is one of {int(shard[2])} shards; give the index of them all. Example: {index}"
        )
    if kind == "keras":
        with zipfile.ZipFile(path) as archive:
            weights = io.BytesIO(archive.read("model.weights.h5"))
            return load_hdf5(weights, archive.read("config.json")), [], np.asarray
    if kind == "hdf5":
        return load_hdf5(path), [], np.asarray
    return _load_tensors(path, kind)


def _load_shards(index: Path) -> Loaded:
    """Load the tensors of every file that an index names."""
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(shards.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReszooError(
            f"{index} is JSON, but not an index of shards: it has no weight_map from tensors to "
            "files"
        ) from error
    if not files or not all(
        isinstance(name, str) and re.fullmatch(r"[^/\\]+", name) and name != ".." for name in files
    ):
        raise ReszooError(
            f"{index}: weight_map is invalid; expected names of files next to the index"
        )
    if missing := [name for name in files if not (index.parent / name).is_file()]:
        raise ReszooError(
            f"{index} names {len(files)} files, but {', '.join(missing[:3])} not found next to it"
        )
    values: JsonObject = {}
    for name in files:
        tensors, _, convert = _load_tensors(index.parent / name, find_content(index.parent / name))
        values |= {key: convert(value) for key, value in tensors.items()}
    if lost := [key for key in shards if key not in values]:
        raise ReszooError(
            f"{index}: '{lost[0]}' is not in {shards[lost[0]]}, where the index places it"
        )
    return values, [], np.asarray


def _load_tensors(path: Path, kind: str) -> Loaded:
    """Load a file of tensors by name."""
    if kind == "torch":
        return (*flatten(load_torch(path)), to_array)
    if kind != "safetensors":
        raise ReszooError(
            f"{path} is a shard of the kind {kind}; expected safetensors or a PyTorch file"
        )
    import ml_dtypes  # noqa: F401  (teaches NumPy bfloat16; Keras brings it)
    from safetensors.numpy import load_file

    return load_file(path), [], np.asarray
