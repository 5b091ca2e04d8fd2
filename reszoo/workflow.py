"""From a recipe to a finished run: open the data, train, read the test set once, draw, export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from reszoo.evaluation.evaluate import write_scores
from reszoo.evaluation.plots import curves
from reszoo.evaluation.scores import Scores
from reszoo.evaluation.telling import closing
from reszoo.files import atomic_path
from reszoo.lazy import on_tensorflow
from reszoo.session import Session, opened
from reszoo.training.cluster import check_cluster
from reszoo.training.recipe import Recipe, load_recipe
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


def train(
    recipe: Recipe | str | Path,
    *,
    overrides: Sequence[str] = (),
    run_dir: str | Path | None = None,
    resume: bool = False,
    devices: str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    quiet: bool = False,
) -> Result:
    """Train by a recipe (or its name, or its file, with `key=value` overrides) and leave a run folder.

    run_dir: a new or empty folder; runs/NAME-TIME when left out. resume: go on with the run in run_dir, exactly where its
    newest checkpoint stands. devices: as `reszoo train --devices`. callbacks: Keras' own; they see the model, the epochs'
    logs, and may set model.stop_training, which ends the run there as if its recipe did.
    On a signal the run stops at a step with a checkpoint.
    Raises ReszooError for input that cannot work, before anything is written, and when the loss is no longer a number.
    """
    check_cluster()
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), overrides)
    with opened(recipe, run_dir=run_dir, resume=resume, devices=devices, callbacks=callbacks, quiet=quiet) as session:
        if session.fit():
            session.loop.finish()
            return Result(session.run, _finish(session))
        at, path = session.loop, session.run.path
        session.progress.line(
            f"stopped at step {at.step} of {at.total}; go on with: reszoo train --resume --run-dir {path}"
        )
        return Result(session.run, None)


def _finish(session: Session) -> Scores:
    """Leave the trained net, its curves, its scores on the test set, and the SavedModel; tell them beside the published figure."""
    run, recipe, pipeline, model = session.run, session.recipe, session.pipeline, session.model
    session.engine.settle(session.loop)
    with atomic_path(run.path / "model.keras") as part:
        model.save(part)
    published = recipe.published
    drawn: dict[str, Any] = (
        {"published": published.value, "source": f"{published.metric}, {published.source}"} if published else {}
    )
    curves(run.history, run.path / "curves.png", title=recipe.name, **drawn)
    test = session.score(pipeline.evaluation("test"))
    title = f"{recipe.name}: {pipeline.info.name}, test, error {test.error:.2f} %"
    write_scores(test, pipeline.info.class_names, run.path, title=title)
    if recipe.train.export and on_tensorflow() and not (run.path / "export").exists():
        # Imported here: under Keras' JAX backend TensorFlow need not be installed.
        from reszoo.exporting.export import export
        from reszoo.exporting.samples import CHECKED, draw

        export(run, run.path / "export", check=draw(pipeline, "test", CHECKED))
    run.write_meta(status="finished", finished=now())
    for line in closing(run, test):
        session.progress.line(line)
    if recipe.train.export and not on_tensorflow():
        session.progress.line(f"a SavedModel is TensorFlow's: KERAS_BACKEND=tensorflow reszoo export {run.path}")
    return test
