"""Training: `Trainer` prepares, fits and finishes a run; `train` does all three."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import keras

from reszoo.config.load import load_recipe
from reszoo.config.overrides import Overrides
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import ResolvedRecipe
from reszoo.data.pipeline import Pipeline
from reszoo.evaluation.evaluate import write_scores
from reszoo.evaluation.evaluator import Evaluator
from reszoo.evaluation.plots import draw_curves
from reszoo.evaluation.run_summary import (
    Result,
    advice_to_resume,
    describe_result,
    describe_start,
    record_start,
)
from reszoo.evaluation.scores import Scores
from reszoo.exporting.formats import check_class_names
from reszoo.files import atomic_path, check_space
from reszoo.images.views import Views
from reszoo.keywords import explain_keywords
from reszoo.lazy import tf
from reszoo.models.settings import fixed_settings
from reszoo.reporting.page import base_name
from reszoo.reporting.reporter import Reporter
from reszoo.training.agreement import agree
from reszoo.training.callback_checks import check_callbacks
from reszoo.training.cluster import Hosts, find_hosts
from reszoo.training.data_location import name_images
from reszoo.training.devices import describe, missing_gpu, open_strategy, precision
from reszoo.training.environment import now
from reszoo.training.failures import record_failure
from reszoo.training.growing import start_grown
from reszoo.training.learning_rates import learning_rates
from reszoo.training.loop import Loop
from reszoo.training.protocols import Watch
from reszoo.training.run import Run
from reszoo.training.setup import ModelSource, make_model, make_stepper, open_data, share_start
from reszoo.training.start import check_data, find_run, has_checkpoint, stored_bytes, unite
from reszoo.training.step import Stepper
from reszoo.training.workers import Workers, explain_loss


@explain_keywords
def train(
    recipe: Recipe | str | Path | None,
    *,
    overrides: Overrides = (),
    run_dir: str | Path | None = None,
    resume: bool = False,
    data: str | None = None,
    devices: str = "auto",
    hosts: Hosts | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    quiet: bool = False,
) -> Result:
    """Train a model by a recipe, in a run folder.

    A signal stops the run after the current step, with a checkpoint.

    Args:
        recipe: A recipe, its name or its file. None, not on worker 0: the recipe of worker 0.
        overrides: Recipe keys to change, as {"train.epochs": 2} or ["train.epochs=2"].
        run_dir: A new or empty folder; runs/NAME-TIME by default.
        resume: Resume the run in `run_dir` exactly at its newest checkpoint, or start it.
        data: A folder of images or a dataset (`data.name`). If the run resumes: their new location.
        devices: "auto", "cpu", "cpu:N", "gpu" or "gpu:0,1", as for `reszoo train --devices`.
        hosts: The hosts of the run, if there are several; by default those of TF_CONFIG or Slurm.
            Every host calls this alike; worker 0 alone reads and writes the run folder and prints.
        callbacks: Keras callbacks. They see the model that is evaluated and exported, with averaged
            weights if `train.ema` is set. They may change it, set model.stop_training, and set the
            learning rate if schedule.kind is "constant" without warmup. Give them again to resume;
            the checkpoint holds their state.
        quiet: Print nothing. train.log receives every line in any case.

    Returns:
        The run and its test scores.

    Raises:
        ReszooError: For invalid input, before anything is written; and if the loss is not finite.
    """
    hosts = hosts or find_hosts(os.environ)
    resume = resume and (run_dir is None or Run(run_dir).is_occupied)
    if data is not None and recipe is not None and not resume:
        (recipe, overrides), data = name_images(recipe, overrides, data), None
    if hosts is not None:
        recipe, resume, data = agree(hosts, recipe, overrides, resume, data, devices, quiet)
    elif not isinstance(recipe, Recipe):
        recipe = load_recipe(str(recipe), overrides)
    trainer = Trainer.prepare(
        recipe,
        run_dir=run_dir,
        resume=resume,
        data=data,
        devices=devices,
        hosts=hosts,
        callbacks=callbacks,
        quiet=quiet,
    )
    if trainer.fit():
        return Result(trainer.run, trainer.finish())
    loop, advice = trainer.loop, advice_to_resume(trainer.run, trainer.loop.callback_names)
    trainer.reporter.line(f"stopped at step {loop.step} of {loop.total}; {advice}")
    return Result(trainer.run, None)


class Trainer:
    """One run of a recipe: `prepare` checks and opens everything, `fit` trains, `finish` evaluates.

    Attributes:
        run: The run folder.
        recipe: The recipe, with absolute paths.
        pipeline: The data.
        model: The model, compiled with its optimizer.
        stepper: Updates the model.
        evaluator: Scores the model on batches.
        workers: The workers of the run, on several hosts.
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
        workers: Workers,
    ) -> None:
        self.run, self.recipe, self.pipeline, self.model = run, recipe, pipeline, stepper.model
        self.evaluator, self.reporter, self.stepper = evaluator, reporter, stepper
        self.workers = workers

    @classmethod
    def prepare(
        cls,
        recipe: Recipe,
        *,
        run_dir: str | Path | None = None,
        resume: bool = False,
        data: str | None = None,
        devices: str = "auto",
        hosts: Hosts | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        quiet: bool = False,
        model: ModelSource | None = None,
    ) -> Self:
        """Return a trainer at its first step or at its newest checkpoint.

        The arguments are those of `train`, and `model`: a model made elsewhere, which is trained
        instead of the recipe's, or a function that makes it for a pipeline in the strategy's scope.
        It maps images to logits. Its trainable flags stay if `finetune.freeze` is "none". Give it
        again to resume.

        Raises:
            ReszooError: For invalid input, before anything is written.
        """
        with explain_loss(hosts):
            settings = recipe.train
            strategy = open_strategy(devices, hosts)
            workers = Workers(strategy, hosts)
            resume = workers.exchange(resume)[0]
            with workers.together():
                run, recipe = find_run(
                    recipe, run_dir=run_dir, resume=resume, data=data, model=model, workers=workers
                )
            started = workers.exchange(has_checkpoint(run))[0]
            if settings.deterministic:
                tf.config.experimental.enable_op_determinism()
            keras.utils.set_random_seed(settings.seed)
            with workers.together():
                pipeline = open_data(recipe, strategy)
                check_data(run, recipe, pipeline, resume and run.writes)
                if settings.export:
                    check_class_names(pipeline.info.class_names)
                held_out = bool(pipeline.info.examples["validation"])
                callbacks = check_callbacks(callbacks, recipe, validation=held_out, resume=started)
            unite(workers, recipe, pipeline, callbacks)
            load_weights = workers.first and not started
            with workers.together(), strategy.scope(), precision(settings.precision):
                built = make_model(recipe, pipeline, given=model, load_weights=load_weights)
                stepper = make_stepper(built, recipe, pipeline.info, strategy, workers)
            with workers.together(), precision(settings.precision):
                grows = bool(settings.grow_from) and load_weights
                grown = start_grown(stepper, recipe, pipeline) if grows else None
                if run.writes:
                    check_space(run.path, stored_bytes(built, stepper), "run folder")
                    run = run if resume else Run.create(run.path, recipe)
            if not started:
                share_start(stepper, workers)
            log, quiet = (run.path / "train.log", quiet) if run.writes else (None, True)
            reporter, classes = Reporter(log=log, quiet=quiet), pipeline.info.classes
            evaluator = Evaluator(built, classes=classes, strategy=strategy, workers=workers)
            trainer = cls(run, recipe, pipeline, stepper, evaluator, reporter, workers)
            with trainer._recording_failure():
                names = workers.label(workers.exchange(describe(strategy)))
                with workers.together():
                    if run.writes:
                        given = built if model else None
                        record_start(run, recipe, pipeline, names, grown, given, resume=resume)
                stepper.spread_seeds()
                check = trainer._validate if held_out else None
                trainer.loop = Loop(
                    run, recipe, stepper, pipeline, reporter, workers, check, callbacks
                )
                if resume:
                    trainer.loop.resume()
                step, name = trainer.loop.step, built.name
                lines = describe_start(recipe, pipeline, run, names, step, name, grown)
                for line in filter(None, [*lines, missing_gpu(devices)]):
                    reporter.line(line)
            return trainer

    def fit(self, until: int = 0) -> bool:
        """Train to the end, or to step `until`; return whether training is complete.

        Afterwards `model` holds the weights that are evaluated: with `train.ema` the averaged ones.
        """
        with self._recording_failure(), fixed_settings():
            complete = self.loop.fit(until)
            status, seconds = "trained" if complete else "stopped", self.loop.state.seconds
            self.run.write_meta(status=status, seconds=round(seconds, 1))
            return complete

    def finish(self) -> Scores:
        """Save the model, draw the curves, evaluate the test split, export and report scores."""
        with self._recording_failure(), fixed_settings():
            report = self.reporter.line
            with self.workers.together():
                if self.run.writes:
                    report("saving the model: model.keras")
                    with atomic_path(self.run.path / "model.keras") as part:
                        self.model.save(part)
                    report("drawing the curves: curves.png")
                    self._draw_curves()
            report(f"evaluating the test split: {self.pipeline.info.examples['test']} images")
            test = self.evaluator(self.pipeline.evaluation("test", self.loop.part))
            test = dataclasses.replace(test, class_names=self.pipeline.info.class_names)
            with self.workers.together():  # if worker 0 left first, the others would fail
                if self.run.writes:
                    self._write_results(test)
            return test

    def _write_results(self, test: Scores) -> None:
        report, info = self.reporter.line, self.pipeline.info
        title = f"{self.recipe.name}: {base_name(info.name)}, test, error {test.error:.2f} %"
        write_scores(test, info.class_names, self.run.path, title=title)
        if self.recipe.train.export and not (self.run.path / "export").exists():
            report("exporting a SavedModel: export/ (train.export=false skips this)")
            self._export()
        self.run.write_meta(status="finished", finished=now())
        for line in describe_result(self.run, test):
            report(line)

    def _draw_curves(self) -> None:
        rates = learning_rates(self.run.history, self.loop.scheduled_rate, self.loop.step)
        published = self.recipe.published
        if published and published.views != Views():
            published = None  # of another test than the curves
        draw_curves(
            self.run.history,
            self.run.path / "curves.png",
            rates=rates,
            title=self.recipe.name,
            published=published.value if published else None,
            source=f"{published.metric}, {published.source}" if published else "",
        )

    def _export(self) -> None:
        from reszoo.exporting.export import export
        from reszoo.exporting.samples import CHECKED, draw

        export(self.run, self.run.path / "export", check=draw(self.pipeline, "test", CHECKED))

    def _validate(self, watch: Watch) -> dict[str, float]:
        """Return the scores of the model on the validation split."""
        scores = self.evaluator(watch(self.pipeline.evaluation("validation", self.loop.part)))
        return {"val_loss": scores.loss, "val_accuracy": scores.top1}

    @contextlib.contextmanager
    def _recording_failure(self) -> Iterator[None]:
        hosts = self.workers.hosts
        with record_failure(self.run, self.recipe, self.pipeline), explain_loss(hosts):
            yield
