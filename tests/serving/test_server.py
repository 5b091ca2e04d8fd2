"""The endpoint over real sockets: what TensorFlow Serving's clients send, what strangers may try, and how it ends."""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from reszoo.errors import ReszooError
from reszoo.serving.server import BODY_LIMIT, CONNECTIONS, Server
from reszoo.serving.versions import find_version

MODEL = "/v1/models/small_net"


def ask(
    server: Server, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any, Any]:
    """Return status, what the JSON or text says, and the headers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        connection.request(
            method, path, data, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        said = answer.read()
        kind = answer.headers["Content-Type"]
        return (
            answer.status,
            json.loads(said) if kind == "application/json" and said else said.decode(),
            answer.headers,
        )
    finally:
        connection.close()


def raw(server: Server, sent: bytes) -> bytes:
    """Send bytes as they are and return all that comes back until the connection ends."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        connection.sendall(sent)
        pieces = []
        while piece := connection.recv(2**16):
            pieces.append(piece)
        return b"".join(pieces)


def b64(contents: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(contents).decode()}


@pytest.fixture(scope="module")
def loaded(export: Path) -> Any:
    return tf.saved_model.load(str(export / "1"))


def test_pictures_by_row_and_by_column_are_answered_as_the_savedmodel_answers(
    server: Server, loaded: Any, picture: bytes
) -> None:
    files = [picture, b"no picture", picture[:90]]
    own = {
        name: value.numpy()
        for name, value in loaded.signatures["image_bytes"](image_bytes=tf.constant(files)).items()
    }
    assert own["status"].tolist() == [0, 1, 1]
    body = {"signature_name": "image_bytes", "instances": [b64(one) for one in files]}
    status, said, _ = ask(server, "POST", f"{MODEL}:predict", body)
    assert status == 200 and list(said) == ["predictions"]
    for row, answer in enumerate(said["predictions"]):
        assert sorted(answer) == ["labels", "probabilities", "scores", "status"]
        np.testing.assert_allclose(answer["probabilities"], own["probabilities"][row], atol=1e-6)
        assert answer["labels"] == [name.decode() for name in own["labels"][row]]
        assert answer["status"] == own["status"][row]
    body = {"signature_name": "image_bytes", "inputs": {"image_bytes": [b64(one) for one in files]}}
    status, said, _ = ask(server, "POST", f"{MODEL}/versions/1:predict", body)
    assert status == 200 and said["outputs"]["status"] == [0, 1, 1]


def test_float_images_and_features(server: Server, loaded: Any) -> None:
    images = np.random.default_rng(0).uniform(0, 255, (2, 9, 11, 3)).astype(np.float32)
    for name in ("serving_default", "features"):
        own = loaded.signatures[name](images=tf.constant(images))
        _, said, _ = ask(
            server, "POST", f"{MODEL}:predict", {"signature_name": name, "inputs": images.tolist()}
        )
        outputs = said["outputs"] if len(own) > 1 else {name: said["outputs"]}
        for output, value in own.items():
            np.testing.assert_allclose(outputs[output], value, atol=1e-4, rtol=1e-4)
    status, said, _ = ask(server, "POST", f"{MODEL}:predict", {"instances": []})
    assert (status, said) == (200, {"predictions": []})


