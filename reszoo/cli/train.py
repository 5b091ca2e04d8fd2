"""`reszoo train`: train a model by a recipe, or resume a run."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from reszoo.cli.output import load_tensorflow
from reszoo.cli.recipes import add_overrides
from reszoo.config.load import load_recipe
from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.training.cluster import find_hosts
from reszoo.training.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo train`."""
    add = parser.add_argument
    add("recipe", nargs="?", help="a recipe name (`reszoo recipes` lists them) or a .toml file")
    add_overrides(parser)
    folder = "folder of the run (default: a new one under runs)"
    add("--run-dir", type=Path, metavar="DIR", help=folder)
    add(
        "--resume",
        action="store_true",
        help="resume the run in DIR exactly where it stopped; with a recipe, start it if there is "
        "none yet",
    )
    data = (
        "with --resume: where the same images are now, as folder:PATH or the folder of prepared "
        "datasets"
    )
    add("--data", metavar="PLACE", help=data)
    devices = (
        "auto (all GPUs, else the CPU), cpu, gpu:0,1 or cpu:2 (replicas on the CPU); "
        "default %(default)s"
    )
    add("--devices", default="auto", help=devices)
    hosts = (
        "addresses of all workers, HOST:PORT separated by commas (default: those of TF_CONFIG or "
        "of a Slurm step)"
    )
    add("--hosts", metavar="LIST", help=hosts)
    add("--host-index", type=int, metavar="I", help="with --hosts: which of them this worker is")
    parser.epilog = "To resume: reszoo train --resume --run-dir DIR, or reszoo train --resume DIR."


def run(args: argparse.Namespace) -> int:
    """Train and leave the run folder. Return 130 if a signal stopped the run."""
    hosts = find_hosts(os.environ, args.hosts, args.host_index)
    if not args.resume and args.data is not None:
        example = shlex.quote(f"data.name={args.data}")
        raise ReszooError(
            f"--data: {args.data} is only for --resume. For a new run: --set {example}"
        )
    recipe: Recipe | str | Path | None
    if hosts is None:
        source, run_dir = resolve_arguments(args.recipe, args.run_dir, args.resume)
        recipe = load_recipe(source, args.overrides)
        if not args.resume and run_dir is not None:
            Run(run_dir).reject_occupied()  # before TensorFlow is loaded
    elif hosts.first:  # an error is reported on all hosts, when the workers meet
        recipe, run_dir = resolve_arguments(args.recipe, args.run_dir, args.resume)
    else:  # worker 0 has the run folder, which may be given in place of the recipe
        recipe = None if args.resume and args.run_dir is None else args.recipe
        run_dir = None

    if hosts and os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "2":  # reszoo's default
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # its lines about a lost worker come before ours
    load_tensorflow()
    from reszoo import trainer

    result = trainer.train(
        recipe,
        overrides=args.overrides if hosts else (),
        run_dir=run_dir,
        resume=args.resume,
        data=args.data,
        devices=args.devices,
        hosts=hosts,
    )
    return 0 if result.finished else 130


def resolve_arguments(
    recipe: str | None, run_dir: Path | None, resume: bool
) -> tuple[str | Path, Path | None]:
    """Return the recipe's name or file, and the run folder if one is given.

    A run folder holds its recipe. With `resume`, the folder may be given in place of the recipe.
    """
    if resume and recipe is not None and Path(recipe).is_dir() and run_dir in (None, Path(recipe)):
        run_dir, recipe = Path(recipe), None
    if resume and run_dir is None:
        raise ReszooError("--resume: no run is given. Example: reszoo train --resume --run-dir DIR")
    if recipe is not None:
        return recipe, run_dir
    if run_dir is None or not resume:
        raise ReszooError(
            "recipe: none is given; expected a name or a .toml file before any --set. "
            "`reszoo recipes` lists the names. Example: reszoo train quickstart"
        )
    if not (run_dir / "recipe.toml").is_file():
        raise ReszooError(
            f"--run-dir: {run_dir} is invalid; expected a run folder, which holds a recipe.toml"
        )
    return run_dir / "recipe.toml", run_dir
