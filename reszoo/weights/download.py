"""Bring one published weights file into the cache, whole and checked, or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import json
import math
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import reszoo
from reszoo.errors import ReszooError
from reszoo.files import write_json

# Seconds to wait before the second attempt at a broken download and before the third, which is the last.
BACK_OFF = (0.5, 1.0)
TIMEOUT = 30.0
HUB = "https://huggingface.co"
_CHUNK = 1 << 18
_HUB_REDIRECTS = 5

_URL = re.compile(
    r"(https?://)([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::([0-9]{1,5}))?((?:/[A-Za-z0-9._+=@~-]+)+)"
)
_BASE = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(?:/[A-Za-z0-9._+=@~/-]*)?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{8,64}|md5:[0-9a-f]{32}|hub")
_RESOLVE = re.compile(r"(.+?/resolve/)([^/]+)(/.+)")
_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")
_NOT_KEPT = "nothing of it was kept: try again, or name another source in RESZOO_MIRROR"
_RESERVED = (".part", ".part.json", ".lock", ".sha256")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A published file and what it must be.

    digest: `sha256:` with all 64 hexadecimal digits or at least the first 8, `md5:` with all 32, or `hub`: the sha256 that
    the Hugging Face hub states for a `.../resolve/REVISION/...` address. size: bytes, where known.
    """

    url: str
    digest: str
    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where the bytes are asked for, after mirrors and the hub's answer, and what they must be."""

    address: str
    digest: str
    size: int | None
    revision: str | None = None


class _Broken(Exception):
    """A connection that failed in a way worth another attempt; its text says how."""


def home() -> Path:
    """The folder of everything reszoo keeps: `$RESZOO_HOME`, else `~/.cache/reszoo`."""
    folder = os.environ.get("RESZOO_HOME") or "~/.cache/reszoo"
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise ReszooError(f"no home directory for {folder!r}; set RESZOO_HOME to a folder for weights") from error


def cached(file: RemoteFile) -> Path:
    """The path where `file` lies or would lie: `weights/HOST/PATH` of its address, below `home()`.

    Raises `ReszooError` for an address that is not plain http(s), or has a query, `..` or characters unfit for a file name.
    """
    host, path = _split(file.url)
    return home().joinpath("weights", host, *path.split("/")[1:])


def fetch(file: RemoteFile, *, quiet: bool = False) -> Path:
    """Return the path of `file` in the cache, downloading it if it is not there; its digest is checked every time.

    An interrupted download leaves a `.part` beside that path and is gone on with the next time; of several processes that
    want the same file, one downloads and the others wait. Reads `RESZOO_HOME`, `RESZOO_MIRROR`, `HF_ENDPOINT`,
    `RESZOO_OFFLINE` and `RESZOO_TIMEOUT` (seconds without a byte, default 30). quiet: print nothing to standard error.
    Raises `ReszooError`, one line, where the file cannot be had or is not the one expected; it is then not in the cache.
    """
    path = cached(file)
    if not _DIGEST.fullmatch(file.digest):
        raise ReszooError(
            f"{file.url}: digest {file.digest!r} is none of sha256:HEX (8 to 64 digits), md5:HEX (32 digits) and hub"
        )
    if file.digest == "hub" and not _RESOLVE.fullmatch(file.url):
        raise ReszooError(
            f"{file.url}: only an address of the form {HUB}/OWNER/NAME/resolve/REVISION/FILE has a digest hub"
        )
    try:
        recorded = _recorded_digest(file, path)
        if path.exists() and recorded and verify(path, recorded) is None:
            return path
        if os.environ.get("RESZOO_OFFLINE", "") not in ("", "0"):
            return _without_network(file, path, recorded)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path, quiet):
            return _fetch_locked(file, path, quiet)
    except OSError as error:
        raise _disk_error(path, error) from error


