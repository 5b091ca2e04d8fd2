"""One recipe with several seeds: a run folder for each, mean and deviation of their scores."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from reszoo.comparison.statistics import Summary, summarize
from reszoo.config.load import load_recipe
from reszoo.config.overrides import Overrides
from reszoo.config.recipe import Recipe
from reszoo.data.pipeline import Pipeline
from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.keywords import explain_keywords
from reszoo.reporting.notebook import html_table
from reszoo.reporting.reporter import Reporter
from reszoo.trainer import train
from reszoo.training.cluster import find_hosts
from reszoo.training.components import give_components
from reszoo.training.memory import release_memory
from reszoo.training.run import Run
from reszoo.training.start import default_folder
from reszoo.types import JsonObject

SUMMARY = "seeds.json"
PERCENT = ("error", "top5_error")  # the scores in percent; all others are as in test.json
ERRORS = ("top1", "top5", "subset_accuracy")  # accuracies that are reported as errors
NO_SCORES = ("examples", "single_class", "not_finite", "multi_label", *ERRORS)
HEADERS = ("score", "mean", "standard deviation", "seeds")


@dataclass(frozen=True)
class SeedResult:
    """What `train_seeds` returns.

    Attributes:
        folder: The folder of the runs.
        runs: The run of each seed that has begun.
        scores: Mean and deviation of the test scores of the finished runs: "error" and "top5_error"
            in percent, the others as in test.json.
        finished: Whether all runs have finished.
    """

    folder: Path
    runs: dict[int, Run]
    scores: dict[str, Summary]
    finished: bool

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return the cells below `HEADERS`."""
        return [
            (
                name.replace("_", " ") + (", %" if name in PERCENT else ""),
                f"{score.mean:.{digits}f}",
                "" if score.std is None else f"{score.std:.{digits}f}",
                str(score.count),
            )
            for name, score in self.scores.items()
            for digits in [2 if name in PERCENT else 4]
        ]

    def _repr_html_(self) -> str:
        return html_table(HEADERS, self.rows(), title=str(self.folder))


