"""From a recipe to a finished run: open the data, train, read the test set once, draw, export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from reszoo.commands import format_resume
from reszoo.config.load import load_recipe
from reszoo.config.overrides import Overrides
from reszoo.config.recipe import Recipe
from reszoo.evaluation.evaluate import write_scores
from reszoo.evaluation.plots import curves
from reszoo.evaluation.scores import Scores
from reszoo.evaluation.telling import closing
from reszoo.files import atomic_path
from reszoo.keywords import explain_keywords
from reszoo.session import Session, opened
from reszoo.training.cluster import check_cluster
from reszoo.training.run import Run, now


@dataclass(frozen=True)
class Result:
    """What `train` leaves: the run's folder, and the test scores, None when the run was stopped before its end."""

    run: Run
    test: Scores | None

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.test is not None


@explain_keywords
def train(
    recipe: Recipe | str | Path,
    *,
    overrides: Overrides = (),
    run_dir: str | Path | None = None,
    resume: bool = False,
    data: str | None = None,
    devices: str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    quiet: bool = False,
) -> Result:
    """Train by a recipe and leave a run folder.

    On a signal the run stops at a step, with a checkpoint.

    Args:
        recipe: A recipe, its name or its file.
        overrides: Recipe keys to change, as {"train.epochs": 2} or ["train.epochs=2"].
        run_dir: A new or empty folder; runs/NAME-TIME by default.
        resume: Resume the run in run_dir, exactly where its newest checkpoint stands.
        data: With `resume`, where the same images lie now: "folder:PATH", or the folder of prepared datasets.
        devices: As `reszoo train --devices`.
        callbacks: Keras callbacks. The model that they see is the one that is evaluated and exported, with averaged
            weights if `train.ema` is set. They may write to it, set model.stop_training, and set the learning rate if
            schedule.kind is "constant" without warmup. On a resume give them again: their state is in the checkpoint.
        quiet: Print nothing; train.log gets every line all the same.

    Returns:
        The run and its test scores.

    Raises:
        ReszooError: For input that cannot work, before anything is written; and when the loss is no longer a number.
    """
    check_cluster()
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), overrides)
    with opened(
        recipe, run_dir=run_dir, resume=resume, data=data, devices=devices, callbacks=callbacks, quiet=quiet
    ) as session:
        if session.fit():
            return Result(session.run, _finish(session))
        loop = session.loop
        session.progress.line(f"stopped at step {loop.step} of {loop.total}; {_how_to_resume(session)}")
        return Result(session.run, None)


def _how_to_resume(session: Session) -> str:
    path, names = session.run.path, session.loop.callback_names
    if not names:
        return f"resume with: {format_resume('train', path)}"
    again = ", ".join(f"{name}(...)" for name in names)
    return (
        f"resume with the same callbacks: reszoo.train({str(path / 'recipe.toml')!r}, run_dir={str(path)!r}, resume=True, "
        f"callbacks=[{again}])"
    )


def _finish(session: Session) -> Scores:
    """Leave the trained model, its curves, its test scores and the SavedModel; report them beside the published figure."""
    run, recipe, pipeline, model = session.run, session.recipe, session.pipeline, session.model
    report = session.progress.line
    report("saving the model: model.keras")
    with atomic_path(run.path / "model.keras") as part:
        model.save(part)
    published = recipe.published
    drawn: dict[str, Any] = (
        {"published": published.value, "source": f"{published.metric}, {published.source}"} if published else {}
    )
    report("drawing the curves: curves.png")
    curves(run.history, run.path / "curves.png", title=recipe.name, **drawn)
    report(f"evaluating the test split: {pipeline.info.examples['test']} images")
    test = session.score(pipeline.evaluation("test"))
    title = f"{recipe.name}: {pipeline.info.name}, test, error {test.error:.2f} %"
    write_scores(test, pipeline.info.class_names, run.path, title=title)
    if recipe.train.export and not (run.path / "export").exists():
        from reszoo.exporting.export import export
        from reszoo.exporting.samples import CHECKED, draw

        report("exporting the SavedModel and checking it: export/ (train.export=false skips this)")
        export(run, run.path / "export", check=draw(pipeline, "test", CHECKED))
    run.write_meta(status="finished", finished=now())
    for line in closing(run, test):
        report(line)
    return test
