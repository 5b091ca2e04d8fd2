"""A small HTTP endpoint in TensorFlow Serving's REST shape, and a page to drop pictures on: for trying out, on this machine alone.

Written for one person and their programs, and against what a browser's other pages may try: it listens on 127.0.0.1, answers only
requests addressed to this machine by name, and takes nothing that another page sends. Work and memory are bounded: so many
connections, bodies of at most LIMIT bytes that wait on disk, and CALLS requests parsed and computed at a time.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import html
import json
import os
import re
import socket
import socketserver
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import reszoo
from reszoo.errors import ReszooError
from reszoo.serving.rest import read_request, write_answer
from reszoo.serving.servable import Servable
from reszoo.serving.versions import find_version

HOST = "127.0.0.1"
OWN = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
PATH = re.compile(r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>[0-9]+))?(?P<verb>/metadata|:[a-z]+)?")
OF_GET = ("/", "/healthz", "/card.json")

LIMIT = 2**26
"""The most bytes of a request's body: 64 MiB, 48 MiB of files in base64."""
CONNECTIONS = 64
CALLS = 2
IN_MEMORY = 2**20  # bytes of a body that has not all arrived; more of it lies on disk until its turn
PATIENCE = 30.0
LINGER = 2.0  # seconds in which a refused client may read why, while what it still sends is dropped


class Server:
    """Serves the SavedModel of an export on http://127.0.0.1:port/ while its `with` block runs, or from `start` to `close`.

    out: what `reszoo export` wrote, or a folder of numbered SavedModels, of which the highest is served. port: 0 for a free one; `url`
    tells it. name: the model's in the address, by default the folder's. patience: seconds that a client may let a connection wait,
    and twice which a body may take. Raises ReszooError for a folder without a SavedModel, a bad name and a port that is taken.
    """

    def __init__(
        self, out: str | os.PathLike[str], *, port: int = 0, name: str | None = None, patience: float = PATIENCE
    ) -> None:
        version = find_version(out)
        self.version = version.number
        self.name = _name(Path(out), name)
        self._http = _Http(port, self, patience)  # before what takes long: a port that is taken is told at once
        try:
            self.servable = Servable(version.path)
        except BaseException:
            self._http.server_close()
            raise
        self.card = _card(Path(out))
        self.page, self.policy = _page(self.name)
        self.calls = threading.BoundedSemaphore(CALLS)
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.1,), name="reszoo-serving", daemon=True
        )

    @property
    def port(self) -> int:
        """Where on 127.0.0.1 it listens."""
        return self._http.server_port

    @property
    def url(self) -> str:
        """Its address, without a closing slash."""
        return f"http://{HOST}:{self.port}"

    @property
    def model_url(self) -> str:
        """The model's own address, to which `:predict` or `/metadata` is added."""
        return f"{self.url}/v1/models/{self.name}"

    def start(self) -> None:
        """Serve, in threads of its own."""
        self._thread.start()

    def close(self) -> None:
        """Take no more requests, and wait a while for those that are being answered."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()
        self._http.end_connections()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def predict(self, body: bytes) -> dict[str, Any]:
        """Return the answer to the body of a `:predict`."""
        request = read_request(body, self.servable.signatures)
        return write_answer(self.servable.call(request.signature.name, request.inputs), rows=request.rows)

    def status(self) -> dict[str, Any]:
        """Return TensorFlow Serving's answer to whether the model is there."""
        status = {"error_code": "OK", "error_message": ""}
        return {"model_version_status": [{"version": str(self.version), "state": "AVAILABLE", "status": status}]}

    def metadata(self) -> dict[str, Any]:
        """Return TensorFlow Serving's description of the signatures."""
        spec = {"name": self.name, "signature_name": "", "version": str(self.version)}
        return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": self.servable.definitions}}}


class Refused(Exception):
    """A request that is answered by a status and a line. close: end the connection, where what follows cannot be told apart."""

    def __init__(self, status: int, line: str, *, close: bool = False, allow: str = "") -> None:
        super().__init__(line)
        self.status, self.close, self.allow = status, close, allow


