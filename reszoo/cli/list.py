"""`reszoo list`: the nets that can be built by name."""

from __future__ import annotations

import argparse

from reszoo.cli.output import print_table, print_weights
from reszoo.errors import ReszooError, did_you_mean
from reszoo.weights.published import list_weights
from reszoo.zoo.catalog import alias_of, list_models, spec
from reszoo.zoo.count import count
from reszoo.zoo.spec import Spec

HELP = "list the nets that can be built by name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `reszoo list` takes."""
    parser.add_argument(
        "pattern", nargs="?", default="*", help="names to show, such as 'resnet*_v2' (default: all)"
    )
    parser.add_argument(
        "--weights", action="store_true", help="list published weights in place of nets"
    )
    parser.epilog = (
        "Parameters are the trained ones; multiply-adds are for one image of the size the family was published on: "
        "32x32 with 10 classes, or 224x224 with 1000. CIFAR nets of any depth 6n+2 and wide nets wrnD_K are built by name too."
    )


def run(args: argparse.Namespace) -> int:
    """Print one line a net, or one for each of its published weights."""
    if args.weights:
        if not (found := list_weights(args.pattern)):
            hint = "; `reszoo list --weights` shows all" if args.pattern != "*" else ""
            raise ReszooError(f"no published weights of a net named like '{args.pattern}'{hint}")
        print_weights(found)
        return 0
    names = list_models(args.pattern)
    if not names and not _is_name(args.pattern):
        hint = did_you_mean(args.pattern, list_models()) or "; try '*v2*', or no pattern for all"
        raise ReszooError(f"no model is named like '{args.pattern}'{hint}")
    rows = []
    for name in names or [args.pattern]:
        row, size = alias_of(name), count(name)
        kind = f"= {row}" if row else family(spec(name))
        rows.append((name, kind, size.depth, size.parameters, size.multiply_adds))
    print_table(("name", "family", "depth", "parameters", "multiply-adds"), rows)
    return 0


def family(net: Spec) -> str:
    """Return in words what kind of net a spec is."""
    data = "CIFAR" if net.stem == "cifar" else "ImageNet"
    if net.shortcut == "none":
        return f"{data} plain"
    return f"{data} pre-activation" if net.order == "pre" else f"{data} residual"


def _is_name(pattern: str) -> bool:
    """Return whether `pattern` is a net of the kinds that are built at any depth, few of which are listed."""
    try:
        spec(pattern)
    except ReszooError:
        return False
    return True
