"""`reszoo export`: write a trained model as an artifact to deploy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from reszoo.cli.model_argument import add_model, open_model
from reszoo.cli.output import load_tensorflow
from reszoo.exporting.formats import FORMATS, QUANTIZE, Format, get_format
from reszoo.files import check_output, is_plain
from reszoo.loading import held_standard_error

if TYPE_CHECKING:
    from reszoo.exporting.export import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo export`."""
    add_model(parser)
    add = parser.add_argument
    add("out", metavar="OUT", type=Path, help="new folder for it")
    add("--format", choices=list(FORMATS), default="savedmodel", help="default: savedmodel")
    quantize = (
        "float16: half the size. dynamic (litert): weights in 8 bits. "
        "int8 (litert, onnx): everything in 8 bits, faster too"
    )
    add("--quantize", choices=QUANTIZE, help=quantize)
    fold = "fold batch norms into the convolution before them where that is exact (default: fold)"
    add("--fold", action=argparse.BooleanOptionalAction, default=True, help=fold)
    size = "another input size: 192, or 160x224 (height x width)"
    add("--image-size", metavar="SIZE", type=parse_size, help=size)
    data = "images to compare on, and to measure the ranges of int8 on (default: the run's own)"
    add("--data", metavar="DATASET", help=data)


def run(args: argparse.Namespace) -> int:
    """Export, and print what was written and how it compares with Keras."""
    source = open_model(args)  # reports errors before TensorFlow is loaded
    kind, _ = get_format(args.format, args.quantize)
    check_output(args.out, "export folder", occupied=False)
    load_tensorflow()
    from reszoo.exporting.export import export

    with held_standard_error():  # converters print there
        report = export(
            source,
            args.out,
            format=args.format,
            quantize=args.quantize,
            fold_norms=args.fold,
            image_size=args.image_size,
            data=args.data,
        )
    for line in describe(report, kind, folded=args.fold):
        print(line)
    if kind.name == "savedmodel" and not is_plain(args.out.absolute()):
        print(
            "TensorFlow does not load a SavedModel from a path with [ ] * ? or \\: "
            "copy the folder elsewhere to load it"
        )
    return 0


def describe(report: Report, kind: Format, *, folded: bool) -> list[str]:
    """Return the lines that describe an export."""
    check = report.check
    lines = [f"{report.path}: {kind.title}, {report.precision}, {report.bytes / 1e6:.1f} MB"]
    if folded:
        rest = f", {report.kept} kept" if report.kept else ""
        lines.append(f"{report.folded} batch norms folded into convolutions{rest}")
    lines.append(
        f"compared with Keras in a fresh process on {check.images} images ({check.what}): same "
        f"predictions {100 * check.agreement:.2f} %, logits within {check.logit_difference:.1g}, "
        f"probabilities within {check.probability_difference:.1g}"
    )
    accuracies = (check.accuracy, check.balanced_accuracy, check.keras_accuracy)
    shown = zip(("accuracy", "balanced", "Keras"), accuracies, strict=True)
    if known := [f"{name} {100 * value:.2f} %" for name, value in shown if value is not None]:
        lines.append(", ".join(known))
    if report.one_class:
        lines.append(report.one_class)
    if report.note:
        lines.append(f"not compared on the run's own images: {report.note}")
    speeds = (f"{speed:,.0f} images/s in batches of {rows}" for rows, speed in check.speed.items())
    return [*lines, "speed " + ", ".join(speeds)]


def parse_size(text: str) -> tuple[int, int]:
    """Parse `192` or `160x224`."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text!r} is invalid; expected a side, such as 192, or height x width, such as 160x224"
        )
    return int(sides[0]), int(sides[-1])
