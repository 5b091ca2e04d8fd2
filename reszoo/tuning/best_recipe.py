"""The best trial of a search as a recipe."""

from __future__ import annotations

from pathlib import Path

from reszoo.commands import format_command
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import resolve_recipe
from reszoo.errors import ReszooError
from reszoo.files import check_output, write_text
from reszoo.tuning.formatting import format_share
from reszoo.tuning.plan import read_plan
from reszoo.tuning.records import Trial
from reszoo.tuning.results import best_trial, read_results


def best_recipe(folder: str | Path, name: str = "best") -> tuple[Recipe, Trial]:
    """Return the recipe of the best trial, and the trial. Raises ReszooError without any."""
    plan, best = read_plan(Path(folder)), best_trial(read_results(folder)["trials"])
    if best is None:
        raise ReszooError(f"{folder}: no trial has completed yet")
    space = plan.space
    values = {
        each.name: best["values"].get(each.name, each.default) for each in space.hyperparameters
    }
    recipe = resolve_recipe(space.recipe(values, name))
    return recipe.replace(
        description=f"Best trial of the search {space.name}",
        train=recipe.train.replace(seed=best["seeds"][0]),
    ), best


def export_recipe(folder: str | Path, path: str | Path) -> Path:
    """Write the recipe of a search's best trial to a TOML file and return its path.

    Raises:
        ReszooError: If no trial has completed, or for a path of another file type.
    """
    path = Path(path)
    check_export(path)
    recipe, best = best_recipe(folder, path.stem)
    scores = ", ".join(f"{100 * score:.2f} %" for score in best["scores"])
    seeds = ", ".join(map(str, best["seeds"]))
    header = (
        f"# {recipe.description}: trial {best['trial']}.\n#\n"
        f"#     {format_command('train', path)}\n#\n"
        f"# Validation accuracy in the search: {scores}{format_share(best['share'])} "
        f"(seeds: {seeds}); {best['parameters']:,} parameters.\n"
    )
    write_text(path, f"{header}\n{recipe.to_toml()}")
    return path


def check_export(path: Path) -> None:
    """Raise ReszooError for a path to which a recipe cannot be written."""
    if path.suffix != ".toml" or not str(path).isprintable() or path.is_dir():
        raise ReszooError(
            f"--export: {str(path)!r} is invalid; expected a .toml file. Example: best.toml"
        )
    check_output(path, "recipe file")
