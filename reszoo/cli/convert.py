"""`reszoo convert`: weight files from and to other frameworks."""

from __future__ import annotations

import argparse
from pathlib import Path

from reszoo.cli.output import load_tensorflow, print_table
from reszoo.cli.show import parse_field
from reszoo.errors import ReszooError
from reszoo.weights.convert import Conversion
from reszoo.weights.formats import split_entry

HELP = "convert weight files from and to other frameworks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `reszoo convert` takes."""
    parser.add_argument(
        "source",
        metavar="IN",
        help="a checkpoint (.safetensors, .pth, .ckpt, .h5, .keras ...), FILE#ENTRY for one of its models, or a run's folder",
    )
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="a new .weights.h5, or with --to a new .safetensors"
    )
    parser.add_argument(
        "--model",
        nargs="+",
        default=[None],
        metavar=("NET", "field=value"),
        help="the net that the checkpoint holds, such as resnet50, and changes to its spec, such as shortcut=B",
    )
    parser.add_argument(
        "--from",
        dest="layout",
        metavar="LAYOUT",
        help="whose names its tensors have (default: found out)",
    )
    parser.add_argument(
        "--to", metavar="LAYOUT", help="torchvision, timm or akamaster: write what they load"
    )
    parser.epilog = "Layouts: reszoo, torchvision, timm, akamaster, keras. PyTorch's own files need `pip install 'reszoo[torch]'`."


def run(args: argparse.Namespace) -> int:
    """Convert, and account for every tensor; 2 where something does not fit, and then nothing is written."""
    model, *changes = args.model
    fields = dict(parse_field(text) for text in changes)
    if not Path(split_entry(args.source)[0]).exists():
        raise ReszooError(f"no file or run folder {args.source}")
    load_tensorflow()
    from reszoo.exporting.convert import convert

    found = convert(args.source, args.out, model=model, layout=args.layout, to=args.to, **fields)
    if rows := account(found):
        print_table(("tensor", "in the file", "what became of it"), rows)
        print()
    if not found.complete:
        raise ReszooError(
            f"{args.source} does not fit {model}: {found.reason}; {args.out} was not written"
        )
    size = args.out.stat().st_size / 1e6
    told = f", {len(found.matched)} tensors of {found.layout}'s layout" if found.matched else ""
    print(f"{args.out}: {size:.1f} MB{told}" + (f", for {args.to}" if args.to else ""))
    return 0


def account(found: Conversion) -> list[tuple[str, str, str]]:
    """Return a row for every tensor: ours, the file's, and what became of it."""
    rows = [
        (ours, theirs, "adapted" if ours in found.adapted else "matched")
        for ours, theirs in found.matched.items()
    ]
    rows += [
        (ours, theirs, f"wrong shape: {list(there)} in the file, {list(here)} in the net")
        for ours, theirs, there, here in found.wrong_shape
    ]
    rows += [(name, "", "missing in the file") for name in found.missing]
    return rows + [("", name, "left over: the net has no place for it") for name in found.left_over]
