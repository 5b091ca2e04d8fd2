"""A run opened to train: its folder, data, net and loop, and what an error in it means."""

from __future__ import annotations

import contextlib
import datetime
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from reszoo.config.recipe import Recipe
from reszoo.config.resolve import resolve_data, resolve_recipe
from reszoo.data.device_pipeline import open_device_pipeline
from reszoo.data.pipeline import Pipeline, open_pipeline
from reszoo.errors import ChangedDataError, ReszooError
from reszoo.evaluation.scores import Evaluator, Scores
from reszoo.evaluation.telling import facts, opening
from reszoo.exporting.formats import check_class_names
from reszoo.files import check_output, check_outside, check_space
from reszoo.lazy import tf
from reszoo.nets.batchnorm import synchronise
from reszoo.nets.build import build
from reszoo.nets.freeze import freeze
from reszoo.nets.settings import fixed_settings
from reszoo.training import checkpoint
from reszoo.training.callbacks import check_callbacks
from reszoo.training.devices import describe, first_device, missing_gpu, open_strategy, precision
from reszoo.training.inherit import inherit
from reszoo.training.loop import Evaluate, Loop, Watch
from reszoo.training.optimizers import make_optimizer
from reszoo.training.progress import Progress
from reszoo.training.run import Run, advice_on_data, missing, relocated
from reszoo.training.step import Stepper
from reszoo.weights.formats import is_file_name, local_file
from reszoo.weights.load import renew_head

Score = Callable[[Any], Scores]


@dataclass(frozen=True)
class Session:
    """A run ready to train, or to go on."""

    run: Run
    recipe: Recipe
    pipeline: Pipeline
    model: keras.Model
    score: Score
    progress: Progress
    loop: Loop

    def fit(self, until: int = 0) -> bool:
        """Train to the end, or to step `until`; return whether training is complete. What was reached is in run.json."""
        complete = self.loop.fit(until)
        self.run.write_meta(status="trained" if complete else "stopped", seconds=round(self.loop.seconds, 1))
        return complete


@contextlib.contextmanager
def opened(
    recipe: Recipe,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    data: str | None = None,
    devices: str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    quiet: bool = False,
) -> Iterator[Session]:
    """Open a run for the block: `train` of `reszoo.workflow` says what each argument is.

    Raises ReszooError for input that cannot work, before anything is written; an error inside the block is kept in run.json
    as the reason why the run failed.
    """
    if data is not None and not resume:
        raise ReszooError(
            f"data: {data} is for resuming a run whose images lie elsewhere now. For a new run: --set data.name={data}"
        )
    recipe = resolve_recipe(recipe)
    run, recipe = _find_run(recipe, run_dir, resume, data)
    started = _has_checkpoint(run)
    if not started:
        _check_start(recipe)
    if resume and (why := missing(recipe.data)):
        raise ReszooError(f"{why}; {advice_on_data('train', run.path, recipe.data)}")
    strategy = open_strategy(devices)
    settings = recipe.train
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(settings.seed)
    pipeline = _open_pipeline(recipe, strategy)
    if resume:
        try:
            run.refuse_other_data(pipeline.info)
        except ChangedDataError as error:
            raise ChangedDataError(f"{error}; {advice_on_data('train', run.path, recipe.data)}") from None
    if settings.export:
        check_class_names(pipeline.info.class_names)
    if settings.select == "best" and not pipeline.info.examples["validation"]:
        raise ReszooError(
            f'train.select is "best", but {pipeline.info.name} holds no images out to choose by; set data.validation'
        )
    checked = check_callbacks(
        callbacks, recipe, validation=bool(pipeline.info.examples["validation"]), resume=_has_checkpoint(run)
    )
    with strategy.scope(), precision(settings.precision):
        model = initial_model(recipe, pipeline, fresh=started)
        freeze(model, recipe.finetune.freeze, recipe.finetune.batch_norm)
        recipe.probe_steps(pipeline.steps_per_epoch)  # refuses one too long before anything is written
        stepper = make_stepper(model, recipe, strategy)
        grown = inherit(stepper, recipe, pipeline) if settings.grow_from and not started else None
    check_space(run.path, _stored_bytes(model, stepper), "run folder")

    if not resume:
        run = Run.create(run.path, recipe)
    progress = Progress(run.path / "train.log", quiet)
    try:
        if not resume or not (run.path / "run.json").is_file():
            run.write_meta(**facts(recipe, pipeline))
        if resume:
            run.relocate(pipeline.info, recipe.data)
        if grown:
            run.write_meta(grown_from=grown)
        names = describe(strategy)
        run.write_meta(status="running", devices=names)
        stepper.spread_seeds()
        score = Evaluator(model, classes=pipeline.info.classes, strategy=strategy)
        loop = Loop(run, recipe, stepper, pipeline, progress, _validation(score, pipeline), checked)
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
        with fixed_settings():
            yield Session(run, recipe, pipeline, model, score, progress, loop)
    except Exception as error:
        known = _explain_memory(error, recipe)
        damaged = None if known else pipeline.explain(error)
        with contextlib.suppress(OSError):  # the disk may be what failed
            run.write_meta(status="failed", reason=str(known or damaged or error).split("\n")[0])
            if damaged and "data" in run.meta:  # mended files have other digests
                run.write_meta(data={**run.meta["data"], "fingerprint": {}})
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


