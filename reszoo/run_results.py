"""What a finished run adds to its folder: curves, scores and a SavedModel."""

from __future__ import annotations

from collections.abc import Callable

from reszoo.config.recipe import Recipe
from reszoo.data.pipeline import Pipeline
from reszoo.evaluation.evaluate import write_scores
from reszoo.evaluation.plots import draw_curves
from reszoo.evaluation.run_summary import describe_result
from reszoo.evaluation.scores import Scores
from reszoo.images.views import Views
from reszoo.reporting.page import base_name
from reszoo.training.environment import now
from reszoo.training.learning_rates import learning_rates
from reszoo.training.loop import Loop
from reszoo.training.run import Run


def draw_run(run: Run, recipe: Recipe, loop: Loop) -> None:
    """Draw curves.png: errors, losses and learning rates of a run."""
    rates = learning_rates(run.history, loop.scheduled_rate, loop.step)
    published = recipe.published
    if published and published.views != Views():
        published = None  # of another test than the curves
    draw_curves(
        run.history,
        run.path / "curves.png",
        rates=rates,
        title=recipe.name,
        published=published.value if published else None,
        source=f"{published.metric}, {published.source}" if published else "",
    )


def write_results(
    run: Run, recipe: Recipe, pipeline: Pipeline, test: Scores, report: Callable[[str], None]
) -> None:
    """Write the scores of the test split, export the model, and report the results.

    Args:
        run: The run folder, which holds model.keras.
        recipe: The recipe.
        pipeline: Its data.
        test: The scores.
        report: Takes each line of the report.
    """
    info = pipeline.info
    title = f"{recipe.name}: {base_name(info.name)}, test, error {test.error:.2f} %"
    write_scores(test, info.class_names, run.path, title=title)
    if recipe.train.export and not (run.path / "export").exists():
        from reszoo.exporting.export import export
        from reszoo.exporting.samples import CHECKED, draw

        report("exporting a SavedModel: export/ (train.export=false skips this)")
        export(run, run.path / "export", check=draw(pipeline, "test", CHECKED))
    run.write_meta(status="finished", finished=now())
    for line in describe_result(run, test):
        report(line)
