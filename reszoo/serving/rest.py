"""TensorFlow Serving's JSON: read the body of a request into arrays, write arrays as the body of a response.

Reference: https://www.tensorflow.org/tfx/serving/api_rest. Unlike TensorFlow Serving, NaN, Infinity and unknown input
names are errors, and an empty batch returns an empty list.
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

Specs = Mapping[str, tf.TensorSpec]

DEFAULT = "serving_default"
ROWS = 64
"""The maximum number of rows in a request. Each row becomes an input of the model, even if it has few bytes."""

# The JSON types that each kind of NumPy dtype accepts. JSON numbers without a fraction are int; true is not a number.
ACCEPTED: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "O": {str, dict},
}


@dataclass(frozen=True)
class Request:
    """A signature name and its inputs. by_row: the request has "instances", so the response has "predictions"."""

    signature: str
    inputs: Mapping[str, np.ndarray]
    by_row: bool


def read_request(body: bytes, signatures: Mapping[str, Specs]) -> Request:
    """Return the content of a `:predict` body.

    Raises:
        ReszooError: the body does not fit the signatures.
    """
    try:
        request = json.loads(body.decode(), parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise ReszooError(f"the body is not valid JSON: {error}") from None
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise ReszooError(
            "the body must be a JSON object with either 'instances' (rows) or 'inputs' (columns)"
        )
    name, by_row = request.get("signature_name", DEFAULT), "instances" in request
    if not isinstance(name, str):
        raise ReszooError(f"signature_name: {json.dumps(name)[:80]} is invalid; expected a string")
    specs = signatures.get(name or DEFAULT)
    if specs is None:
        hint = did_you_mean(name, signatures) or f"; expected one of {', '.join(signatures)}"
        raise ReszooError(f"signature_name: {name!r} is unknown{hint}")
    values = _by_name(request["instances"] if by_row else request["inputs"], specs, by_row=by_row)
    return Request(
        name or DEFAULT,
        {name: to_array(values[name], spec) for name, spec in specs.items()},
        by_row,
    )


def write_response(outputs: Mapping[str, np.ndarray], *, by_row: bool) -> dict[str, Any]:
    """Return outputs as JSON values, by row or by column. A single output is written without its name.

    Raises:
        ReszooError: JSON cannot represent a value, or the outputs do not have one row per input row.
    """
    values = {name: to_json(name, value) for name, value in outputs.items()}
    if not by_row:
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    if () in (lengths := {value.shape[:1] for value in outputs.values()}) or len(lengths) != 1:
        raise ReszooError(
            "the outputs do not have one row per instance; use 'inputs' in place of 'instances'"
        )
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {
        "predictions": [
            dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)
        ]
    }


def to_array(value: Any, spec: tf.TensorSpec) -> np.ndarray:
    """Return nested lists as an array that fits `spec`; strings become an object array of bytes."""
    expected = f"input '{spec.name}': expected {spec.dtype.name} {spec.shape}"
    try:
        dtype = np.dtype(object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype)
        accepted = ACCEPTED[dtype.kind]
    except (TypeError, KeyError):
        raise ReszooError(f"{expected}, which JSON cannot represent") from None
    array = np.array(value, object)
    if (
        array.shape == (0,) and spec.shape.rank and not spec.shape[0]
    ):  # no rows, so their sides are unknown
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
    if wrong := types - accepted:
        raise ReszooError(
            f"{expected}, received a value of type {min(one.__name__ for one in wrong)}"
        )
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


def to_json(name: str, array: np.ndarray) -> Any:
    """Return an array as nested lists. Strings are text, or {"b64": ...} if `name` ends in `_bytes`."""
    if array.dtype == object:
        return np.vectorize(_encode if name.endswith("_bytes") else _decode, otypes=[object])(
            array
        ).tolist()
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise ReszooError(f"output '{name}' ({array.dtype}) has values that JSON cannot represent")
    # Through text: the fewest digits that identify a float32, in place of the 17 digits of its float64.
    return (array.astype(str).astype(np.float64) if array.dtype == np.float32 else array).tolist()


def _reject_constant(word: str) -> None:
    raise ValueError(f"{word} is not a JSON number")


def _by_name(value: Any, specs: Specs, *, by_row: bool) -> dict[str, Any]:
    """Return the value of each input; records of rows become one list per input."""
    records = value if by_row else [value]
    if not isinstance(records, list):
        raise ReszooError("'instances' must be a list with one element per row")
    named = [isinstance(record, dict) and set(record) != {"b64"} for record in records]
    if not any(named) and (len(specs) == 1 or not records):
        return {name: value for name in specs}
    for index, record in enumerate(records):
        if not named[index] or set(record) != set(specs):
            given = (
                (", ".join(sorted(record)[:20]) or "no inputs")
                if named[index]
                else "a value without a name"
            )
            where = f"instance {index}" if by_row else "'inputs'"
            raise ReszooError(
                f"{where}: received {given}; expected an object with exactly {', '.join(specs)}"
            )
    return {name: [record[name] for record in records] if by_row else value[name] for name in specs}


def _to_bytes(leaf: str | dict[str, Any]) -> bytes:
    if isinstance(leaf, str):
        return leaf.encode()
    if set(leaf) != {"b64"} or not isinstance(leaf["b64"], str):
        raise ValueError('a value is neither text nor {"b64": "..."}')
    return base64.b64decode(leaf["b64"], validate=True)


def _encode(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _decode(value: bytes) -> str:
    return value.decode(errors="replace")
