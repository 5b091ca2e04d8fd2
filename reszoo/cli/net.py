"""How every verb that takes a trained net is told which."""

from __future__ import annotations

import argparse


def add_net(parser: argparse.ArgumentParser) -> None:
    """Declare NET and --weights, which `open_source` of reszoo.evaluation.source reads."""
    parser.add_argument(
        "net", metavar="NET", help="folder of a finished run, or a net's name for published weights"
    )
    parser.add_argument(
        "--weights",
        metavar="TAG",
        help="which published weights (`reszoo list --weights`; default: the first)",
    )
