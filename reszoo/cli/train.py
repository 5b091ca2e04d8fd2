"""`reszoo train`: train a model by a recipe, or resume a run."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from reszoo.cli.output import add_verbosity, load_tensorflow, print_table
from reszoo.cli.recipes import add_overrides
from reszoo.commands import format_resume
from reszoo.config.load import load_recipe
from reszoo.config.overrides import Overrides
from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.training.cluster import find_hosts
from reszoo.training.data_location import name_images
from reszoo.training.run import Run
from reszoo.versions import module_versions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo train`."""
    add = parser.add_argument
    add("recipe", nargs="?", help="a recipe name (`reszoo recipes` lists them) or a .toml file")
    add_overrides(parser)
    folder = "folder of the run (default: a new one under runs)"
    add("--run-dir", type=Path, metavar="DIR", help=folder)
    seeds = (
        "train N runs with the seeds from train.seed on, or one for each seed of a list such as "
        "0,3,7, in DIR/seed-0 and so on; report the mean and the standard deviation"
    )
    add("--seeds", type=parse_seeds, metavar="N", help=seeds)
    add(
        "--resume",
        action="store_true",
        help="resume the run in DIR exactly where it stopped; with a recipe, start it if there is "
        "none yet",
    )
    data = (
        "the folder of images, or the name of a dataset (data.name); with --resume: where the same "
        "images are now, or the folder of prepared datasets"
    )
    add("--data", metavar="DATA", help=data)
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
    add_verbosity(parser)
    parser.epilog = "To resume: reszoo train --resume --run-dir DIR, or reszoo train --resume DIR."


def run(args: argparse.Namespace) -> int:
    """Train and leave the run folder. Return 130 if a signal stopped the run."""
    hosts = find_hosts(os.environ, args.hosts, args.host_index)
    if args.seeds is not None or _resumes_seeds(args):
        return _train_seeds(args, several_hosts=hosts is not None)
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
    load_tensorflow(verbose=args.verbose)
    from reszoo import trainer

    if args.verbose:
        _print_settings(recipe, args.overrides if hosts else ())

    result = trainer.train(
        recipe,
        overrides=args.overrides if hosts else (),
        run_dir=run_dir,
        resume=args.resume,
        data=args.data,
        devices=args.devices,
        hosts=hosts,
        quiet=args.quiet,
    )
    return 0 if result.finished else 130


def _resumes_seeds(args: argparse.Namespace) -> bool:
    folder = args.run_dir or args.recipe
    return args.resume and folder is not None and (Path(folder) / "seeds.json").is_file()


def _train_seeds(args: argparse.Namespace, *, several_hosts: bool) -> int:
    """Train one run for each seed, and print mean and deviation of the scores."""
    if several_hosts:
        raise ReszooError(
            "--seeds: several hosts are invalid with it; expected one host. Train each seed by its "
            "own run. Example: --set train.seed=1"
        )
    recipe, overrides, run_dir = args.recipe, args.overrides, args.run_dir
    if _resumes_seeds(args) and run_dir is None:
        recipe, run_dir = None, Path(args.recipe)
    if args.data is not None and recipe is not None:
        recipe, overrides = name_images(recipe, overrides, args.data)
    elif args.data is not None:
        raise ReszooError(
            "--data: not supported with several seeds and without a recipe; expected one run. "
            f"Example: reszoo train --resume --run-dir DIR/seed-0 --data {shlex.quote(args.data)}"
        )
    if recipe is None and not args.resume:
        resolve_arguments(None, run_dir, resume=False)  # raises the error
    source = None if recipe is None else load_recipe(recipe, overrides)
    load_tensorflow(verbose=args.verbose)
    from reszoo.comparison.seeds import HEADERS, train_seeds

    if args.verbose and source is not None:
        _print_settings(source, ())
    result = train_seeds(
        source,
        seeds=args.seeds,
        run_dir=run_dir,
        resume=args.resume,
        devices=args.devices,
        quiet=args.quiet,
    )
    print()
    print_table(HEADERS, result.rows())
    print(f"\nruns: {result.folder}  (seeds.json)")
    if result.finished:
        return 0
    print(f"resume with: {format_resume('train', result.folder)}")
    return 130


def _print_settings(recipe: Recipe | str | Path | None, overrides: Overrides) -> None:
    """Print versions and the recipe with every key."""
    versions = module_versions("reszoo", "tensorflow", "keras", "numpy")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    if recipe is not None:
        given = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
        print(f"\n{given.to_toml()}", flush=True)


def parse_seeds(text: str) -> int | list[int]:
    """Parse a number of seeds, or a list of seeds with commas.

    Raises:
        argparse.ArgumentTypeError: If it is neither.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) < 2**31 for part in parts) or text == "0":
        raise argparse.ArgumentTypeError(
            f"{text!r} is invalid; expected a number >= 1, or seeds such as 0,3,7"
        )
    numbers = [int(part) for part in parts]
    return numbers if "," in text else numbers[0]


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
