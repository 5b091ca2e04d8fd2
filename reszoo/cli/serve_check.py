"""`reszoo serve-check`: try an exported model over HTTP and on a page."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from reszoo.cli.output import load_tensorflow
from reszoo.loading import held_standard_error
from reszoo.serving.versions import find_version
from reszoo.signals import interrupt_on

if TYPE_CHECKING:
    from reszoo.serving.server import Server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo serve-check`."""
    add = parser.add_argument
    add("out", metavar="OUT", type=Path, help="folder that `reszoo export` wrote")
    add("--port", type=parse_port, default=8501, help="0 selects a free one (default %(default)s)")
    host = (
        "IPv4 address to listen on (default %(default)s); one that other machines reach, such as "
        "0.0.0.0, needs a token in the environment variable RESZOO_TOKEN"
    )
    add("--host", default="127.0.0.1", metavar="ADDRESS", help=host)
    add("--name", help="the model's name in the address (default: the folder's)")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    find_version(args.out)  # reports a wrong folder before TensorFlow is loaded
    with interrupt_on(signal.SIGINT, signal.SIGTERM):
        try:
            load_tensorflow()
            from reszoo.serving.server import Server

            with held_standard_error():  # TensorFlow prints as it loads a model
                token = os.environ.get("RESZOO_TOKEN")
                server = Server(
                    args.out, port=args.port, host=args.host, token=token, name=args.name
                )
            with server:
                print(describe(server), flush=True)
                while True:
                    signal.pause()
        except KeyboardInterrupt:
            return 0


def describe(server: Server) -> str:
    """Return the addresses of a server, and a command that sends it an image."""
    header = '-H "Authorization: Bearer $RESZOO_TOKEN" ' if server.needs_token else ""
    page = "#token=TOKEN" if server.needs_token else ""
    command = f"curl -s {header}{server.model_url}/metadata"
    if "image_bytes" in server.servable.signatures:
        body = """'{"signature_name": "image_bytes", "instances": [{"b64": "%s"}]}'"""
        image = "\"$(base64 < photo.jpg | tr -d '\\n')\""
        command = f"printf {body} {image} | curl -s {header}-d @- {server.model_url}:predict"
    return (
        f"{server.name} version {server.version}: {', '.join(server.servable.signatures)}\n"
        f"page  {server.url}/{page}\n"
        f"REST  {command}\n"
        "Not for production; docs/serving.md shows TensorFlow Serving. "
        "Press Ctrl-C to stop."
    )


def parse_port(text: str) -> int:
    """Parse a port."""
    if not (text.isdecimal() and int(text[:6]) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is invalid; expected a port, 0 to 65535")
    return int(text)
