"""One file over http(s): where it is asked for, what servers answer, and going on after what has come already."""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from reszoo import __version__
from reszoo.errors import ReszooError
from reszoo.files import write_json

# Seconds to wait before the second attempt at a broken connection and before the third, which is the last.
BACK_OFF = (0.5, 1.0)
TIMEOUT = 30.0
HUB = "https://huggingface.co"
NOT_KEPT = "nothing of it was kept: try again, or name another source in RESZOO_MIRROR"
_CHUNK = 1 << 18

_URL = re.compile(
    r"https?://([A-Za-z0-9](?:[A-Za-z0-9.-]{0,198}[A-Za-z0-9])?)(?::([0-9]{1,5}))?"
    r"((?:/(?!\.\.?(?:/|$))[A-Za-z0-9._+=@~-]{1,200})+)"
)
_BASE = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(?:/[A-Za-z0-9._+=@~/-]*)?")
_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")
_RESERVED = (".part", ".part.json", ".lock", ".sha256")

T = TypeVar("T")
Report = Callable[[int, int | None], None]  # called with the bytes that have come and the bytes in all


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the bytes are asked for, after mirrors and the hub's answer, and what they must be."""

    address: str
    digest: str
    size: int | None
    revision: str | None = None


class Unavailable(ReszooError):
    """A file that its source does not give; to get it by other means may help."""


class Broken(Exception):
    """A connection that failed in a way worth another attempt; its text says how."""


def place(url: str) -> str:
    """Where `url` lies below the cache and below a mirror: HOST/PATH. Raises ReszooError if it is not plain enough."""
    match = _URL.fullmatch(url)
    if not match or url.endswith(_RESERVED):
        raise ReszooError(
            f"{plain(url)!r} is no address of a weights file: https://HOST/PATH is expected, without query, '..' or '%'"
        )
    host, port, path = match.groups()
    return host.lower() + (f"_{port}" if port else "") + path


def address(url: str) -> str:
    """Where `url` is asked for: at the mirror or the hub's other address, if the environment names one."""
    if mirror := os.environ.get("RESZOO_MIRROR"):
        return f"{_base('RESZOO_MIRROR', mirror)}/{place(url)}"
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint and url.startswith(HUB + "/"):
        return _base("HF_ENDPOINT", endpoint) + url.removeprefix(HUB)
    return url


def receive(source: Source, part: Path, report: Report) -> None:
    """Append to `part` what it lacks of the file, or start over. Raises Unavailable; what has come then stays there."""
    if read_json(beside(part, ".json")).get("digest", source.digest) != source.digest:
        discard(part)
    try:
        attempt(source.address, lambda: _receive(source, part, report), part)
    finally:
        if size_of(part) == 0:
            discard(part)
    if not part.exists():
        raise Unavailable(f"{source.address} is empty")


def attempt(asked: str, action: Callable[[], T], part: Path | None = None) -> T:
    """Return what `action` returns, called again where the connection breaks; `part` is what it adds to."""
    pauses = list(BACK_OFF)
    while True:
        try:
            return action()
        except Broken as error:
            if not pauses:
                kept = size_of(part) if part else 0
                rest = f"; {megabytes(kept)} are kept and gone on with next time" if kept else ""
                raise Unavailable(f"{asked} cannot be downloaded ({error}){rest}") from error
            time.sleep(pauses.pop(0))


@contextmanager
def answer(
    asked: str, allowed: Container[int], headers: Mapping[str, str] = {}, *, method: str = "GET"
) -> Iterator[Any]:
    """Yield a server's answer of an allowed status. GET follows redirects; to HEAD they are an answer.

    Raises Broken for a status from 500 or no answer at all, Unavailable for another status.
    """
    own = {"User-Agent": f"reszoo/{__version__}", "Accept-Encoding": "identity"}
    request = urllib.request.Request(asked, headers={**own, **headers}, method=method)
    opener = urllib.request.OpenerDirector()  # build_opener would add file: and ftp:
    for handler in _HANDLERS:
        opener.add_handler(handler())
    try:
        response: Any = opener.open(request, timeout=_timeout())
    except urllib.error.HTTPError as error:
        response = error
    except (OSError, http.client.HTTPException) as error:
        raise Broken(_reason(error)) from error
    except ReszooError:
        raise
    except ValueError as error:  # a redirect to what is no address
        raise ReszooError(f"{asked} cannot be opened: {plain(str(error))}") from error
    with response:
        said = f"the server answered {response.status} {plain(response.reason)}"
        if response.status >= 500:
            raise Broken(said)
        if response.status not in allowed:
            raise Unavailable(f"{asked}: {said}")
        yield response


