"""A run opened to train: its folder, data, net and loop, and what an error in it means."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from reszoo.data.pipeline import Pipeline
from reszoo.engines import Engine, TensorFlowEngine, open_engine
from reszoo.errors import ReszooError
from reszoo.evaluation.scores import Scores
from reszoo.evaluation.telling import facts, opening
from reszoo.files import expand_user
from reszoo.nets.build import build
from reszoo.nets.freeze import freeze
from reszoo.training import checkpoint
from reszoo.training.callbacks import check_callbacks
from reszoo.training.inherit import inherit
from reszoo.training.loop import Evaluate, Loop, Watch
from reszoo.training.progress import Progress
from reszoo.training.recipe import Recipe
from reszoo.training.run import Run
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
    engine: Engine

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
    devices: str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    quiet: bool = False,
) -> Iterator[Session]:
    """Open a run for the block: `train` of `reszoo.workflow` says what each argument is.

    Raises ReszooError for input that cannot work, before anything is written; an error inside the block is kept in run.json
    as the reason why the run failed.
    """
    recipe = anchored(recipe)
    run = _find_run(recipe, run_dir, resume)
    if not _has_checkpoint(run) and is_file_name(recipe.model.weights):
        try:
            local_file(recipe.model.weights)
        except ReszooError as error:
            raise ReszooError(f"model.weights: {error}") from None
    engine = open_engine(recipe, devices)
    settings = recipe.train
    pipeline = engine.open_data()
    if settings.select == "best" and not pipeline.info.examples["validation"]:
        raise ReszooError(
            f'train.select is "best", but {pipeline.info.name} holds no images out to choose by; set data.validation'
        )
    checked = check_callbacks(
        callbacks, recipe, validation=bool(pipeline.info.examples["validation"]), resume=_has_checkpoint(run)
    )
    with engine.scope():
        model = initial_model(recipe, pipeline, fresh=_has_checkpoint(run))
        freeze(model, recipe.finetune.freeze, recipe.finetune.batch_norm)
        recipe.probe_steps(pipeline.steps_per_epoch)  # refuses one too long before anything is written
        stepper: Any = engine.stepper(model, pipeline)
        grown = inherit(stepper, recipe, pipeline) if settings.grow_from and not _has_checkpoint(run) else None

    if not resume:
        run = Run.create(run.path, recipe)
    progress = Progress(run.path / "train.log", quiet)
    try:
        if not resume or not (run.path / "run.json").is_file():
            run.write_meta(**facts(recipe, pipeline))
        if grown:
            run.write_meta(grown_from=grown)
        names = engine.devices
        run.write_meta(status="running", devices=names)
        stepper.spread_seeds()
        score = engine.evaluator(model, pipeline.info.classes)
        loop = engine.kind_of_loop(run, recipe, stepper, pipeline, progress, _validation(score, pipeline), checked)
        if resume:
            loop.resume()
        for line in opening(recipe, pipeline, run, names, loop.step):
            progress.line(line)
        if grown:
            progress.line(
                f"grown from {grown['net']} of {grown['run']}: {len(grown['added'])} new blocks, outputs within {grown['difference']:.2g}"
            )
        if engine.note:
            progress.line(engine.note)
        with engine.place():
            yield Session(run, recipe, pipeline, model, score, progress, loop, engine)
    except Exception as error:
        known = _explain(error, recipe, pipeline, engine)
        with contextlib.suppress(OSError):  # the disk may be what failed
            run.write_meta(status="failed", reason=str(known or error).split("\n")[0])
        if known:
            raise known from error
        raise


def _explain(error: Exception, recipe: Recipe, pipeline: Pipeline, engine: Engine) -> ReszooError | None:
    """Return what an error means for the one who trains, if that is known."""
    if engine.out_of_memory(error):
        more = f", or raise train.accumulate ({recipe.train.accumulate}) to take a batch in more pieces"
        hint = more if isinstance(engine, TensorFlowEngine) else ""
        return ReszooError(f"out of memory with batches of {recipe.train.batch_size}; lower train.batch_size{hint}")
    return pipeline.explain(error)


def anchored(recipe: Recipe) -> Recipe:
    """Return the recipe with its paths absolute, so that its run can be gone on with and evaluated from anywhere."""
    kind, colon, path = recipe.data.name.partition(":")
    name = f"folder:{expand_user(path).resolve()}" if colon and kind == "folder" else recipe.data.name
    file = recipe.model.weights if is_file_name(recipe.model.weights) else ""
    folder, source, file = (
        str(expand_user(path).resolve()) if path else "" for path in (recipe.data.dir, recipe.train.grow_from, file)
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
    if (run.path / "run.json").is_file():
        before = run.meta.get("backend", "tensorflow")
        if before != keras.config.backend():
            raise ReszooError(f"{run.path} was begun on {before}; go on with KERAS_BACKEND={before}")
    return run


def initial_model(recipe: Recipe, pipeline: Pipeline, *, fresh: bool = False) -> keras.Model:
    """Return the model with the weights that the recipe starts from, unless a checkpoint will bring them (`fresh`).

    If the dataset's classes differ from the weights' classes, the classifier is re-initialized, even when the counts match.
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


def _validation(score: Score, pipeline: Pipeline) -> Evaluate | None:
    """Return what scores the model on the images held out of training, or None when there are none."""
    if not pipeline.info.examples["validation"]:
        return None

    def evaluate(watch: Watch) -> dict[str, float]:
        scores = score(watch(pipeline.evaluation("validation")))
        return {"val_loss": scores.loss, "val_accuracy": scores.top1}

    return evaluate
