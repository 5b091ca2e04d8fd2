"""TensorFlow Serving's JSON: a request becomes arrays, arrays become an answer.

https://www.tensorflow.org/tfx/serving/api_rest. Stricter than it where it lets a mistake or invalid JSON through: NaN and Infinity are
refused both ways, as are names of inputs that are not there; and kinder once, an empty batch has an empty answer. Every refusal is a
ReszooError.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from reszoo.errors import ReszooError, did_you_mean
from reszoo.serving.servable import Signature, Tensor

DEFAULT = "serving_default"
ROWS = 64
"""The most rows of a request: each becomes an input of the net, however few bytes it has."""

# A value's Python types by its dtype; a JSON number without a fraction is an int, and true is no number.
TYPES: dict[str, set[type]] = {"bool": {bool}, "string": {str, dict}}
TYPES |= {f"float{bits}": {int, float} for bits in (16, 32, 64)}
TYPES |= {f"{sign}int{bits}": {int} for sign in ("", "u") for bits in (8, 16, 32, 64)}

WORDS = {bool: "true or false", str: "a string", dict: "an object", int: "a whole number", float: "a fraction"}
WORDS[type(None)] = "null"


@dataclass(frozen=True)
class Request:
    """A signature and its inputs. rows: asked row by row ("instances"), and so to be answered."""

    signature: Signature
    inputs: Mapping[str, np.ndarray]
    rows: bool


def read_request(body: bytes, signatures: Mapping[str, Signature]) -> Request:
    """Return what the body of a `:predict` asks; ReszooError says what is wrong with it."""
    asked = _read_json(body)
    if not isinstance(asked, dict):
        raise ReszooError("the body must be a JSON object with 'instances' or 'inputs'")
    name = asked.get("signature_name", DEFAULT)
    if not isinstance(name, str):
        raise ReszooError("'signature_name' must be a string")
    signature = signatures.get(name or DEFAULT)
    if signature is None:
        hint = did_you_mean(name, signatures) or f"; there are {', '.join(signatures)}"
        raise ReszooError(f"no signature {name!r}{hint}")
    if ("instances" in asked) == ("inputs" in asked):
        raise ReszooError("the body needs 'instances' (row by row) or 'inputs' (name by name), and not both")
    rows = "instances" in asked
    values = _by_name(asked["instances"], signature) if rows else _columns(asked["inputs"], signature)
    inputs = {name: to_array(value, signature.inputs[name]) for name, value in values.items()}
    return Request(signature, inputs, rows)


def write_answer(outputs: Mapping[str, np.ndarray], *, rows: bool) -> dict[str, Any]:
    """Return outputs as JSON values, row by row or name by name; a single output goes without its name.

    ReszooError for values that JSON has no word for, and rows of outputs that do not have them.
    """
    values = {name: to_json(name, value) for name, value in outputs.items()}
    if not rows:
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    counts = {value.shape[:1] for value in outputs.values()}
    if len(counts) != 1 or counts == {()}:
        raise ReszooError("the outputs do not have one row each for an instance; ask with 'inputs'")
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {"predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]}


def to_array(value: Any, tensor: Tensor) -> np.ndarray:
    """Return nested lists as an array of the dtype and a shape that `tensor` takes; strings are an array of bytes objects."""
    if tensor.dtype not in TYPES:
        raise ReszooError(f"input '{tensor.name}' is {tensor.dtype}, which JSON cannot carry")
    shape: list[int] = []
    flat = [value]
    while flat and any(isinstance(one, list) for one in flat):
        lengths = {len(one) if isinstance(one, list) else -1 for one in flat}
        if len(lengths) > 1:
            raise ReszooError(f"input '{tensor.name}' is ragged: what stands {len(shape) + 1} deep differs in length")
        shape.append(lengths.pop())
        flat = list(chain.from_iterable(flat))
    if shape == [0] and tensor.shape and not tensor.shape[0]:  # no rows, whose sides nothing tells
        shape = [0, *(1 if side is None else side for side in tensor.shape[1:])]
    _check_shape(shape, tensor)
    if wrong := set(map(type, flat)) - TYPES[tensor.dtype]:
        found = min(WORDS[one] for one in wrong)
        raise ReszooError(f"input '{tensor.name}' is {tensor.dtype}, and {found} is among its values")
    if tensor.dtype == "string":
        array = np.empty(len(flat), object)
        array[:] = [_to_bytes(one, tensor.name) for one in flat]
        return array.reshape(shape)
    return _numbers(flat, tensor).reshape(shape)


def to_json(name: str, array: np.ndarray) -> Any:
    """Return an array as nested lists; strings as text, or as {"b64": ...} where the name ends in `_bytes`."""
    if array.dtype == object:
        binary = name.endswith("_bytes")
        flat: list[Any] = [
            {"b64": base64.b64encode(one).decode()} if binary else one.decode("utf-8", "replace") for one in array.flat
        ]
        nested = np.empty(len(flat), object)
        nested[:] = flat
        return nested.reshape(array.shape).tolist()
    if array.dtype.kind not in "biuf":
        raise ReszooError(f"output '{name}' is {array.dtype}, which JSON cannot carry")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ReszooError(f"output '{name}' holds NaN or Infinity, which JSON cannot say")
    # By way of text: the fewest digits that tell one float32 from the next, in place of float64's seventeen.
    return (array.astype(str).astype(np.float64) if array.dtype == np.float32 else array).tolist()


def _read_json(body: bytes) -> Any:
    def refuse(word: str) -> Any:
        raise ReszooError(f"{word} is no JSON")

    try:
        return json.loads(body.decode("utf-8"), parse_constant=refuse)
    except ReszooError:
        raise
    except UnicodeDecodeError as error:
        raise ReszooError(f"the body is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ReszooError(f"the body is no JSON: {error}") from None
    except RecursionError:
        raise ReszooError("the body is nested too deeply") from None
    except ValueError:  # a whole number of thousands of digits
        raise ReszooError("the body holds a number of too many digits") from None


def _by_name(instances: Any, signature: Signature) -> dict[str, list[Any]]:
    """Return a list of rows as a list for each input."""
    if not isinstance(instances, list):
        raise ReszooError("'instances' must be a list, a row an element")
    named = {_is_named(row) for row in instances}
    if named == {True, False}:
        raise ReszooError("'instances' holds both objects with named inputs and plain values")
    if named == {True}:
        for index, row in enumerate(instances):
            _check_names(row, signature, f"instance {index}")
        return {name: [row[name] for row in instances] for name in signature.inputs}
    if len(signature.inputs) > 1 and instances:
        raise ReszooError(f"'instances' must hold objects with {_names(signature)}")
    return {name: instances for name in signature.inputs}


def _columns(inputs: Any, signature: Signature) -> dict[str, Any]:
    if _is_named(inputs):
        _check_names(inputs, signature, "'inputs'")
        return {name: inputs[name] for name in signature.inputs}
    if len(signature.inputs) != 1:
        raise ReszooError(f"'inputs' must be an object with {_names(signature)}")
    return {name: inputs for name in signature.inputs}


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and set(value) != {"b64"}


def _names(signature: Signature) -> str:
    return ", ".join(f"'{name}'" for name in signature.inputs) or "nothing"


def _check_names(values: Mapping[str, Any], signature: Signature, where: str) -> None:
    for name in values:
        if name not in signature.inputs:
            hint = did_you_mean(name, signature.inputs) or f"; '{signature.name}' takes {_names(signature)}"
            raise ReszooError(f"{where} has {name!r}, which is no input{hint}")
    for name in signature.inputs:
        if name not in values:
            raise ReszooError(f"{where} lacks the input '{name}'")


def _check_shape(shape: list[int], tensor: Tensor) -> None:
    wanted = tensor.shape
    if wanted is None:
        return
    if len(shape) != len(wanted) or any(side not in (None, own) for own, side in zip(shape, wanted, strict=True)):
        sides = ", ".join("?" if side is None else str(side) for side in wanted)
        raise ReszooError(f"input '{tensor.name}' must be {tensor.dtype} [{sides}], not of shape {shape}")
    if wanted and wanted[0] is None and shape[0] > ROWS:
        raise ReszooError(f"{shape[0]:,} rows are too many for one request; at most {ROWS}")


def _to_bytes(value: Any, name: str) -> bytes:
    try:
        if isinstance(value, str):
            return value.encode("utf-8")
        if not _is_named(value) and isinstance(value["b64"], str):
            return base64.b64decode(value["b64"], validate=True)
    except UnicodeEncodeError:
        raise ReszooError(f"input '{name}' holds half a character (a lone surrogate)") from None
    except (binascii.Error, ValueError):
        raise ReszooError(f"input '{name}' holds text that is not base64") from None
    raise ReszooError(f'input \'{name}\' is string; give text, or bytes as {{"b64": "..."}}')


def _numbers(flat: list[Any], tensor: Tensor) -> np.ndarray:
    dtype = np.dtype(tensor.dtype)
    try:
        if dtype.kind != "f":
            return np.array(flat, dtype)
        with np.errstate(over="ignore"):
            array = np.array(flat, np.float64).astype(dtype)
    except OverflowError:
        array = np.array([np.inf])
    if dtype.kind != "f" or not np.isfinite(array).all():
        raise ReszooError(f"input '{tensor.name}' holds a number beyond {tensor.dtype}")
    return array
