"""What the Hugging Face hub states about a file, held to from then on by a record beside the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urljoin

from reszoo.files import write_json
from reszoo.weights.transfer import HUB, Source, Unavailable, address, answer, attempt, beside, read_json

RESOLVE = re.compile(r"(.+?/resolve/)([^/]+)(/.+)")
_SHA256 = re.compile("[0-9a-f]{64}")
_REDIRECTS = 5


def ask(url: str, size: int | None) -> Source:
    """Ask for the commit, sha256 and size of a file, whose bytes are then asked for at that commit.

    size: counts where the hub states none. Raises Unavailable where it does not answer, or states no sha256.
    """
    asked = address(url)
    headers = attempt(asked, lambda: _headers(asked))
    sha256 = headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"').lower()
    revision = headers.get("X-Repo-Commit", "")
    if not _SHA256.fullmatch(sha256) or not re.fullmatch("[0-9a-f]{40}", revision):
        raise Unavailable(f"{asked}: the hub states no sha256 for this file")
    linked = headers.get("X-Linked-Size", "")
    return Source(
        address=RESOLVE.sub(rf"\g<1>{revision}\g<3>", asked),
        digest=f"sha256:{sha256}",
        size=int(linked) if re.fullmatch("[0-9]{1,18}", linked) else size,
        revision=revision,
    )


def _headers(asked: str) -> Mapping[str, str]:
    """The headers of the hub's own answer, not of the storage it sends to.

    Redirects within the hub are followed: to a repository's new name, or from a mirror to the hub.
    """
    for _ in range(_REDIRECTS):
        with answer(asked, range(400), method="HEAD") as response:
            headers: Mapping[str, str] = response.headers
        target = urljoin(asked, headers.get("Location", ""))
        if "X-Linked-Etag" in headers or not target.startswith((urljoin(asked, "/"), HUB + "/")):
            break
        asked = target
    return headers


def record(path: Path, url: str, source: Source, size: int) -> None:
    """Write beside `path` what the hub stated for it."""
    sha256 = source.digest.removeprefix("sha256:")
    write_json(beside(path, ".json"), {"url": url, "revision": source.revision, "sha256": sha256, "size": size})


def recorded(path: Path) -> str | None:
    """The digest in the record beside `path`, None where there is no such."""
    sha256 = read_json(beside(path, ".json")).get("sha256")
    return f"sha256:{sha256}" if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None
