"""Downloads from a server of the test's own, which breaks off, stalls, changes its mind or lies as told."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reszoo.errors import ReszooError
from reszoo.weights import download, hub, transfer
from reszoo.weights.download import cached, fetch, home
from reszoo.weights.formats import RemoteFile

BODY = bytes(range(256)) * 800
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = BODY[::-1]
OTHER_SHA = hashlib.sha256(OTHER).hexdigest()
HOST = "weights.example"
FILE = RemoteFile(url=f"https://{HOST}/models/net-{SHA[:8]}.pth", digest=f"sha256:{SHA}", size=len(BODY))
ASKED = f"/{HOST}/models/net-{SHA[:8]}.pth"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = RemoteFile(url="https://huggingface.co/timm/net.tv_in1k/resolve/main/model.safetensors", digest="hub")
HUB_ASKED = "/huggingface.co/timm/net.tv_in1k/resolve/main/model.safetensors"
HUB_PINNED = HUB_ASKED.replace("main", COMMIT)


@dataclass
class Reply:
    """How to answer one GET: with an error, without ranges, breaking off or waiting after `cut` bytes."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    cut: int | None = None
    wait: bool = False
    length: bool = True
    content_range: str | None = None


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; `plan` holds the replies to the next GETs, `fixed` those of certain paths, HEAD too."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {ASKED: BODY}
        self.etag: str | None = '"one"'
        self.plan: list[Reply] = []
        self.fixed: dict[str, Reply] = {}
        self.asked: list[tuple[str, str, Message]] = []
        self.sent = 0
        self.waiting = threading.Event()
        self.go_on = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}"

    @property
    def gets(self) -> list[Message]:
        """The headers of every GET so far."""
        return [headers for method, _, headers in self.asked if method == "GET"]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.answer("HEAD")

    def do_GET(self) -> None:
        self.answer("GET")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, method: str) -> None:
        server, path = self.server, self.path
        server.asked.append((method, path, self.headers))
        reply = server.fixed.get(path) or (server.plan.pop(0) if method == "GET" and server.plan else Reply())
        body = server.files.get(path)
        if body is None and reply.status == 200:
            reply = Reply(status=404)
        if reply.status != 200 or body is None:
            self.send(reply.status, reply.headers)
            return
        headers = dict(reply.headers)
        if server.etag:
            headers.setdefault("ETag", server.etag)
        start, wanted = 0, self.headers.get("Range")
        if wanted and reply.ranges and self.headers.get("If-Range") in (None, server.etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send(416, {"Content-Range": f"bytes */{len(body)}"})
                return
            headers["Content-Range"] = reply.content_range or f"bytes {start}-{len(body) - 1}/{len(body)}"
        if reply.length:
            headers["Content-Length"] = str(len(body) - start)
        self.send(206 if "Content-Range" in headers else 200, headers)
        if method == "HEAD":
            return
        piece = body[start:][: reply.cut]
        with contextlib.suppress(OSError):
            self.wfile.write(piece)
            server.sent += len(piece)
            if reply.wait:
                server.waiting.set()
                server.go_on.wait(30)
                self.wfile.write(body[start:][len(piece) :])

    def send(self, status: int, headers: dict[str, str]) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()


@pytest.fixture(scope="session", autouse=True)
def two_devices() -> None:
    """In place of the fixture for all tests: these here need no TensorFlow, nor the seconds that it takes to load."""


@pytest.fixture(autouse=True)
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server that everything is asked of, an empty cache, and no waiting between attempts."""
    for name in ("HF_ENDPOINT", "RESZOO_OFFLINE", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("RESZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RESZOO_TIMEOUT", "10")
    monkeypatch.setattr(transfer, "BACK_OFF", (0.0, 0.0))
    with Server() as running:
        monkeypatch.setenv("RESZOO_MIRROR", running.address)
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        yield running
        running.go_on.set()
        running.shutdown()
        thread.join()


def refused(file: RemoteFile) -> str:
    """The one line with which `file` is refused."""
    with pytest.raises(ReszooError) as caught:
        fetch(file, quiet=True)
    line = str(caught.value)
    assert "\n" not in line and line
    return line


def lying(file: RemoteFile = FILE) -> list[str]:
    """The names of what lies in the folder of `file`."""
    folder = cached(file).parent
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def part_of(file: RemoteFile = FILE) -> Path:
    path = cached(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + ".part")


def place(data: bytes, file: RemoteFile = FILE) -> Path:
    path = cached(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def hub_states(server: Server, body: bytes = BODY, **changed: str) -> None:
    """Let the server answer as the hub does: facts in the redirect, and the bytes elsewhere."""
    facts = {
        "Location": f"{server.address}/storage/blob?signature=1",
        "X-Linked-Etag": f'"{hashlib.sha256(body).hexdigest()}"',
        "X-Linked-Size": str(len(body)),
        "X-Repo-Commit": COMMIT,
        **changed,
    }
    server.fixed[HUB_ASKED] = Reply(status=302, headers={name: value for name, value in facts.items() if value})
    server.fixed[HUB_PINNED] = Reply(status=302, headers={"Location": "/storage/blob?signature=2"})
    server.files["/storage/blob?signature=2"] = body


# A file and its place.


def test_a_good_download_is_whole_in_its_place_and_alone_there(server: Server) -> None:
    path = fetch(FILE)
    assert path == home() / "weights" / HOST / "models" / f"net-{SHA[:8]}.pth"
    assert path.read_bytes() == BODY
    assert lying() == [path.name]
    assert server.sent == len(BODY)


def test_what_lies_in_the_cache_is_not_asked_for_again(server: Server) -> None:
    assert fetch(FILE) == fetch(FILE)
    assert len(server.asked) == 1


def test_a_cache_that_may_only_be_read_serves(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    place(BODY)
    monkeypatch.setattr(download, "_lock", None)
    fetch(FILE)


def test_a_damaged_file_is_said_to_be_so_and_fetched_again(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    path = place(BODY[:-1] + b"?")
    fetch(FILE)
    assert path.read_bytes() == BODY
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith(f"{path} is damaged (its sha256 is ") and SHA in first


def test_a_damaged_file_goes_even_if_there_is_no_other(server: Server) -> None:
    place(OTHER)
    server.plan = [Reply(status=404)]
    refused(FILE)
    assert lying() == []


@pytest.mark.parametrize("digest", [f"sha256:{SHA[:8]}", f"sha256:{SHA[:40]}", f"md5:{hashlib.md5(BODY).hexdigest()}"])
def test_a_digest_may_be_a_prefix_or_md5(server: Server, digest: str) -> None:
    file = RemoteFile(url=FILE.url, digest=digest)
    assert fetch(file).read_bytes() == BODY
    cached(file).write_bytes(OTHER)
    assert fetch(file).read_bytes() == BODY
    assert len(server.gets) == 2


@pytest.mark.parametrize(
    "digest",
    [
        f"sha256:{OTHER_SHA}",
        f"sha256:{OTHER_SHA[:8]}",
        f"sha256:{SHA[:8]}{OTHER_SHA[8:]}",
        f"md5:{hashlib.md5(OTHER).hexdigest()}",
    ],
)
def test_nothing_stays_of_a_file_with_a_wrong_digest(server: Server, digest: str) -> None:
    line = refused(RemoteFile(url=FILE.url, digest=digest))
    kind, wanted = digest.split(":")
    assert wanted in line and hashlib.new(kind, BODY).hexdigest() in line and FILE.url.split("//")[1] in line
    assert lying() == []
    assert len(server.gets) == 1


@pytest.mark.parametrize(
    "digest", ["", "sha256:", f"sha256:{SHA[:7]}", f"sha256:{SHA}0", f"sha1:{SHA}", "md5:12", "huh"]
)
def test_a_digest_that_is_none_is_refused(server: Server, digest: str) -> None:
    assert repr(digest) in refused(RemoteFile(url=FILE.url, digest=digest))
    assert server.asked == []


def test_a_file_of_another_size_is_refused_before_its_bytes_come(server: Server) -> None:
    line = refused(RemoteFile(url=FILE.url, digest=FILE.digest, size=len(BODY) + 1))
    assert f"{len(BODY):,} bytes where {len(BODY) + 1:,} are expected" in line
    assert lying() == []


def test_a_server_that_names_no_size_is_stopped_after_the_bytes_expected(server: Server) -> None:
    server.plan = [Reply(length=False)]
    assert "bytes where 1,000 are expected" in refused(RemoteFile(url=FILE.url, digest=FILE.digest, size=1000))
    assert lying() == []
    server.plan = [Reply(length=False)]
    assert fetch(RemoteFile(url=FILE.url, digest=FILE.digest)).read_bytes() == BODY


def test_a_server_that_never_ends_is_stopped(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(answer: object) -> Iterator[bytes]:
        yield from [bytes(400)] * 3
        pytest.fail("1,200 bytes were more than enough")

    monkeypatch.setattr(transfer, "_chunks", endless)
    server.plan = [Reply(length=False)]
    assert "has 1,200 bytes where 1,000 are" in refused(RemoteFile(url=FILE.url, digest=FILE.digest, size=1000))


def test_an_empty_answer_is_refused(server: Server) -> None:
    server.files[ASKED] = b""
    assert "is empty" in refused(RemoteFile(url=FILE.url, digest=FILE.digest))
    assert lying() == []


PIECES = [
    "",
    ".",
    "..",
    "...",
    "a",
    "B-1_2.pth",
    "%2e%2e",
    "a b",
    "é",
    "\0",
    "\n",
    "C:",
    "\\",
    "?q=1",
    "#f",
    "~",
    "@",
    "x" * 300,
]


@example(f"https://{HOST}/..")
@example(f"https://{HOST}/a/../../../b")
@example(f"https://{HOST}/./a")
@example(f"https://{HOST}/{'x' * 201}")
@example(f"https://{'x' * 201}/a")
@given(
    st.one_of(
        st.text(),
        st.text().map("https://h.example/".__add__),
        st.builds(
            "{}{}/{}".format,
            st.sampled_from(["https://", "http://", "HTTPS://", "ftp://", "file://", "//", "", "https:"]),
            st.sampled_from(
                ["h.example", "H.Example:80", "..", ".", "", "u:p@h.example", "[::1]", "a..b", "h:x", "/etc"]
            ),
            st.lists(st.sampled_from(PIECES)).map("/".join),
        ),
    )
)
def test_every_address_lies_inside_the_cache_or_is_refused(url: str) -> None:
    root = home() / "weights"
    try:
        path = cached(RemoteFile(url=url, digest="hub"))
    except ReszooError as error:
        assert "\n" not in str(error)
        return
    assert url.startswith(("https://", "http://"))
    assert Path(os.path.normpath(path)) == path and path.is_relative_to(root) and len(path.relative_to(root).parts) >= 2
    assert str(path.relative_to(root)).isascii() and not set(str(path)) & set("?#%\\ ")
    assert all(len(part) <= 200 for part in path.parts), "with .part.json a name must fit into 255 bytes"


@pytest.mark.parametrize("name", ["a.part", "a.part.json", "a.lock", "a.sha256"])
def test_names_of_the_cache_itself_are_refused(name: str) -> None:
    with pytest.raises(ReszooError, match="no address of a weights file"):
        cached(RemoteFile(url=f"https://{HOST}/{name}", digest="hub"))


def test_the_same_path_of_two_hosts_or_ports_is_two_files() -> None:
    urls = ("https://a.example/x", "https://b.example/x", "https://a.example:81/x", "https://a.example/X")
    assert len({cached(RemoteFile(url=url, digest="hub")) for url in urls}) == len(urls)


def test_to_ask_for_the_cache_loads_nothing_heavy() -> None:
    heavy = {"numpy", "tensorflow", "keras", "rich", "h5py"}
    program = f"import sys, reszoo.weights.download; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


def test_home_is_read_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("RESZOO_HOME", "")
    assert home() == Path("/somewhere/.cache/reszoo")
    monkeypatch.setenv("RESZOO_HOME", "~/w")
    assert home() == Path("/somewhere/w")
    monkeypatch.setenv("RESZOO_HOME", "~no-such-user/w")
    with pytest.raises(ReszooError, match="set RESZOO_HOME"):
        home()


# Broken off and gone on with.


def test_a_connection_that_breaks_off_is_gone_on_with(server: Server) -> None:
    server.plan = [Reply(cut=50_000), Reply(cut=60_000)]
    assert fetch(FILE).read_bytes() == BODY
    assert [headers["Range"] for headers in server.gets] == [None, "bytes=50000-", "bytes=110000-"]
    assert [headers["If-Range"] for headers in server.gets] == [None, '"one"', '"one"']
    assert server.sent == len(BODY)
    assert lying() == [cached(FILE).name]


def test_after_three_breaks_what_has_come_is_kept_for_the_next_time(server: Server) -> None:
    server.plan = [Reply(cut=1000)] * 3
    line = refused(FILE)
    assert "closed early" in line and "3.0 kB are kept" in line and str(cached(FILE)) in line
    assert lying() == [part_of().name, part_of().name + ".json"]
    assert fetch(FILE).read_bytes() == BODY
    assert server.gets[-1]["Range"] == "bytes=3000-" and server.sent == len(BODY)


@pytest.mark.parametrize("etag", ["one", None])
def test_a_part_left_by_an_earlier_process_is_gone_on_with(server: Server, etag: str | None) -> None:
    part_of().write_bytes(BODY[:1234])
    if etag:
        about = {"url": server.address + ASKED, "etag": f'"{etag}"', "digest": FILE.digest}
        part_of().with_name(part_of().name + ".json").write_text(json.dumps(about))
    assert fetch(FILE).read_bytes() == BODY
    assert server.gets[0]["Range"] == "bytes=1234-" and server.gets[0]["If-Range"] == (etag and f'"{etag}"')
    assert server.sent == len(BODY) - 1234


def test_a_server_without_ranges_starts_over(server: Server) -> None:
    server.plan = [Reply(cut=1000), Reply(ranges=False)]
    assert fetch(FILE).read_bytes() == BODY
    assert len(server.gets) == 2 and server.sent == len(BODY) + 1000


def test_a_file_that_changed_meanwhile_is_started_over(server: Server) -> None:
    server.files[ASKED], server.etag = OTHER, '"old"'
    server.plan = [Reply(cut=1000)] * 3
    refused(FILE)
    server.files[ASKED], server.etag = BODY, '"new"'
    assert fetch(FILE).read_bytes() == BODY
    assert server.gets[-1]["If-Range"] == '"old"' and server.sent == len(BODY) + 3000


def test_an_etag_of_another_address_is_not_put_into_if_range(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.plan = [Reply(cut=1000)] * 3
    refused(FILE)
    server.files["/base" + ASKED] = BODY
    monkeypatch.setenv("RESZOO_MIRROR", server.address + "/base")
    assert fetch(FILE).read_bytes() == BODY
    assert server.gets[-1]["Range"] == "bytes=3000-" and server.gets[-1]["If-Range"] is None


def test_a_changed_etag_counts_where_the_server_overlooks_if_range(server: Server) -> None:
    part_of().write_bytes(OTHER[:1000])
    about = {"url": server.address + ASKED, "etag": '"one"', "digest": FILE.digest}
    part_of().with_name(part_of().name + ".json").write_text(json.dumps(about))
    server.plan = [Reply(headers={"ETag": '"two"'})]
    assert fetch(FILE).read_bytes() == BODY
    assert [headers["Range"] for headers in server.gets] == ["bytes=1000-", None]


def test_a_weak_etag_is_not_put_into_if_range(server: Server) -> None:
    server.etag = 'W/"one"'
    server.plan = [Reply(cut=1000)]
    assert fetch(FILE).read_bytes() == BODY
    assert server.gets[1]["Range"] == "bytes=1000-" and server.gets[1]["If-Range"] is None


@pytest.mark.parametrize(
    "content_range", ["bytes 5-99/204800", "nonsense", "bytes 1000-1999/204800", "bytes 7-203806/204800"]
)
def test_a_range_other_than_the_one_asked_for_starts_over(server: Server, content_range: str) -> None:
    server.plan = [Reply(cut=1000), Reply(content_range=content_range)]
    assert fetch(FILE).read_bytes() == BODY
    assert [headers["Range"] for headers in server.gets] == [None, "bytes=1000-", None]


@pytest.mark.parametrize("size", [len(BODY), None])
def test_a_part_that_is_whole_needs_no_bytes(server: Server, size: int | None) -> None:
    part_of().write_bytes(BODY)
    assert fetch(RemoteFile(url=FILE.url, digest=FILE.digest, size=size)).read_bytes() == BODY
    # Without a size only the server can say, with status 416, that there is no more to come.
    assert len(server.gets) == (0 if size else 2)


@pytest.mark.parametrize("left", [OTHER, BODY + b"more"])
def test_a_part_that_is_wrong_or_too_long_is_started_over(server: Server, left: bytes) -> None:
    part_of().write_bytes(left)
    assert fetch(FILE).read_bytes() == BODY
    assert server.sent == len(BODY)


def test_a_part_of_a_file_with_another_digest_is_started_over(server: Server) -> None:
    server.plan = [Reply(cut=1000)] * 3
    refused(FILE)
    server.files[ASKED] = OTHER
    assert fetch(RemoteFile(url=FILE.url, digest=f"sha256:{OTHER_SHA}")).read_bytes() == OTHER
    assert server.gets[-1]["Range"] is None


def test_a_part_that_was_tampered_with_does_not_get_through(server: Server) -> None:
    part_of().write_bytes(OTHER[:1000])
    assert SHA in refused(FILE)
    assert lying() == []


def test_an_interrupt_leaves_only_the_part(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = transfer._chunks

    def interrupted(answer: object) -> Iterator[bytes]:
        yield next(whole(answer))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_CHUNK", 1000)
        patch.setattr(transfer, "_chunks", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(FILE, quiet=True)
    assert lying() == [part_of().name, part_of().name + ".json"]
    came = part_of().read_bytes()
    assert came and BODY.startswith(came)
    assert fetch(FILE).read_bytes() == BODY
    assert server.gets[1]["Range"] == f"bytes={len(came)}-"


# Servers that refuse.


@pytest.mark.parametrize("status", [401, 403, 404, 410, 429])
def test_a_refusal_is_not_tried_again(server: Server, status: int) -> None:
    server.plan = [Reply(status=status)]
    line = refused(FILE)
    assert f"answered {status} " in line and "204.8 kB" in line and str(cached(FILE)) in line and FILE.url in line
    assert len(server.asked) == 1 and lying() == []


def test_an_error_of_the_server_is_tried_three_times(server: Server) -> None:
    server.plan = [Reply(status=500)] * 3
    assert "answered 500 " in refused(FILE)
    assert len(server.asked) == 3 and lying() == []


def test_an_error_of_the_server_that_passes_is_got_over(server: Server) -> None:
    server.plan = [Reply(status=500), Reply(status=503)]
    assert fetch(FILE).read_bytes() == BODY


def test_the_pauses_between_attempts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr(transfer, "BACK_OFF", (0.5, 1.0))
    monkeypatch.setattr(transfer.time, "sleep", paused.append)
    server.plan = [Reply(status=500)] * 3
    refused(FILE)
    assert paused == [0.5, 1.0]


@pytest.mark.parametrize("cut", [0, 1000])
def test_a_server_that_falls_silent_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    monkeypatch.setenv("RESZOO_TIMEOUT", "0.2")
    server.plan = [Reply(cut=cut, wait=True)] * 3
    assert "nothing came for 0.2 s" in refused(FILE)
    assert len(server.gets) == 3
    assert part_of().exists() == bool(cut)


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
def test_a_time_out_that_is_none_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RESZOO_TIMEOUT", value)
    assert f"RESZOO_TIMEOUT={value!r}" in refused(FILE)
    assert server.asked == []


def test_a_closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RESZOO_MIRROR", f"http://127.0.0.1:{held.getsockname()[1]}")
        line = refused(FILE)
    assert "Connection refused" in line and FILE.url in line and "204.8 kB" in line and str(cached(FILE)) in line
    assert lying() == []


def test_a_host_without_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.delenv("RESZOO_MIRROR")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    line = refused(FILE)
    assert line.startswith(f"{FILE.url} cannot be downloaded (Name or service not known); get it (204.8 kB) ")


# Offline.


@pytest.mark.parametrize("value", ["1", "yes"])
def test_offline_serves_what_is_there_and_says_where_to_put_the_rest(
    server: Server, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("RESZOO_OFFLINE", value)
    line = refused(FILE)
    assert FILE.url in line and "204.8 kB" in line and line.endswith(f"put it at {cached(FILE)}")
    assert not home().exists()
    place(BODY)
    assert fetch(FILE).read_bytes() == BODY
    place(OTHER)
    line = refused(FILE)
    assert "is damaged" in line and OTHER_SHA in line and SHA in line
    assert server.asked == []


@pytest.mark.parametrize("value", ["", "0"])
def test_not_offline(server: Server, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RESZOO_OFFLINE", value)
    assert fetch(FILE).read_bytes() == BODY


# The Hugging Face hub.


def test_the_hub_states_the_digest_and_the_commit_is_held_to(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_states(server)
    path = fetch(HUB)
    assert path == home() / "weights" / HUB_ASKED[1:] and path.read_bytes() == BODY
    assert [(method, path) for method, path, _ in server.asked] == [
        ("HEAD", HUB_ASKED),
        ("GET", HUB_PINNED),
        ("GET", "/storage/blob?signature=2"),
    ]
    sidecar = path.with_name(path.name + ".json")
    assert json.loads(sidecar.read_text()) == {"url": HUB.url, "revision": COMMIT, "sha256": SHA, "size": len(BODY)}
    assert lying(HUB) == [path.name, sidecar.name]
    monkeypatch.setenv("RESZOO_OFFLINE", "1")
    fetch(HUB)
    path.write_bytes(OTHER)
    assert "is damaged" in refused(HUB)
    monkeypatch.delenv("RESZOO_OFFLINE")
    assert fetch(HUB).read_bytes() == BODY


def test_bytes_other_than_the_hub_states_are_refused(server: Server) -> None:
    hub_states(server)
    server.files["/storage/blob?signature=2"] = OTHER
    assert SHA in refused(HUB)
    assert lying(HUB) == []


def test_a_download_from_the_hub_is_gone_on_with_through_the_redirect(server: Server) -> None:
    hub_states(server)
    del server.fixed[HUB_PINNED]
    server.files[HUB_PINNED] = BODY
    server.plan = [Reply(cut=1000)] * 3
    refused(HUB)
    hub_states(server)
    assert fetch(HUB).read_bytes() == BODY
    assert [headers["Range"] for headers in server.gets[-2:]] == ["bytes=3000-"] * 2


def test_a_new_commit_of_the_hub_does_not_go_on_with_the_old_part(server: Server) -> None:
    hub_states(server, OTHER)
    server.plan = [Reply(cut=1000)] * 3
    refused(HUB)
    hub_states(server, BODY)
    assert fetch(HUB).read_bytes() == BODY
    assert server.gets[-1]["Range"] is None


def test_the_hub_may_send_to_a_repositorys_new_name(server: Server) -> None:
    hub_states(server)
    renamed = HUB_ASKED.replace("timm", "new")
    server.fixed[renamed] = server.fixed[HUB_ASKED]
    server.fixed[HUB_ASKED] = Reply(status=307, headers={"Location": renamed})
    assert fetch(HUB).read_bytes() == BODY


def test_a_mirror_may_send_to_the_hub_itself(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_states(server)
    itself = server.address.replace("127.0.0.1", "localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setattr(hub, "HUB", itself)
    server.fixed["/hub" + HUB_ASKED] = server.fixed[HUB_ASKED]
    server.fixed[HUB_ASKED] = Reply(status=308, headers={"Location": f"{itself}/hub{HUB_ASKED}"})
    assert fetch(HUB).read_bytes() == BODY


@pytest.mark.parametrize(
    "changed",
    [{"X-Linked-Etag": ""}, {"X-Linked-Etag": f'"{COMMIT}"'}, {"X-Repo-Commit": ""}, {"X-Repo-Commit": "main"}],
)
def test_a_file_without_a_stated_sha256_is_refused(server: Server, changed: dict[str, str]) -> None:
    hub_states(server, **{"Location": "https://storage.example/blob", "ETag": f'"{SHA}"', **changed})
    assert "states no sha256" in refused(HUB)
    assert server.gets == [] and lying(HUB) == []


def test_the_hub_may_refuse_or_be_away(server: Server) -> None:
    server.fixed[HUB_ASKED] = Reply(status=401)
    assert "answered 401 " in refused(HUB)
    server.fixed[HUB_ASKED] = Reply(status=503)
    line = refused(HUB)
    assert "answered 503 " in line and f"with its sha256 in {cached(HUB)}.sha256" in line
    assert len(server.asked) == 4


def test_the_hub_may_be_back_for_the_last_attempt(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BACK_OFF", (1.0, 2.0))
    monkeypatch.setattr(transfer.time, "sleep", lambda pause: hub_states(server) if pause == 2.0 else None)
    server.fixed[HUB_ASKED] = Reply(status=503)
    assert fetch(HUB).read_bytes() == BODY
    assert [method for method, _, _ in server.asked].count("HEAD") == 3


def test_only_an_address_that_resolves_has_the_digest_of_the_hub(server: Server) -> None:
    assert "/resolve/REVISION/FILE" in refused(
        RemoteFile(url="https://huggingface.co/timm/net/model.bin", digest="hub")
    )


def test_a_file_put_there_by_hand_is_held_to_what_the_hub_states(server: Server) -> None:
    hub_states(server)
    path = place(BODY, HUB)
    fetch(HUB)
    assert server.gets == []
    fetch(HUB)
    assert len(server.asked) == 1 and path.with_name(path.name + ".json").exists()


def test_a_file_put_by_hand_where_nothing_else_can_be_written(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def unwritable(*args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    hub_states(server)
    path = place(BODY, HUB)
    monkeypatch.setattr(hub, "write_json", unwritable)
    assert fetch(HUB) == path


def test_a_file_put_there_by_hand_that_the_hub_does_not_know_is_replaced(server: Server) -> None:
    hub_states(server)
    place(OTHER, HUB)
    assert fetch(HUB).read_bytes() == BODY


@pytest.mark.parametrize("away", ["offline", "503"])
@pytest.mark.parametrize(
    "sums", ["{}", "{}\n", "{}  model.safetensors\n", "{} *model.safetensors", "{}  /tmp/model.safetensors"]
)
def test_a_file_put_there_by_hand_is_held_to_the_sums_beside_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, away: str, sums: str
) -> None:
    if away == "offline":
        monkeypatch.setenv("RESZOO_OFFLINE", "1")
    server.fixed[HUB_ASKED] = Reply(status=503)
    path = place(BODY, HUB)
    beside = path.with_name(path.name + ".sha256")
    line = refused(HUB)
    assert line.startswith(f"{path} cannot be checked: ") and line.endswith(
        f"; put its sha256 in {beside}, as sha256sum writes it"
    )
    assert "by other means" not in line
    beside.write_text(sums.format(SHA.upper()))
    assert fetch(HUB) == path
    beside.write_text(sums.format(OTHER_SHA))
    assert "does not fit" in refused(HUB) and path.exists()
    for useless in ("", "nothing", f"{SHA}  other.safetensors"):
        beside.write_text(useless)
        assert "holds no sha256" in refused(HUB)
    assert bool(server.asked) == (away != "offline")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"sha256": 5}', '{"sha256": "abc"}'])
def test_a_record_that_cannot_be_read_counts_for_nothing(server: Server, text: str) -> None:
    hub_states(server)
    path = fetch(HUB)
    path.with_name(path.name + ".json").write_text(text)
    fetch(HUB)
    assert [method for method, _, _ in server.asked].count("HEAD") == 2


# Mirrors and redirects.


def test_the_hubs_other_address_counts_for_the_hub_only_and_not_beside_a_mirror(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example/")
    assert transfer.address(HUB.url) == server.address + HUB_ASKED
    monkeypatch.setenv("RESZOO_MIRROR", server.address + "/base/")
    assert transfer.address(FILE.url) == f"{server.address}/base{ASKED}"
    monkeypatch.delenv("RESZOO_MIRROR")
    assert transfer.address(HUB.url) == HUB.url.replace("huggingface.co", "hub.example")
    assert transfer.address(FILE.url) == FILE.url
    monkeypatch.delenv("HF_ENDPOINT")
    assert transfer.address(HUB.url) == HUB.url


@pytest.mark.parametrize(
    "value", ["file:///etc", "ftp://mirror.example", "mirror.example", "https://a b", "https://a?b"]
)
def test_a_mirror_that_is_no_address_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RESZOO_MIRROR", value)
    assert f"RESZOO_MIRROR={value!r}" in refused(FILE)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://h.example/x", "http://[bad/"])
def test_a_redirect_to_something_else_is_refused(server: Server, target: str) -> None:
    server.plan = [Reply(status=302, headers={"Location": target})]
    refused(FILE)
    assert len(server.asked) == 1 and lying() == []
    hub_states(server, **{"Location": target, "X-Linked-Etag": ""})
    refused(HUB)
    assert len(server.asked) == 2 and lying(HUB) == []


def test_redirects_in_a_circle(server: Server) -> None:
    server.fixed[ASKED] = Reply(status=302, headers={"Location": ASKED})
    assert "infinite loop" in refused(FILE)
    server.fixed[HUB_ASKED] = Reply(status=307, headers={"Location": HUB_ASKED})
    assert "states no sha256" in refused(HUB)


def test_no_redirect_from_https_to_http() -> None:
    request = urllib.request.Request("https://h.example/x", headers={"Range": "bytes=5-"})
    handler = transfer._Redirects()
    with pytest.raises(
        ReszooError, match="redirects to http://h.example/y, which is not https; nothing of it was kept"
    ):
        handler.redirect_request(request, io.BytesIO(), 302, "Found", {}, "http://h.example/y")
    followed = handler.redirect_request(request, io.BytesIO(), 302, "Found", {}, "https://cdn.example/y")
    assert followed is not None and followed.get_header("Range") == "bytes=5-"


def test_nothing_but_http_is_opened() -> None:
    with pytest.raises(transfer.Broken, match="unknown url type: file"):
        with transfer.answer("file:///etc/hostname", [200]):
            pass


# Several at once.


def test_of_two_processes_one_downloads_and_the_other_waits(server: Server) -> None:
    server.plan = [Reply(cut=1000, wait=True)]
    program = f"from reszoo.weights.download import *; print(fetch({FILE!r}))"
    command = [sys.executable, "-c", program]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first:
        assert server.waiting.wait(60)
        with subprocess.Popen(command, **pipes) as second:
            assert second.stderr is not None
            assert second.stderr.readline() == f"waiting for another process that is downloading {cached(FILE)}\n"
            server.go_on.set()
            for process in (first, second):
                out, _ = process.communicate(timeout=60)
                assert (process.returncode, out) == (0, f"{cached(FILE)}\n")
    assert len(server.asked) == 1
    assert cached(FILE).read_bytes() == BODY and lying() == [cached(FILE).name]


def test_many_threads_at_once(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: fetch(FILE, quiet=True), range(8)))
    assert paths == {cached(FILE)} and len(server.asked) == 1 and lying() == [cached(FILE).name]


def test_after_one_that_failed_the_next_takes_over(server: Server) -> None:
    server.plan = [Reply(status=404)] * 3

    def attempt(_: int) -> bool:
        try:
            return fetch(FILE, quiet=True).exists()
        except ReszooError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(attempt, range(8))) == [False] * 3 + [True] * 5
    assert len(server.asked) == 4 and lying() == [cached(FILE).name]


def test_the_lock_held_is_the_one_that_lies_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flock, handles = fcntl.flock, []
    lock = tmp_path / "file.lock"

    def overtaken(handle: int, operation: int) -> None:
        flock(handle, operation)
        if not handles:
            lock.unlink()  # by the one waited for, while another may make it anew
        handles.append(handle)

    monkeypatch.setattr(download.fcntl, "flock", overtaken)
    with contextlib.ExitStack() as opened:
        with download._lock(tmp_path / "file", quiet=True):
            other = opened.enter_context(open(lock))
            with pytest.raises(BlockingIOError):
                flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            opened.callback(os.close, os.dup(handles[-1]))  # as a process forked meanwhile has it
        flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not lock.exists()


# The disk.


@pytest.mark.parametrize("blocked", ["", "weights", f"weights/{HOST}/models"])
def test_a_home_that_cannot_be_written(server: Server, blocked: str) -> None:
    block = home() / blocked
    block.parent.mkdir(parents=True, exist_ok=True)
    block.write_text("a file in the place of a folder")
    line = refused(FILE)
    assert str(block) in line and "RESZOO_HOME" in line
    assert server.asked == []


def test_a_folder_in_the_place_of_the_file(server: Server) -> None:
    cached(FILE).mkdir(parents=True)
    assert "Is a directory" in refused(FILE)


def test_a_disk_without_room_is_seen_beforehand(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    part_of().write_bytes(BODY[:4800])
    free = 199_999
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, free))
    line = refused(FILE)
    assert "200.0 kB are missing and 199.9 kB free" in line and "RESZOO_HOME" in line
    assert part_of().stat().st_size == 4800
    free, server.plan = 200_000, [Reply(ranges=False)]
    assert fetch(FILE).read_bytes() == BODY


def test_a_disk_that_fills_up_keeps_what_has_come(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(response: object) -> Iterator[bytes]:
        yield BODY[:1000]
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_chunks", full)
        assert "no space left to write" in refused(FILE)
    fetch(FILE)
    assert server.gets[1]["Range"] == "bytes=1000-"


# What a person reads.


def test_one_line_before_and_one_after(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan = [Reply(cut=1000)]
    fetch(FILE)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.splitlines() == [
        f"downloading {FILE.url} (204.8 kB) to {cached(FILE)}",
        f"downloaded {cached(FILE)} (204.8 kB), and its digest is right",
    ]


def test_quiet_prints_nothing(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    place(OTHER)
    fetch(FILE, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    server.plan = [Reply(cut=1000)]
    fetch(FILE)
    drawn = sys.stderr.getvalue()
    assert cached(FILE).name[:8] in drawn and "204.8/204.8 kB" in drawn


def test_no_standard_error_at_all(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    place(OTHER)
    assert fetch(FILE).read_bytes() == BODY


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (102_530_333, "102.5 MB"),
        (999_999_999, "999.9 MB"),
        (1_500_000_000, "1.5 GB"),
    ],
)
def test_sizes_for_reading(count: int, text: str) -> None:
    assert transfer.megabytes(count) == text


def test_text_from_elsewhere_stays_on_its_line() -> None:
    assert transfer.plain("a\x1b[2J\nb") == "a?[2J b"