@explain_keywords
def train_seeds(
    recipe: Recipe | str | Path | None,
    *,
    seeds: int | Sequence[int] | None = None,
    overrides: Overrides = (),
    run_dir: str | Path | None = None,
    resume: bool = False,
    devices: str = "auto",
    model: Callable[[Pipeline], keras.Model] | None = None,
    dataset: Any = None,
    optimizer: keras.optimizers.Optimizer | None = None,
    schedule: Any = None,
    loss: Any = None,
    augment: Any = None,
    metrics: Sequence[keras.metrics.Metric] = (),
    callbacks: Callable[[], Sequence[keras.callbacks.Callback]] | None = None,
    quiet: bool = False,
) -> SeedResult:
    """Train a recipe once for each seed, in the folders `run_dir`/seed-N.

    Each run equals that of `train` with `train.seed` set to the seed. A signal stops the current
    run with a checkpoint. The arguments from `model` to `callbacks` are those of `train`; pass them
    again to resume.

    Args:
        recipe: A recipe, its name or its file; None, to resume, that of `run_dir`.
        seeds: The number of seeds, which start at the recipe's, or a list; None, to resume, those
            of `run_dir`.
        overrides: Recipe keys to change, as for `train`.
        run_dir: A new or empty folder; runs/NAME-TIME by default.
        resume: Skip finished runs, resume a stopped one, and train those that are missing.
        devices: As for `train`.
        model: A function that makes the model of a run for its pipeline.
        dataset: As for `train`.
        optimizer: As for `train`. Each run gets a new one of its configuration.
        schedule: As for `train`.
        loss: As for `train`.
        augment: As for `train`.
        metrics: As for `train`.
        callbacks: A function that makes the callbacks of a run.
        quiet: Print nothing.

    Returns:
        The runs, and mean and deviation of their scores, which seeds.json holds too.

    Raises:
        ReszooError: For invalid input, before anything is trained.
    """
    if find_hosts(os.environ) is not None:
        raise ReszooError(
            "seeds: several hosts are invalid; expected one host. Train each seed by its own run. "
            "Example: reszoo train RECIPE --set train.seed=1"
        )
    if recipe is None or seeds is None:
        known = read_summary(run_dir) if resume and run_dir is not None else None
        if known is None:
            missing = "recipe" if recipe is None else "seeds"
            raise ReszooError(f"{missing}: none is given; expected one, or a folder to resume")
        recipe = Recipe(**known["recipe"]) if recipe is None else recipe
        seeds = known["seeds"] if seeds is None else seeds
    for name, each in (("model", model), ("callbacks", callbacks)):
        if each is not None and (not callable(each) or isinstance(each, keras.Model)):
            raise ReszooError(
                f"{name}: {type(each).__name__} is invalid; expected a function that makes it for "
                "each seed. Example: callbacks=lambda: [keras.callbacks.TerminateOnNaN()]"
            )
    given = {"dataset": dataset, "optimizer": optimizer, "schedule": schedule, "loss": loss}
    base = give_components(
        recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), overrides),
        {**given, "augment": augment},
    )
    if isinstance(seeds, int):
        seeds = range(base.train.seed, base.train.seed + seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ReszooError(
            f"seeds: {list(seeds)} is invalid; expected at least 1 seed, each once. Example: 5"
        )
    folder = default_folder(base) if run_dir is None else Path(run_dir)
    recipes = {seed: base.replace(train=base.train.replace(seed=seed)) for seed in seeds}
    runs = {seed: Run(folder / f"seed-{seed}") for seed in seeds}
    if not resume:
        Run(folder).reject_occupied()
    if (folder / "recipe.toml").is_file():
        raise ReszooError(
            f"run_dir: {folder} is the folder of one run; expected a folder of runs, one per seed. "
            "Give another folder"
        )
    for seed, run in runs.items():
        if run.is_occupied:
            Run.open(run.path).reject_other(recipes[seed], started=True)
    reporter = Reporter(quiet=quiet)
    for number, (seed, run) in enumerate(runs.items(), 1):
        if is_finished(run):
            continue
        reporter.line(f"seed {seed}: run {number} of {len(runs)}")
        try:
            result = train(
                recipes[seed],
                run_dir=run.path,
                resume=run.is_occupied,
                devices=devices,
                model=model,
                metrics=metrics,
                callbacks=callbacks() if callbacks else (),
                quiet=quiet,
            )
        finally:
            release_memory()
        _write_summary(folder, base, runs)
        if not result.finished:
            break
    return _write_summary(folder, base, runs)


def read_summary(folder: str | os.PathLike[str]) -> JsonObject | None:
    """Return the content of the summary in a folder of runs; None if there is none."""
    path = Path(folder) / SUMMARY
    if not path.is_file():
        return None
    try:
        content: JsonObject = json.loads(path.read_text(encoding="utf-8"))
        return content
    except ValueError as error:
        raise ReszooError(f"{path} is not JSON; it is damaged") from error


def is_finished(run: Run) -> bool:
    """Return whether a run came to its end."""
    return (run.path / "run.json").is_file() and run.meta.get("status") == "finished"


def read_scores(run: Run) -> dict[str, float]:
    """Return the test scores of a finished run that are numbers, with errors in percent."""
    content = json.loads((run.path / "test.json").read_text(encoding="utf-8"))
    accuracy = content.get("top1", content.get("subset_accuracy"))
    errors = {"error": accuracy, "top5_error": content.get("top5")}
    others = {
        key: value
        for key, value in content.items()
        if key not in NO_SCORES and isinstance(value, int | float)
    }
    return {
        **{key: 100 * (1 - value) for key, value in errors.items() if value is not None},
        **others,
    }


def _write_summary(folder: Path, recipe: Recipe, runs: dict[int, Run]) -> SeedResult:
    begun = {seed: run for seed, run in runs.items() if run.is_occupied}
    scores = {seed: read_scores(run) for seed, run in begun.items() if is_finished(run)}
    keys = dict.fromkeys(key for each in scores.values() for key in each)
    values = {
        key: {seed: each[key] for seed, each in scores.items() if key in each} for key in keys
    }
    summaries = {key: summarize(list(each.values())) for key, each in values.items()}
    content = {
        "recipe": recipe.to_dict(),
        "seeds": list(runs),
        "finished": list(scores),
        "scores": {
            key: {"mean": summary.mean, "std": summary.std, "values": values[key]}
            for key, summary in summaries.items()
        },
    }
    write_json(folder / SUMMARY, content)
    return SeedResult(folder, begun, summaries, len(scores) == len(runs))