def verify(path: Path, digest: str) -> str | None:
    """Return None if the file at `path` has `digest` (`sha256:` whole or prefix, or `md5:`), else the digest it has."""
    kind, wanted = digest.split(":")
    with open(path, "rb") as opened:
        found = hashlib.file_digest(opened, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    return None if found.startswith(wanted) else f"{kind}:{found}"


def _fetch_locked(file: RemoteFile, path: Path, quiet: bool) -> Path:
    source = None
    if path.exists():
        recorded = _recorded_digest(file, path)
        if recorded is None:
            try:
                source = _ask_hub(file, path)
            except ReszooError as error:
                return _check_by_hand(path, str(error))
            recorded = source.digest
        found = verify(path, recorded)
        if found is None:
            if source:
                with suppress(OSError):  # a cache that may only be read
                    _write_sidecar(file, source, path, _size(path))
            return path
        _say(f"{path} is damaged ({_mismatch(recorded, found)}): downloading it again", quiet)
        path.unlink()
        _beside(path, ".json").unlink(missing_ok=True)
    if source is None:
        if file.digest == "hub":
            source = _ask_hub(file, path)
        else:
            source = _Source(address=_address(file.url), digest=file.digest, size=file.size)
    _download(file, source, path, quiet)
    return path


def _without_network(file: RemoteFile, path: Path, recorded: str | None) -> Path:
    if not path.exists():
        raise ReszooError(f"{path.name} is not in the cache and RESZOO_OFFLINE is set{_by_hand(file, path)}")
    if recorded is None:
        return _check_by_hand(path, "RESZOO_OFFLINE is set")
    found = verify(path, recorded)
    if found is None:
        return path
    raise ReszooError(
        f"{path} is damaged ({_mismatch(recorded, found)}) and RESZOO_OFFLINE is set{_by_hand(file, path)}"
    )


# The Hugging Face hub: the digest is the one it states, held to from then on by a record beside the file.


def _ask_hub(file: RemoteFile, path: Path) -> _Source:
    """Ask the hub for the commit, sha256 and size of `file`, whose bytes are then asked for at that commit."""
    address = _address(file.url)
    try:
        headers = _attempt(lambda: _hub_headers(file, address, path))
    except _Broken as error:
        raise _unreachable(file, address, path, str(error)) from error
    sha256 = headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"').lower()
    revision = headers.get("X-Repo-Commit", "")
    if not re.fullmatch("[0-9a-f]{64}", sha256) or not re.fullmatch("[0-9a-f]{40}", revision):
        raise ReszooError(f"{address}: the hub states no sha256 for this file{_by_hand(file, path, address)}")
    linked = headers.get("X-Linked-Size", "")
    return _Source(
        address=_RESOLVE.sub(rf"\g<1>{revision}\g<3>", address),
        digest=f"sha256:{sha256}",
        size=int(linked) if re.fullmatch("[0-9]{1,18}", linked) else file.size,
        revision=revision,
    )


def _hub_headers(file: RemoteFile, address: str, path: Path) -> Mapping[str, str]:
    """The headers of the hub's own answer, not of the storage it sends to.

    Redirects within the hub are followed: to a repository's new name, or from a mirror to the hub.
    """
    here = address
    for _ in range(_HUB_REDIRECTS):
        with _answer(here, method="HEAD", follow=False) as answer:
            headers: Mapping[str, str] = answer.headers
            if answer.status >= 400:
                raise _refused(file, here, path, answer)
        target = urllib.parse.urljoin(here, headers.get("Location", ""))
        same = urllib.parse.urlsplit(target)[:2] == urllib.parse.urlsplit(here)[:2]
        if "X-Linked-Etag" in headers or "Location" not in headers or not (same or target.startswith(HUB + "/")):
            break
        here = target
    return headers


def _recorded_digest(file: RemoteFile, path: Path) -> str | None:
    """The digest to hold the cached file to, or None where only the hub can say."""
    if file.digest != "hub":
        return file.digest
    sha256 = _read_json(_beside(path, ".json")).get("sha256")
    return f"sha256:{sha256}" if isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256) else None


def _write_sidecar(file: RemoteFile, source: _Source, path: Path, size: int) -> None:
    sha256 = source.digest.removeprefix("sha256:")
    write_json(_beside(path, ".json"), {"url": file.url, "revision": source.revision, "sha256": sha256, "size": size})


