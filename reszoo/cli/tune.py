"""`reszoo tune`: search depth, shortcuts and whatever else a recipe says."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from reszoo.cli.output import load_tensorflow
from reszoo.cli.recipes import add_overrides
from reszoo.errors import ReszooError
from reszoo.tuning.config import parse_amount
from reszoo.tuning.environment import keep_to_cores, part
from reszoo.tuning.space import load_space, space_names

HELP = "search depth, shortcuts and whatever else a recipe says, under a budget"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `reszoo tune` takes."""
    parser.add_argument(
        "space", nargs="?", metavar="SPACE", help=f"{', '.join(space_names())}, or a .toml file"
    )
    add_overrides(parser)
    parser.add_argument(
        "--tuner", choices=("random", "bayesian", "hyperband", "grid"), help="default: the space's"
    )
    parser.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help="at most so many; hyperband: as many sweeps as so many full trainings pay for (default: the space's)",
    )
    parser.add_argument(
        "--executions", type=int, metavar="N", help="runs of each trial, with seeds one apart"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of the choices, and of each trial's first run"
    )
    parser.add_argument(
        "--max-params", metavar="N", help="most parameters of a net, such as 500k or 1M"
    )
    parser.add_argument(
        "--max-macs", metavar="N", help="most multiply-adds of a net for one image, such as 200M"
    )
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="folder of the search (default: tune/SPACE)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume the search in DIR where it stopped"
    )
    parser.add_argument(
        "--data",
        metavar="PLACE",
        help="with --resume: where the same images lie now, folder:PATH, or the folder of prepared datasets",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes here, sharing cores and GPUs (default %(default)s)",
    )
    parser.add_argument(
        "--devices",
        default="auto",
        help="of each trial, as for `reszoo train` (default %(default)s)",
    )
    parser.add_argument(
        "--export", type=Path, metavar="FILE", help="write the best trial's recipe to a .toml file"
    )
    parser.epilog = (
        "To resume: reszoo tune --resume DIR. The winner's recipe: reszoo tune --export best.toml. Both take the newest search "
        "under tune/ where none is named."
    )


def run(args: argparse.Namespace) -> int:
    """Search, or write the winner of a search that is there; 130 when a signal stopped it."""
    space, folder = choose(args.space, args.run_dir, args.resume, args.export is not None)
    limits = {
        name: None if text is None else parse_amount(text)
        for name, text in (("max_params", args.max_params), ("max_macs", args.max_macs))
    }
    search = {
        "tuner": args.tuner,
        "trials": args.trials,
        "executions": args.executions,
        "seed": args.seed,
        **limits,
    }
    if space is not None:
        load_space(
            space, args.overrides, **search
        )  # what is wrong with it is told before TensorFlow loads
    searching = space is not None or args.resume or part(os.environ) != "alone"
    if not searching and args.export is None:
        raise ReszooError(
            f"{folder}: add --resume to resume this search, or --export FILE for its best recipe"
        )
    keep_to_cores(os.environ)
    load_tensorflow()
    from reszoo.tuning.report import finding
    from reszoo.tuning.tune import tune
    from reszoo.tuning.winner import check_export, export_recipe

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
            **search,
        )
        if results:  # a worker has none
            print(f"\n{finding(results)}")
    if args.export is not None:
        print(f"recipe: {export_recipe(folder, args.export)}")
    return 0


def choose(
    space: str | None, folder: Path | None, resume: bool, export: bool
) -> tuple[str | None, Path]:
    """Return (the space, the search's folder).

    A search's folder given in the space's place is understood; what resumes a search, or exports from one, takes the
    newest under tune/ where neither is given. Raises ReszooError where that is of no help.
    """
    if (
        space is not None
        and Path(space).is_dir()
        and (resume or export)
        and folder in (None, Path(space))
    ):
        return None, Path(space)
    if resume and space is not None and Path(space).is_file() and Path(space).suffix != ".toml":
        raise ReszooError(f"{space} is a file, not the folder of a search")
    if folder is not None:
        return space, folder
    if space is None and (resume or export):
        begun = sorted(Path("tune").glob("*/search.json"), key=lambda path: path.stat().st_mtime)
        if not begun:
            raise ReszooError(
                "which search? There is none under tune/; give its folder with --run-dir"
            )
        return None, begun[-1].parent
    if space is None:
        raise ReszooError(
            f"which space? Give its name, {', '.join(space_names())}, or a .toml file"
        )
    return space, Path("tune") / Path(space).stem
