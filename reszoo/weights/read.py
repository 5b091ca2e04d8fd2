"""A file of weights as named NumPy arrays; nothing in it is ever executed or unpickled freely."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from reszoo.errors import ReszooError
from reszoo.weights.formats import KERAS, SAFETENSORS, SUFFIXES, TORCH

# Under which key a training script keeps the tensors beside its epoch and optimizer, and what wrappers put before each name.
NESTS = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema")
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return every tensor of a weights file by its name there, without what a wrapper put before all of them.

    Read are safetensors, Keras' HDF5 (both kinds) and .keras, and with PyTorch (`pip install 'reszoo[torch]'`) its own files by
    `torch.load(weights_only=True)`. Raises ReszooError for a file that is not there, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise ReszooError(f"no weights file {path}")
    if not path.name.endswith(SUFFIXES):
        raise ReszooError(f"{path} is no kind of weights file that is read here: {', '.join(SUFFIXES)}")
    try:
        if path.name.endswith(SAFETENSORS):
            from safetensors.numpy import load_file

            arrays = load_file(path)
        elif path.name.endswith(TORCH):
            arrays = _torch(path)
        elif path.name.endswith(KERAS):
            with zipfile.ZipFile(path) as archive:
                arrays = _hdf5(io.BytesIO(archive.read("model.weights.h5")))
        else:
            arrays = _hdf5(path)
    except ReszooError:
        raise
    except Exception as error:  # each reader has errors of its own, and a damaged file may raise any of them
        first = str(error).strip().partition("\n")[0].partition(". ")[0]
        reason = first if " " in first else f"{type(error).__name__} {first}".strip()
        raise ReszooError(f"{path} cannot be read as weights: {reason}") from error
    if not arrays:
        raise ReszooError(f"{path} holds no tensors by name; of a net inside another, save the inner one's")
    return _without_prefix(arrays)


def _hdf5(source: Path | IO[bytes]) -> dict[str, np.ndarray]:
    import h5py  # type: ignore[import-untyped]

    with h5py.File(source, "r") as file:
        if "layers" in file:
            return _keras3(file["layers"])
        root = file["model_weights"] if "model_weights" in file else file
        if "layer_names" not in root.attrs:
            raise ReszooError(f"{getattr(source, 'name', 'the file')} is HDF5, but no weights that Keras wrote")
        found: dict[str, np.ndarray] = {}
        for layer in map(_text, root.attrs["layer_names"]):
            for name in map(_text, root[layer].attrs["weight_names"]):
                found[f"{layer}/{name.split('/')[-1].split(':')[0]}"] = np.asarray(root[layer][name])
        return found


def _keras3(layers: Any) -> dict[str, np.ndarray]:
    """Return the weights of a .weights.h5 file. It numbers a layer's variables in the order Keras makes them in."""
    found: dict[str, np.ndarray] = {}
    for entry in layers.values():
        if "vars" not in entry or not len(entry["vars"]):
            continue
        variables = entry["vars"]
        arrays = [np.asarray(variables[key]) for key in sorted(variables, key=int)]
        if len(arrays) == 4:
            names: tuple[str, ...] = ("gamma", "beta", "moving_mean", "moving_variance")
        else:
            names = ("alpha",) if arrays[0].ndim == 0 else ("kernel", "bias")
        layer = _text(variables.attrs.get("name", ""))
        found |= {f"{layer}/{name}": array for name, array in zip(names, arrays, strict=False)}
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ReszooError(f"{path} is PyTorch's own format; to read it: pip install 'reszoo[torch]'") from error
    # weights_only reads tensors and plain containers and refuses to run anything else that a pickle may hold.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says of old pickles is for whoever wrote them
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ReszooError(
            f"{path} holds more than tensors, and reading it would run what it holds; ask for safetensors, or save "
            "its state_dict alone with torch.save"
        ) from error
    for key in NESTS:
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
            break
    if not isinstance(held, dict):
        raise ReszooError(f"{path} holds no tensors by name, but a {type(held).__name__}")
    tensors = {str(name): value for name, value in held.items() if isinstance(value, torch.Tensor)}
    return {
        name: (value.float() if value.is_floating_point() else value).detach().contiguous().numpy()
        for name, value in tensors.items()
    }


def _without_prefix(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays
