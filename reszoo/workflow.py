"""From a recipe to a finished run: open the data, train, read the test set once, draw, export."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from reszoo.data.pipeline import Pipeline, open_pipeline
from reszoo.errors import ReszooError
from reszoo.evaluation.evaluate import write_scores
from reszoo.evaluation.plots import curves
from reszoo.evaluation.scores import Evaluator, Scores
from reszoo.evaluation.telling import closing, facts, opening
from reszoo.exporting.savedmodel import export
from reszoo.files import atomic_path
from reszoo.nets.build import build
from reszoo.nets.freeze import freeze
from reszoo.training import checkpoint
from reszoo.training.devices import describe, missing_gpu, open_strategy, precision
from reszoo.training.inherit import inherit
from reszoo.training.loop import Evaluate, Loop
from reszoo.training.optimizers import make_optimizer
from reszoo.training.progress import Progress
from reszoo.training.recipe import Recipe, load_recipe
from reszoo.training.run import Run, now
from reszoo.training.step import Stepper
from reszoo.weights.formats import is_file_name
from reszoo.weights.load import renew_head


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
    recipe = anchored(recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), overrides))
    run = _find_run(recipe, run_dir, resume)
    if not _has_checkpoint(run) and is_file_name(file := recipe.model.weights) and not Path(file).is_file():
        raise ReszooError(f"model.weights: no weights file {file}")
    strategy = open_strategy(devices)
    settings = recipe.train
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(settings.seed)

    pipeline = open_pipeline(
        recipe.data,
        recipe.augment,
        batch_size=settings.batch_size,
        seed=settings.seed,
        transforms=recipe.model.transforms,
    )
    if settings.select == "best" and not pipeline.info.examples["validation"]:
        raise ReszooError(
            f'train.select is "best", but {pipeline.info.name} holds no images out to choose by; set data.validation'
        )
    with strategy.scope(), precision(settings.precision):
        model = _start(recipe, pipeline, fresh=_has_checkpoint(run))
        freeze(model, recipe.finetune.freeze, recipe.finetune.batch_norm)
        recipe.probe_steps(pipeline.steps_per_epoch)  # refuses one too long before anything is written
        if settings.batch_norm == "sync":
            synchronise(model)
        optimizer = make_optimizer(recipe.optimizer)
        # For callbacks, and for whoever loads the net; the step computes and scales the loss itself.
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss=loss, metrics=["accuracy"], auto_scale_loss=False)
        stepper = Stepper(model, optimizer, settings, recipe.optimizer, strategy, recipe.finetune.stage_decay)
        grown = inherit(stepper, recipe, pipeline) if settings.grow_from and not _has_checkpoint(run) else None

    if not resume:
        run = Run.create(run.path, recipe)
    progress = Progress(run.path / "train.log", quiet)
    try:
        if not resume or not (run.path / "run.json").is_file():
            run.write_meta(**facts(recipe, pipeline))
        if grown:
            run.write_meta(grown_from=grown)
        names = describe(strategy)
        run.write_meta(status="running", devices=names)
        stepper.spread_seeds()
        score = Evaluator(model, classes=pipeline.info.classes, strategy=strategy)
        loop = Loop(run, recipe, stepper, pipeline, progress, _validation(score, pipeline), callbacks)
        if resume:
            loop.resume()
        for line in opening(recipe, pipeline, run, names, loop.step):
            progress.line(line)
        if grown:
            progress.line(
                f"grown from {grown['net']} of {grown['run']}: {len(grown['added'])} new blocks, outputs within {grown['difference']:.2g}"
            )
        if note := missing_gpu(devices):
            progress.line(note)
        complete = loop.fit()
        run.write_meta(status="trained" if complete else "stopped", seconds=round(loop.seconds, 1))
        if not complete:
            progress.line(
                f"stopped at step {loop.step} of {loop.total}; go on with: reszoo train --resume --run-dir {run.path}"
            )
            return Result(run, None)
        loop.finish()
        return Result(run, _finish(run, recipe, model, pipeline, score, progress))
    except Exception as error:
        known = _explain(error, recipe, pipeline)
        with contextlib.suppress(OSError):  # the disk may be what failed
            run.write_meta(status="failed", reason=str(known or error).split("\n")[0])
        if known:
            raise known from error
        raise


def _explain(error: Exception, recipe: Recipe, pipeline: Pipeline) -> ReszooError | None:
    """Return what TensorFlow's error means for the one who trains, if that is known."""
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return ReszooError(
            f"out of memory with batches of {recipe.train.batch_size}; lower train.batch_size, or raise train.accumulate "
            f"({recipe.train.accumulate}) to take a batch in more pieces"
        )
    return pipeline.explain(error)


