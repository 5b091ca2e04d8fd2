"""`reszoo recipes`: the packaged recipes."""

from __future__ import annotations

import argparse
import json
from itertools import takewhile

from reszoo.cli.output import print_table
from reszoo.config.load import find_recipe, list_recipes, load_recipe
from reszoo.config.recipe import Recipe
from reszoo.config.schema import recipe_schema
from reszoo.errors import ReszooError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `reszoo recipes`."""
    parser.add_argument(
        "recipe",
        nargs="?",
        help="print this recipe (a name or a .toml file) with every key",
    )
    add_overrides(parser)
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of a recipe, for editors"
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add `--set`, which every command with a recipe has."""
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        dest="overrides",
        metavar="table.key=value",
        help="change the recipe, such as train.epochs=2 data.name=folder:/data/flowers",
    )


def run(args: argparse.Namespace) -> int:
    """Print a table of the recipes, or one recipe: its header, and each key with its value."""
    if args.schema:
        print(json.dumps(recipe_schema(), indent=1))
        return 0
    if args.recipe is not None:
        resolved = load_recipe(args.recipe, args.overrides).to_toml()
        lines = find_recipe(args.recipe).read_text(encoding="utf-8").splitlines()
        print(
            "\n".join([*takewhile(lambda line: line.startswith("#"), lines), "", resolved]), end=""
        )
        return 0
    if args.overrides:
        raise ReszooError(
            "--set changes one recipe: name it, such as `reszoo recipes quickstart --set "
            "train.epochs=2`"
        )
    print_table(
        ("recipe", "length", "error %", "description"),
        [
            (recipe.name, _length(recipe), _published(recipe), recipe.description)
            for recipe in list_recipes()
        ],
    )
    return 0


def _length(recipe: Recipe) -> str:
    return (
        f"{recipe.train.steps:,} steps" if recipe.train.steps else f"{recipe.train.epochs:g} epochs"
    )


def _published(recipe: Recipe) -> str:
    return f"{recipe.published.value:g}" if recipe.published else ""
