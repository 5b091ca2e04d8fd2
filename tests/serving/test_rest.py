"""JSON to arrays and back: against NumPy, json and base64 themselves, and what TensorFlow Serving's own page says."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from reszoo.errors import ReszooError
from reszoo.serving.rest import ROWS, read_request, to_json, write_response


def specs(**inputs: tuple[str, tuple[int | None, ...] | None]) -> dict[str, tf.TensorSpec]:
    return {name: tf.TensorSpec(shape, dtype, name) for name, (dtype, shape) in inputs.items()}


IMAGES = specs(images=("float32", (None, None, None, 3)))
BYTES = specs(image_bytes=("string", (None,)))
TWO = specs(a=("float32", (None, 2)), b=("int32", (None,)))
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
PICTURES = arrays.array_shapes(min_dims=3, max_dims=3, max_side=4).map(lambda shape: (*shape, 3))


def read(body: Any, signature: dict[str, tf.TensorSpec] = IMAGES) -> Any:
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_request(body, {"serving_default": signature})


@given(arrays.arrays(np.float32, PICTURES, elements=FINITE))
def test_any_array_arrives_to_the_bit_by_rows_and_by_columns(value: np.ndarray) -> None:
    for body in ({"instances": value.tolist()}, {"inputs": value.tolist()}, {"inputs": {"images": value.tolist()}},
                 {"instances": [{"images": row} for row in value.tolist()]}):  # fmt: skip
        request = read(body)
        np.testing.assert_array_equal(request.inputs["images"], value)
        assert request.inputs["images"].dtype == np.float32 and request.by_row == (
            "instances" in body
        )


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_arrive_in_base64(files: list[bytes]) -> None:
    wrapped = [{"b64": base64.b64encode(one).decode()} for one in files]
    for body in (
        {"instances": wrapped},
        {"inputs": wrapped},
        {"instances": [{"image_bytes": one} for one in wrapped]},
    ):
        assert read(body, BYTES).inputs["image_bytes"].tolist() == files


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=6))
def test_any_text_arrives_as_utf8(texts: list[str]) -> None:
    assert read({"instances": texts}, BYTES).inputs["image_bytes"].tolist() == [
        one.encode() for one in texts
    ]


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=3), elements=FINITE))
def test_any_answer_reads_back_to_the_bit(value: np.ndarray) -> None:
    said = json.loads(json.dumps(to_json("x", value)))
    np.testing.assert_array_equal(np.array(said, np.float32).reshape(value.shape), value)


def test_numbers_are_printed_with_the_digits_that_they_need() -> None:
    assert json.dumps(to_json("x", np.array([0.1, 1 / 3], np.float32))) == "[0.1, 0.33333334]"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["images", "b64", "a", "b", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(
    JSON
    | st.fixed_dictionaries(
        {}, optional={"instances": JSON, "inputs": JSON, "signature_name": JSON}
    )
)
def test_any_json_is_read_or_rejected_in_one_line(body: Any) -> None:
    for one in (IMAGES, BYTES, TWO):
        try:
            request = read(body, one)
        except ReszooError as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert set(request.inputs) == set(one)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_rejected(body: bytes) -> None:
    with pytest.raises(ReszooError):
        read(body)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"", "the body is not valid JSON"),
        (b"\xff", "not valid JSON: 'utf-8' codec can't decode byte 0xff in position 0"),
        (b'{"instances": [NaN]}', "NaN is not a JSON number"),
        (b'{"instances": [1e999]}', "expected float32 (None, None, None, 3), received shape (1,)"),
        (b'{"instances": [' + b"9" * 5000 + b"]}", "not valid JSON: Exceeds the limit"),
        (b"[" * 100_000, "not valid JSON: maximum recursion depth"),
        ([], "must be a JSON object with either 'instances' (rows) or 'inputs'"),
        ({"instances": [], "inputs": []}, "must be a JSON object with either"),
        ({"instances": 1}, "'instances' must be a list"),
        ({"signature_name": 1, "instances": []}, "signature_name: 1 is invalid; expected a string"),
        ({"signature_name": "serving_defalt", "instances": []}, "did you mean 'serving_default'?"),
        (
            {"instances": [[[[1, 2]]]]},
            "expected float32 (None, None, None, 3), received shape (1, 1, 1, 2)",
        ),
        ({"instances": [[[[1, 2, 3]], [[1, 2]]]]}, "received lists of different lengths"),
        ({"instances": [[[[1, 2, None]]]]}, "received a value of type NoneType"),
        ({"instances": [[[[1, 2, True]]]]}, "received a value of type bool"),
        ({"instances": [[[[1, 2, 1e39]]]]}, "out of range"),
        ({"instances": [[[[1, 2, 10**400]]]]}, "too large"),
        (
            {"instances": [{"image": 1}]},
            "instance 0: received image; expected an object with exactly images",
        ),
        ({"instances": [{"images": 1}, 2]}, "instance 1: received a value without a name"),
        ({"inputs": {}}, "'inputs': received no inputs; expected an object with exactly images"),
        ({"instances": [[[[0, 0, 0]]]] * (ROWS + 1)}, "65 rows exceed the maximum of 64"),
    ],
)
def test_an_invalid_body_is_an_error_that_names_the_cause(body: Any, line: str) -> None:
    with pytest.raises(ReszooError) as caught:
        read(body)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    "value", [{"b64": "a"}, {"b64": "YQ==\n"}, {"b64": "é"}, {"b64": 1}, 3, "\ud800"]
)
def test_strings_that_are_neither_text_nor_base64_are_errors(value: Any) -> None:
    with pytest.raises(ReszooError, match="^input 'image_bytes': expected string"):
        read({"instances": [value]}, BYTES)


def test_several_inputs_go_by_name() -> None:
    by_row = read({"instances": [{"a": [1, 2], "b": 3}, {"a": [4, 5], "b": 6}]}, TWO).inputs
    by_column = read({"inputs": {"a": [[1, 2], [4, 5]], "b": [3, 6]}}, TWO).inputs
    for inputs in (by_row, by_column):
        assert inputs["a"].tolist() == [[1, 2], [4, 5]] and inputs["b"].tolist() == [3, 6]
        assert inputs["b"].dtype == np.int32
    for body in ({"instances": [1]}, {"inputs": [1]}, {"instances": [{"a": [1, 2]}]}):
        with pytest.raises(ReszooError):
            read(body, TWO)
    with pytest.raises(ReszooError, match="received a value of type float"):
        read({"inputs": {"a": [[1, 2]], "b": [0.5]}}, TWO)
    with pytest.raises(ReszooError, match="input 'b': expected int32"):
        read({"inputs": {"a": [[1, 2]], "b": [2**31]}}, TWO)


def test_an_empty_batch_has_an_empty_answer() -> None:
    assert read({"instances": []}).inputs["images"].shape == (0, 1, 1, 3)
    assert write_response({"p": np.zeros((0, 4), np.float32), "q": np.zeros(0)}, by_row=True) == {
        "predictions": []
    }


def test_answers_by_row_and_by_column_as_tensorflow_serving_shapes_them() -> None:
    two = {"a": np.array([[1, 2], [3, 4]]), "b": np.array([b"x", b"\xff"], object)}
    assert write_response(two, by_row=True) == {
        "predictions": [{"a": [1, 2], "b": "x"}, {"a": [3, 4], "b": "\ufffd"}]
    }
    assert write_response(two, by_row=False) == {
        "outputs": {"a": [[1, 2], [3, 4]], "b": ["x", "\ufffd"]}
    }
    one = {"a": two["a"]}
    assert write_response(one, by_row=True) == {"predictions": [[1, 2], [3, 4]]}
    assert write_response(one, by_row=False) == {"outputs": [[1, 2], [3, 4]]}
    assert to_json("raw_bytes", two["b"]) == [{"b64": "eA=="}, {"b64": "/w=="}]


@pytest.mark.parametrize(
    "value", [np.array([np.nan]), np.array([np.inf], np.float32), np.array([1j])]
)
def test_values_that_json_cannot_express_are_rejected(value: np.ndarray) -> None:
    with pytest.raises(ReszooError, match="JSON cannot represent"):
        write_response({"p": value}, by_row=False)


def test_rows_that_outputs_do_not_have_are_rejected() -> None:
    with pytest.raises(ReszooError, match="use 'inputs'"):
        write_response({"a": np.zeros(2), "b": np.zeros(3)}, by_row=True)
    with pytest.raises(ReszooError, match="use 'inputs'"):
        write_response({"a": np.float32(1)[...]}, by_row=True)