def test_status_and_metadata_are_tensorflow_servings(server: Server) -> None:
    available = {
        "version": "1",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    for path in (MODEL, f"{MODEL}/versions/1"):
        assert ask(server, "GET", path)[:2] == (200, {"model_version_status": [available]})
    status, said, _ = ask(server, "GET", f"{MODEL}/metadata")
    assert status == 200 and said["model_spec"] == {
        "name": "small_net",
        "signature_name": "",
        "version": "1",
    }
    signatures = said["metadata"]["signature_def"]["signature_def"]
    assert {"features", "image_bytes", "serving_default"} <= set(signatures)
    took = signatures["image_bytes"]["inputs"]["image_bytes"]
    assert took["dtype"] == "DT_STRING" and took["tensor_shape"]["dim"] == [
        {"size": "-1", "name": ""}
    ]
    assert signatures["image_bytes"]["method_name"] == "tensorflow/serving/predict"
    assert ask(server, "GET", "/healthz")[:2] == (200, {"status": "ok"})


def test_the_page_may_run_its_own_script_and_nothing_else(server: Server, export: Path) -> None:
    status, page, headers = ask(server, "GET", "/")
    assert (
        status == 200
        and headers["Content-Type"] == "text/html; charset=utf-8"
        and "small_net" in page
    )
    policy = headers["Content-Security-Policy"]
    assert (
        "default-src 'none'" in policy
        and "unsafe" not in policy
        and "frame-ancestors 'none'" in policy
    )
    assert not re.search(r"(src|href)=\"?https?:", page)
    assert ask(server, "GET", "/card.json")[1] == json.loads((export / "card.json").read_text())
    status, body, headers = ask(server, "HEAD", "/")
    assert status == 200 and body == "" and int(headers["Content-Length"]) == len(page.encode())


@pytest.mark.parametrize(
    ("method", "path", "status", "line"),
    [
        ("GET", "/nothing", 404, "/nothing does not exist; expected /v1/models/small_net or"),
        ("GET", "/v1/models/other", 404, "expected /v1/models/small_net"),
        ("GET", f"{MODEL}/versions/2", 404, "/v1/models/small_net/versions/1"),
        ("GET", "/%2e%2e/card.json", 404, "does not exist"),
        ("POST", f"{MODEL}:classify", 404, "with :predict"),
        ("GET", f"{MODEL}:predict", 405, "GET is not supported here; expected POST"),
        ("POST", f"{MODEL}/metadata", 405, "POST is not supported here; expected"),
        ("BREW", "/", 405, "BREW is not supported here; expected"),
        ("POST", f"{MODEL}:predict", 400, "the body is not valid JSON"),
    ],
)
def test_errors_have_the_form_of_tensorflow_serving(
    server: Server, method: str, path: str, status: int, line: str
) -> None:
    had, said, headers = ask(server, method, path, b"" if method == "POST" else None)
    assert had == status and list(said) == ["error"] and line in said["error"]
    assert ("Allow" in headers) == (status == 405)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "example.com"}, 400),
        ({"Host": "127.0.0.1.example.com"}, 400),
        ({"Host": "localhost"}, 200),
        ({"Origin": "http://example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:9", "Origin": "http://localhost:9"}, 200),
        ({"Host": "localhost:9", "Origin": "http://localhost:8"}, 403),
    ],
)
def test_foreign_pages_and_host_names_are_rejected(
    server: Server, headers: dict[str, str], status: int
) -> None:
    assert ask(server, "POST", f"{MODEL}:predict", {"instances": []}, **headers)[0] == status


def head(*lines: str) -> bytes:
    return "\r\n".join(
        (f"POST {MODEL}:predict HTTP/1.1", "Host: localhost", *lines, "", "")
    ).encode()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head(f"Content-Length: {BODY_LIMIT + 1}", "Expect: 100-continue"), 413),
        (head("Content-Length: 50") + b"{", 408),  # after twice the server's timeout
        (head("Content-Length: -1"), 400),
        (b"\0\1\2\r\n\r\n", 400),
    ],
    ids=["length", "timeout", "negative", "binary"],
)
def test_bodies_over_the_limit_or_too_slow_are_rejected(
    server: Server, sent: bytes, status: int
) -> None:
    answer = raw(server, sent)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    if status != 400:  # Uvicorn's own errors are plain text
        assert list(json.loads(answer.partition(b"\r\n\r\n")[2])) == ["error"]


def test_a_body_in_chunks_has_the_same_limit(server: Server) -> None:
    for mebibytes, status in ((1, 400), ((BODY_LIMIT >> 20) + 1, 413)):
        assert (
            ask(server, "POST", f"{MODEL}:predict", iter([b" " * 2**20] * mebibytes))[0] == status
        )


