"""TensorFlow Serving's JSON: the body of a request to arrays, and arrays to the body of a response.

Unlike TensorFlow Serving, NaN, Infinity and unknown input names are errors, and an empty batch
returns an empty list.

Reference: https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from reszoo.errors import ReszooError, did_you_mean
from reszoo.types import Array, JsonObject

Specs = Mapping[str, tf.TensorSpec]

DEFAULT = "serving_default"
ROWS = 64  # rows in a request, at most: each becomes an input of the model, however few its bytes
JSON_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "O": {str, dict},
}
"""JSON types by kind of NumPy dtype. Numbers without a fraction are int; true is not a number."""


@dataclass(frozen=True)
class Request:
    """A signature's name and its inputs. by_row: the response has "predictions", not "outputs"."""

    signature: str
    inputs: Mapping[str, Array]
    by_row: bool


def read_request(body: bytes, signatures: Mapping[str, Specs]) -> Request:
    """Read a `:predict` body.

    Raises:
        ReszooError: The body does not fit the signatures.
    """
    try:
        request = json.loads(body.decode(), parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise ReszooError(f"the body is not valid JSON: {error}") from None
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise ReszooError(
            "the body must be a JSON object with either 'instances' (rows) or 'inputs' (columns)"
        )
    name = request.get("signature_name", DEFAULT)
    if not isinstance(name, str):
        raise ReszooError(f"signature_name: {json.dumps(name)[:80]} is invalid; expected a string")
    name = name or DEFAULT
    if name not in signatures:
        hint = did_you_mean(name, signatures) or f"; expected one of {', '.join(signatures)}"
        raise ReszooError(f"signature_name: {name!r} is unknown{hint}")
    specs, by_row = signatures[name], "instances" in request
    values = _by_name(request["instances" if by_row else "inputs"], specs, by_row=by_row)
    return Request(name, {key: to_array(values[key], spec) for key, spec in specs.items()}, by_row)


def write_response(outputs: Mapping[str, Array], *, by_row: bool) -> JsonObject:
    """Return outputs as JSON, by row or by column. A single output has no name.

    Raises:
        ReszooError: JSON cannot represent a value, or the outputs do not have one row per input
            row.
    """
    values = {name: to_json(name, value) for name, value in outputs.items()}
    only = next(iter(values.values())) if len(values) == 1 else None
    if not by_row:
        return {"outputs": values if only is None else only}
    lengths = {value.shape[:1] for value in outputs.values()}
    if () in lengths or len(lengths) != 1:
        raise ReszooError(
            "the outputs do not have one row per instance; use 'inputs' in place of 'instances'"
        )
    rows = zip(*values.values(), strict=True)
    named = [dict(zip(values, row, strict=True)) for row in rows]
    return {"predictions": named if only is None else only}


def to_array(value: Any, spec: tf.TensorSpec) -> Array:
    """Return nested lists as an array that fits `spec`; strings become an object array of bytes."""
    expected = f"input '{spec.name}': expected {spec.dtype.name} {spec.shape}"
    try:
        dtype = np.dtype(object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype)
        accepted = JSON_TYPES[dtype.kind]
    except (TypeError, KeyError):
        raise ReszooError(f"{expected}, which JSON cannot represent") from None
    array = np.array(value, object)
    if array.shape == (0,) and spec.shape.rank and not spec.shape[0]:  # no rows, of unknown sides
        array = array.reshape([0, *(side or 1 for side in spec.shape[1:])])
    types = {type(leaf) for leaf in array.flat}
    if list in types:
        raise ReszooError(f"{expected}, received lists of different lengths")
    if not spec.shape.is_compatible_with(array.shape):
        raise ReszooError(f"{expected}, received shape {array.shape}")
    if array.ndim and not spec.shape[:1].is_fully_defined() and len(array) > ROWS:
        raise ReszooError(
            f"input '{spec.name}': {len(array):,} rows exceed the maximum of {ROWS} per request"
        )
    if wrong := sorted(one.__name__ for one in types - accepted):
        raise ReszooError(f"{expected}, received a value of type {wrong[0]}")
    try:
        if dtype.kind == "O":
            array.flat[:] = [_to_bytes(leaf) for leaf in array.flat]
        with np.errstate(over="ignore"):
            array = array.astype(dtype)
        if dtype.kind == "f" and not np.isfinite(array).all():
            raise OverflowError("received a number out of range")
    except (ValueError, OverflowError) as error:
        raise ReszooError(f"{expected}: {error}") from None
    return array


def to_json(name: str, array: Array) -> Any:
    """Return nested lists. Strings are text, or {"b64": ...} if `name` ends in `_bytes`."""
    if array.dtype == object:
        in_base64 = name.endswith("_bytes")

        def write(value: bytes) -> str | dict[str, str]:
            if in_base64:
                return {"b64": base64.b64encode(value).decode()}
            return value.decode(errors="replace")

        return np.vectorize(write, otypes=[object])(array).tolist()
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise ReszooError(f"output '{name}' ({array.dtype}) has values that JSON cannot represent")
    if array.dtype == np.float32:  # through text: the fewest digits that identify each float32
        array = array.astype(str).astype(np.float64)
    return array.tolist()


def _reject_constant(word: str) -> None:
    raise ValueError(f"{word} is not a JSON number")


def _by_name(value: Any, specs: Specs, *, by_row: bool) -> JsonObject:
    """Return the value of each input; records of rows become one list per input."""
    records = value if by_row else [value]
    if not isinstance(records, list):
        raise ReszooError("'instances' must be a list with one element per row")
    named = [isinstance(record, dict) and set(record) != {"b64"} for record in records]
    if not any(named) and (len(specs) == 1 or not records):
        return dict.fromkeys(specs, value)
    for index, record in enumerate(records):
        if not named[index] or set(record) != set(specs):
            given = ", ".join(sorted(record)[:20]) or "no inputs" if named[index] else ""
            where = f"instance {index}" if by_row else "'inputs'"
            raise ReszooError(
                f"{where}: received {given or 'a value without a name'}; "
                f"expected an object with exactly {', '.join(specs)}"
            )
    return {name: [record[name] for record in records] if by_row else value[name] for name in specs}


def _to_bytes(leaf: str | JsonObject) -> bytes:
    if isinstance(leaf, str):
        return leaf.encode()
    if set(leaf) != {"b64"} or not isinstance(leaf["b64"], str):
        raise ValueError('a value is neither text nor {"b64": "..."}')
    return base64.b64decode(leaf["b64"], validate=True)
