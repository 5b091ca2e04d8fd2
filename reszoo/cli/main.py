"""The `reszoo` command: finds the verb, imports its module alone, and turns errors into one line and an exit status."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from reszoo import __version__
from reszoo.errors import ReszooError, did_you_mean

VERBS = {
    "list": "list the nets that can be built by name",
    "show": "show what a net is made of, and what each stage costs",
    "recipes": "list the training recipes, or print one in full",
    "data": "list data sets and prepare them",
    "train": "train a net by a recipe",
    "evaluate": "score a trained net on every image of a set",
    "predict": "classify images with a trained net",
    "export": "write a trained model as SavedModel, LiteRT or ONNX, checked and described",
    "serve-check": "try an exported model on a page and in TensorFlow Serving's REST API; not for production",
    "convert": "convert weight files from and to other frameworks",
    "tune": "search depth, shortcuts and whatever else a recipe says, under a budget",
    "bench": "measure speed side by side with PyTorch, timm and stock Keras",
    "lab": "experiments on why residual learning works",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is a ReszooError: one line, like every other."""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint as a ReszooError."""
        raise ReszooError(f"{message}; `{self.prog} --help` shows what it takes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name) and return its exit status.

    0: done. 2: bad input or a file system that refuses, told in one line on standard error. 130: interrupted.
    141: nobody reads standard output any more (as `head` does once it has enough).
    """
    try:
        status = _dispatch(sys.argv[1:] if argv is None else list(argv))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except ReszooError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # What is left in the buffer must not raise again when the interpreter closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _fail(
            f"{error.filename}: {error.strerror}"
            if error.filename and error.strerror
            else str(error)
        )


def _dispatch(argv: list[str]) -> int:
    parser = _parser()
    verb = argv[0] if argv and not argv[0].startswith("-") else None
    try:
        if verb is None:
            parser.parse_args(argv)
            parser.print_help()
            return 0
        if verb not in VERBS:
            hint = did_you_mean(verb, VERBS) or f"; there are {', '.join(VERBS)}"
            raise ReszooError(f"no command '{verb}'{hint}")
        module = importlib.import_module(f"reszoo.cli.{verb.replace('-', '_')}")
        parser = Parser(prog=f"reszoo {verb}", description=module.HELP, allow_abbrev=False)
        module.add_arguments(parser)
        status: int = module.run(parser.parse_args(argv[1:]))
        return status
    except SystemExit as done:  # argparse, after --help or --version
        return int(done.code or 0)


def _parser() -> Parser:
    verbs = "\n".join(f"  {verb:<13}{help}" for verb, help in VERBS.items())
    parser = Parser(
        prog="reszoo",
        usage="reszoo COMMAND ...",
        description="Residual networks in TensorFlow and Keras: build, train, measure, grow and ship.",
        epilog=f"commands:\n{verbs}\n\n`reszoo COMMAND --help` shows what a command takes. First: reszoo train quickstart",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"reszoo {__version__}")
    return parser


def _fail(message: str) -> int:
    print(f"reszoo: {' '.join(message.split(chr(10)))}", file=sys.stderr)
    return 2
