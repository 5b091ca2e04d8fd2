"""Download published weights files. A file is returned only after its digest was verified."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import sys
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from reszoo.errors import ReszooError
from reszoo.files import atomic_path, expand_user
from reszoo.loading import quiet_logger
from reszoo.reporting.reporter import Reporter
from reszoo.weights.files import PACKAGED, RemoteFile, packaged_path

TIMEOUT = 30.0  # seconds without a byte from the server of a plain URL


def fetch(files: Sequence[RemoteFile]) -> Path:
    """Return the first of `files` that is in a cache; download the first one if none is.

    A file that is installed with reszoo needs no cache and no network.

    Files of the Hugging Face hub are in its own cache, which other libraries share; all others are
    below `$RESZOO_HOME`. The digest is verified at every call, and a damaged file is downloaded
    again.

    Args:
        files: The same weights in several formats or places, the preferred one first.

    Raises:
        ReszooError: If the file cannot be downloaded or stored, or its digest is wrong.
    """
    file, damaged, reporter = files[0], None, Reporter(stderr=True)
    if file.url.startswith(PACKAGED):
        return _find_packaged(file)
    try:
        for file in files:
            if path := _find(file):
                wrong = _compare_digest(file, path)
                if wrong is None:
                    return path
                reporter.line(f"{path}: {wrong}; the file is damaged")
                damaged = path if file is files[0] else damaged
        file = files[0]
        with quiet_logger("huggingface_hub"):
            return _download(file, damaged, reporter)
    except ReszooError:
        raise
    except Exception as error:  # the errors of huggingface_hub differ between its versions
        raise _explain(file, error) from error


def _find_packaged(file: RemoteFile) -> Path:
    path = packaged_path(file.url)
    wrong = _compare_digest(file, path) if path.exists() else "no such file"
    if wrong is None:
        return path
    raise ReszooError(
        f"{path}: {wrong}. reszoo is not installed whole. "
        "Example: pip install --force-reinstall --no-deps reszoo"
    )


def cache_path(file: RemoteFile) -> Path:
    """Return the path of a file that is not on the hub: weights/HOST/PATH below `$RESZOO_HOME`."""
    url = urllib.parse.urlsplit(file.url)
    home = expand_user(os.environ.get("RESZOO_HOME") or "~/.cache/reszoo")
    return home / "weights" / f"{url.netloc}{url.path}"


def _hub_file(file: RemoteFile) -> tuple[str, str, str] | None:
    """Return repository, name and revision of a file on the Hugging Face hub; None for others."""
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


def _download(file: RemoteFile, damaged: Path | None, reporter: Reporter) -> Path:
    """Download a file to its cache, where it replaces `damaged`, and verify it."""
    from huggingface_hub import constants, hf_hub_download

    if constants.HF_HUB_OFFLINE:
        raise ReszooError(
            f"{file.url}: not in the cache, and HF_HUB_OFFLINE is set. "
            f"Unset it, or {_advise_copy(file)}"
        )
    reporter.line(f"downloading {file.url}")
    if hub := _hub_file(file):
        repository, name, revision = hub
        if damaged and not damaged.is_symlink():
            damaged.unlink()  # without links, huggingface_hub does not replace it
        path = Path(
            hf_hub_download(repository, name, revision=revision, force_download=damaged is not None)
        )
        if wrong := _compare_digest(file, path):
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
    downloader = pooch.HTTPDownloader(progressbar=show, chunk_size=1 << 20, timeout=TIMEOUT)
    with atomic_path(path) as part:
        downloader(url, str(part), None)
        if wrong := _compare_digest(file, part):
            raise ReszooError(
                f"{url}: {wrong}. The file was discarded. Try again, or {_advise_copy(file)}"
            )
    return path


def _compare_digest(file: RemoteFile, path: Path) -> str | None:
    """Return how the digest of the file at `path` differs from the expected one; None if equal."""
    kind, expected = (_hub_digest(file, path) if file.digest == "hub" else file.digest).split(":")
    with open(path, "rb") as opened:
        digest = hashlib.file_digest(opened, lambda: hashlib.new(kind, usedforsecurity=False))
    found = digest.hexdigest()
    return None if found.startswith(expected) else f"{kind} is {found}; expected {expected}"


def _hub_digest(file: RemoteFile, path: Path) -> str:
    """Return the sha256 that the hub stated for a cached file: the name of the blob linked to."""
    if path.is_symlink():
        stated: str | None = Path(os.readlink(path)).name
    else:  # HF_HUB_DISABLE_SYMLINKS is set, or the file system has no links
        from huggingface_hub import constants, get_hf_file_metadata

        url = constants.ENDPOINT + urllib.parse.urlsplit(file.url).path
        stated = get_hf_file_metadata(url).etag
    if not re.fullmatch("[0-9a-f]{64}", stated or ""):
        raise ReszooError(
            f"{file.url}: the hub states the digest {stated}; expected a sha256. "
            f"{path} is not opened"
        )
    return f"sha256:{stated}"


def _advise_copy(file: RemoteFile) -> str:
    """Return how to get the file by way of another machine, to end a message with."""
    if hub := _hub_file(file):
        from huggingface_hub import constants

        folder = Path(constants.HF_HUB_CACHE) / f"models--{hub[0].replace('/', '--')}"
        return (
            f"run 'hf download {hub[0]} {hub[1]}' on another machine and copy its folder to "
            f"{folder}"
        )
    return f"download it on another machine and put it at {cache_path(file)}"


def _explain(file: RemoteFile, error: Exception) -> ReszooError:
    """Return the one line for a file that could not be downloaded, stored or read."""
    on_hub = _hub_file(file)
    home, mirror = ("HF_HOME", "HF_ENDPOINT") if on_hub else ("RESZOO_HOME", "RESZOO_MIRROR")
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        fix = f"Set {home} to a folder that you can write"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = f"Free some space, or set {home} to a folder on another disk"
        return ReszooError(f"{error.filename or file.url}: {error.strerror}. {fix}")
    return ReszooError(
        f"{file.url}: download failed ({_find_reason(error)}). Check the connection, HTTPS_PROXY "
        f"or {mirror}, or {_advise_copy(file)}"
    )


def _find_reason(error: BaseException) -> str:
    """Return the server's status, or the text of the error at the bottom of the chain."""
    below: BaseException | None = error
    while below is not None:
        status = getattr(getattr(below, "response", None), "status_code", None)
        if status is not None:
            return f"HTTP {status} {http.client.responses.get(status, '')}".strip()
        error, below = below, below.__cause__ or below.__context__
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]
