"""Who may reach the server: addresses, tokens, and what may be read without one."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reszoo.cli.main import main
from reszoo.cli.serve_check import describe
from reszoo.errors import ReszooError
from reszoo.serving.access import check_access
from reszoo.serving.server import Server

TOKEN = "0123456789abcdef/+~"
MODEL = "/v1/models/small_net"


@pytest.fixture(scope="module")
def guarded(export: Path) -> Iterator[Server]:
    with Server(export, host="0.0.0.0", token=TOKEN) as server:
        yield server


def ask(server: Server, path: str, host: str = "machine.example", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        method, body = ("POST", b'{"instances": []}') if "predict" in path else ("GET", None)
        connection.request(method, path, body, {"Host": host} | headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert "expected the header Authorization" in json.loads(content)["error"]
        return answer.status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Bearer {TOKEN} ", 200),  # HTTP removes spaces at the end
        (f"Bearer  {TOKEN}", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        ("Bearer", 401),
        ("Bearer é", 401),
        ("", 401),
    ],
)
def test_only_the_token_opens_the_model(guarded: Server, given: str, status: int) -> None:
    paths = [MODEL, f"{MODEL}/metadata", f"{MODEL}:predict", "/card.json"]
    found = {ask(guarded, path, Authorization=given) for path in paths}
    assert found == {status}


def test_without_a_token_only_the_page_and_the_health_are_open(guarded: Server) -> None:
    assert [ask(guarded, path) for path in ("/", "/healthz")] == [200, 200]
    for path in ("/healthz/", "//healthz", "/nothing", f"{MODEL}?/healthz", f"{MODEL}#/", "/%2f"):
        assert ask(guarded, path) == 401, path
    for host in ("a/healthz?", "a/?", "a/healthz#", "x@y/healthz?"):  # part of `request.url`
        assert ask(guarded, f"{MODEL}/metadata", host) in (400, 401), host
    other = {"Authorization": f"Bearer {TOKEN}", "Origin": "http://other.example"}
    assert ask(guarded, MODEL, **other) == 403
    lines = describe(guarded)
    assert '-H "Authorization: Bearer $RESZOO_TOKEN"' in lines and TOKEN not in lines
    assert f"http://127.0.0.1:{guarded.port}/#token=TOKEN" in lines


@pytest.mark.parametrize(
    ("host", "token", "message"),
    [
        ("0.0.0.0", None, "host: 0.0.0.0 is invalid without a token"),
        ("192.0.2.1", None, "other machines may reach it"),
        ("0.0.0.0", "short", "expected at least 16 printable ASCII characters"),
        ("127.0.0.1", "x" * 15 + " ", "expected at least 16"),
        ("127.0.0.1", "é" * 16, "expected at least 16"),
        ("localhost", None, "host: 'localhost' is invalid; expected an IPv4 address"),
        ("", None, "host: '' is invalid"),
        ("::", TOKEN, "host: '::' is invalid"),
    ],
)
def test_addresses_of_others_need_a_long_token(host: str, token: str | None, message: str) -> None:
    with pytest.raises(ReszooError) as caught:
        check_access(host, token)
    assert message in str(caught.value) and (token or "none") not in str(caught.value)
    assert check_access("127.0.0.1", None) and check_access("127.8.8.8", TOKEN)


def test_the_command_rejects_an_open_address_without_a_token(
    export: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RESZOO_TOKEN", raising=False)
    assert main(["serve-check", str(export), "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "is invalid without a token" in capsys.readouterr().err
    monkeypatch.setenv("RESZOO_TOKEN", "short")
    assert main(["serve-check", str(export), "--port", "0"]) == 2
    assert "token: its value is invalid" in capsys.readouterr().err
