"""`reszoo evaluate`: evaluate a trained model on every image of a split."""

from __future__ import annotations

import argparse
from pathlib import Path

from reszoo.cli.model_argument import add_model, open_model
from reszoo.cli.output import load_tensorflow, print_table
from reszoo.images.views import parse_scales

CONFUSIONS = 3  # how many are printed
LISTED = 10  # classes that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo evaluate`."""
    add_model(parser)
    add = parser.add_argument
    data = "another dataset of the same classes, or folder:PATH (default: the run's own)"
    add("--data", metavar="DATASET", help=data)
    add("--split", default="test", help="train, validation or test (default %(default)s)")
    add("--batch-size", type=int, metavar="N", help="images at once (default: the recipe's)")
    add("--devices", default="auto", help="as for `reszoo train` (default %(default)s)")
    add("--out", type=Path, metavar="DIR", help="folder for the scores (default: the run's)")
    text = "do not write predictions.csv and the page of mistakes, evaluation.html"
    add("--no-predictions", dest="predictions", action="store_false", help=text)
    add("--crops", type=int, default=1, metavar="N", help="1: center; 10: and corners, mirrored")
    add("--flip", action="store_true", help="average over each view and its mirror image")
    scales = "whole images with these shorter sides, such as 224,256,384,480,640"
    add("--scales", metavar="LIST", help=scales)
    ratio = "side of the crop / shorter side of the resized image (default: as in training)"
    add("--crop-ratio", type=float, metavar="X", help=ratio)
    add("--interpolation", metavar="NAME", help="bilinear or bicubic (default: as in training)")


def run(args: argparse.Namespace) -> int:
    """Evaluate, write the scores, and print them."""
    source = open_model(args)  # reports errors before TensorFlow is loaded
    scales = parse_scales(args.scales) if args.scales is not None else ()
    load_tensorflow()
    from reszoo.evaluation.evaluate import evaluate
    from reszoo.evaluation.scores import one_class_line

    scores = evaluate(
        source,
        data=args.data,
        split=args.split,
        batch_size=args.batch_size,
        devices=args.devices,
        out=args.out,
        crops=args.crops,
        flip=args.flip,
        scales=scales,
        crop_ratio=args.crop_ratio,
        interpolation=args.interpolation,
        predictions=args.predictions and bool(source.run or args.out),
    )
    own = source.run.recipe if source.run else None
    name = args.data or (own and own.data.name)
    rows = scores.rows()
    is_test = own is not None and args.split == "test" and name == own.data.name
    if own and own.published and is_test:
        same = str(own.published.views) == scores.test
        label = "published" if same else f"published, {own.published.views}: not compared"
        rows.insert(2, (label, str(own.published)))
    print_table((f"{name}, {args.split}", "measured"), rows)
    if scores.single_class is not None:
        print(f"\n{one_class_line(source.class_names[scores.single_class])}")
    print()
    print_table(*scores.class_table(LISTED))
    headers, confused = scores.confusion_table(CONFUSIONS)
    if confused:
        print()
        print_table(headers, confused)
    return 0