def _receive(source: Source, part: Path, report: Report) -> None:
    done, left = size_of(part), read_json(beside(part, ".json"))
    etag = left.get("etag") if left.get("url") == source.address else None
    headers = {"Range": f"bytes={done}-"} if done else {}
    if done and etag:
        headers["If-Range"] = etag
    with answer(source.address, (200, 206, 416) if done else (200,), headers) as response:
        start, total = _placed(response)
        now = _strong_etag(response)
        changed = response.status == 206 and etag and now not in (None, etag)
        if start in (0, done) and not changed:
            _check_size(source, part, total)
            _check_room(source, part, (total or source.size or 0) - done)
            write_json(beside(part, ".json"), {"url": source.address, "etag": now, "digest": source.digest})
            end = source.size if total is None else total
            report(start, end)
            with open(part, "ab" if start else "wb") as out:
                for chunk in _chunks(response):
                    out.write(chunk)
                    report(out.tell(), end)
                    if end is not None and out.tell() > end:
                        break
            if end is not None and size_of(part) < end:
                raise Broken("the connection was closed early")
            _check_size(source, part, size_of(part))
            return
    discard(part)  # it does not go with what the server has now
    _receive(source, part, report)


def _chunks(response: Any) -> Iterator[bytes]:
    try:
        while chunk := response.read1(_CHUNK):  # as soon as there is some: a stall then loses nothing that has come
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise Broken(_reason(error)) from error


def _placed(response: Any) -> tuple[int, int | None]:
    """Where the answer's first byte belongs, and the size of the whole file if stated; -1 where it belongs nowhere."""
    if response.status == 200:
        return 0, response.length
    match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if response.status != 206 or not match or response.length not in (None, int(match[2]) - int(match[1]) + 1):
        return -1, None
    return int(match[1]), None if match[3] == "*" else int(match[3])


def _strong_etag(response: Any) -> str | None:
    """The answer's ETag if it can go into If-Range, which takes no weak one."""
    etag = response.headers.get("ETag", "")
    return etag if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag) else None


def _check_size(source: Source, part: Path, total: int | None) -> None:
    if source.size is not None and total not in (None, source.size):
        discard(part)
        raise ReszooError(f"{source.address} has {total:,} bytes where {source.size:,} are expected; {NOT_KEPT}")


def _check_room(source: Source, part: Path, missing: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < missing:
        raise ReszooError(
            f"no room for {source.address}: {megabytes(missing)} are missing and {megabytes(free)} free in "
            f"{part.parent}; make room, or set RESZOO_HOME to a folder that has it"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but not for HEAD, none away from http(s) and none from https to http."""

    def http_error_302(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:  # refused below, or no address at all
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.get_method() == "HEAD":
            return None
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise ReszooError(f"{req.full_url} redirects to {plain(newurl)}, which is not https; {NOT_KEPT}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.UnknownHandler,
    _Redirects,
)


def _base(name: str, value: str) -> str:
    if not _BASE.fullmatch(value):
        raise ReszooError(f"{name}={value!r} is not an address such as https://mirror.example/base")
    return value.rstrip("/")


def _timeout() -> float:
    value = os.environ.get("RESZOO_TIMEOUT") or str(TIMEOUT)
    with suppress(ValueError):
        if 0 < float(value) <= 86400:
            return float(value)
    raise ReszooError(f"RESZOO_TIMEOUT={value!r} is not a number of seconds above 0, such as 30")


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, TimeoutError) and inner.errno is None:
        return f"nothing came for {_timeout():g} s"
    if isinstance(inner, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "the connection was closed early"
    return plain((isinstance(inner, OSError) and inner.strerror) or str(inner) or type(inner).__name__)


def beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def discard(path: Path) -> None:
    """Remove a file and the record beside it."""
    path.unlink(missing_ok=True)
    beside(path, ".json").unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is none or it cannot be read as one."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def plain(text: str) -> str:
    """Text from elsewhere, fit for one line on a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(text).split()))[:200]


def megabytes(count: int) -> str:
    """Bytes for reading, in powers of 1000 as file listings and progress bars have them: `102.5 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{math.floor(count / size * 10) / 10:.1f} {unit}"
    return f"{count} bytes"
