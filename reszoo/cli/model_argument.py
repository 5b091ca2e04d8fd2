"""The arguments MODEL and --weights of the commands that take a trained model."""

from __future__ import annotations

import argparse

from reszoo.evaluation.source import Source, open_source


def add_model(parser: argparse.ArgumentParser) -> None:
    """Declare MODEL and --weights."""
    text = "folder of a finished run, or a model name for published weights"
    parser.add_argument("model", metavar="MODEL", help=text)
    text = "which published weights (`reszoo list --weights`; default: the model's first)"
    parser.add_argument("--weights", metavar="TAG", help=text)


def open_model(args: argparse.Namespace) -> Source:
    """Return the trained model that the arguments name. Does not import TensorFlow."""
    return open_source(args.model, args.weights)
