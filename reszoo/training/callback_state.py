"""What a checkpoint keeps of a Keras callback: its attributes, as JSON and arrays."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from reszoo.types import Array, JsonObject

# Attributes that Keras' callbacks make again themselves; `min_delta` changes its sign when they do.
REMADE = {
    *("_model", "params", "model", "monitor_op", "min_delta"),  # any callback, those with a monitor
    *("csv_file", "writer", "keys", "append_header"),  # CSVLogger
    *(
        "_writers",
        "_summary_module",
        "_prev_summary_state",
        "_batch_trace_context",
        "_is_tracing",
    ),  # TensorBoard
    *("_profiler_started", "_should_trace", "_should_write_train_graph"),
    *("progbar", "seen", "target", "_called_in_fit"),  # ProgbarLogger
}
CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "deque": deque,
}


def own_classes(callback: keras.callbacks.Callback) -> list[type]:
    """Return the classes of a callback below keras.callbacks.Callback."""
    order = type(callback).__mro__
    return [kind for kind in order[: order.index(keras.callbacks.Callback)]]


class Unsupported:
    """A value that a checkpoint cannot hold. It equals only itself."""

    def __init__(self, value: Any) -> None:
        self.value = value


def encode_attributes(callback: keras.callbacks.Callback) -> JsonObject:
    """Return the encoded attributes of a callback that a checkpoint must keep."""
    remade = (
        REMADE
        if any(kind.__module__.startswith("keras.") for kind in own_classes(callback))
        else {"_model", "params"}
    )
    return {name: _encode(value) for name, value in vars(callback).items() if name not in remade}


def _encode(value: Any) -> Any:
    """Return a copy of numbers, text, arrays and containers of them; others are `Unsupported`."""
    if isinstance(value, np.ndarray | np.generic):  # NumPy's float64 is a float too
        return np.array(value) if value.dtype.kind in "biufSU" else Unsupported(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value) is dict:
        parts = [(_encode(key), _encode(item)) for key, item in value.items()]
        unsupported = any(isinstance(part, Unsupported) for pair in parts for part in pair)
        return Unsupported(value) if unsupported else {"dict": [list(pair) for pair in parts]}
    for name, kind in CONTAINERS.items():
        if type(value) is kind:
            items = [_encode(item) for item in value]
            return (
                Unsupported(value)
                if any(isinstance(item, Unsupported) for item in items)
                else {name: items}
            )
    return Unsupported(value)


def equal(one: Any, other: Any) -> bool:
    """Return whether two encoded values are the same."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        both = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
        return both and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, Unsupported) or isinstance(other, Unsupported):
        return (
            isinstance(one, Unsupported)
            and isinstance(other, Unsupported)
            and one.value is other.value
        )
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def store_value(value: Any, name: str, arrays: dict[str, Array]) -> Any:
    """Return an encoded value as JSON holds it.

    Args:
        value: The encoded value.
        name: How the names of its arrays begin.
        arrays: Receives its arrays.
    """
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict):
        return {key: store_value(item, name, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [store_value(item, f"{name}/{index}", arrays) for index, item in enumerate(value)]
    return value


def restore_value(value: Any, arrays: Mapping[str, Array]) -> Any:
    """Return the value that `store_value` stored."""
    if isinstance(value, dict):
        (kind, items), *_ = value.items()
        if kind == "array":
            return arrays[items] if arrays[items].ndim else arrays[items][()]
        found = [restore_value(item, arrays) for item in items]
        return dict(found) if kind == "dict" else CONTAINERS[kind](found)
    return [restore_value(item, arrays) for item in value] if isinstance(value, list) else value
