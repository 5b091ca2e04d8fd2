"""`reszoo explain`: draw which places of images speak for a class."""

from __future__ import annotations

import argparse
from pathlib import Path

from reszoo.cli.image_argument import Readable, add_images, list_paths
from reszoo.cli.model_argument import add_model, open_model
from reszoo.cli.output import load_tensorflow, on_terminal, print_table
from reszoo.files import check_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo explain`."""
    add_model(parser)
    add_images(parser)
    add = parser.add_argument
    text = "the class to explain (default: the predicted class of each image)"
    add("--class", dest="class_name", metavar="NAME", help=text)
    text = "a layer, or a stage such as stage2 (default: the last layer with maps)"
    add("--layer", metavar="NAME", help=text)
    text = "folder for the images, NAME-gradcam.png each (default %(default)s)"
    add("--out", type=Path, default=Path("explanations"), metavar="DIR", help=text)


def run(args: argparse.Namespace) -> int:
    """Write the overlays, and print the class and the file of each image."""
    source = open_model(args)  # reports errors before TensorFlow is loaded
    check_output(args.out / "image-gradcam.png", "folder of the explanations")
    load_tensorflow()
    from reszoo.evaluation.explain import explain_each
    from reszoo.images.formats import printable

    rows: list[tuple[str, str, str, str]] = []
    used: set[Path] = set()
    results = explain_each(
        source, list_paths(args.images), class_name=args.class_name, layer=args.layer
    )
    explanations = Readable(results)
    for one in explanations:
        name, number = printable(Path(one.path).stem), 1
        while (
            path := args.out / f"{name}{f'-{number}' if number > 1 else ''}-gradcam.png"
        ) in used:
            number += 1
        used.add(path)
        one.save(path)
        percent = f"{100 * one.probability:.2f} %" if on_terminal() else f"{one.probability:.6g}"
        rows.append((printable(one.path), one.label, percent, str(path)))
    if rows:
        print_table(("image", "class", "probability", "file"), rows)
    return explanations.status