class _Http(ThreadingHTTPServer):
    """The sockets: at most CONNECTIONS at a time, all of them ended by `end_connections`."""

    request_queue_size = 64

    def __init__(self, port: int, owner: Server, patience: float) -> None:
        self.owner, self.patience = owner, patience
        self._open: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OverflowError:
            raise ReszooError(f"a port is 0 to 65535, not {port}") from None
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            why = "is taken" if error.errno == errno.EADDRINUSE else "is not for everyone"
            raise ReszooError(f"port {port} {why}; try --port 0, which finds a free one") from None

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own would ask a name server who 127.0.0.1 is
        self.server_name, self.server_port = HOST, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            is_full = len(self._open) >= CONNECTIONS
            if not is_full:
                thread = threading.Thread(
                    target=self.process_request_thread, args=(request, client_address), daemon=True
                )
                self._open[request] = thread
        if is_full:
            body = b'{"error": "too many connections at once"}'
            head = f"HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            try:
                request.settimeout(0.1)
                request.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)
            except OSError:
                pass
            self.shutdown_request(request)
        else:
            thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """Let no connection ask again, and wait for the answers under way."""
        with self._lock:
            connections = list(self._open.items())
        for connection, _ in connections:
            try:
                connection.shutdown(socket.SHUT_RD)
            except OSError:  # the client went first
                pass
        until = time.monotonic() + 10
        for _, thread in connections:
            thread.join(max(0.0, until - time.monotonic()))

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that goes is no news
            traceback.print_exc()


