"""`reszoo convert`: weight files from and to other frameworks."""

from __future__ import annotations

import argparse
from pathlib import Path

from reszoo.cli.output import load_tensorflow, print_table
from reszoo.cli.show import parse_field
from reszoo.errors import ReszooError
from reszoo.weights.convert import Conversion
from reszoo.weights.files import split_entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo convert`."""
    add = parser.add_argument
    source = (
        "a checkpoint (.safetensors, .pth, .ckpt, .h5, .keras ...), FILE#ENTRY for one of its "
        "models, or a run folder"
    )
    add("source", metavar="IN", help=source)
    out = "a new .weights.h5, or with --to a new .safetensors"
    add("out", metavar="OUT", type=Path, help=out)
    model = "the checkpoint's model, such as resnet50, and changes to its spec, such as shortcut=B"
    names = ("MODEL", "field=value")
    add("--model", nargs="+", default=[None], metavar=names, help=model)
    layout = "whose names its tensors have (default: detected)"
    add("--from", dest="layout", metavar="LAYOUT", help=layout)
    add("--to", metavar="LAYOUT", help="torchvision, timm or akamaster: write what they load")
    parser.epilog = (
        "Layouts: reszoo, torchvision, timm, akamaster, keras. "
        "PyTorch's own files need `pip install 'reszoo[torch]'`."
    )


def run(args: argparse.Namespace) -> int:
    """Convert, and print what became of every tensor; an error if something does not fit."""
    model, *changes = args.model
    fields = dict(parse_field(text) for text in changes)
    if not Path(split_entry(args.source)[0]).exists():
        raise ReszooError(f"{args.source} does not exist; expected a file or a run folder")
    load_tensorflow()
    from reszoo.exporting.convert import convert

    found = convert(args.source, args.out, model=model, layout=args.layout, to=args.to, **fields)
    if rows := make_rows(found):
        print_table(("tensor", "in the file", "what became of it"), rows)
        print()
    if not found.complete:
        raise ReszooError(
            f"{args.source} does not fit {model}: {found.reason}; {args.out} was not written"
        )
    megabytes, count = args.out.stat().st_size / 1e6, len(found.matched)
    tensors = f", {count} tensors of {found.layout}'s layout" if count else ""
    print(f"{args.out}: {megabytes:.1f} MB{tensors}" + (f", for {args.to}" if args.to else ""))
    return 0


def make_rows(found: Conversion) -> list[tuple[str, str, str]]:
    """Return a row for every tensor: ours, the file's, and what became of it."""
    return [
        *(
            (ours, theirs, "adapted" if ours in found.adapted else "matched")
            for ours, theirs in found.matched.items()
        ),
        *(
            (ours, theirs, f"wrong shape: {list(there)} in the file, {list(here)} in the model")
            for ours, theirs, there, here in found.wrong_shape
        ),
        *((name, "", "missing in the file") for name in found.missing),
        *(("", name, "left over: not in the model") for name in found.left_over),
    ]
