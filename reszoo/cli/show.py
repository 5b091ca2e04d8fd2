"""`reszoo show`: the fields and the size of a model."""

from __future__ import annotations

import argparse
from typing import Any

from reszoo.cli.output import print_table, print_weights
from reszoo.config.tomlfile import parse_value, spell
from reszoo.errors import ReszooError
from reszoo.weights.published import find_compatible
from reszoo.zoo.catalog import alias_of, list_models, spec
from reszoo.zoo.count import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `reszoo show`."""
    parser.add_argument("name", help="a model, such as resnet56")
    parser.add_argument(
        "fields", nargs="*", metavar="field=value", help="changed fields, such as shortcut=B"
    )
    parser.add_argument(
        "--input", metavar="HxWxC", help="size of one image (default: 32x32x3 or 224x224x3)"
    )
    parser.add_argument("--classes", type=int, help="number of classes (default: 10 or 1000)")


def run(args: argparse.Namespace) -> int:
    """Print the fields of a model, and output, parameters and MACs of each layer group."""
    fields: Any = dict(parse_field(text) for text in args.fields)
    model = spec(args.name, **fields)
    shape = model.default_input_shape if args.input is None else _shape(args.input)
    classes = model.default_classes if args.classes is None else args.classes
    size = count(model, shape, classes)
    print(" ".join([args.name, *args.fields]))
    print(_alias(args.name), end="")
    print()
    values = {key: value for key, value in model.to_dict().items() if key != "name"}
    shown = [(key, each if isinstance(each, str) else spell(each)) for key, each in values.items()]
    print_table(("field", "value"), shown)
    print()
    blocks = {f"stage{number}": str(depth) for number, depth in enumerate(model.depths, 1)}
    rows = [
        (group, blocks.get(group, ""), "x".join(map(str, out)), parameters, cost)
        for group, out, parameters, cost in size.by_group()
    ]
    print_table(("stage", "blocks", "output", "parameters", "MACs"), rows)
    print()
    print(f"depth {size.depth}, {size.parameters:,} parameters, {size.state:,} moving statistics,")
    image = "x".join(map(str, shape))
    print(f"{size.macs:,} MACs for one {image} image and {classes:,} classes")
    if weights := find_compatible(model):
        print()
        print_weights(weights, named=False)
    return 0


def _alias(name: str) -> str:
    """Return a line that says what an alias means and how the paper's model differs, or ""."""
    row, paper = alias_of(name), f"{name}_v1"
    if row is None:
        return ""
    if paper not in list_models() or alias_of(paper):
        return f"is another name of {row}\n"
    ours, theirs = spec(row).to_dict(), spec(paper).to_dict()
    changed = [f"{k}={each}" for k, each in theirs.items() if k != "name" and ours[k] != each]
    return f"is another name of {row}; the paper's own model is {paper}, with {' '.join(changed)}\n"


def parse_field(text: str) -> tuple[str, object]:
    """Return the name and the value of `field=value`.

    Raises:
        ReszooError: For any other text.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ReszooError(f"'{text}' is invalid; expected field=value. Example: shortcut=B")
    return key, parse_value(value)


def _shape(text: str) -> tuple[int, int, int]:
    sides = text.lower().split("x")
    if len(sides) != 3 or not all(side.isascii() and side.isdigit() for side in sides):
        raise ReszooError(
            f"--input: '{text}' is invalid; expected height x width x channels. Example: 32x32x3"
        )
    height, width, channels = map(int, sides)
    return height, width, channels
