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
from collections.abc import Iterator
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
    """Return status, content (JSON or text) and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        content = answer.read()
        is_json = answer.headers["Content-Type"] == "application/json" and content
        return answer.status, json.loads(content) if is_json else content.decode(), answer.headers
    finally:
        connection.close()


def predict(server: Server, body: Any, **headers: str) -> tuple[int, Any, Any]:
    return ask(server, "POST", f"{MODEL}:predict", body, **headers)


def b64(contents: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(contents).decode()}


def test_answers_are_those_of_the_savedmodel(server: Server, export: Path, picture: bytes) -> None:
    """By row and by column, for every signature."""
    loaded = tf.saved_model.load(str(export / "1"))
    files = [picture, b"not an image", picture[:90]]
    own = loaded.signatures["image_bytes"](image_bytes=tf.constant(files))
    own = {name: value.numpy() for name, value in own.items()}
    assert own["status"].tolist() == [0, 1, 1]
    named = {"signature_name": "image_bytes"}
    status, answer, _ = predict(server, named | {"instances": [b64(one) for one in files]})
    assert status == 200 and list(answer) == ["predictions"]
    for row, found in enumerate(answer["predictions"]):
        assert sorted(found) == ["labels", "probabilities", "scores", "status"]
        np.testing.assert_allclose(found["probabilities"], own["probabilities"][row], atol=1e-6)
        assert found["labels"] == [name.decode() for name in own["labels"][row]]
        assert found["status"] == own["status"][row]
    body = named | {"inputs": {"image_bytes": [b64(one) for one in files]}}
    status, answer, _ = ask(server, "POST", f"{MODEL}/versions/1:predict", body)
    assert status == 200 and answer["outputs"]["status"] == [0, 1, 1]

    images = np.random.default_rng(0).uniform(0, 255, (2, 9, 11, 3)).astype(np.float32)
    for name in ("serving_default", "features"):
        own = loaded.signatures[name](images=tf.constant(images))
        _, answer, _ = predict(server, {"signature_name": name, "inputs": images.tolist()})
        outputs = answer["outputs"] if len(own) > 1 else {name: answer["outputs"]}
        for output, value in own.items():
            np.testing.assert_allclose(outputs[output], value, atol=1e-4, rtol=1e-4)
    assert predict(server, {"instances": []})[:2] == (200, {"predictions": []})


def test_status_and_metadata_are_tensorflow_servings(server: Server) -> None:
    status = {"error_code": "OK", "error_message": ""}
    version = {"version": "1", "state": "AVAILABLE", "status": status}
    for path in (MODEL, f"{MODEL}/versions/1"):
        assert ask(server, "GET", path)[:2] == (200, {"model_version_status": [version]})
    status, answer, _ = ask(server, "GET", f"{MODEL}/metadata")
    spec = {"name": "small_net", "signature_name": "", "version": "1"}
    assert status == 200 and answer["model_spec"] == spec
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert {"features", "image_bytes", "serving_default"} <= set(signatures)
    taken = signatures["image_bytes"]["inputs"]["image_bytes"]
    assert taken["dtype"] == "DT_STRING"
    assert taken["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]
    assert signatures["image_bytes"]["method_name"] == "tensorflow/serving/predict"
    assert ask(server, "GET", "/healthz")[:2] == (200, {"status": "ok"})


def test_the_page_may_run_its_own_script_and_nothing_else(server: Server, export: Path) -> None:
    status, page, headers = ask(server, "GET", "/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert "small_net" in page and not re.search(r"(src|href)=\"?https?:", page)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and policy.count("'sha256-") == 2
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
    found, answer, headers = ask(server, method, path, b"" if method == "POST" else None)
    assert found == status and list(answer) == ["error"] and line in answer["error"]
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
    assert predict(server, {"instances": []}, **headers)[0] == status


def head(*lines: str) -> bytes:
    first = (f"POST {MODEL}:predict HTTP/1.1", "Host: localhost")
    return "\r\n".join((*first, *lines, "", "")).encode()


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
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        connection.sendall(sent)
        while part := connection.recv(2**16):
            answer += part
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    if status != 400:  # Uvicorn's own errors are plain text
        assert list(json.loads(answer.partition(b"\r\n\r\n")[2])) == ["error"]


def test_a_body_in_chunks_has_the_same_limit(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_timeout", 60.0)  # 64 MiB take a while on a busy machine
    for mebibytes, status in ((1, 400), ((BODY_LIMIT >> 20) + 1, 413)):
        assert predict(server, iter([b" " * 2**20] * mebibytes))[0] == status


def test_a_connection_stays_open_after_answers_and_errors(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    found, seconds = [], []
    for body in (b'{"instances": []}', *[b"no JSON"] * 20):
        for path in (f"{MODEL}:predict", "/nothing"):
            start = time.perf_counter()
            connection.request("POST", path, body)
            found.append((answer := connection.getresponse()).status)
            answer.read()
            seconds.append(time.perf_counter() - start)
    assert found == [200, 404, *[400, 404] * 20]
    assert min(seconds[2::2]) < 0.03  # no delayed acknowledgment, 40 ms, in every one
    connection.close()


def test_each_of_many_requests_at_once_gets_its_own_answer(server: Server) -> None:
    images = np.random.default_rng(1).uniform(0, 255, (24, 8, 8, 3)).astype(np.float32)

    def one(image: np.ndarray) -> Any:
        return predict(server, {"instances": [image.tolist()]})[1]["predictions"][0]

    with ThreadPoolExecutor(12) as pool:
        for found, wanted in zip(pool.map(one, images), map(one, images), strict=True):
            for name, value in wanted.items():
                np.testing.assert_allclose(found[name], value, atol=1e-4)


def test_connections_over_the_limit_receive_503(server: Server) -> None:
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CONNECTIONS)]
    assert ask(server, "GET", MODEL)[0] == 503
    for one in held:
        one.close()
    deadline = time.monotonic() + 120
    while ask(server, "GET", MODEL)[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_internal_error_is_reported_in_one_line_with_a_traceback_in_the_log(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(server.servable, "call", fail)
    line = "internal error (ZeroDivisionError); see the server's log"
    assert predict(server, {"instances": []})[:2] == (500, {"error": line})
    deadline = time.monotonic() + 30
    while "ZeroDivisionError: inside" not in caplog.text:  # Uvicorn logs it after the response
        assert time.monotonic() < deadline
        time.sleep(0.01)
    monkeypatch.undo()
    assert predict(server, {"instances": []})[0] == 200
    wrong = tf.TensorSpec(None, tf.float32, "images")  # as a signature of unknown rank
    monkeypatch.setitem(server.servable.signatures["serving_default"], "images", wrong)
    status, answer, _ = predict(server, {"instances": [[1.0]]})
    assert status == 400 and answer["error"].startswith("the model rejects these inputs: ")


def test_a_port_or_a_name_that_cannot_be_used_is_reported_in_one_line(
    server: Server, export: Path
) -> None:
    assert server.url == f"http://127.0.0.1:{server.port}"
    used = f"port: {server.port} cannot be used .Address already in use"
    for port, line in ((server.port, used), (70_000, "0 to 65535")):
        with pytest.raises(ReszooError, match=line):
            Server(export, port=port)
    for name in ("", "a b", "a/b", "a" * 101, "ü"):
        with pytest.raises(ReszooError, match="expected 1 to 100 letters"):
            Server(export, name=name)
    with Server(export, name="a-b.c") as other:
        assert other.model_url.endswith("/v1/models/a-b.c")
        assert ask(other, "GET", "/v1/models/a-b.c")[0] == 200


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_the_newest_version_is_served(tmp_path: Path) -> None:
    names = [f"{folder}/saved_model.pb" for folder in ("1", "9", "10", "x")]
    out = touch(tmp_path, *names, "11/other")
    assert find_version(out).number == 10 and find_version(out).path == out / "10"
    assert find_version(out / "x").number == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("other", "holds no SavedModel"),
        ("model.onnx", "is an ONNX export; expected a SavedModel"),
        ("model.tflite", "is a LiteRT export; expected"),
        ("export/1/saved_model.pb", "did you mean .*export"),
    ],
)
def test_folders_without_a_savedmodel(tmp_path: Path, name: str, line: str) -> None:
    with pytest.raises(ReszooError, match=line):
        Server(touch(tmp_path, name))


def test_a_damaged_savedmodel_is_an_error_and_its_port_is_free_again(
    export: Path, tmp_path: Path
) -> None:
    shutil.copytree(export, tmp_path / "out")
    (tmp_path / "out" / "1" / "saved_model.pb").write_bytes(b"x" * 100)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for _ in range(2):
        with pytest.raises(ReszooError, match=r"TensorFlow [\d.]+ cannot load"):
            Server(tmp_path / "out", port=port)


@pytest.fixture
def command(export: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The process of `reszoo serve-check`, and the lines that it prints."""
    words = [sys.executable, "-m", "reszoo", "serve-check", str(export), "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(4)]
        expected = "small_net version 1: features, image_bytes, serving_default"
        assert lines[0].startswith(expected), process.communicate()
        yield process, lines
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_once_requests_in_progress_are_answered(
    command: tuple[subprocess.Popen[str], list[str]], number: int, picture: bytes, tmp_path: Path
) -> None:
    """After the printed command was run as it is."""
    process, lines = command
    host = lines[1].removeprefix("page").strip().removeprefix("http://").rstrip("/")
    if shutil.which("curl"):
        (tmp_path / "photo.jpg").write_bytes(picture)
        words = lines[2].removeprefix("REST  ")
        done = subprocess.run(words, shell=True, cwd=tmp_path, capture_output=True, check=True)
        assert json.loads(done.stdout)["predictions"][0]["status"] == 0
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
    time.sleep(0.3)  # the request has arrived; in progress or answered, it comes whole
    process.send_signal(number)
    out, errors = process.communicate(timeout=120)
    thread.join()
    assert (process.returncode, out, errors) == (0, "", "")
    assert len(answers[0]["predictions"]) == 60
    idle.close()