def test_a_connection_stays_open_after_answers_and_errors(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    found = []
    for body in (b'{"instances": []}', b"no JSON", b'{"instances": []}'):
        for path in (f"{MODEL}:predict", "/nothing"):
            connection.request("POST", path, body)
            found.append((answer := connection.getresponse()).status)
            answer.read()
    assert found == [200, 404, 400, 404, 200, 404]
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        connection.request("POST", f"{MODEL}:predict", b"no JSON")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.03  # no delayed acknowledgment, 40 ms, in every one
    connection.close()


def test_many_at_once_have_each_their_own_answer(server: Server, picture: bytes) -> None:
    rng = np.random.default_rng(1)
    images = rng.uniform(0, 255, (24, 8, 8, 3)).astype(np.float32)
    alone = [
        ask(server, "POST", f"{MODEL}:predict", {"instances": [one.tolist()]})[1] for one in images
    ]

    def together(one: np.ndarray) -> Any:
        return ask(server, "POST", f"{MODEL}:predict", {"instances": [one.tolist()]})[1]

    with ThreadPoolExecutor(12) as pool:
        for got, wanted in zip(pool.map(together, images), alone, strict=True):
            for name, value in wanted["predictions"][0].items():
                np.testing.assert_allclose(got["predictions"][0][name], value, atol=1e-4)


def test_connections_over_the_limit_receive_503(export: Path) -> None:
    with Server(export) as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CONNECTIONS)]
        assert ask(server, "GET", MODEL)[0] == 503
        for one in held:
            one.close()
        deadline = time.monotonic() + 120
        while ask(server, "GET", MODEL)[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_an_internal_error_is_one_line_with_a_traceback_in_the_log(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(server.servable, "call", fail)
    status, said, _ = ask(server, "POST", f"{MODEL}:predict", {"instances": []})
    assert status == 500 and said == {
        "error": "internal error (ZeroDivisionError); see the server's log"
    }
    deadline = time.monotonic() + 30
    while "ZeroDivisionError: inside" not in caplog.text:  # Uvicorn logs it after the response
        assert time.monotonic() < deadline
        time.sleep(0.01)
    monkeypatch.undo()
    assert ask(server, "POST", f"{MODEL}:predict", {"instances": []})[0] == 200


def test_inputs_that_the_graph_rejects_are_status_400(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tf.TensorSpec(None, tf.float32, "images")  # as a signature of unknown rank
    monkeypatch.setitem(server.servable.signatures["serving_default"], "images", wrong)
    status, said, _ = ask(server, "POST", f"{MODEL}:predict", {"instances": [[1.0]]})
    assert status == 400 and said["error"].startswith("the model rejects these inputs: ")


def test_a_port_that_cannot_be_used_is_one_line(server: Server, export: Path) -> None:
    assert server.url == f"http://127.0.0.1:{server.port}"
    for port, line in (
        (server.port, f"port: {server.port} cannot be used .Address already in use"),
        (70_000, "0 to 65535"),
    ):
        with pytest.raises(ReszooError, match=line):
            Server(export, port=port)


def test_names(export: Path) -> None:
    with Server(export, name="a-b.c") as server:
        assert (
            server.model_url.endswith("/v1/models/a-b.c")
            and ask(server, "GET", "/v1/models/a-b.c")[0] == 200
        )
    for name in ("", "a b", "a/b", "a" * 101, "ü"):
        with pytest.raises(ReszooError, match="expected 1 to 100 letters"):
            Server(export, name=name)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    def folder(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return folder


def test_the_newest_version_is_served(make: Callable[..., Path]) -> None:
    out = make(
        "1/saved_model.pb", "9/saved_model.pb", "10/saved_model.pb", "11/other", "x/saved_model.pb"
    )
    assert find_version(out).number == 10
    assert find_version(out / "x").number == 1


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ((), "holds no SavedModel"),
        (("model.onnx",), "is an ONNX export; expected a SavedModel"),
        (("model.tflite",), "is a LiteRT export; expected"),
        (("export/1/saved_model.pb",), "did you mean .*export"),
    ],
)
def test_folders_without_one(make: Callable[..., Path], names: tuple[str, ...], line: str) -> None:
    with pytest.raises(ReszooError, match=line):
        Server(make(*names))


def test_a_damaged_one_is_told_and_its_port_given_back(export: Path, tmp_path: Path) -> None:
    shutil.copytree(export, tmp_path / "out")
    (tmp_path / "out" / "1" / "saved_model.pb").write_bytes(b"x" * 100)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for _ in range(2):
        with pytest.raises(ReszooError, match=r"TensorFlow [\d.]+ cannot load"):
            Server(tmp_path / "out", port=port)


def start(export: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    """Return the command's process and the address that it says."""
    command = [sys.executable, "-m", "reszoo", "serve-check", str(export), "--port", "0", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    told = [process.stdout.readline() for _ in range(4)]
    assert told[0].startswith("small_net version 1: features, image_bytes, serving_default"), (
        process.communicate()
    )
    return process, told[1].removeprefix("page").strip()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_once_those_under_way_are_answered(
    export: Path, number: int, picture: bytes
) -> None:
    process, url = start(export)
    host = url.removeprefix("http://").rstrip("/")
    idle = socket.create_connection((host.split(":")[0], int(host.split(":")[1])))
    body = json.dumps({"signature_name": "image_bytes", "instances": [b64(picture)] * 60}).encode()
    answers: list[Any] = []

    def one() -> None:
        connection = http.client.HTTPConnection(host, timeout=120)
        connection.request("POST", f"{MODEL}:predict", body)
        answers.append(json.loads(connection.getresponse().read()))
        connection.close()

    thread = threading.Thread(target=one)
    thread.start()
    time.sleep(
        0.3
    )  # the request has arrived; whether its answer is under way or sent, it comes whole
    process.send_signal(number)
    out, errors = process.communicate(timeout=120)
    thread.join()
    assert (process.returncode, out, errors) == (0, "", "")
    assert len(answers[0]["predictions"]) == 60
    idle.close()


@pytest.mark.slow
def test_the_printed_command_works_as_it_is(export: Path, picture: bytes, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("no curl")
    (tmp_path / "picture.jpg").write_bytes(picture)
    command = [sys.executable, "-m", "reszoo", "serve-check", str(export), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        (line,) = [
            one for one in (process.stdout.readline() for _ in range(4)) if one.startswith("REST ")
        ]
        said = subprocess.run(
            line[5:], shell=True, cwd=tmp_path, capture_output=True, check=True
        ).stdout
        process.terminate()
    assert json.loads(said)["predictions"][0]["status"] == 0
