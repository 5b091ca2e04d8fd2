"""What a checkpoint keeps of a Keras callback: its attributes, as JSON and arrays."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

# Attributes that Keras' callbacks make anew by themselves; `min_delta` changes its sign when they do.
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


class Opaque:
    """A value that a checkpoint cannot hold, equal to itself alone."""

    def __init__(self, value: Any) -> None:
        self.value = value


def encode_attributes(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Return the attributes of a callback that a checkpoint must keep, encoded."""
    remade = (
        REMADE
        if any(kind.__module__.startswith("keras.") for kind in own_classes(callback))
        else {"_model", "params"}
    )
    return {name: _encode(value) for name, value in vars(callback).items() if name not in remade}


def _encode(value: Any) -> Any:
    """Return a copy of a value made of numbers, text, arrays and containers; anything else becomes `Opaque`."""
    if isinstance(value, np.ndarray | np.generic):  # NumPy's float64 is a float too
        return np.array(value) if value.dtype.kind in "biufSU" else Opaque(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value) is dict:
        parts = [(_encode(key), _encode(item)) for key, item in value.items()]
        opaque = any(isinstance(part, Opaque) for pair in parts for part in pair)
        return Opaque(value) if opaque else {"dict": [list(pair) for pair in parts]}
    for name, kind in CONTAINERS.items():
        if type(value) is kind:
            items = [_encode(item) for item in value]
            return (
                Opaque(value) if any(isinstance(item, Opaque) for item in items) else {name: items}
            )
    return Opaque(value)


def equal(one: Any, other: Any) -> bool:
    """Return whether two encoded values are the same."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        both = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
        return both and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, Opaque) or isinstance(other, Opaque):
        return isinstance(one, Opaque) and isinstance(other, Opaque) and one.value is other.value
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def store_value(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return an encoded value fit for JSON; its arrays go to `arrays` under names that begin with `name`."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict):
        return {key: store_value(item, name, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [store_value(item, f"{name}/{index}", arrays) for index, item in enumerate(value)]
    return value


def restore_value(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the value that `store_value` made fit for JSON."""
    if isinstance(value, dict):
        (kind, items), *_ = value.items()
        if kind == "array":
            return arrays[items] if arrays[items].ndim else arrays[items][()]
        found = [restore_value(item, arrays) for item in items]
        return dict(found) if kind == "dict" else CONTAINERS[kind](found)
    return [restore_value(item, arrays) for item in value] if isinstance(value, list) else value