def _check_by_hand(path: Path, why: str) -> Path:
    """Hold a file that was put there by hand to the `.sha256` beside it; `why` says why the hub was not asked."""
    sums = _beside(path, ".sha256")
    if not sums.exists():
        raise ReszooError(f"{path} cannot be checked: {why}; put its sha256 in {sums}, as sha256sum writes it")
    for line in sums.read_text(errors="replace").splitlines():
        digits, _, name = line.strip().partition(" ")
        if re.fullmatch("[0-9a-fA-F]{64}", digits) and Path(name.lstrip(" *") or path.name).name == path.name:
            found = verify(path, f"sha256:{digits.lower()}")
            if found is None:
                return path
            raise ReszooError(f"{path} does not fit {sums.name}: {_mismatch(f'sha256:{digits.lower()}', found)}")
    raise ReszooError(f"{sums} holds no sha256 of {path.name}; write into it what sha256sum prints for the right file")


# The download itself.


def _download(file: RemoteFile, source: _Source, path: Path, quiet: bool) -> None:
    """Download to `.part`, go on after what an earlier attempt left there, check, and move into place."""
    part = _beside(path, ".part")
    left = _read_json(_beside(path, ".part.json"))
    if left.get("digest", source.digest) != source.digest:
        _discard(part)
    try:
        with _progress(file, path, quiet) as report:
            if not _is_complete(part, source):
                _attempt(lambda: _receive(file, source, path, part, report))
    except _Broken as error:
        raise _unreachable(file, source.address, path, str(error), kept=_size(part)) from error
    finally:
        if _size(part) == 0:
            _discard(part)
    if not part.exists():
        raise ReszooError(f"{source.address} is empty{_by_hand(file, path, source.address)}")
    found = verify(part, source.digest)
    if found is not None:
        _discard(part)
        raise ReszooError(f"{source.address} is not the file expected: {_mismatch(source.digest, found)}; {_NOT_KEPT}")
    with open(part, "rb") as opened:
        os.fsync(opened.fileno())
    size = _size(part)
    if source.revision is not None:
        _write_sidecar(file, source, path, size)
    os.replace(part, path)
    _discard(part)
    if not _draws(quiet):
        _say(f"downloaded {path} ({_megabytes(size)}), and its digest is right", quiet)


def _is_complete(part: Path, source: _Source) -> bool:
    """Whether `.part` is already the whole file; one that is too long, or whole and wrong, is thrown away."""
    if source.size is None or _size(part) < source.size:
        return False
    if _size(part) == source.size and verify(part, source.digest) is None:
        return True
    _discard(part)
    return False


def _receive(
    file: RemoteFile, source: _Source, path: Path, part: Path, report: Callable[[int, int | None], None]
) -> None:
    """One attempt: ask for what `.part` lacks and append it. Raises `_Broken` if the connection ends before the file."""
    done = _size(part)
    left = _read_json(_beside(part, ".json"))
    etag = left.get("etag") if left.get("url") == source.address else None
    headers = {"Range": f"bytes={done}-"} if done else {}
    if done and etag:
        headers["If-Range"] = etag
    with _answer(source.address, headers) as answer:
        if answer.status not in (200, 206, 416) or (answer.status != 200 and not done):
            raise _refused(file, source.address, path, answer)
        start, total = _placed(answer)
        changed = answer.status == 206 and etag and _strong_etag(answer) not in (None, etag)
        if start in (0, done) and not changed:
            _check_size(source, part, total)
            _check_room(file, part, (total or source.size or 0) - _size(part))
            write_json(
                _beside(part, ".json"),
                {"url": source.address, "etag": _strong_etag(answer), "digest": source.digest},
            )
            with open(part, "ab" if start else "wb") as out:
                _copy(source, answer, out, start, total, report)
            return
    _discard(part)
    _receive(file, source, path, part, report)


