"""`reszoo show`: what a net is made of."""

from __future__ import annotations

import argparse
from typing import Any

from reszoo.cli.output import print_table, print_weights
from reszoo.config.tomlfile import parse_value, spell
from reszoo.errors import ReszooError
from reszoo.weights.published import find_compatible
from reszoo.zoo.catalog import alias_of, list_models, spec
from reszoo.zoo.count import count
from reszoo.zoo.spec import Spec

HELP = "show what a net is made of, and what each stage costs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `reszoo show` takes."""
    parser.add_argument("name", help="a net, such as resnet56")
    parser.add_argument(
        "fields", nargs="*", metavar="field=value", help="changes to its spec, such as shortcut=B"
    )
    parser.add_argument(
        "--input",
        metavar="HxWxC",
        help="size of one image (default: what the family was published on)",
    )
    parser.add_argument("--classes", type=int, help="classes told apart (default: likewise)")


def run(args: argparse.Namespace) -> int:
    """Print the net's spec, what its name stands for, and shapes, parameters and multiply-adds by stage."""
    fields: Any = dict(parse_field(text) for text in args.fields)
    net = spec(args.name, **fields)
    shape = net.default_input_shape if args.input is None else _shape(args.input)
    classes = net.default_classes if args.classes is None else args.classes
    size = count(net, shape, classes)
    print(" ".join([args.name, *args.fields]))
    print(_alias(args.name), end="")
    print()
    values = {key: value for key, value in net.to_dict().items() if key != "name"}
    print_table(
        ("field", "value"),
        [(key, value if isinstance(value, str) else spell(value)) for key, value in values.items()],
    )
    print()
    print_table(
        ("stage", "blocks", "output", "parameters", "multiply-adds"),
        [
            (place, _blocks(net, place), "x".join(map(str, out)), parameters, multiply_adds)
            for place, out, parameters, multiply_adds in size.by_group()
        ],
    )
    print()
    print(
        f"depth {size.depth}, {size.parameters:,} parameters ({size.state:,} moving statistics beside them),"
    )
    print(
        f"{size.multiply_adds:,} multiply-adds for one {'x'.join(map(str, shape))} image and {classes:,} classes"
    )
    if weights := find_compatible(net):
        print()
        print_weights(weights, named=False)
    return 0


def _alias(name: str) -> str:
    """Return a line on what an alias stands for, and how that differs from the paper's own net, or ""."""
    row = alias_of(name)
    if row is None:
        return ""
    paper = f"{name}_v1"
    if paper not in list_models() or alias_of(paper):
        return f"is another name of {row}\n"
    ours, theirs = spec(row).to_dict(), spec(paper).to_dict()
    changed = [
        f"{key}={value}" for key, value in theirs.items() if key != "name" and ours[key] != value
    ]
    return f"is another name of {row}; the paper's own net is {paper}, with {' '.join(changed)}\n"


def _blocks(net: Spec, place: str) -> str:
    return (
        str(net.depths[int(place.removeprefix("stage")) - 1]) if place.startswith("stage") else ""
    )


def parse_field(text: str) -> tuple[str, object]:
    """Return the name and the value of `field=value`; raises ReszooError for anything else."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ReszooError(f"'{text}' changes nothing: give field=value, such as shortcut=B")
    return key, parse_value(value)


def _shape(text: str) -> tuple[int, int, int]:
    sides = text.lower().split("x")
    if len(sides) != 3 or not all(side.isascii() and side.isdigit() for side in sides):
        raise ReszooError(
            f"--input is '{text}', but must be height x width x channels, such as 32x32x3"
        )
    height, width, channels = map(int, sides)
    return height, width, channels
