"""Download published weights files; a file is returned only after its digest was verified."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import logging
import os
import re
import sys
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

from reszoo.errors import ReszooError
from reszoo.files import atomic_path, expand_user
from reszoo.weights.formats import RemoteFile

TIMEOUT = 30.0  # seconds without a byte from the server of a plain URL


def fetch(files: Sequence[RemoteFile]) -> Path:
    """Return the path of the first of `files` that is in a cache; download the first one if none is.

    Files of the Hugging Face hub are in its own cache, which other libraries share; all others are below `$RESZOO_HOME`.
    The digest is verified at every call, and a damaged file is downloaded again.

    Args:
        files: the same weights in several formats or places, the preferred one first.

    Raises:
        ReszooError: the file cannot be downloaded or stored, or its digest is wrong.
    """
    file, damaged = files[0], None
    try:
        for file in files:
            if path := _find(file):
                wrong = _mismatch(file, path)
                if wrong is None:
                    return path
                print(f"{path}: {wrong}; the file is damaged", file=sys.stderr)
                damaged = path if file is files[0] else damaged
        file = files[0]
        with _quiet_hub():
            return _download(file, damaged)
    except ReszooError:
        raise
    except (
        Exception
    ) as error:  # the HTTP library of huggingface_hub, and so its errors, differ between versions
        raise _failure(file, error) from error


def cache_path(file: RemoteFile) -> Path:
    """Return where a file that is not on the hub is stored: `weights/HOST/PATH` below `$RESZOO_HOME`."""
    url = urllib.parse.urlsplit(file.url)
    return (
        expand_user(os.environ.get("RESZOO_HOME") or "~/.cache/reszoo")
        / "weights"
        / f"{url.netloc}{url.path}"
    )


def _hub_file(file: RemoteFile) -> tuple[str, str, str] | None:
    """Return the repository, name and revision of a file on the Hugging Face hub, None for a plain URL."""
    hub = re.fullmatch(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", file.url)
    return (hub[1], hub[3], hub[2]) if hub else None


def _find(file: RemoteFile) -> Path | None:
    """Return the path of a file that is in its cache, without asking a server."""
    if hub := _hub_file(file):
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(hub[0], hub[1], revision=hub[2])
        return Path(found) if isinstance(found, str) else None
    path = cache_path(file)
    return path if path.exists() else None


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Hold back the warnings of huggingface_hub about attempts that failed; `fetch` reports the failure."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _download(file: RemoteFile, damaged: Path | None) -> Path:
    """Download a file to its cache and verify it. damaged: the file in the cache that it replaces, if any."""
    from huggingface_hub import constants, hf_hub_download

    if constants.HF_HUB_OFFLINE:
        raise ReszooError(
            f"{file.url}: not in the cache, and HF_HUB_OFFLINE is set. Unset it, or {_by_hand(file)}"
        )
    print(f"downloading {file.url}", file=sys.stderr)
    if hub := _hub_file(file):
        repository, name, revision = hub
        if damaged and not damaged.is_symlink():
            damaged.unlink()  # without links, huggingface_hub downloads it again but does not replace it
        path = Path(
            hf_hub_download(repository, name, revision=revision, force_download=damaged is not None)
        )
        if wrong := _mismatch(file, path):
            path.resolve().unlink()
            raise ReszooError(
                f"{file.url}: {wrong}. The file was discarded. Try again, or check HF_ENDPOINT"
            )
        return path
    import pooch

    path, url = cache_path(file), file.url
    if mirror := os.environ.get("RESZOO_MIRROR"):
        url = f"{mirror.rstrip('/')}/{url.partition('://')[2]}"
    show = sys.stderr is not None and sys.stderr.isatty()
    with atomic_path(path) as part:
        pooch.HTTPDownloader(progressbar=show, chunk_size=1 << 20, timeout=TIMEOUT)(
            url, str(part), None
        )
        if wrong := _mismatch(file, part):
            raise ReszooError(
                f"{url}: {wrong}. The file was discarded. Try again, or {_by_hand(file)}"
            )
    return path


def _mismatch(file: RemoteFile, path: Path) -> str | None:
    """Return None if the file at `path` has the digest that `file` must have, else the difference."""
    kind, expected = (_hub_digest(file, path) if file.digest == "hub" else file.digest).split(":")
    with open(path, "rb") as opened:
        found = hashlib.file_digest(
            opened, lambda: hashlib.new(kind, usedforsecurity=False)
        ).hexdigest()
    return None if found.startswith(expected) else f"{kind} is {found}; expected {expected}"


def _hub_digest(file: RemoteFile, path: Path) -> str:
    """Return the sha256 that the hub stated for a file in its cache, which is the name of the blob linked to."""
    if path.is_symlink():
        stated: str | None = Path(os.readlink(path)).name
    else:  # HF_HUB_DISABLE_SYMLINKS is set, or the file system has no links
        from huggingface_hub import constants, get_hf_file_metadata

        url = constants.ENDPOINT + urllib.parse.urlsplit(file.url).path
        stated = get_hf_file_metadata(url).etag
    if not re.fullmatch("[0-9a-f]{64}", stated or ""):
        raise ReszooError(
            f"{file.url}: the hub states the digest {stated}; expected a sha256. {path} is not opened"
        )
    return f"sha256:{stated}"


def _by_hand(file: RemoteFile) -> str:
    """Return what to do on another machine, to end a message with."""
    if hub := _hub_file(file):
        from huggingface_hub import constants

        folder = Path(constants.HF_HUB_CACHE) / f"models--{hub[0].replace('/', '--')}"
        return f"run 'hf download {hub[0]} {hub[1]}' on another machine and copy its folder to {folder}"
    return f"download it on another machine and put it at {cache_path(file)}"


def _failure(file: RemoteFile, error: Exception) -> ReszooError:
    """Return the one line for a file that could not be downloaded, stored or read."""
    home, mirror = (
        ("HF_HOME", "HF_ENDPOINT") if _hub_file(file) else ("RESZOO_HOME", "RESZOO_MIRROR")
    )
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = (
            f"Free some space, or set {home} to a folder on another disk"
            if full
            else f"Set {home} to a folder that you can write"
        )
        return ReszooError(f"{error.filename or file.url}: {error.strerror}. {fix}")
    return ReszooError(
        f"{file.url}: download failed ({_reason(error)}). Check the connection, HTTPS_PROXY or {mirror}, or {_by_hand(file)}"
    )


def _reason(error: BaseException) -> str:
    """Return why a download failed: the server's status, or the words of the error at the bottom."""
    below: BaseException | None = error
    while below is not None:
        status = getattr(getattr(below, "response", None), "status_code", None)
        if status is not None:
            return f"HTTP {status} {http.client.responses.get(status, '')}".strip()
        error, below = below, below.__cause__ or below.__context__
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]
