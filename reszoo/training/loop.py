"""The training loop: steps, epochs, evaluations and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import keras

from reszoo.config.recipe import Recipe
from reszoo.config.schedule import validation_score
from reszoo.reporting.reporter import Reporter
from reszoo.training.callbacks import Callbacks
from reszoo.training.checkpoint import Checkpoint
from reszoo.training.finetuning import describe_unfreezing
from reszoo.training.progress import Progress
from reszoo.training.protocols import Evaluator, Pipeline, Stepper
from reszoo.training.run import Run
from reszoo.training.state import BEST, RESULT, TrainingState
from reszoo.training.stopping import Stopping, is_out_of_patience
from reszoo.training.tensorboard import TensorBoard
from reszoo.training.workers import Workers
from reszoo.types import JsonObject, Tensor

CHECK_EVERY = 50  # steps between checks that the loss is finite


class Loop:
    """Trains a model by a recipe, from its first step or from the newest checkpoint.

    Callbacks see the weights that are evaluated and exported: with `train.ema` the averaged ones.

    Args:
        run: The run folder.
        recipe: The recipe.
        stepper: Updates the model.
        pipeline: The data.
        reporter: Reports to the terminal and to train.log.
        workers: The workers of the run; all call the same methods.
        evaluate: Returns val_loss and val_accuracy, and passes its batches through its argument.
        callbacks: Keras callbacks, as `check_callbacks` returns them.

    Attributes:
        total: Steps of the whole run.
        part: The part of each batch that this worker reads; None on one host.
        stopping: Whether a signal or a callback stops training.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        stepper: Stepper,
        pipeline: Pipeline,
        reporter: Reporter,
        workers: Workers,
        evaluate: Evaluator | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        self.run, self.recipe, self.stepper, self.pipeline = run, recipe, stepper, pipeline
        self.reporter, self.evaluate, self.model = reporter, evaluate, stepper.model
        self.progress = Progress(reporter)
        self.state = TrainingState(run, stepper, workers)
        self.stopping = Stopping(workers, stepper, recipe.train.worker_timeout)
        self.part = stepper.part if workers.count > 1 else None
        self.total = recipe.total_steps(pipeline.steps_per_epoch)
        self.probe = recipe.probe_steps(pipeline.steps_per_epoch)
        self.until = self.total
        self._logs: JsonObject = {}  # of the last epoch
        self._resumed: Checkpoint | None = None
        self._callbacks = Callbacks(
            callbacks,
            model=self.model,
            optimizer=stepper.optimizer,
            recipe=recipe,
            show=self.state.averaging.show,
            params={
                "verbose": 0 if reporter.quiet else 1,
                "epochs": self._epoch(self.total),
                "steps": pipeline.steps_per_epoch,
                "batch_size": recipe.train.batch_size,
            },
        )

    @property
    def step(self) -> int:
        """Updates so far."""
        return self.state.step

    @property
    def history(self) -> list[JsonObject]:
        """The rows of the history so far."""
        return self.state.history

    @property
    def complete(self) -> bool:
        """Whether training has ended: at its last step, or by a callback."""
        return self.step == self.total or self.state.ended

    @property
    def callback_names(self) -> list[str]:
        """The class names of the callbacks that a resumed run must be given again."""
        return self._callbacks.names[len(self.recipe.train.callbacks) :]

    def resume(self) -> None:
        """Return to the newest readable checkpoint.

        Raises:
            ReszooError: If it belongs to another model or recipe.
        """
        self._resumed = self.state.restore_newest(self.reporter.line)

    def fit(self, until: int = 0) -> bool:
        """Train to the end; return False if a signal or `until` stopped training before.

        At the end the model holds the weights that the recipe selects, or those that a callback
        restored. Either way there is a checkpoint of the last step.

        Args:
            until: Stop after so many steps of the whole run, and evaluate there; 0 for the end.

        Raises:
            ReszooError: If the loss is not finite; the last good checkpoint stays.
        """
        self.until = min(until or self.total, self.total)
        self.run.write_history(self.history)
        if self.complete and self.state.load_weights(RESULT, of_this_step=True):
            return True
        board = TensorBoard(self.run, self.history)
        try:
            self._begin()
            with self.stopping.catch_signals():
                if not self.complete:
                    self._take_steps(board)
        finally:
            self.progress.end()
            board.close()
        self._end()
        return self.complete

    def _begin(self) -> None:
        """Start the callbacks and the progress bar."""
        self.model.stop_training = False
        if self._resumed is None:
            self._callbacks.begin(self.scheduled_rate(self.step))
        else:
            self._callbacks.begin(None)
            epoch, position = divmod(self.step, self.pipeline.steps_per_epoch)
            if position:  # callbacks also need in mid-epoch what they set up at its start
                self._callbacks.call("on_epoch_begin", epoch, None)
            # The first process contains the changes that callbacks made as they began.
            self.state.restore(self._resumed)
            records = self._resumed.meta.get("callbacks", [])
            for line in self._callbacks.restore(records, self._resumed.arrays):
                self.reporter.line(line)
            self._callbacks.take_learning_rate()
            self.model.stop_training = self.state.ended
            self._resumed = None
        self.progress.begin(self.step, self.total)

    def _end(self) -> None:
        """Put the weights that the recipe selects into the model; callbacks may replace them."""
        best = self.complete and self.recipe.train.select == "best"
        if not (best and self.state.load_weights(BEST)):
            self.state.averaging.show()
        self._callbacks.call("on_train_end", self._logs)
        # What callbacks did to the weights cannot be repeated after a restart.
        if self.complete and self._callbacks.may_change("on_train_end"):
            self.state.save_weights(RESULT)

    def _take_steps(self, board: TensorBoard) -> None:
        """Take steps up to `until`, or until a signal or a callback stops training."""
        begun, self._first = time.monotonic() - self.state.seconds, self.step
        batches = self.pipeline.train(self.step, self.part)
        for images, labels in batches.take(max(self.until - self.step, 0)):
            self._take_step(images, labels)
            self.state.seconds = time.monotonic() - begun
            self._after_step()
            if self._epoch_ends():
                self._end_epoch(board)
            self.state.ended = self.stopping.ended
            stop = self.stopping.signalled or self.state.ended
            if stop or self._checkpoint_due():
                self.state.save(*self._callbacks.state())
            if stop:
                break

    def _take_step(self, images: Tensor, labels: Tensor) -> None:
        epoch, position = divmod(self.step, self.pipeline.steps_per_epoch)
        if not position:
            self._callbacks.call("on_epoch_begin", epoch, None)
        self._callbacks.call("on_train_batch_begin", position, None)
        self.state.averaging.hide()
        set_by_callback = self._callbacks.learning_rate
        rate = self.scheduled_rate(self.step) if set_by_callback is None else set_by_callback
        if self.probe and self.step == self.probe:
            self.stepper.restart()
            self.reporter.line(describe_unfreezing(self.recipe, self.step))
        self.stepper.share = self.recipe.train.ema_share(self.step, self.pipeline.steps_per_epoch)
        take_step = self.stepper.probe if self.step < self.probe else self.stepper
        self.stepper.radius = self.recipe.optimizer.sam_radius_at(self.step)
        starts = (self._first, self.probe, *self.pipeline.train_sizes)
        traces = self.recipe.optimizer.sam_interval  # steps until both kinds of step were traced
        first = any(0 <= self.step - start < traces for start in starts)
        with self.stopping.limit(first=first):
            take_step(images, labels, rate, self.pipeline.rows(self.step), self.stopping.wishes)
        self._callbacks.stepped(rate)

    def scheduled_rate(self, step: int) -> float:
        """Return the schedule's learning rate of an update, numbered from 0."""
        return self.recipe.schedule.rate_at(
            step,
            total_steps=self.total,
            steps_per_epoch=self.pipeline.steps_per_epoch,
            batch_size=self.recipe.train.batch_size,
            history=self.history,
        )

    def _after_step(self) -> None:
        logs = None
        if self._callbacks.wants("on_train_batch_end"):
            logs = self.state.epoch_mean()
        position = self.step % self.pipeline.steps_per_epoch
        self._callbacks.call("on_train_batch_end", position, logs)
        self.state.step += 1
        if self.step % CHECK_EVERY == 0:
            self._check_finite()
        self.progress.step(self.step, self.state.mean)
        self.stopping.after_step(self.step, last=self._epoch_ends())

    def _epoch(self, step: int) -> int:
        return math.ceil(step / self.pipeline.steps_per_epoch)

    def _epoch_ends(self) -> bool:
        last = self.step % self.pipeline.steps_per_epoch == 0 or self.step == self.until
        return last or self.stopping.ended

    def _end_epoch(self, board: TensorBoard) -> None:
        epoch = self._epoch(self.step)
        logs = self.state.epoch_mean()
        learning_rate = self.stepper.rate
        regular = epoch % self.recipe.train.evaluate_every == 0
        due = regular or self.step == self.until or self.stopping.ended
        if due:
            row = self._add_row(epoch, board)
            known = ("epoch", "step", "rate", *logs)
            logs |= {key: value for key, value in row.items() if key not in known}
        else:
            self.state.start_epoch()
        self._logs = logs | {"learning_rate": learning_rate}
        self._callbacks.call("on_epoch_end", epoch - 1, self._logs)
        train = self.recipe.train
        if due and is_out_of_patience(self.history, train) and self.step < self.total:
            self.model.stop_training = True
            score = f"{train.patience} evaluations without a better validation {train.patience_on}"
            self.reporter.line(f"training ends early: {score} (train.patience)")
        if self._callbacks.given or train.patience:
            self.stopping.after_epoch()
        if self.stopping.ended and not due:
            self._add_row(epoch, board)

    def _add_row(self, epoch: int, board: TensorBoard) -> JsonObject:
        """Evaluate, and add a row to the history."""
        self._check_finite()
        row = self._row(epoch)
        self.history.append(row)
        self.state.reset_sums()
        self.progress.row(row)
        self.run.append_history(self.history)
        board.add(row)
        return row

    def _row(self, epoch: int) -> JsonObject:
        row: JsonObject = {"epoch": epoch, "step": self.step, "rate": self.stepper.rate}
        row |= self.state.mean()
        if self.recipe.data.train_sizes:
            sizes = self.pipeline.train_sizes
            row["train_size"] = min(sizes[max(first for first in sizes if first < self.step)])
        if self.recipe.train.precision == "mixed_float16":
            row["skipped"] = self.state.skipped
        if self.evaluate is not None:
            self.state.averaging.show()
            row |= self._callbacks.around(self.evaluate)
            score = validation_score(row) or 0.0
            if score > self.state.best:
                self.state.best = score
                if self.recipe.train.select == "best":
                    self.state.save_weights(BEST)
        return row

    def _checkpoint_due(self) -> bool:
        every = self.recipe.train.checkpoint_every
        return self.step == self.until or (self.step % every == 0 if every else self._epoch_ends())

    def _check_finite(self) -> None:
        if not math.isfinite(self.state.mean()["loss"]):
            raise self.state.diverged("the loss is not a number")
