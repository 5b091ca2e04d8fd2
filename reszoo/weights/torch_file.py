"""Read PyTorch checkpoints as tensors by name, always with `weights_only=True`: no code is run."""

from __future__ import annotations

import argparse
import builtins
import collections
import datetime
import decimal
import pathlib
import re
import types
import typing
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reszoo.errors import ReszooError
from reszoo.types import Array, JsonObject

DEPTH = 12  # of nested tables; deeper ones are cycles or hold no models
BUILTINS = (
    "bool bytes bytearray complex dict float frozenset int list range set slice str tuple".split()
)
# Libraries whose own types occur in checkpoints next to the weights. Their objects are read as
# `Inert`: none of their code is imported or run.
INERT = (
    "omegaconf.",
    "pytorch_lightning.",
    "lightning.",
    "lightning_fabric.",
    "lightning_utilities.",
    "torchmetrics.",
)
# Tables of settings with attributes, read as plain tables.
TABLES = (
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "easydict.EasyDict",
    "addict.addict.Dict",
)
_GLOBAL = re.compile(r"GLOBAL (\S+)|got <class '([^']+)'|unrecognized function <?(?:\w+ )*([\w.]+)")


class Inert:
    """What an object of another library becomes: its fields, without its code."""

    def __new__(cls, *args: Any, **fields: Any) -> Inert:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **fields: Any) -> None:
        """Keep nothing."""

    def __setstate__(self, state: Any) -> None:
        """Keep nothing."""


def load_torch(path: Path) -> Any:
    """Return what `torch.save` wrote to a file.

    Besides tensors and plain containers, types of the standard library and NumPy are read that run
    nothing.

    Raises:
        ReszooError: If PyTorch is not installed, or the file holds another type.
    """
    try:
        import torch  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ReszooError(
            f"{path} is PyTorch's own format; to read it: pip install 'reszoo[torch]'"
        ) from error
    allowed: list[Any] = harmless_types()
    seen: set[str] = set()
    while True:
        try:
            # An open file, because PyTorch would decide by the suffix of a name.
            with (
                open(path, "rb") as file,
                warnings.catch_warnings(),
                torch.serialization.safe_globals(allowed),
            ):
                warnings.simplefilter("ignore")  # about old pickles, for their authors
                return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            if type(error).__name__ != "UnpicklingError":
                raise
            found = _GLOBAL.search(str(error))
            name = next((group for group in found.groups() if group), "") if found else ""
            if name.startswith(INERT) and name not in seen:
                seen.add(name)
                allowed.append((type("Inert", (Inert,), {}), name))
                continue
            raise ReszooError(
                f"{path} holds {name or 'an object of an unknown type'}, which is not unpickled "
                "because it could run a program; expected tensors and plain values. In the program "
                "that wrote it: torch.save(model.state_dict(), 'weights.pth')"
            ) from error


def harmless_types() -> list[tuple[Any, str]]:
    """Return (object, name in a pickle) of types that are read besides PyTorch's own list.

    Making an object of one of them runs nothing.
    """
    pairs: list[tuple[Any, str]] = [
        (argparse.Namespace, "argparse.Namespace"),
        (types.SimpleNamespace, "types.SimpleNamespace"),
        (_make_table, "collections.defaultdict"),
        (decimal.Decimal, "decimal.Decimal"),
        (uuid.UUID, "uuid.UUID"),
        (typing.Any, "typing.Any"),
        (np.ndarray, "numpy.ndarray"),
        (np.dtype, "numpy.dtype"),
    ]
    for name in ("date", "datetime", "time", "timedelta", "timezone"):
        pairs.append((getattr(datetime, name), f"datetime.{name}"))
    for name in BUILTINS:
        pairs += [(getattr(builtins, name), f"{m}.{name}") for m in ("builtins", "__builtin__")]
    for start, made in (("", pathlib.PurePosixPath), ("Posix", pathlib.PurePosixPath),
                        ("Windows", pathlib.PureWindowsPath)):  # fmt: skip
        for name in (f"{start}Path", f"Pure{start}Path"):
            pairs += [(made, f"{module}.{name}") for module in ("pathlib", "pathlib._local")]
    scalar, rebuild = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
    for core in ("numpy.core", "numpy._core"):
        pairs.append((scalar, f"{core}.multiarray.scalar"))
        pairs.append((rebuild, f"{core}.multiarray._reconstruct"))
    for character in np.typecodes["All"]:
        dtype = np.dtype(character)
        pairs.append((type(dtype), f"numpy.dtypes.{type(dtype).__name__}"))
        pairs.append((dtype.type, f"numpy.{dtype.type.__name__}"))
    return pairs + [(collections.OrderedDict, name) for name in TABLES]


def _make_table(*_: Any) -> collections.OrderedDict[Any, Any]:
    """Return an empty table for one with a default; PyTorch's reader fills no other kind."""
    return collections.OrderedDict()


def flatten(held: Any) -> tuple[JsonObject, list[str]]:
    """Return nested tables' tensors by name, joined by dots, and top-level names without any."""
    import torch

    tensors: JsonObject = {}

    def walk(value: Any, name: str, depth: int) -> None:
        if isinstance(value, torch.Tensor) or (
            isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
        ):
            tensors.setdefault(name, value)
            return
        if depth == DEPTH:
            return
        if isinstance(value, Mapping):
            items = [(str(key), part) for key, part in value.items()]
        elif isinstance(value, list | tuple):
            items = [(str(index), part) for index, part in enumerate(value)]
        else:
            return
        for key, part in items:
            walk(part, f"{name}.{key}" if name else key, depth + 1)

    if not isinstance(held, Mapping):
        raise ReszooError(f"holds a {type(held).__name__}, not tensors by name")
    walk(held, "", 0)
    empty = [str(key) for key in held if not any(_is_below(name, str(key)) for name in tensors)]
    return tensors, empty


def to_array(value: Any) -> Array:
    """Return a tensor as a NumPy array, floating-point numbers as float32."""
    if isinstance(value, np.ndarray):
        return value
    value = value.detach()
    if value.is_sparse or value.is_quantized:
        raise ReszooError("a sparse or quantized tensor is not read")
    array: Array = (value.float() if value.is_floating_point() else value).contiguous().numpy()
    return array


def _is_below(name: str, key: str) -> bool:
    return name == key or name.startswith(f"{key}.")
