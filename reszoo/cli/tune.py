"""`reszoo tune`: search depth, shortcuts and any other key of a recipe."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from reszoo.cli.output import add_verbosity, load_tensorflow
from reszoo.cli.recipes import add_overrides
from reszoo.errors import ReszooError
from reszoo.tuning.config import parse_amount
from reszoo.tuning.environment import find_role
from reszoo.tuning.space import load_space, space_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `reszoo tune`."""

    def option(name: str, metavar: str, help: str, type: type = str) -> None:
        parser.add_argument(name, metavar=metavar, help=help, type=type)

    names = ", ".join(space_names())
    parser.add_argument("space", nargs="?", metavar="SPACE", help=f"{names}, or a .toml file")
    add_overrides(parser)
    parser.add_argument(
        "--tuner",
        choices=("random", "bayesian", "hyperband", "grid"),
        help="default: that of the space",
    )
    option(
        "--trials",
        "N",
        "largest number of trials; hyperband: as many sweeps as N full trainings pay for "
        "(default: that of the space)",
        int,
    )
    option("--executions", "N", "runs per trial, with consecutive seeds", int)
    option("--seed", "N", "seed of the proposals, and of each trial's first run", int)
    option("--max-params", "N", "most parameters of a model, such as 500k or 1M")
    option("--max-macs", "N", "most MACs per image, such as 200M")
    option("--run-dir", "DIR", "folder of the search (default: tune/SPACE)", Path)
    parser.add_argument(
        "--resume", action="store_true", help="resume the search in DIR where it stopped"
    )
    option(
        "--data",
        "PLACE",
        "with --resume: where the same images lie now, folder:PATH or the folder of datasets",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine, which share cores and GPUs (default %(default)s)",
    )
    parser.add_argument(
        "--devices",
        default="auto",
        help="of each trial, as for `reszoo train` (default %(default)s)",
    )
    option("--export", "FILE", "write the recipe of the best trial to a .toml file", Path)
    add_verbosity(parser)
    parser.epilog = (
        "To resume: reszoo tune --resume DIR. The best trial's recipe: reszoo tune --export "
        "best.toml. Without DIR both take the newest search under tune/."
    )


def run(args: argparse.Namespace) -> int:
    """Search, or export from a search; the status is 130 if a signal stopped it."""
    space, folder = find_search(args.space, args.run_dir, args.resume, args.export is not None)
    search = {key: getattr(args, key) for key in ("tuner", "trials", "executions", "seed")}
    for key in ("max_params", "max_macs"):
        text = getattr(args, key)
        search[key] = None if text is None else parse_amount(text)
    if space is not None:
        load_space(space, args.overrides, **search)  # reports errors before TensorFlow loads
    searching = space is not None or args.resume or find_role(os.environ) != "alone"
    if not searching and args.export is None:
        raise ReszooError(
            f"{folder}: add --resume to resume this search, or --export FILE for its best recipe"
        )
    load_tensorflow(verbose=args.verbose)
    from reszoo.reporting.reporter import Reporter
    from reszoo.tuning.best_recipe import check_export, export_recipe
    from reszoo.tuning.report import finding
    from reszoo.tuning.tune import tune

    if args.export is not None:
        check_export(args.export)
    if searching:
        results = tune(
            space,
            overrides=args.overrides,
            run_dir=folder,
            resume=args.resume,
            data=args.data,
            workers=args.workers,
            devices=args.devices,
            reporter=Reporter(quiet=args.quiet),
            **search,
        )
        if results:  # a worker has none
            print(f"\n{finding(results)}")
    if args.export is not None:
        print(f"recipe: {export_recipe(folder, args.export)}")
    return 0


def find_search(
    space: str | None, folder: Path | None, resume: bool, export: bool
) -> tuple[str | None, Path]:
    """Return the space and the folder of the search that the arguments mean.

    To resume or export, a folder in place of the space is accepted, and the default is the newest
    search under tune/.

    Raises:
        ReszooError: If there is no such search, or no space.
    """
    existing = resume or export
    if existing and space and Path(space).is_dir() and folder in (None, Path(space)):
        return None, Path(space)
    if resume and space and Path(space).is_file() and Path(space).suffix != ".toml":
        raise ReszooError(f"{space}: not a search folder")
    if folder is not None:
        return space, folder
    if space is not None:
        return space, Path("tune") / Path(space).stem
    if not existing:
        raise ReszooError(f"space: missing; expected {', '.join(space_names())} or a .toml file")
    found = sorted(Path("tune").glob("*/search.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ReszooError(
            "--run-dir: missing; expected the folder of a search, as tune/ holds none"
        )
    return None, found[-1].parent
