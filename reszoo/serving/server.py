"""`Server`: an exported model in TensorFlow Serving's REST form, with a page for images, on this machine only.

It is made for one user and against other pages in the same browser. Uvicorn listens on 127.0.0.1 and limits connections;
Starlette rejects foreign `Host` headers; requests from other origins and large bodies are rejected here. Bodies wait on
disk, and at most CALLS requests are computed at a time.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import json
import os
import re
import socket
import tempfile
import threading
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reszoo.errors import ReszooError
from reszoo.serving.rest import read_request, write_response
from reszoo.serving.servable import Servable
from reszoo.serving.versions import find_version

HOST = "127.0.0.1"
NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")

LIMIT = 2**26
"""The maximum size of a request's body in bytes: 64 MiB, or 48 MiB of files in base64."""
CONNECTIONS = 64
CALLS = 2
IN_MEMORY = 2**20  # bytes of a body that wait in memory; the rest waits on disk
TIMEOUT = 30.0

HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class Server:
    """Serves the SavedModel of an export on http://127.0.0.1:port/, inside a `with` block or from `start` to `close`.

    Args:
        out: the folder that `reszoo export` wrote, or a folder of numbered SavedModels; the highest number is served.
        port: the port to listen on; 0 selects a free one, which `port` and `url` then give.
        name: the model's name in the address; the folder's name if None.
        timeout: seconds after which an idle connection is closed. A request body may take twice as long.

    Raises:
        ReszooError: the folder has no SavedModel, the name is invalid, or the port cannot be used.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        port: int = 0,
        name: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        version = find_version(out)
        self.version = version.number
        self.name = _name(Path(out), name)
        self._socket = _listen(
            port
        )  # before the model is loaded: a port in use is reported at once
        try:
            self.servable = Servable(version.path)
        except BaseException:
            self._socket.close()
            raise
        self.card = _card(Path(out))
        self.port: int = self._socket.getsockname()[1]
        self._page, self._policy = _page(self.name)
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
            timeout_keep_alive=timeout,  # type: ignore[arg-type]  # asyncio takes fractions of a second
            timeout_graceful_shutdown=10,
        )
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._uvicorn.run, args=([self._socket],), name="reszoo-serving", daemon=True
        )

    @property
    def url(self) -> str:
        """The server's address, without a trailing slash."""
        return f"http://{HOST}:{self.port}"

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
            self._thread.join()
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
                Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
                Middleware(BaseHTTPMiddleware, dispatch=_protect),
            ],
            exception_handlers={
                HTTPException: self._reject,
                ReszooError: _reject_content,
                Exception: _report,
            },
        )

    async def _get_page(self, request: Request) -> Response:
        return Response(
            self._page, media_type="text/html", headers={"Content-Security-Policy": self._policy}
        )

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
        if int(request.headers.get("content-length", 0)) > LIMIT:
            raise HTTPException(413, f"the body exceeds {LIMIT >> 20} MiB")
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as body:
            try:
                async with asyncio.timeout(2 * self._timeout):
                    async for chunk in request.stream():
                        body.write(chunk)
                        if body.tell() > LIMIT:
                            raise HTTPException(413, f"the body exceeds {LIMIT >> 20} MiB")
            except TimeoutError:
                raise HTTPException(
                    408, "the body took too long to arrive", {"Connection": "close"}
                ) from None
            except ClientDisconnect:
                return Response(status_code=400)  # nobody receives it
            async with self._calls:
                content = await run_in_threadpool(self._compute, body)
        return Response(content, media_type="application/json")

    def _compute(self, body: IO[bytes]) -> bytes:
        body.seek(0)
        request = read_request(body.read(), self.servable.signatures)
        outputs = self.servable.call(request.signature, request.inputs)
        return json.dumps(
            write_response(outputs, by_row=request.by_row), ensure_ascii=False, allow_nan=False
        ).encode()

    async def _reject(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = error.detail
        if error.status_code == 405:
            message = (
                f"{request.method} is not supported here; expected {(error.headers or {})['Allow']}"
            )
        elif message == "Not Found":
            models = f"/v1/models/{self.name} or /v1/models/{self.name}/versions/{self.version}"
            message = f"{request.url.path[:100]} does not exist; expected {models}, with :predict or /metadata"
        return JSONResponse({"error": message}, error.status_code, error.headers)


async def _get_health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _protect(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Reject requests that another page sends, and add headers that restrict what other pages can do with a response."""
    if request.headers.get("origin", own := f"http://{request.headers['host']}") != own:
        response: Response = JSONResponse(
            {"error": f"requests from other pages are rejected; expected {own}"}, 403
        )
    else:
        response = await call_next(request)
    response.headers.update(HEADERS)
    return response


async def _reject_content(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _report(request: Request, error: Exception) -> Response:
    """Name an internal error. Starlette raises it again, and Uvicorn logs its traceback."""
    return JSONResponse(
        {"error": f"internal error ({type(error).__name__}); see the server's log"}, 500
    )


def _listen(port: int) -> socket.socket:
    try:
        if not 0 <= port <= 65535:
            raise OSError(None, "expected 0 to 65535")
        listener = socket.create_server((HOST, port), backlog=CONNECTIONS)
    except OSError as error:
        reason = f"port: {port} cannot be used ({error.strerror})"
        raise ReszooError(f"{reason}. Example: --port 0 selects a free port") from None
    # asyncio does not recognize the accepted sockets as TCP; without this a kept connection waits 40 ms for each answer.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _name(out: Path, name: str | None) -> str:
    if name is None:
        return re.sub(r"[^A-Za-z0-9._-]", "_", out.resolve().name)[:100] or "model"
    if not NAME.fullmatch(name):
        raise ReszooError(
            f"name: {name!r} is invalid; expected 1 to 100 letters, digits, '.', '_' or '-'"
        )
    return name


def _card(out: Path) -> dict[str, Any] | None:
    try:
        card = json.loads((out / "card.json").read_bytes())
    except (OSError, ValueError, RecursionError):  # the model is served without it
        return None
    return card if isinstance(card, dict) else None


def _page(name: str) -> tuple[bytes, str]:
    """Return the page, and the policy that allows its own style and script only."""
    text = (files("reszoo.serving") / "page.html").read_text(encoding="utf-8")
    digests = {}
    for tag in ("style", "script"):
        (block,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digests[tag] = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digests['style']}'; script-src 'sha256-{digests['script']}'; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.replace("@MODEL@", html.escape(name)).replace(
        "@LIMIT@", str(LIMIT)
    ).encode(), policy