def synchronise(model: keras.Model) -> None:
    """Let the model's batch normalisations take their statistics over all replicas. Call before the model is traced."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def anchored(recipe: Recipe) -> Recipe:
    """Return the recipe with its paths absolute, so that its run can be gone on with and evaluated from anywhere."""
    kind, colon, path = recipe.data.name.partition(":")
    name = f"folder:{Path(path).expanduser().resolve()}" if colon and kind == "folder" else recipe.data.name
    file = recipe.model.weights if is_file_name(recipe.model.weights) else ""
    folder, source, file = (
        str(Path(path).expanduser().resolve()) if path else ""
        for path in (recipe.data.dir, recipe.train.grow_from, file)
    )
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, weights=file or recipe.model.weights),
        data=dataclasses.replace(recipe.data, name=name, dir=folder),
        train=dataclasses.replace(recipe.train, grow_from=source),
    )


def _find_run(recipe: Recipe, run_dir: str | Path | None, resume: bool) -> Run:
    """Return the folder to train in, not made yet when the run is new."""
    if not resume:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        run = Run(run_dir or Path("runs") / f"{recipe.name}-{stamp}")
        run.refuse_occupied()
        return run
    if run_dir is None:
        raise ReszooError("resume goes on with a run: give its folder as run_dir")
    run = Run.open(run_dir)
    run.refuse_other(recipe)
    return run


def _start(recipe: Recipe, pipeline: Pipeline, *, fresh: bool) -> keras.Model:
    """Return the net with the weights that the recipe starts from, unless a checkpoint will bring them (`fresh`).

    Other classes than the weights' get a classifier of their own, though they be as many.
    """
    info = pipeline.info
    weights = None if fresh else recipe.model.weights or None
    model = build(recipe.model.spec(), input_shape=info.input_shape, classes=info.classes, weights=weights)
    published = recipe.model.published
    if (
        weights
        and published
        and not published.classifies(info.class_names)
        and len(published.class_names) == info.classes
    ):
        renew_head(model)
    return model


def _has_checkpoint(run: Run) -> bool:
    return bool(checkpoint.steps(run.checkpoints))


def _validation(score: Evaluator, pipeline: Pipeline) -> Evaluate | None:
    """Return what scores the model on the images held out of training, or None when there are none."""
    if not pipeline.info.examples["validation"]:
        return None

    def evaluate() -> dict[str, float]:
        scores = score(pipeline.evaluation("validation"))
        return {"val_loss": scores.loss, "val_accuracy": scores.top1}

    return evaluate


def _finish(
    run: Run,
    recipe: Recipe,
    model: keras.Model,
    pipeline: Pipeline,
    score: Evaluator,
    progress: Progress,
) -> Scores:
    """Leave the trained net, its curves, its scores on the test set, and the SavedModel; tell them beside the published figure."""
    with atomic_path(run.path / "model.keras") as part:
        model.save(part)
    published = recipe.published
    drawn: dict[str, Any] = (
        {"published": published.value, "source": f"{published.metric}, {published.source}"} if published else {}
    )
    curves(run.history, run.path / "curves.png", title=recipe.name, **drawn)
    test = score(pipeline.evaluation("test"))
    title = f"{recipe.name}: {pipeline.info.name}, test, error {test.error:.2f} %"
    write_scores(test, pipeline.info.class_names, run.path, title=title)
    if recipe.train.export and not (run.path / "export").exists():
        export(run, run.path / "export")
    run.write_meta(status="finished", finished=now())
    for line in closing(run, test):
        progress.line(line)
    return test
