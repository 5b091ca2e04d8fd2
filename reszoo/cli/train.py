"""`reszoo train`: train a net by a recipe, or resume a run that was stopped."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from reszoo.cli.output import load_tensorflow
from reszoo.cli.recipes import add_overrides
from reszoo.config.load import load_recipe
from reszoo.errors import ReszooError
from reszoo.training.cluster import check_cluster
from reszoo.training.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `reszoo train` takes."""
    parser.add_argument(
        "recipe", nargs="?", help="a recipe's name (`reszoo recipes` lists them) or a .toml file"
    )
    add_overrides(parser)
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="folder of the run (default: a new one under runs)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume the run in DIR exactly where it stopped"
    )
    parser.add_argument(
        "--data",
        metavar="PLACE",
        help="with --resume: where the same images lie now, folder:PATH, or the folder of prepared datasets",
    )
    parser.add_argument(
        "--devices",
        default="auto",
        help="auto (all GPUs, else the CPU), cpu, gpu:0,1 or cpu:2 (replicas on the CPU); default %(default)s",
    )
    parser.epilog = "To resume: reszoo train --resume --run-dir DIR, or reszoo train --resume DIR."


def run(args: argparse.Namespace) -> int:
    """Train, leaving the run folder; 130 when a signal stopped it."""
    check_cluster()
    source, run_dir = choose(args.recipe, args.run_dir, args.resume)
    recipe = load_recipe(source, args.overrides)
    if not args.resume:
        if args.data is not None:
            raise ReszooError(
                f"--data: {args.data} is only for --resume. For a new run: --set {shlex.quote(f'data.name={args.data}')}"
            )
        if run_dir is not None:
            Run(run_dir).refuse_occupied()  # before TensorFlow is loaded

    load_tensorflow()
    from reszoo import trainer

    result = trainer.train(
        recipe, run_dir=run_dir, resume=args.resume, data=args.data, devices=args.devices
    )
    return 0 if result.finished else 130


def choose(
    recipe: str | None, run_dir: Path | None, resume: bool
) -> tuple[str | Path, Path | None]:
    """Return (what to load the recipe from, the run's folder).

    A run to be resumed brings its recipe; where its folder is given in the recipe's place, that is understood.
    """
    if resume and recipe is not None and Path(recipe).is_dir() and run_dir in (None, Path(recipe)):
        run_dir, recipe = Path(recipe), None
    if resume and run_dir is None:
        raise ReszooError("--resume: no run is given. Example: reszoo train --resume --run-dir DIR")
    if recipe is not None:
        return recipe, run_dir
    if run_dir is None or not resume:
        raise ReszooError(
            "which recipe? Give its name before any --set; `reszoo recipes` lists them"
        )
    if not (run_dir / "recipe.toml").is_file():
        raise ReszooError(f"{run_dir} is not a run that can be resumed: it has no recipe.toml")
    return run_dir / "recipe.toml", run_dir
