"""Training a run: `Trainer` prepares, fits and finishes it; `train` does all three."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import keras

from reszoo.commands import format_resume
from reszoo.config.load import load_recipe
from reszoo.config.overrides import Overrides
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import ResolvedRecipe, resolve_recipe
from reszoo.data.pipeline import Pipeline
from reszoo.errors import ChangedDataError, ReszooError
from reszoo.evaluation.evaluate import write_scores
from reszoo.evaluation.plots import curves
from reszoo.evaluation.scores import Evaluator, Scores
from reszoo.evaluation.telling import closing, facts, opening
from reszoo.exporting.formats import check_class_names
from reszoo.files import atomic_path, check_space
from reszoo.keywords import explain_keywords
from reszoo.lazy import tf
from reszoo.models.freeze import freeze
from reszoo.models.settings import fixed_settings
from reszoo.reporting.page import base_name
from reszoo.reporting.reporter import Reporter
from reszoo.training.callback_checks import check_callbacks
from reszoo.training.cluster import check_cluster
from reszoo.training.data_location import advice_on_data, missing
from reszoo.training.devices import describe, missing_gpu, open_strategy, precision
from reszoo.training.inherit import inherit
from reszoo.training.loop import Loop, Watch
from reszoo.training.run import Run, now
from reszoo.training.setup import ModelSource, make_model, make_stepper, open_data, take_model
from reszoo.training.start import (
    check_model_source,
    check_start,
    find_run,
    has_checkpoint,
    stored_bytes,
)
from reszoo.training.step import Stepper


@dataclass(frozen=True)
class Result:
    """What `train` returns.

    Attributes:
        run: The run folder.
        test: The test scores; None when the run was stopped before its end.
    """

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
    trainer = Trainer.prepare(
        recipe,
        run_dir=run_dir,
        resume=resume,
        data=data,
        devices=devices,
        callbacks=callbacks,
        quiet=quiet,
    )
    if trainer.fit():
        return Result(trainer.run, trainer.finish())
    loop = trainer.loop
    trainer.reporter.line(f"stopped at step {loop.step} of {loop.total}; {_how_to_resume(trainer)}")
    return Result(trainer.run, None)


def _how_to_resume(trainer: Trainer) -> str:
    path, names = trainer.run.path, trainer.loop.callback_names
    if not names:
        return f"resume with: {format_resume('train', path)}"
    again = ", ".join(f"{name}(...)" for name in names)
    return (
        f"resume with the same callbacks: reszoo.train({str(path / 'recipe.toml')!r}, run_dir={str(path)!r}, resume=True, "
        f"callbacks=[{again}])"
    )


class Trainer:
    """One run of a recipe: `prepare` checks and opens everything, `fit` trains, `finish` evaluates and exports.

    Attributes:
        run: The run folder.
        recipe: The recipe, its paths absolute.
        pipeline: The data.
        model: The model, compiled with its optimizer.
        evaluator: Scores the model on batches.
        reporter: Reports to the terminal and to train.log.
        loop: The training loop.
    """

    loop: Loop

    def __init__(
        self,
        run: Run,
        recipe: ResolvedRecipe,
        pipeline: Pipeline,
        stepper: Stepper,
        evaluator: Evaluator,
        reporter: Reporter,
    ) -> None:
        self.run, self.recipe, self.pipeline, self.model = run, recipe, pipeline, stepper.model
        self.evaluator, self.reporter, self._stepper = evaluator, reporter, stepper

    @classmethod
    def prepare(
        cls,
        recipe: Recipe,
        *,
        run_dir: str | Path | None = None,
        resume: bool = False,
        data: str | None = None,
        devices: str = "auto",
        callbacks: Sequence[keras.callbacks.Callback] = (),
        quiet: bool = False,
        model: ModelSource | None = None,
    ) -> Self:
        """Return a trainer that is ready to fit, at its first step or at its newest checkpoint.

        The arguments are those of `train`, and `model`: a model made elsewhere, trained instead of
        the recipe's, or a function that makes it for a pipeline in the strategy's scope. It maps
        images to logits. Without `finetune.freeze` its trainable flags stay. To resume, give it again.

        Raises:
            ReszooError: For input that cannot work, before anything is written.
        """
        if data is not None and not resume:
            raise ReszooError(
                f"data: {data} is for resuming a run whose images lie elsewhere now. For a new run: --set data.name={data}"
            )
        recipe = resolve_recipe(recipe)
        run, recipe = find_run(recipe, run_dir, resume, data)
        started = has_checkpoint(run)
        if resume:
            check_model_source(run, model)
        if not started:
            check_start(recipe)
        if resume and (why := missing(recipe.data)):
            raise ReszooError(f"{why}; {advice_on_data('train', run.path, recipe.data)}")
        strategy = open_strategy(devices)
        settings = recipe.train
        if settings.deterministic:
            tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(settings.seed)
        pipeline = open_data(recipe, strategy)
        _check_data(run, recipe, pipeline, resume)
        checked = check_callbacks(
            callbacks, recipe, validation=bool(pipeline.info.examples["validation"]), resume=started
        )
        with strategy.scope(), precision(settings.precision):
            if model is None:
                made = make_model(recipe, pipeline, load_weights=not started)
            else:
                made = take_model(model, pipeline)
            if model is None or recipe.finetune.freeze != "none":
                freeze(made, recipe.finetune.freeze, recipe.finetune.batch_norm)
            recipe.probe_steps(
                pipeline.steps_per_epoch
            )  # rejects one too long before anything is written
            stepper = make_stepper(made, recipe, strategy)
            grown = (
                inherit(stepper, recipe, pipeline) if settings.grow_from and not started else None
            )
        check_space(run.path, stored_bytes(made, stepper), "run folder")

        if not resume:
            run = Run.create(run.path, recipe)
        reporter = Reporter(log=run.path / "train.log", quiet=quiet)
        evaluator = Evaluator(made, classes=pipeline.info.classes, strategy=strategy)
        trainer = cls(run, recipe, pipeline, stepper, evaluator, reporter)
        with trainer._recording_failure():
            trainer._open_loop(checked, describe(strategy), grown, resume, model is not None)
            if note := missing_gpu(devices):
                reporter.line(note)
        return trainer

    def _open_loop(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        devices: list[str],
        grown: dict[str, Any] | None,
        resume: bool,
        given: bool,
    ) -> None:
        """Record the start of the run, and stand at its first step or at its newest checkpoint."""
        run, recipe, pipeline, reporter = self.run, self.recipe, self.pipeline, self.reporter
        if not resume or not (run.path / "run.json").is_file():
            run.write_meta(**facts(recipe, pipeline, self.model if given else None))
        if resume:
            run.relocate(pipeline.info, recipe.data)
        if grown:
            run.write_meta(grown_from=grown)
        run.write_meta(status="running", devices=devices)
        self._stepper.spread_seeds()
        validate = self._validate if pipeline.info.examples["validation"] else None
        self.loop = Loop(run, recipe, self._stepper, pipeline, reporter, validate, callbacks)
        if resume:
            self.loop.resume()
        for line in opening(recipe, pipeline, run, devices, self.loop.step, self.model.name):
            reporter.line(line)
        if grown:
            reporter.line(
                f"grown from {grown['net']} of {grown['run']}: {len(grown['added'])} new blocks, outputs within {grown['difference']:.2g}"
            )

    def fit(self, until: int = 0) -> bool:
        """Train to the end, or to step `until`; return whether training is complete.

        run.json records what was reached. `model` then holds the weights that are evaluated, with
        `train.ema` the averaged ones.
        """
        with self._recording_failure(), fixed_settings():
            complete = self.loop.fit(until)
            self.run.write_meta(
                status="trained" if complete else "stopped", seconds=round(self.loop.seconds, 1)
            )
            return complete

    def finish(self) -> Scores:
        """Save the trained model, draw its curves, evaluate the test split, export, and report the scores."""
        with self._recording_failure(), fixed_settings():
            return self._finish()

    def _finish(self) -> Scores:
        run, recipe, pipeline, report = self.run, self.recipe, self.pipeline, self.reporter.line
        report("saving the model: model.keras")
        with atomic_path(run.path / "model.keras") as part:
            self.model.save(part)
        published = recipe.published
        drawn: dict[str, Any] = (
            {"published": published.value, "source": f"{published.metric}, {published.source}"}
            if published
            else {}
        )
        report("drawing the curves: curves.png")
        curves(
            run.history,
            run.path / "curves.png",
            rates=self.loop.learning_rates(),
            title=recipe.name,
            **drawn,
        )
        report(f"evaluating the test split: {pipeline.info.examples['test']} images")
        test = self.evaluator(pipeline.evaluation("test"))
        title = f"{recipe.name}: {base_name(pipeline.info.name)}, test, error {test.error:.2f} %"
        write_scores(test, pipeline.info.class_names, run.path, title=title)
        if recipe.train.export and not (run.path / "export").exists():
            from reszoo.exporting.export import export
            from reszoo.exporting.samples import CHECKED, draw

            report(
                "exporting the SavedModel and checking it: export/ (train.export=false skips this)"
            )
            export(run, run.path / "export", check=draw(pipeline, "test", CHECKED))
        run.write_meta(status="finished", finished=now())
        for line in closing(run, test):
            report(line)
        return test

    def _validate(self, watch: Watch) -> dict[str, float]:
        """Return the scores of the model on the images held out of training."""
        scores = self.evaluator(watch(self.pipeline.evaluation("validation")))
        return {"val_loss": scores.loss, "val_accuracy": scores.top1}

    @contextlib.contextmanager
    def _recording_failure(self) -> Iterator[None]:
        """Record an error of the block in run.json, and explain it where its cause is known."""
        try:
            yield
        except Exception as error:
            known = _explain_memory(error, self.recipe)
            damaged = None if known else self.pipeline.explain(error)
            with contextlib.suppress(OSError):  # the disk may be what failed
                self.run.write_meta(
                    status="failed", reason=str(known or damaged or error).split("\n")[0]
                )
                if damaged and "data" in self.run.meta:  # mended files have other digests
                    self.run.write_meta(data={**self.run.meta["data"], "fingerprint": {}})
            if explained := known or damaged:
                raise explained from error
            raise


def _explain_memory(error: Exception, recipe: Recipe) -> ReszooError | None:
    """Return what to do if `error` reports that memory is exhausted, else None."""
    if not isinstance(error, tf.errors.ResourceExhaustedError):
        return None
    return ReszooError(
        f"out of memory with batches of {recipe.train.batch_size}; lower train.batch_size, or raise train.accumulate "
        f"({recipe.train.accumulate}) to split a batch into more micro-batches"
    )


def _check_data(run: Run, recipe: Recipe, pipeline: Pipeline, resume: bool) -> None:
    """Raise ReszooError for data on which the run cannot continue, be exported or be selected."""
    if resume:
        try:
            run.refuse_other_data(pipeline.info)
        except ChangedDataError as error:
            raise ChangedDataError(
                f"{error}; {advice_on_data('train', run.path, recipe.data)}"
            ) from None
    if recipe.train.export:
        check_class_names(pipeline.info.class_names)
    if recipe.train.select == "best" and not pipeline.info.examples["validation"]:
        raise ReszooError(
            f'train.select: "best" is invalid; expected "last", because {pipeline.info.name} holds out no validation '
            "images. Example: --set data.validation=5000"
        )
