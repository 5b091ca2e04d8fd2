"""The `reszoo` program: runs a command, and turns errors into one line and an exit status."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from reszoo import __version__
from reszoo.errors import ReszooError, did_you_mean

COMMANDS = {
    "list": "list the models that can be built by name",
    "show": "show the fields of a model, and the cost of each stage",
    "recipes": "list the training recipes, or print one in full",
    "data": "list datasets and prepare them",
    "train": "train a model by a recipe",
    "launch": "train with several workers on this machine",
    "compare": "compare runs: curves, means over seeds and paired differences",
    "evaluate": "evaluate a trained model on every image of a split",
    "predict": "classify images with a trained model",
    "explain": "draw which places of images speak for a class, by Grad-CAM",
    "export": "write a trained model as SavedModel, LiteRT or ONNX, checked and described",
    "serve-check": "try an exported model on a page and in TensorFlow Serving's REST API; not for "
    "production",
    "convert": "convert weight files from and to other frameworks",
    "tune": "search depth, shortcuts and any other key of a recipe, within a budget",
    "bench": "measure speed side by side with PyTorch, timm and stock Keras",
    "doctor": "check versions, devices, folders and the network of this machine",
    "lab": "run experiments on why residual learning works",
    "claims": "measure again what the literature says about residual learning",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ReszooErrors."""

    def error(self, message: str) -> NoReturn:
        """Raise an error of argparse as a ReszooError."""
        raise ReszooError(f"{message}; `{self.prog} --help` shows the options")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Args:
        argv: The words after `reszoo`, by default those of the process.

    Returns:
        0: done. 1: `predict` could not read some of its images. 2: invalid input or an error of the
        file system, reported in one line on standard error. 130: interrupted. 141: nobody reads
        standard output any more, as after `| head`. 200: another worker of a run on several hosts
        is missing or was lost.
    """
    try:
        status = _dispatch(sys.argv[1:] if argv is None else list(argv))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except ReszooError as error:
        return _fail(str(error), error.status)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # What is left in the buffer must not raise again when the interpreter closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        is_named = error.filename and error.strerror
        return _fail(f"{error.filename}: {error.strerror}" if is_named else str(error))


def _dispatch(argv: list[str]) -> int:
    parser = _parser()
    name = argv[0] if argv and not argv[0].startswith("-") else None
    try:
        if name is None:
            parser.parse_args(argv)
            parser.print_help()
            return 0
        if name not in COMMANDS:
            hint = did_you_mean(name, COMMANDS) or f"; expected one of {', '.join(COMMANDS)}"
            raise ReszooError(f"no command '{name}'{hint}")
        module = importlib.import_module(f"reszoo.cli.{name.replace('-', '_')}")
        parser = Parser(prog=f"reszoo {name}", description=COMMANDS[name], allow_abbrev=False)
        module.add_arguments(parser)
        status: int = module.run(parser.parse_args(argv[1:]))
        return status
    except SystemExit as done:  # argparse, after --help or --version
        return int(done.code or 0)


def _parser() -> Parser:
    commands = "\n".join(f"  {name:<13}{help}" for name, help in COMMANDS.items())
    parser = Parser(
        prog="reszoo",
        usage="reszoo COMMAND ...",
        description="Residual networks in TensorFlow and Keras: build, train, compare and export.",
        epilog=f"commands:\n{commands}\n\n`reszoo COMMAND --help` shows the options of a command. "
        "First: reszoo train quickstart",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"reszoo {__version__}")
    return parser


def _fail(message: str, status: int = 2) -> int:
    print(f"reszoo: {' '.join(message.split(chr(10)))}", file=sys.stderr)
    return status
