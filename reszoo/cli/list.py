"""`reszoo list`: the models that can be built by name."""

from __future__ import annotations

import argparse

from reszoo.cli.output import print_table, print_weights
from reszoo.errors import ReszooError, did_you_mean
from reszoo.weights.published import list_weights
from reszoo.zoo.catalog import alias_of, list_models, spec
from reszoo.zoo.count import count
from reszoo.zoo.spec import Spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `reszoo list`."""
    parser.add_argument(
        "pattern", nargs="?", default="*", help="names to show, such as 'resnet*_v2' (default: all)"
    )
    parser.add_argument("--weights", action="store_true", help="list published weights")
    parser.epilog = (
        "Parameters are those that are trained. MACs are for one image of 32x32 with 10 classes, "
        "or of 224x224 with 1000. CIFAR models of any depth 6n+2 and wide ones wrnD_K have names "
        "too."
    )


def run(args: argparse.Namespace) -> int:
    """Print one line per model, or per published weights."""
    if args.weights:
        if not (found := list_weights(args.pattern)):
            hint = "; `reszoo list --weights` shows all" if args.pattern != "*" else ""
            raise ReszooError(f"no published weights of a model named like '{args.pattern}'{hint}")
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
        rows.append((name, kind, size.depth, size.parameters, size.macs))
    print_table(("name", "family", "depth", "parameters", "MACs"), rows)
    return 0


def family(model: Spec) -> str:
    """Return the family of a model in words, short enough for 80 columns of `reszoo list`."""
    data = "CIFAR" if model.stem == "cifar" else "ImageNet"
    kind = "pre-act" if model.order == "pre" else "residual"
    return f"{data} {'plain' if model.shortcut == 'none' else kind}"


def _is_name(pattern: str) -> bool:
    """Return whether a pattern is the name of a model that is not listed."""
    try:
        spec(pattern)
    except ReszooError:
        return False
    return True
