"""`reszoo export`: write a trained net as an artefact to deploy."""

from __future__ import annotations

import argparse
from pathlib import Path

from reszoo.cli.net import add_net
from reszoo.cli.output import load_tensorflow
from reszoo.evaluation.source import open_source
from reszoo.exporting.formats import FORMATS, QUANTIZE, get_format
from reszoo.files import check_output, is_plain
from reszoo.loading import held_standard_error

HELP = "write a trained net as SavedModel, LiteRT or ONNX, checked and described"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `reszoo export` takes."""
    add_net(parser)
    parser.add_argument("out", metavar="OUT", type=Path, help="new folder for it")
    parser.add_argument(
        "--format", choices=list(FORMATS), default="savedmodel", help="default: savedmodel"
    )
    parser.add_argument(
        "--quantize",
        choices=QUANTIZE,
        help="float16: half the size. dynamic (litert): weights in 8 bits. int8 (litert, onnx): all in 8 bits, faster too",
    )
    parser.add_argument(
        "--fold",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fold batch normalisation into the convolution before it, wherever that is exact (default: fold)",
    )
    parser.add_argument(
        "--image-size",
        metavar="SIZE",
        type=_size,
        help="input of 192, or 160x224 (height x width), in place of the net's own",
    )
    parser.add_argument(
        "--data",
        metavar="SET",
        help="images to check on, and to find the ranges of int8 on (default: the run's own)",
    )


def run(args: argparse.Namespace) -> int:
    """Export, check what was written in a fresh process, and say how it went."""
    source = open_source(
        args.net, args.weights
    )  # rejects what is wrong before TensorFlow is loaded
    kind, _ = get_format(args.format, args.quantize)
    check_output(args.out, "export folder", occupied=False)
    load_tensorflow()
    from reszoo.exporting.export import export

    with held_standard_error():  # converters chatter there
        report = export(
            source,
            args.out,
            format=args.format,
            quantize=args.quantize,
            fold_norms=args.fold,
            image_size=args.image_size,
            data=args.data,
        )
    check = report.check
    print(f"{report.path}: {kind.title}, {report.precision}, {report.bytes / 1e6:.1f} MB")
    if args.fold:
        rest = f", {report.kept} stay" if report.kept else ""
        print(f"{report.folded} normalisations folded into convolutions{rest}")
    print(
        f"checked in a process of its own on {check.images} images ({check.what}): same first class as Keras "
        f"{100 * check.agreement:.2f} %, logits within {check.logit_difference:.1g}, "
        f"probabilities within {check.probability_difference:.1g}"
    )
    if check.accuracy is not None and check.keras_accuracy is not None:
        balanced = (
            ""
            if check.balanced_accuracy is None
            else f", balanced {100 * check.balanced_accuracy:.2f} %"
        )
        print(
            f"accuracy {100 * check.accuracy:.2f} %{balanced}, Keras {100 * check.keras_accuracy:.2f} %"
        )
    if report.one_class:
        print(report.one_class)
    if report.note:
        print(f"not checked on the run's own images: {report.note}")
    if kind.name == "savedmodel" and not is_plain(args.out.absolute()):
        print(
            "TensorFlow does not load a SavedModel from a path with [ ] * ? or \\: copy the folder elsewhere to load it"
        )
    print(
        "speed "
        + ", ".join(
            f"{speed:,.0f} images/s in batches of {rows}" for rows, speed in check.speed.items()
        )
    )
    return 0


def _size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(
        side.isascii() and side.isdigit() and int(side) > 0 for side in sides
    ):
        raise argparse.ArgumentTypeError(
            f"a side, such as 192, or height x width, such as 160x224, not '{text}'"
        )
    return int(sides[0]), int(sides[-1])