class _Handler(BaseHTTPRequestHandler):
    """One connection's requests, in order. Nothing is read of a body before all that its head says is right."""

    server: _Http
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # a first line that names none is answered with a status all the same
    server_version, sys_version = f"reszoo/{reszoo.__version__}", ""
    wbufsize = -1  # head and body go out together
    disable_nagle_algorithm = True

    def setup(self) -> None:
        self.request.settimeout(self.server.patience)
        super().setup()

    def do_GET(self) -> None:
        self._answer(self._get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_other(self) -> None:
        self._answer(self._other)

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = do_other

    def handle_expect_100(self) -> bool:
        return True  # said by `_body`, once the head is found right

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server itself finds wrong with a request."""
        known = code == HTTPStatus.NOT_IMPLEMENTED
        line = "only GET and POST are answered" if known else message or HTTPStatus(code).phrase
        self._refuse(Refused(HTTPStatus.METHOD_NOT_ALLOWED if known else code, line, close=True, allow="GET, POST"))

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, how: Any) -> None:
        try:
            self._check_head()
            how(self.path.partition("?")[0])
        except Refused as refused:
            self._refuse(refused)
        except ReszooError as error:
            self._refuse(Refused(HTTPStatus.BAD_REQUEST, str(error)))
        except OSError:
            raise  # the client went, or stopped reading
        except Exception as error:
            traceback.print_exc()
            line = f"a defect of reszoo, told in full where it runs: {type(error).__name__}"
            self._refuse(Refused(HTTPStatus.INTERNAL_SERVER_ERROR, line, close=True))

    def _check_head(self) -> None:
        """Refuse what is not addressed to this machine, comes from another page, or has a body that cannot be told apart."""
        given = {name: self.headers.get_all(name) or [] for name in ("Host", "Content-Length", "Origin")}
        hosts = given["Host"]
        if len(hosts) > 1 or (not hosts and self.request_version != "HTTP/1.0"):
            raise Refused(HTTPStatus.BAD_REQUEST, "one Host header is wanted", close=True)
        if hosts and not OWN.fullmatch(hosts[0]):
            line = f"the Host header says {hosts[0]!r}, and only this machine is served: {self.server.owner.url}/"
            raise Refused(HTTPStatus.FORBIDDEN, line, close=True)
        if any(origin.lower() != f"http://{hosts[0] if hosts else ''}".lower() for origin in given["Origin"]):
            raise Refused(HTTPStatus.FORBIDDEN, "another page sent this; only this one's own may ask", close=True)
        if "Transfer-Encoding" in self.headers:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "a body in chunks is not taken; give Content-Length", close=True)
        lengths = given["Content-Length"]
        if len(lengths) > 1 or (lengths and not (lengths[0].isascii() and lengths[0].isdigit())):
            raise Refused(HTTPStatus.BAD_REQUEST, "one Content-Length, a whole number, is wanted", close=True)
        if self.command == "POST" and not lengths:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "a POST needs a Content-Length", close=True)
        self.length = int(lengths[0][:20]) if lengths else 0  # of more digits the first twenty are too many already
        if self.length > (LIMIT if self.command == "POST" else 0):
            line = f"the body is over {LIMIT >> 20} MiB" if self.command == "POST" else "only a POST may have a body"
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, line, close=True)

    def _get(self, path: str) -> None:
        owner = self.server.owner
        if path == "/":
            self._reply(
                HTTPStatus.OK, owner.page, "text/html; charset=utf-8", {"Content-Security-Policy": owner.policy}
            )
        elif path == "/healthz":
            self._json(HTTPStatus.OK, {"status": "ok"})
        elif path == "/card.json":
            if owner.card is None:
                raise Refused(HTTPStatus.NOT_FOUND, "the export has no card.json")
            self._json(HTTPStatus.OK, owner.card)
        else:
            verb = self._model(path)
            if verb.startswith(":"):
                raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"'{verb}' is asked by POST", allow="POST")
            self._json(HTTPStatus.OK, owner.metadata() if verb else owner.status())

    def _post(self, path: str) -> None:
        # Read in any case, so that the next request on this connection starts where it should.
        with self._body() as body:
            if path in OF_GET or not self._model(path).startswith(":"):
                raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "this is asked by GET", allow="GET, HEAD")
            with self.server.owner.calls:
                body.seek(0)
                answer = _dump(self.server.owner.predict(body.read()))
        self._reply(HTTPStatus.OK, answer)

    def _other(self, path: str) -> None:
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and POST are answered", allow="GET, HEAD, POST")

    def _model(self, path: str) -> str:
        """Return what is asked of the model: "", "/metadata" or ":predict"."""
        owner = self.server.owner
        found = PATH.fullmatch(unquote(path))
        if not found:
            raise Refused(HTTPStatus.NOT_FOUND, f"nothing at {path!r}; the model is at /v1/models/{owner.name}")
        if found["name"] != owner.name:
            raise Refused(HTTPStatus.NOT_FOUND, f"no model {found['name']!r}; {owner.name!r} is served")
        if found["version"] and (found["version"].lstrip("0") or "0") != str(owner.version):
            raise Refused(HTTPStatus.NOT_FOUND, f"version {found['version']} is not served; {owner.version} is")
        verb = found["verb"] or ""
        if verb.startswith(":") and verb != ":predict":
            raise Refused(HTTPStatus.NOT_FOUND, f"{verb!r} is not answered here; ':predict' is")
        return verb

    def _body(self) -> Any:
        """Return the body as an open file, once all of it has arrived."""
        if self.headers.get("Expect", "").lower() == "100-continue" and self.request_version != "HTTP/1.0":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
            self.wfile.flush()
        body = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # the caller closes it
        left, until = self.length, time.monotonic() + 2 * self.server.patience
        try:
            while left:
                piece = self.rfile.read1(min(left, 2**16))
                if not piece:
                    line = f"the body ended {left:,} bytes before its Content-Length"
                    raise Refused(HTTPStatus.BAD_REQUEST, line, close=True)
                if time.monotonic() > until:
                    raise TimeoutError
                body.write(piece)
                left -= len(piece)
        except TimeoutError:
            body.close()
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the body took too long to arrive", close=True) from None
        except BaseException:
            body.close()
            raise
        return body

    def _refuse(self, refused: Refused) -> None:
        self.close_connection = self.close_connection or refused.close
        line = " ".join(str(refused).split())
        line = line if len(line) <= 300 else f"{line[:297]}..."
        self._json(refused.status, {"error": line}, {"Allow": refused.allow} if refused.status == 405 else {})
        if refused.close:
            self._linger()

    def _json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        self._reply(status, _dump(value), headers=headers)

    def _reply(
        self, status: int, body: bytes, kind: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        own = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
        }
        for name, value in (own | dict(headers or {})).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _linger(self) -> None:
        """Drop what the client still sends, for a while: closing on it would take the answer away before it is read."""
        until = time.monotonic() + min(LINGER, self.server.patience)
        try:
            self.connection.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(2**16):
                    break
        except OSError:
            pass


def _dump(value: Any) -> bytes:
    # Half a character, which no UTF-8 can say, becomes its own JSON escape.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def _name(out: Path, name: str | None) -> str:
    if name is None:
        return re.sub(r"[^A-Za-z0-9._-]", "_", out.resolve().name)[:100] or "model"
    if not NAME.fullmatch(name):
        raise ReszooError(f"a model's name is letters, digits, '.', '_' and '-', not {name!r}")
    return name


def _card(out: Path) -> dict[str, Any] | None:
    try:
        card = json.loads((out / "card.json").read_bytes())
    except (OSError, ValueError, RecursionError):  # none, or not ours: the net is served all the same
        return None
    return card if isinstance(card, dict) else None


def _page(name: str) -> tuple[bytes, str]:
    """Return the page, and the policy that lets its own style and script run and nothing else."""
    text = (files("reszoo.serving") / "page.html").read_text(encoding="utf-8")
    allowed = {}
    for tag in ("style", "script"):
        (block,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        allowed[tag] = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{allowed['style']}'; script-src 'sha256-{allowed['script']}'; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    facts = {"MODEL": name, "LIMIT": str(LIMIT)}
    for word, value in facts.items():
        text = text.replace(f"@{word}@", html.escape(value))
    return text.encode(), policy
