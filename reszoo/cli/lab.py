"""`reszoo lab`: experiments on residual learning; each leaves a record, figures and a report."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from reszoo.cli.output import add_verbosity, load_tensorflow
from reszoo.cli.recipes import add_overrides

LABS = {
    "degradation": "plain and residual models of several depths: do deeper ones train worse?",
    "ablation": "other shortcuts than the identity, and other orders of activations",
    "constructed": "grow trained models by blocks that do nothing; compare with training from "
    "scratch",
    "identity": "how hard is the identity for plain and residual stacks, and what is away from it?",
    "drift": "stack residual blocks on a trained backbone; how far does each leave the identity?",
    "responses": "standard deviation of the response of every 3x3 layer in trained models",
    "propagation": "size of maps and correlation of gradients before training, with and without "
    "normalization",
    "resemblance": "do the first layers of a deep model resemble a shallow model?",
    "landscape": "the loss around trained models, along lines and on planes",
    "undertraining": "deep models whose first layers were trained for a part, then frozen or not",
    "linear": "linear residual layers: how small they stay, and the Hessian at zero",
    "inference": "what each block of trained models adds: cosine with the gradient, early exits",
    "lesion": "delete and reorder blocks of trained models, and follow gradients along paths",
    "depth": "how deep models can be trained, with and without shortcuts and normalization",
    "growth": "train by doubling blocks, copied or zero, against from scratch at equal MACs",
    "sizes": "parameters and MACs of the papers' models, counted",
    "report": "write figures and report of an experiment again from its record",
}

BACKBONE = (
    "folder of a finished run, a .keras file, or vgg16 or a reszoo model, which are trained first"
)
DATA = "digits (embedded), cifar10 or another dataset's name, or folder:PATH"
BUDGET = (
    "steps of a run of the deepest model (default: the recipe's; 64,000 for any dataset but digits)"
)

MODELS = (
    "folders of finished runs, or NAME@WEIGHTS of published weights (default: models are trained "
    "on digits)"
)

Options = dict[str, tuple[Any, str]]

# The default and the help of each option. A default of None has type str.
GRID: Options = {
    "data": ("digits", DATA),
    "depths": ([20, 56], "depths as in resnet20 and plain20"),
    "seeds": (3, "runs of each model"),
    "budget": (0, BUDGET),
    "devices": ("auto", "as for `reszoo train`"),
}
# Of experiments on trained models.
TRAINED: Options = {
    "models": (
        ["plain20", "resnet20", "resnet56", "resnet56_v2"],
        "run folders, NAME@WEIGHTS, or names of models that are trained on digits first",
    ),
    "data": ("", "dataset of published weights; runs have their own"),
    "budget": (0, "steps of training on digits (default: the recipe's 400)"),
    "devices": GRID["devices"],
}
# Of experiments that compare trained models, or train their own.
COMPARED: Options = {
    "models": ([""], MODELS),
    "data": ("", "the images (default: those of the first run)"),
}
OPTIONS: dict[str, Options] = {
    "degradation": GRID,
    "constructed": GRID
    | {"depths": ([20, 32, 56], GRID["depths"][1]), "seeds": (2, GRID["seeds"][1])},
    "ablation": {
        "data": GRID["data"],
        "depth": (56, "depth as in resnet56"),
        "variants": (["all"], "names of shortcuts and orders; docs/lab.md lists them"),
        "seeds": (2, "runs of each variant"),
        "budget": (0, "steps of each run (default: the recipe's; 64,000 unless digits)"),
        "devices": GRID["devices"],
    },
    "identity": {
        "depths": ([1, 2, 4, 8, 16, 32], "blocks in a stack"),
        "seeds": (3, "repeats of each stack"),
        "steps": (2000, "steps of training"),
        "width": (16, "size of x"),
        "rate": (2e-3, "first learning rate"),
    },
    "drift": {
        "recipe": (
            None,
            "gives data, augmentation and optimizer (default: the run's, else quickstart)",
        ),
        "blocks": (2, "blocks to stack"),
        "at": (None, "layer on which they are stacked (default: the last one with a map)"),
        "block": ("basic", "basic or bottleneck"),
        "order": ("auto", "post, pre, or auto: post where the map cannot be negative"),
        "train-steps": (0, "steps of training the backbone first (0: the recipe's)"),
        "steps": (200, "steps of fine-tuning"),
        "every": (20, "steps between measurements"),
        "rate": (0.0, "learning rate of fine-tuning (0: a tenth of the recipe's)"),
        "images": (256, "images on which blocks are measured"),
        "devices": ("auto", "as for `reszoo train`"),
    },
    "propagation": {
        "blocks": (27, "blocks of each model"),
        "width": (32, "channels of each model"),
        "seeds": (3, "repeats"),
    },
    "resemblance": COMPARED
    | {
        "depths": ([20, 56], "two depths to train on digits, without --models"),
        "seeds": (2, "runs of each shallow model to train"),
        "budget": (0, "steps of each run (default: the recipe's)"),
        "images": (1000, "number of test images at most"),
        "devices": ("auto", "as for `reszoo train`"),
    },
    "landscape": COMPARED
    | {
        "depths": ([20, 56], "depths to train on digits, without --models"),
        "budget": (0, "steps of each run (default: the recipe's)"),
        "images": (256, "training images over which the loss is the mean"),
        "points": (13, "points of each side of a plane"),
        "devices": ("auto", "as for `reszoo train`"),
    },
    "undertraining": {
        "depths": ([20, 56], "depths of the shallow and the deep models"),
        "shares": ([0.05, 0.2, 1.0], "shares of the training of the shallow models"),
        "budget": (400, "steps of their whole training"),
        "steps": (100, "steps of the deep models"),
        "devices": ("auto", "as for `reszoo train`"),
    },
    "linear": {
        "depths": ([2, 4, 8, 16, 32], "layers of a stack"),
        "seeds": (3, "maps to learn"),
    },
    "inference": TRAINED | {"images": (1000, "test images at most")},
    "lesion": TRAINED
    | {
        "images": (1000, "test images at most"),
        "repeats": (5, "random choices of blocks per number of deletions or swaps"),
    },
    "depth": {
        "depths": ([20, 110, 1202], "depths as in resnet20"),
        "steps": (40, "steps of each model"),
        "deepest": (10_004, "depth of one more model with SkipInit (0: none)"),
        "deepest-steps": (20, "its steps"),
    },
    "growth": {
        "data": GRID["data"],
        "blocks": (2, "blocks of each stage at first"),
        "cycles": (3, "parts of equally many steps, with doubled blocks"),
        "seeds": (2, GRID["seeds"][1]),
        "budget": (300, "steps of each model"),
        "devices": GRID["devices"],
    },
    "sizes": {},
    "responses": {
        "data": TRAINED["data"],
        "images": (1000, "number of images at most"),
        "budget": TRAINED["budget"],
        "devices": GRID["devices"],
    },
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the experiments and the options of each."""
    labs = parser.add_subparsers(dest="lab", metavar="LAB", required=True)
    own = {
        name: labs.add_parser(name, help=text, description=text, allow_abbrev=False)
        for name, text in LABS.items()
    }
    own["drift"].add_argument(
        "backbone", nargs="?", default="vgg16", metavar="BACKBONE", help=BACKBONE
    )
    own["responses"].add_argument("runs", nargs="*", metavar="RUN", help=MODELS)
    own["report"].add_argument(
        "folder", type=Path, metavar="DIR", help="folder of an experiment, with its record.json"
    )
    for name, options in OPTIONS.items():
        for option, (default, text) in options.items():
            _add_option(own[name], option, default, text)
        if name in ("degradation", "ablation", "constructed", "drift", "growth"):
            add_overrides(own[name])
        add_verbosity(own[name])
        own[name].add_argument(
            "--out",
            type=Path,
            default=Path("lab") / name,
            metavar="DIR",
            help="folder of the experiment; the same command resumes there (default %(default)s)",
        )


def _add_option(parser: argparse.ArgumentParser, name: str, default: Any, text: str) -> None:
    several = isinstance(default, list)
    shown = " ".join(map(str, default)) if several else default
    parser.add_argument(
        f"--{name}",
        type=type(default[0] if several else default) if default is not None else str,
        nargs="+" if several else None,
        default=default,
        metavar=name.split("-")[-1].upper(),
        help=text if default is None or "(" in text else f"{text} (default {shown})",
    )


def run(args: argparse.Namespace) -> int:
    """Run the experiment, and print its finding and where its report is."""
    load_tensorflow(verbose=getattr(args, "verbose", False))
    from reszoo.lab.record import read_record
    from reszoo.lab.report import finding, write_report

    others = ("lab", "out", "folder", "verbose")
    asked = {key: value for key, value in vars(args).items() if key not in others}
    if args.lab == "report":
        page = write_report(args.folder)
    else:
        getattr(importlib.import_module(f"reszoo.lab.{args.lab}"), args.lab)(out=args.out, **asked)
        page = args.out / "report.html"
    print(f"\n{finding(read_record(page.parent))}\nreport: {page}")
    return 0
