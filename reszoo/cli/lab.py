"""`reszoo lab`: experiments on residual learning, each leaving a record, figures and a page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from reszoo.cli.output import load_tensorflow
from reszoo.cli.recipes import add_overrides

HELP = "experiments on why residual learning works"

LABS = {
    "degradation": "train plain and residual nets of several depths alike: do deeper ones train worse?",
    "constructed": "grow trained nets by blocks that do nothing, train on, and weigh them against training from scratch",
    "identity": "how hard is the identity to learn, and what lies away from it, for plain and residual stacks?",
    "drift": "stack residual blocks on a trained backbone, fine-tune, and see how far each left the identity",
    "responses": "standard deviation of every 3x3 layer's response in trained runs",
    "report": "write figures and page again from an experiment's record",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the experiments and what each takes."""
    labs = parser.add_subparsers(dest="lab", metavar="LAB", required=True)
    own = {
        name: labs.add_parser(name, help=text, description=text, allow_abbrev=False)
        for name, text in LABS.items()
    }
    for name in ("degradation", "constructed"):
        _grid(own[name], name)
    _identity(own["identity"])
    _drift(own["drift"])
    own["responses"].add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs"
    )
    own["responses"].add_argument(
        "--images", type=int, default=1000, metavar="N", help="images at most (default 1000)"
    )
    _out(own["responses"], "responses")
    own["report"].add_argument(
        "folder", type=Path, metavar="DIR", help="folder of an experiment, with its record.json"
    )


def run(args: argparse.Namespace) -> int:
    """Run the experiment, print what it found, and where its page is."""
    load_tensorflow()
    from reszoo.lab.record import read_record
    from reszoo.lab.report import finding, report

    asked = {key: value for key, value in vars(args).items() if key not in ("lab", "out", "folder")}
    if args.lab == "report":
        page = report(args.folder)
    else:
        _experiment(args.lab)(out=args.out, **asked)
        page = args.out / "report.html"
    print(f"\n{finding(read_record(page.parent))}\nreport: {page}")
    return 0


def _experiment(name: str) -> Any:
    import importlib

    return getattr(importlib.import_module(f"reszoo.lab.{name}"), name)


def _out(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("lab") / name,
        metavar="DIR",
        help="folder of the experiment; the same command goes on with what is there (default %(default)s)",
    )


def _grid(parser: argparse.ArgumentParser, name: str) -> None:
    quick = name == "degradation"
    depths, seeds = ([20, 56], 3) if quick else ([20, 32, 56], 2)
    parser.add_argument(
        "--data",
        default="digits",
        metavar="NAME",
        help="digits (embedded, quick), cifar10 or another set's name, or folder:PATH (default %(default)s)",
    )
    parser.add_argument(
        "--depths",
        type=int,
        nargs="+",
        default=depths,
        metavar="N",
        help=f"as in resnet20 and plain20 (default {' '.join(map(str, depths))})",
    )
    parser.add_argument(
        "--seeds", type=int, default=seeds, metavar="N", help=f"runs of each net (default {seeds})"
    )
    parser.add_argument(
        "--budget",
        type=int,
        default=0,
        metavar="STEPS",
        help="steps of a run of the deepest net (default: the recipe's; the paper's 64,000 for any set but digits)",
    )
    add_overrides(parser)
    parser.add_argument(
        "--devices", default="auto", help="as for `reszoo train` (default %(default)s)"
    )
    _out(parser, name)


def _identity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--depths",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8, 16, 32],
        metavar="N",
        help="blocks in a stack (default 1 to 32)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        metavar="N",
        help="repeats of each stack (default %(default)s)",
    )
    parser.add_argument(
        "--steps", type=int, default=2000, metavar="N", help="of training (default %(default)s)"
    )
    parser.add_argument(
        "--width", type=int, default=16, metavar="N", help="numbers in x (default %(default)s)"
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=2e-3,
        metavar="R",
        help="first learning rate (default %(default)s)",
    )
    _out(parser, "identity")


def _drift(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "backbone",
        nargs="?",
        default="vgg16",
        metavar="BACKBONE",
        help="folder of a finished run, a .keras file, vgg16 or a net of the zoo, which are trained first (default %(default)s)",
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="data, augmentation and optimizer (default: the run's, else quickstart)",
    )
    add_overrides(parser)
    parser.add_argument(
        "--blocks", type=int, default=2, metavar="N", help="blocks to stack (default %(default)s)"
    )
    parser.add_argument(
        "--at", metavar="LAYER", help="layer to stack them on (default: the last one with a map)"
    )
    parser.add_argument(
        "--block", default="basic", help="basic or bottleneck (default %(default)s)"
    )
    parser.add_argument(
        "--order", default="auto", help="post, pre, or auto: post where the map cannot be negative"
    )
    parser.add_argument(
        "--train-steps",
        type=int,
        default=0,
        metavar="N",
        help="of the backbone first (default: the recipe's)",
    )
    parser.add_argument(
        "--steps", type=int, default=200, metavar="N", help="of fine-tuning (default %(default)s)"
    )
    parser.add_argument(
        "--every",
        type=int,
        default=20,
        metavar="N",
        help="steps between looks (default %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=0.0,
        metavar="R",
        help="of fine-tuning (default: a tenth of the recipe's)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=256,
        metavar="N",
        help="to measure blocks on (default %(default)s)",
    )
    parser.add_argument(
        "--devices", default="auto", help="as for `reszoo train` (default %(default)s)"
    )
    _out(parser, "drift")
