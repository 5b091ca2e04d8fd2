"""Downloads by the real pooch and huggingface_hub from a local server that plays both a file server and the hub."""

from __future__ import annotations

import errno
import gc
import hashlib
import http.server
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reszoo.errors import ReszooError
from reszoo.weights import download
from reszoo.weights.download import cache_path, fetch
from reszoo.weights.files import RemoteFile

BODY = bytes(range(256)) * 800
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = BODY[::-1]
FILE = RemoteFile(
    url=f"https://weights.example/models/net-{SHA[:8]}.pth", digest=f"sha256:{SHA[:8]}"
)
PATH = "/weights.example/models/net-" + SHA[:8] + ".pth"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = RemoteFile(
    url="https://huggingface.co/timm/net.tv_in1k/resolve/main/model.safetensors", digest="hub"
)
HUB_PATH = "/timm/net.tv_in1k/resolve/main/model.safetensors"
BOTH = pytest.mark.parametrize("file", [FILE, HUB], ids=["plain", "hub"])


class Server(http.server.ThreadingHTTPServer):
    """Serves `body`, or the first `cut` bytes of it, or answers `status`; states `etag` as the hub does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.etag, self.status, self.cut = BODY, SHA, 200, len(BODY)
        self.requests: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.requests.append((self.command, self.path))
        if server.status != 200:
            return self.reply(
                server.status, {"X-Error-Code": "EntryNotFound"} if server.status == 404 else {}
            )
        if self.path == HUB_PATH:
            stated = {
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{server.etag}"',
                "X-Linked-Size": str(len(BODY)),
            }
            storage = server.url.replace("127.0.0.1", "localhost")  # another host than the hub's
            return self.reply(302, {"Location": f"{storage}/storage", **stated})
        if self.path not in (PATH, "/storage"):
            return self.reply(404, {})
        self.reply(200, {"Content-Length": str(len(server.body))})
        if self.command == "GET":
            self.wfile.write(server.body[: server.cut])
        return None

    do_HEAD = do_GET

    def reply(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session", autouse=True)
def two_devices() -> None:
    """In place of the fixture for all tests: these need no TensorFlow."""


@pytest.fixture(autouse=True)
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server for every URL, and empty caches. huggingface_hub reads the environment when it is imported."""
    for name in [
        name for name in os.environ if name.startswith("HF_") or name.lower().endswith("_proxy")
    ]:
        monkeypatch.delenv(name)
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("RESZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    with Server() as running:
        monkeypatch.setenv("RESZOO_MIRROR", running.url)
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        gc.freeze()  # so that collecting below does not walk all of TensorFlow
        yield running
        if "huggingface_hub" in sys.modules:
            sys.modules["huggingface_hub"].close_session()
        logging.getLogger("huggingface_hub").handlers.clear()
        with (
            warnings.catch_warnings()
        ):  # pooch leaves the connection of a failed request to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        gc.unfreeze()
        running.shutdown()
        thread.join()


def refused(file: RemoteFile) -> str:
    """Return the one line with which `file` is refused."""
    with pytest.raises(ReszooError) as caught:
        fetch([file])
    line = str(caught.value)
    assert len(line.splitlines()) == 1 and file.url.rpartition("/")[2] in line
    return line


def stored(tmp_path: Path) -> list[Path]:
    """Return the files of both caches that hold weights, or a part of them."""
    found = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in found if path.stat().st_size >= 1000 or "part" in path.name]


@BOTH
def test_a_file_is_downloaded_once_and_whole(
    file: RemoteFile, server: Server, tmp_path: Path
) -> None:
    path = fetch([file])
    asked = len(server.requests)
    assert path.read_bytes() == BODY and path.suffix == Path(file.url).suffix
    assert fetch([file]) == path and len(server.requests) == asked
    assert len(stored(tmp_path)) == 1


def test_cache_paths_are_those_of_the_hub_and_of_earlier_versions(tmp_path: Path) -> None:
    assert fetch([FILE]) == cache_path(FILE) == tmp_path / "home" / "weights" / PATH[1:]
    # The layout that huggingface_hub documents, and that timm and keras-hub therefore leave too.
    folder = tmp_path / "hub" / "hub" / "models--timm--net.tv_in1k"
    assert fetch([HUB]) == folder / "snapshots" / COMMIT / "model.safetensors"
    assert (folder / "blobs" / SHA).read_bytes() == BODY and (
        folder / "refs" / "main"
    ).read_text() == COMMIT
    assert (
        cache_path(FILE).stat().st_mode & 0o777 == (folder / "refs" / "main").stat().st_mode & 0o777
    )


def test_a_file_that_another_library_fetched_is_found(server: Server) -> None:
    from huggingface_hub import hf_hub_download

    path = hf_hub_download("timm/net.tv_in1k", "model.safetensors")
    server.requests.clear()
    assert fetch([HUB]) == Path(path) and server.requests == []


def test_a_cached_file_comes_before_a_preferred_one(server: Server) -> None:
    assert fetch([FILE]) == fetch([HUB, FILE])
    assert [path for _, path in server.requests] == [PATH]


