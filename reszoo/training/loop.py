"""The training loop: batches to steps to epochs, with checkpoints from which a run goes on as if it had never stopped."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from reszoo.data.pipeline import Pipeline
from reszoo.errors import ReszooError
from reszoo.training import checkpoint
from reszoo.training.progress import Progress
from reszoo.training.recipe import Recipe
from reszoo.training.run import Run, TensorBoard
from reszoo.training.schedule import rate
from reszoo.training.step import Stepper

CHECK_EVERY = 50  # steps between looks at whether the loss is still a number

Evaluate = Callable[[], Mapping[str, float]]


class Loop:
    """One run of a recipe over a model, from its first step or from the newest checkpoint.

    evaluate: gives val_loss and val_accuracy of the model as it stands, or None without validation images.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        stepper: Stepper,
        pipeline: Pipeline,
        progress: Progress,
        evaluate: Evaluate | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        self.run, self.recipe, self.stepper, self.pipeline = run, recipe, stepper, pipeline
        self.progress, self.evaluate = progress, evaluate
        self.model = stepper.model
        self.total = recipe.total_steps(pipeline.steps_per_epoch)
        self.probe = recipe.probe_steps(pipeline.steps_per_epoch)
        self.step = 0
        self.until = self.total
        self.signalled = self.ended = False  # by a signal; by a callback
        self.history: list[dict[str, Any]] = []
        self.best = -1.0
        self.seconds = 0.0
        self._callbacks = keras.callbacks.CallbackList(
            list(callbacks), model=self.model, epochs=self._epoch(self.total)
        )
        self._variables = {
            f"model/{index}/{v.path}": v for index, v in enumerate(self.model.variables)
        } | stepper.state()

    def resume(self) -> None:
        """Go back to the newest readable checkpoint. Raises ReszooError when it is of another net."""
        found = checkpoint.newest(self.run.checkpoints, self.progress.line)
        if found is None:
            return
        if (net := found.meta["net"]) != self.model.name:
            raise ReszooError(f"checkpoint {found.path} is of {net}, but the recipe asks for {self.model.name}")
        shapes = {name: tuple(variable.shape) for name, variable in self._variables.items()}
        if wrong := [name for name in shapes if name not in found.arrays or found.arrays[name].shape != shapes[name]]:
            raise ReszooError(
                f"checkpoint {found.path} does not fit the recipe: {wrong[0]} is missing or of another shape"
            )
        for name, variable in self._variables.items():
            variable.assign(found.arrays[name])
        self.stepper.spread_seeds()
        self.step, self.history = found.meta["step"], found.meta["history"]
        self.best, self.seconds = found.meta["best"], found.meta["seconds"]

    def fit(self, until: int = 0) -> bool:
        """Train to the end, or until a callback sets model.stop_training; return False when a signal or `until` stopped it.

        until: stop after so many steps of the whole run, as a signal would, and evaluate there; 0 for the end.
        Either way a checkpoint stands at the last step; `signalled` says whether a signal came, if only in the last one.

        Raises ReszooError when the loss is no longer a number; the last good checkpoint stays.
        """
        self.until = min(until or self.total, self.total)
        board = TensorBoard(self.run, self.history)
        self.run.write_history(self.history)
        begun = time.monotonic() - self.seconds
        self.model.stop_training = False
        self._callbacks.on_train_begin()
        self.progress.begin(self.step, self.total)
        try:
            with _stop_signal() as stopped:

                def book() -> bool:
                    self.seconds = time.monotonic() - begun
                    self._after_step()
                    if self._epoch_ends():
                        self._end_epoch(board)
                    self.ended = bool(self.model.stop_training)
                    stop = stopped.is_set() or self.ended
                    if stop or self._checkpoint_due():
                        self._save()
                    return stop

                self._take_steps(book)
                self.signalled = stopped.is_set()
        finally:
            self.progress.end()
            board.close()
        self._callbacks.on_train_end()
        return self.step == self.total or self.ended

    def finish(self) -> None:
        """Leave in the model the weights the recipe selects: the best, the averaged, or the last."""
        if self.recipe.train.select == "best" and (self.run.checkpoints / "best.npz").is_file():
            best = checkpoint.load(self.run.checkpoints / "best.npz")
            for name, variable in self._variables.items():
                if name in best.arrays:
                    variable.assign(best.arrays[name])
        else:
            self._swap_averages()

    def _take_steps(self, book: Callable[[], bool]) -> None:
        """Take steps up to `until`; `book` does what follows each, and says whether it was the last."""
        for images, labels in self.pipeline.train(self.step).take(max(self.until - self.step, 0)):
            self._before_step()
            self._one_step(images, labels)
            if book():
                break

    def _before_step(self) -> None:
        epoch, place = divmod(self.step, self.pipeline.steps_per_epoch)
        if not place:
            self._callbacks.on_epoch_begin(epoch)
        self._callbacks.on_train_batch_begin(place)

    def _one_step(self, images: Any, labels: Any) -> None:
        now = rate(
            self.recipe.schedule,
            self.step,
            total_steps=self.total,
            steps_per_epoch=self.pipeline.steps_per_epoch,
            batch_size=self.recipe.train.batch_size,
            history=self.history,
        )
        if self.probe and self.step == self.probe:
            self.stepper.restart()
            self.progress.line(thawed(self.recipe, self.step))
        take = self.stepper.probe if self.step < self.probe else self.stepper
        take(images, labels, now)

    def _after_step(self) -> None:
        self._callbacks.on_train_batch_end(self.step % self.pipeline.steps_per_epoch)
        self.step += 1
        if self.step % CHECK_EVERY == 0:
            self._check_finite()
        self.progress.step(self.step, self._summary)

    def _epoch(self, step: int) -> int:
        return math.ceil(step / self.pipeline.steps_per_epoch)

    def _epoch_ends(self) -> bool:
        return self.step % self.pipeline.steps_per_epoch == 0 or self.step == self.until

    def _summary(self) -> dict[str, float]:
        """Return the mean loss and accuracy over the images seen since the last row."""
        loss, right, images, _ = (float(value) for value in self.stepper.totals.numpy())
        return {"loss": loss / images, "accuracy": right / images} if images else {"loss": math.nan, "accuracy": 0.0}

    def _end_epoch(self, board: TensorBoard) -> None:
        epoch = self._epoch(self.step)
        logs: dict[str, Any] = {}
        if epoch % self.recipe.train.evaluate_every == 0 or self.step == self.until:
            self._check_finite()
            row = self._row(epoch)
            self.history.append(row)
            self.stepper.totals.assign(np.zeros(4))
            self.progress.row(row)
            self.run.write_history(self.history)
            board.add(row)
            logs = {key: value for key, value in row.items() if key not in ("epoch", "step")}
        self._callbacks.on_epoch_end(epoch - 1, logs)

    def _row(self, epoch: int) -> dict[str, Any]:
        row: dict[str, Any] = {"epoch": epoch, "step": self.step}
        row["rate"] = self.stepper.rate
        row |= self._summary()
        if self.recipe.train.precision == "mixed_float16":
            row["skipped"] = int(self.stepper.totals.numpy()[3])
        if self.evaluate is not None:
            self._swap_averages()
            row |= self.evaluate()
            if row["val_accuracy"] > self.best:
                self.best = row["val_accuracy"]
                if self.recipe.train.select == "best":
                    weights = {name: v.numpy() for name, v in self._variables.items() if name.startswith("model/")}
                    checkpoint.save(self.run.checkpoints / "best.npz", weights, self._meta())
            self._swap_averages()
        return row

    def _swap_averages(self) -> None:
        """Exchange the weights and their running averages; a second call exchanges them back."""
        for weight, average in zip(self.stepper.weights, self.stepper.averages, strict=False):
            now, mean = weight.numpy(), average.numpy()
            weight.assign(mean)
            average.assign(now)

    def _checkpoint_due(self) -> bool:
        every = self.recipe.train.checkpoint_every
        return self.step == self.until or (self.step % every == 0 if every else self._epoch_ends())

    def _save(self) -> None:
        arrays = {name: variable.numpy() for name, variable in self._variables.items()}
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise self._diverged(f"{name.split('/', 2)[-1]} holds values that are no numbers")
        checkpoint.save(checkpoint.step_path(self.run.checkpoints, self.step), arrays, self._meta())
        checkpoint.prune(self.run.checkpoints)

    def _meta(self) -> dict[str, Any]:
        return {
            "net": self.model.name,
            "step": self.step,
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
        }

    def _check_finite(self) -> None:
        if not math.isfinite(self._summary()["loss"]):
            raise self._diverged("the loss is not a number")

    def _diverged(self, what: str) -> ReszooError:
        good = checkpoint.steps(self.run.checkpoints)
        kept = f"the last good checkpoint is {good[-1]}" if good else "there was no checkpoint yet"
        return ReszooError(
            f"at step {self.step} {what}; {kept}; try a lower schedule.rate, a longer warm-up or train.clip_norm"
        )


def thawed(recipe: Recipe, step: int) -> str:
    """Return the line that tells the end of a probe."""
    *lower, head = recipe.places[len(recipe.frozen) :]
    norms = ["the frozen normalisations"] if recipe.frozen and recipe.finetune.batch_norm == "train" else []
    now = ", ".join([*norms, *lower])
    return f"step {step}: the classifier has learnt alone; now {now} and {head} learn"


@contextlib.contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into an event; a second one acts as it would have."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        event.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for caught in (signal.SIGINT, signal.SIGTERM):
        before[caught] = signal.signal(caught, handle)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
