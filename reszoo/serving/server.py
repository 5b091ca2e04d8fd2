"""`Server`: an exported model in TensorFlow Serving's REST API, with a page for images.

It is made for one user and rejects other pages in the same browser. Uvicorn listens on 127.0.0.1
and limits connections. Starlette rejects foreign `Host` headers. Other origins and large bodies are
rejected here. On other addresses than those of this machine, requests need a token.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
import threading
from pathlib import Path
from typing import IO

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reszoo.errors import ReszooError
from reszoo.old_keys import CARD, rename_keys
from reszoo.serving.access import (
    CONNECTIONS,
    HOST,
    NAMES,
    check_access,
    listen,
    protect,
    reachable,
)
from reszoo.serving.page import load_page
from reszoo.serving.rest import read_request, write_response
from reszoo.serving.servable import Servable
from reszoo.serving.versions import find_version
from reszoo.types import JsonObject

BODY_LIMIT = 2**26  # bytes: 64 MiB, or 48 MiB of files in base64
MEMORY_LIMIT = 2**20  # bytes of a body that wait in memory; the rest waits on disk
CALLS = 2  # requests that are computed at a time
TIMEOUT = 30.0
GRACE = 10  # seconds for requests in progress when the server closes


class Server:
    """Serves an exported SavedModel on http://host:port/, in a `with` block or after `start`.

    Args:
        out: The folder that `reszoo export` wrote, or a folder of numbered SavedModels, of which
            the highest number is served.
        port: The port; 0 selects a free one, which `port` and `url` then give.
        host: The IPv4 address to listen on. One that is not of this machine alone, such as 0.0.0.0,
            needs a token.
        token: What requests must send as `Authorization: Bearer TOKEN`, except for the page and
            /healthz; at least 16 printable ASCII characters. None: no token.
        name: The model's name in the address; by default the folder's name.
        timeout: Seconds after which an idle connection is closed. A body may take twice as long.

    Raises:
        ReszooError: The folder has no SavedModel, the name is invalid, the port cannot be used, or
            the token is missing or too short.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        port: int = 0,
        host: str = HOST,
        token: str | None = None,
        name: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        version = find_version(out)
        self.version, self.name = version.number, _check_name(Path(out), name)
        self._local, self._token = check_access(host, token), token
        self._socket = listen(host, port)  # before the model is loaded: reported at once
        try:
            self.servable = Servable(version.path)
        except BaseException:
            self._socket.close()
            raise
        self.card = _read_card(Path(out))
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self._page, self._policy = load_page(self.name, BODY_LIMIT)
        self._timeout, self._calls = timeout, asyncio.Semaphore(CALLS)
        config = uvicorn.Config(
            self._application(),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=timeout,  # type: ignore[arg-type]  # asyncio takes fractions
            timeout_graceful_shutdown=GRACE,
        )
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._uvicorn.run, args=([self._socket],), name="reszoo-serving", daemon=True
        )

    @property
    def url(self) -> str:
        """The server's address on this machine, without a trailing slash."""
        return f"http://{reachable(self.host)}:{self.port}"

    @property
    def needs_token(self) -> bool:
        """Whether requests need a token."""
        return self._token is not None

    @property
    def model_url(self) -> str:
        """The model's address; append `:predict` or `/metadata`."""
        return f"{self.url}/v1/models/{self.name}"

    def start(self) -> None:
        """Serve in a thread."""
        self._thread.start()

    def close(self) -> None:
        """Accept no more requests; wait up to 10 seconds for those in progress."""
        self._uvicorn.should_exit = True
        if self._thread.is_alive():
            self._thread.join(GRACE + 1)  # a daemon thread: nothing waits for it longer
        self._socket.close()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _application(self) -> Starlette:
        routes = [
            Route("/", self._get_page),
            Route("/healthz", _get_health),
            Route("/card.json", self._get_card),
        ]
        for base in (f"/v1/models/{self.name}", f"/v1/models/{self.name}/versions/{self.version}"):
            routes.append(Route(base, self._get_status))
            routes.append(Route(f"{base}/metadata", self._get_metadata))
            routes.append(Route(f"{base}:predict", self._predict, methods=["POST"]))
        return Starlette(
            routes=routes,
            middleware=[
                # A token protects from other names of this machine (DNS rebinding) too.
                Middleware(TrustedHostMiddleware, allowed_hosts=NAMES if self._local else ["*"]),
                Middleware(BaseHTTPMiddleware, dispatch=protect(self._token)),
            ],
            exception_handlers={
                HTTPException: self._explain,
                ReszooError: _reject_content,
                Exception: _report,
            },
        )

    async def _get_page(self, request: Request) -> Response:
        headers = {"Content-Security-Policy": self._policy}
        return Response(self._page, media_type="text/html", headers=headers)

    async def _get_card(self, request: Request) -> Response:
        if self.card is None:
            raise HTTPException(404, "the export has no card.json")
        return JSONResponse(self.card)

    async def _get_status(self, request: Request) -> Response:
        status = {"error_code": "OK", "error_message": ""}
        version = {"version": str(self.version), "state": "AVAILABLE", "status": status}
        return JSONResponse({"model_version_status": [version]})

    async def _get_metadata(self, request: Request) -> Response:
        model = {"name": self.name, "signature_name": "", "version": str(self.version)}
        signatures = {"signature_def": {"signature_def": self.servable.definitions}}
        return JSONResponse({"model_spec": model, "metadata": signatures})

    async def _predict(self, request: Request) -> Response:
        too_large = HTTPException(413, f"the body exceeds {BODY_LIMIT >> 20} MiB")
        if int(request.headers.get("content-length", 0)) > BODY_LIMIT:
            raise too_large
        with tempfile.SpooledTemporaryFile(max_size=MEMORY_LIMIT) as body:
            try:
                async with asyncio.timeout(2 * self._timeout):
                    async for chunk in request.stream():
                        body.write(chunk)
                        if body.tell() > BODY_LIMIT:
                            raise too_large
            except TimeoutError:
                close = {"Connection": "close"}
                raise HTTPException(408, "the body took too long to arrive", close) from None
            except ClientDisconnect:
                return Response(status_code=400)  # nobody receives it
            async with self._calls:
                content = await run_in_threadpool(self._compute, body)
        return Response(content, media_type="application/json")

    def _compute(self, body: IO[bytes]) -> bytes:
        body.seek(0)
        request = read_request(body.read(), self.servable.signatures)
        outputs = self.servable.call(request.signature, request.inputs)
        response = write_response(outputs, by_row=request.by_row)
        return json.dumps(response, ensure_ascii=False, allow_nan=False).encode()

    async def _explain(self, request: Request, error: Exception) -> Response:
        """Return an HTTP error in TensorFlow Serving's form."""
        assert isinstance(error, HTTPException)
        message = error.detail
        if error.status_code == 405:
            allowed = (error.headers or {})["Allow"]
            message = f"{request.method} is not supported here; expected {allowed}"
        elif message == "Not Found":
            model = f"/v1/models/{self.name}"
            message = (
                f"{request.url.path[:100]} does not exist; expected {model} or "
                f"{model}/versions/{self.version}, with :predict or /metadata"
            )
        return JSONResponse({"error": message}, error.status_code, error.headers)


async def _get_health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _reject_content(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _report(request: Request, error: Exception) -> Response:
    """Name an internal error. Starlette raises it again, and Uvicorn logs its traceback."""
    message = f"internal error ({type(error).__name__}); see the server's log"
    return JSONResponse({"error": message}, 500)


def _check_name(out: Path, name: str | None) -> str:
    if name is None:
        return re.sub(r"[^A-Za-z0-9._-]", "_", out.resolve().name)[:100] or "model"
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
        raise ReszooError(
            f"name: {name!r} is invalid; expected 1 to 100 letters, digits, '.', '_' or '-'"
        )
    return name


def _read_card(out: Path) -> JsonObject | None:
    try:
        card = json.loads((out / "card.json").read_bytes())
    except (OSError, ValueError, RecursionError):  # the model is served without it
        return None
    return rename_keys(card, CARD) if isinstance(card, dict) else None