def _copy(
    source: _Source,
    answer: Any,
    out: IO[bytes],
    done: int,
    total: int | None,
    report: Callable[[int, int | None], None],
) -> None:
    end = total if total is not None else source.size
    report(done, end)
    for chunk in _chunks(answer):
        out.write(chunk)
        done += len(chunk)
        report(done, end)
        if end is not None and done > end:
            break
    if end is not None and done < end:
        raise _Broken("the connection was closed early")
    if end is not None and done > end:
        out.close()
        _check_size(source, Path(out.name), done)


def _chunks(answer: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = answer.read1(_CHUNK)  # as soon as there is some: a stall then loses nothing that has come
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(_reason(error)) from error
        if not chunk:
            return
        yield chunk


def _placed(answer: Any) -> tuple[int, int | None]:
    """Where the answer's first byte belongs, and the size of the whole file if stated; -1 where it belongs nowhere."""
    if answer.status == 200:
        return 0, answer.length
    match = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if answer.status != 206 or not match or answer.length not in (None, int(match[2]) - int(match[1]) + 1):
        return -1, None
    return int(match[1]), None if match[3] == "*" else int(match[3])


def _strong_etag(answer: Any) -> str | None:
    """The answer's ETag if it can go into If-Range, which takes no weak one."""
    etag = answer.headers.get("ETag", "")
    return etag if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag) else None


def _check_size(source: _Source, part: Path, total: int | None) -> None:
    if source.size is not None and total is not None and total != source.size:
        _discard(part)
        raise ReszooError(f"{source.address} has {total:,} bytes where {source.size:,} are expected; {_NOT_KEPT}")


def _check_room(file: RemoteFile, part: Path, missing: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < missing:
        raise ReszooError(
            f"no room for {file.url}: {_megabytes(missing)} are missing and {_megabytes(free)} free in {part.parent}; "
            "make room, or set RESZOO_HOME to a folder that has it"
        )


# Asking a server.


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but none away from http(s) and none from https to http."""

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
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise ReszooError(f"{req.full_url} redirects to {_plain(newurl)}, which is not https; {_NOT_KEPT}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _answer(
    address: str, headers: Mapping[str, str] | None = None, *, method: str = "GET", follow: bool = True
) -> Iterator[Any]:
    """Yield a server's answer of whatever status below 500; raises `_Broken` where there is none."""
    own = {"User-Agent": f"reszoo/{reszoo.__version__}", "Accept-Encoding": "identity"}
    request = urllib.request.Request(address, headers={**own, **(headers or {})}, method=method)
    opener = urllib.request.OpenerDirector()  # build_opener would add file: and ftp:
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        *([_Redirects()] if follow else []),
    ):
        opener.add_handler(handler)
    try:
        answer: Any = opener.open(request, timeout=_timeout())
    except urllib.error.HTTPError as error:
        answer = error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(_reason(error)) from error
    except ReszooError:
        raise
    except ValueError as error:  # a redirect to what is no address
        raise ReszooError(f"{address} cannot be opened: {_plain(str(error))}") from error
    with answer:
        if answer.status >= 500:
            raise _Broken(f"the server answered {answer.status} {_plain(answer.reason)}")
        yield answer


def _attempt(action: Callable[[], T]) -> T:
    for pause in BACK_OFF:
        try:
            return action()
        except _Broken:
            time.sleep(pause)
    return action()


def _address(url: str) -> str:
    """Where `url` is asked for: at the mirror or the hub's other address, if the environment names one."""
    mirror = os.environ.get("RESZOO_MIRROR")
    host, path = _split(url)
    if mirror:
        return f"{_base('RESZOO_MIRROR', mirror)}/{host}{path}"
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint and url.startswith(HUB + "/"):
        return _base("HF_ENDPOINT", endpoint) + path
    return url


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


def _split(url: str) -> tuple[str, str]:
    """Host, as a folder is named after it, and path of an address that is plain enough to name a file."""
    match = _URL.fullmatch(url)
    parts = match[4].split("/")[1:] if match else []
    if (
        not match
        or any(part in (".", "..") or len(part) > 200 for part in parts)
        or len(match[2]) > 200
        or parts[-1].endswith(_RESERVED)
    ):
        raise ReszooError(
            f"{_plain(url)!r} is no address of a weights file: https://HOST/PATH is expected, without query, '..' or '%'"
        )
    return match[2].lower() + (f"_{match[3]}" if match[3] else ""), match[4]


