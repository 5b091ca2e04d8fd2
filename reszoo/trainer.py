"""Training: `Trainer` prepares, fits and finishes a run; `train` does all three."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import keras

from reszoo.config.load import load_recipe
from reszoo.config.overrides import Overrides
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import ResolvedRecipe
from reszoo.data.pipeline import Pipeline
from reszoo.evaluation.evaluator import Evaluator
from reszoo.evaluation.run_summary import Result, advice_to_resume
from reszoo.evaluation.scores import Scores
from reszoo.exporting.formats import check_class_names
from reszoo.files import atomic_path, check_space
from reszoo.keywords import explain_keywords
from reszoo.lazy import tf
from reszoo.models.settings import fixed_settings
from reszoo.reporting.reporter import Reporter
from reszoo.run_results import draw_run, write_results
from reszoo.training import components
from reszoo.training.agreement import agree
from reszoo.training.callback_checks import check_callbacks
from reszoo.training.cluster import Hosts, find_hosts
from reszoo.training.data_location import name_images
from reszoo.training.devices import describe, missing_gpu, open_strategy, precision
from reszoo.training.failures import record_failure
from reszoo.training.growing import start_grown
from reszoo.training.loop import Loop
from reszoo.training.protocols import Watch
from reszoo.training.run import Run
from reszoo.training.setup import ModelSource, make_model, make_stepper, open_data, share_start
from reszoo.training.start import check_data, find_run, has_checkpoint, stored_bytes, unite
from reszoo.training.start_summary import describe_start, record_start
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
    model: ModelSource | None = None,
    dataset: Any = None,
    optimizer: keras.optimizers.Optimizer | None = None,
    schedule: Any = None,
    loss: Any = None,
    augment: Any = None,
    metrics: Sequence[keras.metrics.Metric] = (),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    quiet: bool = False,
) -> Result:
    """Train a model by a recipe, in a run folder.

    A signal stops the run after the current step, with a checkpoint.

    The arguments from `model` to `metrics` are objects in place of what the recipe names. run.json
    records their configuration. Pass them again to resume.

    Args:
        recipe: A recipe, its name or its file. None, not on worker 0: the recipe of worker 0.
        overrides: Recipe keys to change, as {"train.epochs": 2} or ["train.epochs=2"].
        run_dir: A new or empty folder; runs/NAME-TIME by default.
        resume: Resume the run in `run_dir` exactly at its newest checkpoint, or start it.
        data: A folder of images or a dataset (`data.name`). If the run resumes: their new location.
        devices: "auto", "cpu", "cpu:N", "gpu" or "gpu:0,1", as for `reszoo train --devices`.
        hosts: The hosts of the run, if there are several; by default those of TF_CONFIG or Slurm.
            Every host calls this alike; worker 0 alone reads and writes the run folder and prints.
        model: A Keras model from images to logits, or a function that makes it for a pipeline.
        dataset: What the function of the recipe key `data.name` returns.
        optimizer: A Keras optimizer. `optimizer.weight_decay` and its kind stay.
        schedule: A schedule of Keras or a function, as for the recipe key `schedule.kind`.
        loss: A loss of Keras or a function, as for the recipe key `train.loss`.
        augment: A layer of Keras or a function, or a list of them, as for the recipe key
            `augment.extra`, in place of the whole table.
        metrics: Keras metrics of the validation and test split. They get targets and probabilities,
            [n, classes]; of a class "Sparse..." labels, [n], in place of targets.
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
    given = {"model": model, "dataset": dataset, "optimizer": optimizer, "schedule": schedule}
    recipe = components.give_components(recipe, {**given, "loss": loss, "augment": augment})
    trainer = Trainer.prepare(
        recipe,
        run_dir=run_dir,
        resume=resume,
        data=data,
        devices=devices,
        hosts=hosts,
        callbacks=callbacks,
        quiet=quiet,
        model=model,
        metrics=metrics,
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
        metrics: Sequence[keras.metrics.Metric] = (),
    ) -> Self:
        """Return a trainer at its first step or at its newest checkpoint.

        The arguments are those of `train`. A function as `model` is called in the strategy's scope.
        A model's trainable flags stay if `finetune.freeze` is "none".

        Raises:
            ReszooError: For invalid input, before anything is written.
        """
        with explain_loss(hosts):
            settings = recipe.train
            strategy = open_strategy(devices, hosts)
            workers = Workers(strategy, hosts)
            resume = workers.exchange(resume)[0]
            passed = components.describe_components(recipe, metrics)
            with workers.together():
                components.check_metrics(metrics, recipe)
                if resume and run_dir is not None and workers.first:
                    components.check_components(Run(run_dir), passed)
                run, recipe = find_run(
                    recipe, run_dir=run_dir, resume=resume, data=data, model=model, workers=workers
                )
                named = components.make_callbacks(recipe, run)
                callbacks = [*named, *keras.tree.flatten(callbacks or ())]
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
                callbacks = check_callbacks(
                    callbacks, recipe, validation=held_out, resume=started, metrics=metrics
                )
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
            reporter = Reporter(log=log, quiet=quiet)
            evaluator = Evaluator(
                built,
                classes=pipeline.info.classes,
                strategy=strategy,
                workers=workers,
                multi_label=recipe.data.multi_label,
                metrics=metrics,
            )
            trainer = cls(run, recipe, pipeline, stepper, evaluator, reporter, workers)
            with trainer._recording_failure():
                names = workers.label(workers.exchange(describe(strategy)))
                with workers.together():
                    if run.writes:
                        given = built if model or recipe.model.is_own else None
                        record_start(run, recipe, pipeline, names, grown, given, passed, resume)
                stepper.spread_seeds()
                check = trainer._validate if held_out else None
                trainer.loop = Loop(
                    run, recipe, stepper, pipeline, reporter, workers, check, callbacks
                )
                if resume:
                    trainer.loop.resume()
                start = (names, trainer.loop.step, built.name, grown)
                lines = describe_start(recipe, pipeline, run, *start)
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
                    draw_run(self.run, self.recipe, self.loop)
            report(f"evaluating the test split: {self.pipeline.info.examples['test']} images")
            test = self.evaluator(self.pipeline.evaluation("test", self.loop.part))
            test = dataclasses.replace(test, class_names=self.pipeline.info.class_names)
            with self.workers.together():  # if worker 0 left first, the others would fail
                if self.run.writes:
                    write_results(self.run, self.recipe, self.pipeline, test, report)
            return test

    def _validate(self, watch: Watch) -> dict[str, float]:
        """Return the scores of the model on the validation split."""
        batches = self.pipeline.evaluation("validation", self.loop.part)
        return self.evaluator(watch(batches)).to_history()

    @contextlib.contextmanager
    def _recording_failure(self) -> Iterator[None]:
        with record_failure(self.run, self.recipe, self.pipeline), explain_loss(self.workers.hosts):
            yield
