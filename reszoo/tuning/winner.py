"""The winner of a search as an ordinary recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reszoo.commands import format_command
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import resolve_recipe
from reszoo.errors import ReszooError
from reszoo.files import check_output, write_text
from reszoo.tuning.plan import read_plan
from reszoo.tuning.results import best_trial, read_results


def best_recipe(folder: str | Path, name: str = "best") -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe of a search's best trial, and that trial's record. Raises ReszooError while there is none."""
    folder = Path(folder)
    plan, best = read_plan(folder), best_trial(read_results(folder)["trials"])
    if best is None:
        raise ReszooError(f"{folder} holds no finished trial yet")
    values = {knob.name: best["values"].get(knob.name, knob.default) for knob in plan.space.knobs}
    recipe = resolve_recipe(plan.space.recipe(values, name))
    return recipe.replace(
        description=f"The best of a search of {plan.space.name}",
        train=recipe.train.replace(seed=best["seeds"][0]),
    ), best


def export_recipe(folder: str | Path, path: str | Path) -> Path:
    """Write the recipe of a search's best trial to a TOML file that `reszoo train` takes; return its path.

    Raises ReszooError while there is no finished trial, and for a file whose name does not end in .toml.
    """
    path = Path(path)
    check_export(path)
    recipe, best = best_recipe(folder, path.stem)
    scores = ", ".join(f"{100 * score:.2f} %" for score in best["scores"])
    part = "" if best["share"] == 1 else f", after {100 * best['share']:.0f} % of the training"
    seeds = f"seed{'s' if len(best['seeds']) > 1 else ''} {', '.join(map(str, best['seeds']))}"
    lines = [
        f"# Trial {best['trial']}, the best of a search of {read_plan(Path(folder)).space.name}.",
        "#",
        f"#     {format_command('train', path)}",
        "#",
        f"# Measured in the search: {scores} validation accuracy ({seeds}){part}; {best['parameters']:,} parameters.",
        "",
    ]
    write_text(path, "\n".join(lines) + "\n" + recipe.to_toml())
    return path


def check_export(path: Path) -> None:
    """Raise ReszooError for a path that no recipe can be written to."""
    if path.suffix != ".toml":
        raise ReszooError(f"{path}: a recipe's file name ends in .toml")
    if not str(path).isprintable():
        raise ReszooError(f"{str(path)!r} is no name for a file")
    if path.is_dir():
        raise ReszooError(f"{path} is a folder")
    check_output(path, "recipe file")
