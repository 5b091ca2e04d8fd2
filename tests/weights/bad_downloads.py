"""Try bad downloads on a server of its own and keep what each said: `python -m tests.weights.bad_downloads OUT.json`."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from reszoo.errors import ReszooError
from reszoo.weights import transfer
from reszoo.weights.download import cached, fetch
from reszoo.weights.formats import RemoteFile

from .test_download import ASKED, BODY, COMMIT, FILE, HUB, HUB_ASKED, OTHER, Reply, Server

Case = tuple[str, Callable[[Server], None], RemoteFile]


def offline(server: Server) -> None:
    os.environ["RESZOO_OFFLINE"] = "1"


def refusing(server: Server) -> None:
    os.environ["RESZOO_MIRROR"] = "http://127.0.0.1:9"


def damaged(server: Server) -> None:
    cached(FILE).parent.mkdir(parents=True, exist_ok=True)
    cached(FILE).write_bytes(OTHER)
    os.environ["RESZOO_OFFLINE"] = "1"


def by_hand(server: Server) -> None:
    cached(HUB).parent.mkdir(parents=True, exist_ok=True)
    cached(HUB).write_bytes(BODY)
    os.environ["RESZOO_OFFLINE"] = "1"


def unwritable(server: Server) -> None:
    Path(os.environ["RESZOO_HOME"]).write_text("a file where a folder should be")


CASES: list[Case] = [
    ("another file than the digest says", lambda server: server.files.update({ASKED: OTHER}), FILE),
    ("another size", lambda server: None, replace(FILE, size=len(BODY) + 1)),
    ("an empty answer", lambda server: server.files.update({ASKED: b""}), replace(FILE, size=None)),
    ("404", lambda server: server.files.clear(), FILE),
    ("403", lambda server: server.fixed.update({ASKED: Reply(status=403)}), FILE),
    ("500 three times", lambda server: server.plan.extend([Reply(status=500)] * 3), FILE),
    ("cut off three times", lambda server: server.plan.extend([Reply(cut=1000)] * 3), FILE),
    (
        "silent after 1,000 bytes, three times",
        lambda server: server.plan.extend([Reply(cut=1000, wait=True)] * 3),
        FILE,
    ),
    ("nobody listens", refusing, FILE),
    ("offline, and not in the cache", offline, FILE),
    ("damaged in the cache, offline", damaged, FILE),
    ("the hub states no sha256", lambda server: server.fixed.update({HUB_ASKED: Reply(status=302)}), HUB),
    (
        "the hub states only a git sha1",
        lambda server: server.fixed.update(
            {HUB_ASKED: Reply(302, {"ETag": '"' + 40 * "a" + '"', "X-Repo-Commit": COMMIT})}
        ),
        HUB,
    ),
    ("the hub is away", lambda server: server.fixed.update({HUB_ASKED: Reply(status=503)}), HUB),
    ("a hub's file put there by hand, offline, without its sha256", by_hand, HUB),
    (
        "a redirect to file:",
        lambda server: server.fixed.update({ASKED: Reply(302, {"Location": "file:///etc/passwd"})}),
        FILE,
    ),
    ("a digest that is none", lambda server: None, replace(FILE, digest="sha1:abc")),
    ("an address with a query", lambda server: None, replace(FILE, url="https://weights.example/a?b=c")),
    ("the cache cannot be written", unwritable, FILE),
]


def tried(case: Case) -> dict[str, object]:
    """Run one case on a fresh server and an empty cache; return what was said, and what was left."""
    what, prepare, file = case
    with tempfile.TemporaryDirectory() as scratch, Server() as server:
        os.environ |= {"RESZOO_HOME": f"{scratch}/home", "RESZOO_MIRROR": server.address, "RESZOO_TIMEOUT": "0.3"}
        os.environ.pop("RESZOO_OFFLINE", None)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        try:
            prepare(server)
            fetch(file, quiet=True)
            raise AssertionError(f"{what}: was taken")
        except ReszooError as error:
            said = str(error).replace(server.address, "MIRROR").replace(scratch, "")
        finally:
            server.go_on.set()
            server.shutdown()
            thread.join()
        left = sorted(path.name for path in Path(scratch).rglob("*") if path.is_file() and path.suffix != ".lock")
    return {"tried": what, "said": re.sub(r"[0-9a-f]{64}", lambda found: found[0][:8] + "...", said), "left": left}


if __name__ == "__main__":
    transfer.BACK_OFF = (0.0, 0.0)
    lines = ",\n    ".join(json.dumps(tried(case)) for case in CASES)
    how = "python -m tests.weights.bad_downloads OUT.json"
    Path(sys.argv[1]).write_text(f'{{\n  "how": "{how}",\n  "rows": [\n    {lines}\n  ]\n}}\n')
