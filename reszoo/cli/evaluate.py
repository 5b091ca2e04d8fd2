"""`reszoo evaluate`: score a trained net on every image of a set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from reszoo.cli.net import add_net
from reszoo.cli.output import load_tensorflow, print_table
from reszoo.evaluation.source import open_source

if TYPE_CHECKING:
    from reszoo.evaluation.scores import Scores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `reszoo evaluate` takes."""
    add_net(parser)
    parser.add_argument(
        "--data",
        metavar="NAME",
        help="another set of the same classes than the run's, or folder:PATH",
    )
    parser.add_argument(
        "--split", default="test", help="train, validation or test (default %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images at once (default: the recipe's)"
    )
    parser.add_argument(
        "--devices", default="auto", help="as for `reszoo train` (default %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the scores (default: the run's)"
    )


def run(args: argparse.Namespace) -> int:
    """Score, write the scores beside the run, and print them."""
    source = open_source(
        args.net, args.weights
    )  # rejects what is wrong before TensorFlow is loaded
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
    )
    print_table(
        (f"{args.data or (source.run and source.run.recipe.data.name)}, {args.split}", "measured"),
        summary(scores),
    )
    if scores.single_class is not None:
        print(f"\n{one_class_line(source.class_names[scores.single_class])}")
    if confused := most_confused(scores.confusion, source.class_names):
        print()
        print_table(("class", "taken for", "share of the class"), confused)
    return 0


def summary(scores: Scores) -> list[tuple[str, str]]:
    """Return the rows of the closing table."""
    rows = [
        ("images", f"{scores.examples:,}"),
        ("top-1 error", f"{scores.error:.2f} %"),
        ("balanced accuracy", f"{100 * scores.balanced_accuracy:.2f} %"),
    ]
    if scores.top5 is not None:
        rows.append(("top-5 error", f"{100 * (1 - scores.top5):.2f} %"))
    rows.append(("loss", f"{scores.loss:.4f}"))
    if scores.not_finite:
        rows.append(
            ("images with logits that are not finite, counted wrong", f"{scores.not_finite:,}")
        )
    return rows


def most_confused(
    matrix: list[list[int]], names: tuple[str, ...], count: int = 3
) -> list[tuple[str, str, str]]:
    """Return the `count` most frequent confusions as (class, what it was taken for, share of the class's examples)."""
    found = [
        (row[predicted] / sum(row), -true, -predicted)
        for true, row in enumerate(matrix)
        for predicted in range(len(row))
        if predicted != true and row[predicted]
    ]
    return [
        (names[-true], names[-predicted], f"{100 * share:.1f} %")
        for share, true, predicted in sorted(found, reverse=True)[:count]
    ]
