"""`reszoo serve-check`: try an exported net over HTTP and on a page, on this machine alone."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from reszoo.cli.output import load_tensorflow
from reszoo.loading import held_standard_error
from reszoo.serving.versions import find_version

if TYPE_CHECKING:
    from reszoo.serving.server import Server

HELP = "try an exported net on a page and in TensorFlow Serving's REST shape; not for production"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `reszoo serve-check` takes."""
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="what `reszoo export` wrote: a SavedModel in OUT/1"
    )
    parser.add_argument(
        "--port", type=_port, default=8501, help="0 finds a free one (default %(default)s)"
    )
    parser.add_argument("--name", help="the model's name in the address (default: the folder's)")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM; both are its ordinary end."""
    find_version(args.out)  # refuses what is wrong at once, before TensorFlow is loaded
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        load_tensorflow()
        from reszoo.serving.server import Server

        with held_standard_error():  # TensorFlow chatters as it loads a net
            server = Server(args.out, port=args.port, name=args.name)
        with server:
            print(told(server), flush=True)
            while True:
                signal.pause()
    except KeyboardInterrupt:
        return 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def told(server: Server) -> str:
    """Return what a person is told once it serves."""
    signatures = ", ".join(server.servable.signatures)
    command = f"curl -s {server.model_url}/metadata"
    if "image_bytes" in server.servable.signatures:
        body = """'{"signature_name": "image_bytes", "instances": [{"b64": "%s"}]}'"""
        command = f"printf {body} \"$(base64 < picture.jpg | tr -d '\\n')\" | curl -s -d @- {server.model_url}:predict"
    return (
        f"{server.name} version {server.version}: {signatures}\n"
        f"page  {server.url}/\n"
        f"REST  {command}\n"
        "For trying out, on this machine alone; docs/serving.md shows TensorFlow Serving. Ctrl-C ends it."
    )


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port, 0 to 65535, not '{text}'")
    return int(text)
