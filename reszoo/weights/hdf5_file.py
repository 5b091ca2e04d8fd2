"""Read Keras' HDF5 files as arrays by `layer/variable`, of nested models `outer/layer/variable`."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np

from reszoo.errors import ReszooError
from reszoo.types import Array
from reszoo.weights.keras_graph import number_layers


def load_hdf5(source: Path | IO[bytes], config: bytes = b"") -> dict[str, Array]:
    """Return the weights of a `.weights.h5` file, or of a `.h5` file of Keras 2.

    Args:
        source: The file.
        config: The JSON text of the model, if another file holds it.

    Raises:
        ReszooError: If it is another HDF5 file.
    """
    import h5py  # type: ignore[import-untyped]

    with h5py.File(source, "r") as file:
        root = file.get("model_weights", file)
        config = config or file.attrs.get("model_config", b"")
        if "layer_names" in root.attrs:
            return number_layers(_load_legacy(root), config)
        found: dict[str, Array] = {}
        _load_groups(file, "", found)
        if not found and "layers" not in file:
            raise ReszooError(
                f"{getattr(source, 'name', 'the file')} is HDF5, but not weights that Keras wrote"
            )
        return number_layers(found, config)


def _load_legacy(root: Any) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for layer in map(_text, root.attrs["layer_names"]):
        names = [_text(name) for name in root[layer].attrs["weight_names"]]
        owners = [("", *name.split("/"))[-2] for name in names]
        for name, owner in zip(names, owners, strict=True):
            # A layer that is a model itself lists the weights of several layers: "conv/kernel:0",
            # "bn/gamma:0".
            inside = f"{owner}/" if len(set(owners)) > 1 else ""
            found[f"{layer}/{inside}{name.split('/')[-1].split(':')[0]}"] = np.asarray(
                root[layer][name]
            )
    return found


def _load_groups(group: Any, outer: str, found: dict[str, Array]) -> None:
    """Collect the weights of a group and of the groups in it.

    Keras numbers a layer's variables in the order in which it makes them. A layer's name stands in
    the attribute `name` of its group `vars`; groups are called by class, such as `conv2d_3`.
    """
    for key, entry in group.items():
        if key in ("vars", "optimizer") or not hasattr(entry, "items"):
            continue
        variables = entry.get("vars", None)
        name = (variables is not None and _text(variables.attrs.get("name", ""))) or key
        if variables is not None and len(variables):
            for variable, array in _named(
                [np.asarray(variables[number]) for number in sorted(variables, key=int)]
            ):
                found[f"{outer}{name}/{variable}"] = array
        # "layers" holds the layers of a model and is not a place of its own.
        _load_groups(entry, outer if key == "layers" else f"{outer}{name}/", found)


def _named(arrays: list[Array]) -> list[tuple[str, Array]]:
    if len(arrays) == 4:
        names: tuple[str, ...] = ("gamma", "beta", "moving_mean", "moving_variance")
    else:
        names = ("alpha",) if arrays[0].ndim == 0 else ("kernel", "bias")
    return list(zip(names, arrays, strict=False))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
