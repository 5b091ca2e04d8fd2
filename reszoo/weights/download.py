"""Bring one published weights file into the cache, whole and checked, or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reszoo.errors import ReszooError
from reszoo.files import expand_user
from reszoo.weights import hub, transfer
from reszoo.weights.formats import RemoteFile
from reszoo.weights.transfer import NOT_KEPT, Report, Source, Unavailable, beside, discard, megabytes, size_of

_DIGEST = re.compile(r"sha256:[0-9a-f]{8,64}|md5:[0-9a-f]{32}")


def home() -> Path:
    """The folder of everything reszoo keeps: `$RESZOO_HOME`, else `~/.cache/reszoo`."""
    folder = os.environ.get("RESZOO_HOME") or "~/.cache/reszoo"
    try:
        return expand_user(folder)
    except ReszooError as error:
        raise ReszooError(f"no home directory for {folder!r}; set RESZOO_HOME to a folder for weights") from error


def cached(file: RemoteFile) -> Path:
    """The path where `file` lies or would lie: `weights/HOST/PATH` of its address, below `home()`.

    Raises `ReszooError` for an address that is not plain http(s), or has a query, `..` or characters unfit for a file name.
    """
    return home() / "weights" / transfer.place(file.url)


def fetch(file: RemoteFile, *, quiet: bool = False) -> Path:
    """Return the path of `file` in the cache, downloading it if it is not there; its digest is checked every time.

    An interrupted download leaves a `.part` beside that path and is gone on with the next time; of several processes that
    want the same file, one downloads and the others wait. Reads `RESZOO_HOME`, `RESZOO_MIRROR`, `HF_ENDPOINT`,
    `RESZOO_OFFLINE` and `RESZOO_TIMEOUT` (seconds without a byte, default 30). quiet: print nothing to standard error.
    Raises `ReszooError`, one line, where the file cannot be had or is not the one expected; it is then not in the cache.
    """
    path = cached(file)
    if not (hub.RESOLVE.fullmatch(file.url) if file.digest == "hub" else _DIGEST.fullmatch(file.digest)):
        raise ReszooError(
            f"{file.url}: digest {file.digest!r} is none of sha256:HEX (8 to 64 digits), md5:HEX (32 digits) and, "
            f"for {transfer.HUB}/OWNER/NAME/resolve/REVISION/FILE, hub"
        )
    quiet = quiet or sys.stderr is None
    try:
        digest = _digest(file, path)
        wrong = verify(path, digest) if digest and path.exists() else "not checked"
        if wrong is None:
            return path
        if os.environ.get("RESZOO_OFFLINE", "") not in ("", "0"):
            if not path.exists():
                raise Unavailable(f"{path.name} is not in the cache and RESZOO_OFFLINE is set")
            if digest:
                raise Unavailable(f"{path} is damaged ({wrong}) and RESZOO_OFFLINE is set")
            return _check_by_hand(path, "RESZOO_OFFLINE is set")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path, quiet):
            return _fetch_locked(file, path, quiet)
    except Unavailable as error:
        raise ReszooError(f"{error}{_by_hand(file, path, str(error))}") from error
    except OSError as error:
        raise _disk_error(path, error) from error


def verify(path: Path, digest: str) -> str | None:
    """Return None if the file at `path` has `digest` (`sha256:` whole or prefix, or `md5:`), else what is wrong with it."""
    kind, wanted = digest.split(":")
    with open(path, "rb") as opened:
        found = hashlib.file_digest(opened, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    if found.startswith(wanted):
        return None
    return f"its {kind} is {found} where {wanted}{'...' if len(wanted) < len(found) else ''} is expected"


def _fetch_locked(file: RemoteFile, path: Path, quiet: bool) -> Path:
    source = None
    if path.exists():
        digest = _digest(file, path)
        if digest is None:
            try:
                source = _source(file)
            except ReszooError as error:
                return _check_by_hand(path, str(error))
            digest = source.digest
        wrong = verify(path, digest)
        if wrong is None:
            if source:
                with suppress(OSError):  # a cache that may only be read
                    hub.record(path, file.url, source, size_of(path))
            return path
        _say(f"{path} is damaged ({wrong}): downloading it again", quiet)
        discard(path)
    _download(file, source or _source(file), path, quiet)
    return path


def _source(file: RemoteFile) -> Source:
    if file.digest == "hub":
        return hub.ask(file.url, file.size)
    return Source(address=transfer.address(file.url), digest=file.digest, size=file.size)


def _digest(file: RemoteFile, path: Path) -> str | None:
    """The digest to hold the file at `path` to, None where only the hub can say."""
    return hub.recorded(path) if file.digest == "hub" else file.digest


def _check_by_hand(path: Path, why: str) -> Path:
    """Hold a file that was put there by hand to the `.sha256` beside it; `why` says why the hub was not asked."""
    sums = beside(path, ".sha256")
    if not sums.exists():
        raise ReszooError(f"{path} cannot be checked: {why}; put its sha256 in {sums}, as sha256sum writes it")
    for line in sums.read_text(errors="replace").splitlines():
        digits, _, name = line.strip().partition(" ")
        if re.fullmatch("[0-9a-fA-F]{64}", digits) and Path(name.lstrip(" *") or path.name).name == path.name:
            if wrong := verify(path, f"sha256:{digits.lower()}"):
                raise ReszooError(f"{path} does not fit {sums.name}: {wrong}")
            return path
    raise ReszooError(f"{sums} holds no sha256 of {path.name}; write into it what sha256sum prints for the right file")


def _download(file: RemoteFile, source: Source, path: Path, quiet: bool) -> None:
    """Download to `.part`, check, and move into place."""
    part = beside(path, ".part")
    if size_of(part) != source.size or verify(part, source.digest):
        with _progress(file, path, quiet) as report:
            transfer.receive(source, part, report)
    if wrong := verify(part, source.digest):
        discard(part)
        raise ReszooError(f"{source.address} is not the file expected: {wrong}; {NOT_KEPT}")
    with open(part, "rb") as opened:
        os.fsync(opened.fileno())
    size = size_of(part)
    if source.revision:
        hub.record(path, file.url, source, size)
    os.replace(part, path)
    discard(part)
    if not _draws(quiet):
        _say(f"downloaded {path} ({megabytes(size)}), and its digest is right", quiet)


@contextmanager
def _lock(path: Path, quiet: bool) -> Iterator[None]:
    """Hold `.lock` beside `path` alone, waiting for another process that holds it; it is removed afterwards."""
    lock = beside(path, ".lock")
    while True:
        with open(lock, "w") as opened:
            handle = opened.fileno()
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say(f"waiting for another process that is downloading {path}", quiet)
                quiet = True
                fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                # The last holder removed the file that was waited for: the one to hold is whatever lies there now.
                current = os.path.samestat(os.stat(lock), os.fstat(handle))
            except FileNotFoundError:
                continue
            if current:
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                    fcntl.flock(handle, fcntl.LOCK_UN)  # closing alone leaves it with a process forked meanwhile
                return


@contextmanager
def _progress(file: RemoteFile, path: Path, quiet: bool) -> Iterator[Report]:
    """Yield what to report bytes to: it moves a bar, or prints one line at its first call."""
    if _draws(quiet):
        from rich import progress
        from rich.console import Console

        columns = (progress.BarColumn(), progress.DownloadColumn(), progress.TransferSpeedColumn())
        remaining = progress.TimeRemainingColumn()
        with progress.Progress("{task.description}", *columns, remaining, console=Console(stderr=True)) as bar:
            task = bar.add_task(path.name, total=file.size)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return

    def tell(done: int, total: int | None) -> None:
        nonlocal quiet
        size = f" ({megabytes(total)})" if total is not None else ""
        after = f", going on after {megabytes(done)}" if done else ""
        _say(f"downloading {file.url}{size} to {path}{after}", quiet)
        quiet = True

    yield tell


def _draws(quiet: bool) -> bool:
    return not quiet and sys.stderr.isatty()


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        print(line, file=sys.stderr)


def _by_hand(file: RemoteFile, path: Path, line: str) -> str:
    """What to do instead, to end `line` with."""
    what = "it" if line.startswith(file.url) else file.url
    size = f" ({megabytes(file.size)})" if file.size is not None else ""
    sums = f", with its sha256 in {path}.sha256" if _digest(file, path) is None else ""
    return f"; get {what}{size} by other means and put it at {path}{sums}"


def _disk_error(path: Path, error: OSError) -> ReszooError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ReszooError(f"no space left to write {path}; make room, or set RESZOO_HOME to a folder that has it")
    where = error.filename or path
    return ReszooError(
        f"{path} cannot be read or written: {where}: {error.strerror or error}; set RESZOO_HOME to a folder of your own"
    )