def _find_run(recipe: Recipe, run_dir: str | Path | None, resume: bool, data: str | None) -> tuple[Run, Recipe]:
    """Return the folder to train in, not made yet when the run is new, and the recipe with the data's present location."""
    if not resume:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        run = Run(run_dir or Path("runs") / f"{_file_name(recipe.name)}-{stamp}")
        run.refuse_occupied()
        if recipe.data.name.startswith("folder:"):
            check_outside(run.path, recipe.data.name.removeprefix("folder:"), "run folder")
        return run, recipe
    if run_dir is None:
        raise ReszooError("resume: no run is given; expected its folder as run_dir")
    run = Run.open(run_dir)
    check_output(run.path, "run folder")
    if data is not None:
        recipe = recipe.replace(data=resolve_data(relocated(run.recipe.data, data)))
    run.refuse_other(recipe, moved=data is not None, started=_has_checkpoint(run))
    if (run.path / "run.json").is_file():
        before = run.meta.get("backend", "tensorflow")
        if before != "tensorflow":
            raise ReszooError(
                f"{run.path} was trained on {before}; expected a run on tensorflow, because reszoo no longer trains on "
                f"{before}. Finish it with reszoo 0.1, or train it anew: reszoo train {run.path / 'recipe.toml'}"
            )
    return run, recipe


def _file_name(name: str) -> str:
    """Return a recipe's name as a part of a file name: without slashes, and short."""
    return re.sub(r"[^\w.+-]+", "-", name).lstrip("-.")[:80] or "run"


def _check_start(recipe: Recipe) -> None:
    """Raise ReszooError where a file or run that training starts from is not there."""
    if is_file_name(recipe.model.weights):
        try:
            local_file(recipe.model.weights)
        except ReszooError as error:
            raise ReszooError(f"model.weights: {error}") from None
    if recipe.train.grow_from:
        Run.open(recipe.train.grow_from)


def _stored_bytes(model: keras.Model, stepper: Stepper) -> int:
    """Return about how much a run writes: the checkpoints that are kept and one more, and the model three times."""
    own = sum(math.prod(variable.shape) for variable in model.variables)
    held = sum(math.prod(variable.shape) for variable in stepper.state().values())
    return 4 * ((checkpoint.KEEP + 1) * (own + held) + 3 * own)


def _open_pipeline(recipe: Recipe, strategy: tf.distribute.Strategy) -> Pipeline:
    """Open the recipe's dataset. With `data.on_device` its images lie on the first device."""
    opener: Callable[..., Pipeline] = open_pipeline
    if recipe.data.on_device:
        opener = functools.partial(open_device_pipeline, device=first_device(strategy))
    return opener(
        recipe.data,
        recipe.augment,
        batch_size=recipe.train.batch_size,
        seed=recipe.train.seed,
        transforms=recipe.model.transforms,
    )


def make_stepper(model: keras.Model, recipe: Recipe, strategy: tf.distribute.Strategy) -> Stepper:
    """Return the stepper of a recipe, and compile `model`. Call in the strategy's scope."""
    if recipe.train.batch_norm == "sync":
        synchronise(model)
    optimizer = make_optimizer(recipe.optimizer)
    # For callbacks, and for whoever loads the model: the stepper computes and scales the loss itself.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss=loss, metrics=["accuracy"], auto_scale_loss=False)
    # Keras makes the metrics at the first batch of its own loop; callbacks look there for the direction of a monitor.
    model._compile_metrics.build(keras.ops.zeros((1,)), keras.ops.zeros((1, model.output_shape[-1])))
    return Stepper(
        model,
        optimizer,
        recipe.train,
        recipe.optimizer,
        strategy,
        recipe.finetune.stage_decay,
        images_on=first_device(strategy) if recipe.data.on_device else "CPU:0",
    )


def initial_model(recipe: Recipe, pipeline: Pipeline, *, fresh: bool = False) -> keras.Model:
    """Return the model with the weights that the recipe starts from, unless a checkpoint will bring them (`fresh`).

    If the dataset's classes differ from the weights' classes, the classifier is re-initialized, even when the counts match.
    """
    info = pipeline.info
    weights = None if fresh else recipe.model.weights or None
    model = build(recipe.model.spec, input_shape=info.input_shape, classes=info.classes, weights=weights)
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


def _validation(score: Score, pipeline: Pipeline) -> Evaluate | None:
    """Return what scores the model on the images held out of training, or None when there are none."""
    if not pipeline.info.examples["validation"]:
        return None

    def evaluate(watch: Watch) -> dict[str, float]:
        scores = score(watch(pipeline.evaluation("validation")))
        return {"val_loss": scores.loss, "val_accuracy": scores.top1}

    return evaluate