@BOTH
def test_a_damaged_file_is_never_returned(
    file: RemoteFile,
    server: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = fetch([file])
    path.write_bytes(OTHER)
    capsys.readouterr()
    assert fetch([file]).read_bytes() == BODY
    line = capsys.readouterr().err.splitlines()[0]
    assert str(path) in line and hashlib.sha256(OTHER).hexdigest() in line and SHA[:8] in line
    path.write_bytes(OTHER)
    server.status = 503
    assert "HTTP 503" in refused(file)


@BOTH
def test_a_download_with_a_wrong_digest_is_discarded(
    file: RemoteFile, server: Server, tmp_path: Path
) -> None:
    server.body = OTHER
    line = refused(file)
    assert hashlib.sha256(OTHER).hexdigest() in line and f"expected {SHA[:8]}" in line
    assert stored(tmp_path) == []
    server.body = BODY
    assert fetch([file]).read_bytes() == BODY


def test_md5_and_a_whole_sha256_are_digests_too() -> None:
    for digest in (f"sha256:{SHA}", f"md5:{hashlib.md5(BODY).hexdigest()}"):
        assert fetch([RemoteFile(url=FILE.url, digest=digest)]).read_bytes() == BODY
    for digest in (f"sha256:{SHA[:-1]}x", f"md5:{hashlib.md5(OTHER).hexdigest()}"):
        refused(RemoteFile(url=FILE.url, digest=digest))


def test_a_hub_file_without_a_sha256_is_not_opened(server: Server) -> None:
    server.etag = COMMIT  # of git, as for small text files
    assert f"the hub states the digest {COMMIT}; expected a sha256" in refused(HUB)


def test_without_links_the_hub_is_asked_for_the_digest(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
    path = fetch([HUB])
    assert not path.is_symlink() and fetch([HUB]) == path
    path.write_bytes(OTHER)
    assert fetch([HUB]).read_bytes() == BODY


@BOTH
def test_half_a_file_does_not_stay(
    file: RemoteFile, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # of huggingface_hub's attempts
    server.cut = 1000
    assert "download failed (" in refused(file)
    assert stored(tmp_path) == []


@BOTH
@pytest.mark.parametrize("status", [403, 404, 503])
def test_the_answer_of_the_server_is_named(
    file: RemoteFile, status: int, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.status = status
    line = refused(file)
    assert line.startswith(
        f"{file.url}: download failed (HTTP {status} {http.HTTPStatus(status).phrase}). "
    )


@BOTH
def test_without_a_network_the_error_names_the_fix(
    file: RemoteFile,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("RESZOO_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    line = refused(file)
    assert capfd.readouterr().err.splitlines() == [f"downloading {file.url}"]
    assert "download failed (Connection refused). Check the connection, HTTPS_PROXY or " in line
    if file is HUB:
        assert (
            "HF_ENDPOINT, or run 'hf download timm/net.tv_in1k model.safetensors' on another machine"
            in line
        )
        assert line.endswith(f"copy its folder to {tmp_path}/hub/hub/models--timm--net.tv_in1k")
    else:
        assert line.endswith(
            f"RESZOO_MIRROR, or download it on another machine and put it at {cache_path(file)}"
        )


@BOTH
def test_offline_only_the_cache_is_used(
    file: RemoteFile, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not in the cache, and HF_HUB_OFFLINE is set. Unset it, or " in refused(file)
    assert server.requests == []
    script = f"from reszoo.weights.download import *; print(fetch([{file!r}]))"
    online = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=online, capture_output=True, text=True, check=True
    )
    assert fetch([file]) == Path(done.stdout.strip())


@BOTH
def test_a_cache_that_cannot_be_written(file: RemoteFile, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file in the place of a folder")
    (tmp_path / "hub").write_text("a file in the place of a folder")
    with pytest.raises(ReszooError) as caught:
        fetch([file])
    variable = "HF_HOME" if file is HUB else "RESZOO_HOME"
    assert str(caught.value).endswith(f". Set {variable} to a folder that you can write")
    assert str(tmp_path) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", full)
    line = refused(FILE)
    assert (
        line
        == f"{FILE.url}: No space left on device. Free some space, or set RESZOO_HOME to a folder on another disk"
    )
    assert stored(tmp_path) == []


@BOTH
def test_several_at_once_all_get_the_file(file: RemoteFile, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: fetch([file]), range(8)))
    assert len(paths) == 1 and paths.pop().read_bytes() == BODY
    assert len(stored(tmp_path)) == 1


def test_a_bar_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fetch([FILE])
    assert capsys.readouterr().err == f"downloading {FILE.url}\n"
    cache_path(FILE).unlink()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fetch([FILE])
    assert "100%" in capsys.readouterr().err


def test_nothing_is_imported_before_a_download() -> None:
    script = "import sys, reszoo.weights.load; print(*({'huggingface_hub', 'pooch', 'requests'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
    assert download.TIMEOUT > 0
