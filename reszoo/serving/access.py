"""Who may reach the server: the address that it listens on, the token, and other pages."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket

from starlette.middleware.base import DispatchFunction, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reszoo.errors import ReszooError

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # of this machine, in the header Host
CONNECTIONS = 64
OPEN = ("/", "/healthz")  # paths that need no token: the page holds nothing but the model's name

HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


def check_access(host: str, token: str | None) -> bool:
    """Return whether only this machine reaches an address.

    Raises:
        ReszooError: If the address is invalid, or the token too short or missing where others may
            reach the server.
    """
    try:
        local = ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        raise ReszooError(
            f"host: {host!r} is invalid; expected an IPv4 address. Example: --host 0.0.0.0"
        ) from None
    if token is not None and not re.fullmatch(r"[!-~]{16,}", token):
        raise ReszooError(
            "token: its value is invalid; expected at least 16 printable ASCII characters without "
            "spaces. Example: RESZOO_TOKEN=$(openssl rand -hex 16)"
        )
    if not local and token is None:
        raise ReszooError(
            f"host: {host} is invalid without a token, because other machines may reach it. "
            "Example: RESZOO_TOKEN=$(openssl rand -hex 16)"
        )
    return local


def reachable(host: str) -> str:
    """Return an address as a URL has it; 127.0.0.1 for one that stands for all addresses."""
    return HOST if ipaddress.IPv4Address(host).is_unspecified else host


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 selects a free one. Raise ReszooError if it is in use."""
    try:
        if not 0 <= port <= 65535:
            raise OSError(None, "expected 0 to 65535")
        listener = socket.create_server((host, port), backlog=CONNECTIONS)
    except OSError as error:
        raise ReszooError(
            f"port: {port} cannot be used ({error.strerror}). Example: --port 0 selects a free port"
        ) from None
    # asyncio does not set this on sockets that it did not create; a kept connection waits 40 ms
    # without.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def protect(token: str | None) -> DispatchFunction:
    """Return a middleware that rejects requests of other pages, and those without the token."""

    async def check(request: Request, call_next: RequestResponseEndpoint) -> Response:
        # The path of `request.url` depends on the header Host, which a client may choose.
        path, own = request.scope["path"], f"http://{request.headers['host']}"
        if request.headers.get("origin", own) != own:
            message = f"requests from other pages are rejected; expected {own}"
            response: Response = JSONResponse({"error": message}, 403)
        elif token and path not in OPEN and not _sends(request, token):
            message = (
                "the token is missing or wrong; expected the header Authorization: Bearer TOKEN"
            )
            response = JSONResponse({"error": message}, 401, {"WWW-Authenticate": "Bearer"})
        else:
            response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    return check


def _sends(request: Request, token: str) -> bool:
    """Return whether a request sends the token, in a time that does not depend on it."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(given.encode("latin-1"), token.encode())
    return same and scheme.lower() == "bearer"