# What lies on disk.


@contextmanager
def _lock(path: Path, quiet: bool) -> Iterator[None]:
    """Hold `.lock` beside `path` alone, waiting for another process that holds it; it is removed afterwards."""
    lock = _beside(path, ".lock")
    told = False
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    _say(f"waiting for another process that is downloading {path}", quiet)
                told = True
                fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                # The last holder removed the file that was waited for: the one to hold is whatever lies there now.
                current = os.path.samestat(os.stat(lock), os.fstat(handle))
            except FileNotFoundError:
                current = False
            if current:
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                    fcntl.flock(handle, fcntl.LOCK_UN)  # closing alone leaves it with a process forked meanwhile
                return
        finally:
            os.close(handle)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _beside(part, ".json").unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is none or it cannot be read as one."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


# What a person reads.


@contextmanager
def _progress(file: RemoteFile, path: Path, quiet: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function to call with bytes done and bytes in all: it moves a bar, or prints one line at its first call."""
    if not _draws(quiet):
        told = False

        def tell(done: int, total: int | None) -> None:
            nonlocal told
            if not told:
                size = f" ({_megabytes(total)})" if total is not None else ""
                after = f", going on after {_megabytes(done)}" if done else ""
                _say(f"downloading {file.url}{size} to {path}{after}", quiet)
            told = True

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(path.name, total=file.size)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _draws(quiet: bool) -> bool:
    return not quiet and sys.stderr is not None and sys.stderr.isatty()


def _say(line: str, quiet: bool) -> None:
    if not quiet and sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)


def _by_hand(file: RemoteFile, path: Path, named: str = "") -> str:
    """What to do instead, to end a line with; named: the address that the line already gives."""
    recorded = _recorded_digest(file, path)
    if recorded is None and path.exists():
        return ""  # done already; what is missing is something to check it by
    what = "it" if named == file.url else file.url
    size = f" ({_megabytes(file.size)})" if file.size is not None else ""
    sums = f", with its sha256 in {path}.sha256" if recorded is None else ""
    return f"; get {what}{size} by other means and put it at {path}{sums}"


def _unreachable(file: RemoteFile, address: str, path: Path, reason: str, kept: int = 0) -> ReszooError:
    rest = f"; {_megabytes(kept)} are kept and gone on with next time" if kept else ""
    return ReszooError(f"{address} cannot be downloaded ({reason}){rest}{_by_hand(file, path, address)}")


def _refused(file: RemoteFile, address: str, path: Path, answer: Any) -> ReszooError:
    reason = f"{answer.status} {_plain(answer.reason)}"
    return ReszooError(f"{address}: the server answered {reason}{_by_hand(file, path, address)}")


def _disk_error(path: Path, error: OSError) -> ReszooError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ReszooError(f"no space left to write {path}; make room, or set RESZOO_HOME to a folder that has it")
    where = error.filename or path
    return ReszooError(
        f"{path} cannot be read or written: {where}: {error.strerror or error}; set RESZOO_HOME to a folder of your own"
    )


def _mismatch(wanted: str, found: str) -> str:
    kind, digits = wanted.split(":")
    whole = len(digits) == len(found) - len(kind) - 1
    return f"its {kind} is {found.split(':')[1]} where {digits}{'' if whole else '...'} is expected"


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, TimeoutError) and inner.errno is None:
        return f"nothing came for {_timeout():g} s"
    if isinstance(inner, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "the connection was closed early"
    return _plain((isinstance(inner, OSError) and inner.strerror) or str(inner) or type(inner).__name__)


def _plain(text: str) -> str:
    """Text from elsewhere, fit for one line on a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(text).split()))[:200]


def _megabytes(count: int) -> str:
    """Bytes for reading, in powers of 1000 as file listings and progress bars have them: `102.5 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{math.floor(count / size * 10) / 10:.1f} {unit}"
    return f"{count} bytes"
