"""The training loop: batches to steps to epochs, with checkpoints from which a run goes on as if it had never stopped."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from reszoo.config.recipe import Recipe
from reszoo.data.pipeline import Pipeline
from reszoo.errors import ReszooError
from reszoo.reporting.reporter import Reporter
from reszoo.training import checkpoint
from reszoo.training.averaging import WeightAverages
from reszoo.training.callbacks import Callbacks
from reszoo.training.progress import Progress
from reszoo.training.run import Run
from reszoo.training.signals import stop_on_signal
from reszoo.training.step import Stepper
from reszoo.training.tensorboard import TensorBoard

CHECK_EVERY = 50  # steps between looks at whether the loss is still a number

RESULT = "result.npz"  # the weights that callbacks left at the end of training
Watch = Callable[[Iterable[Any]], Iterable[Any]]
Evaluate = Callable[[Watch], Mapping[str, float]]


class Loop:
    """One run of a recipe over a model, from its first step or from the newest checkpoint.

    Callbacks find in the model the weights that are evaluated and exported: the averaged ones with `train.ema`.

    Args:
        run: The run folder.
        recipe: The recipe.
        stepper: Updates the model.
        pipeline: The data.
        reporter: Reports to the terminal and to train.log.
        evaluate: Returns val_loss and val_accuracy of the model as it stands; it passes its batches through its argument.
            None without validation images.
        callbacks: Keras callbacks, as `check_callbacks` returns them.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        stepper: Stepper,
        pipeline: Pipeline,
        reporter: Reporter,
        evaluate: Evaluate | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        self.run, self.recipe, self.stepper, self.pipeline = run, recipe, stepper, pipeline
        self.reporter, self.evaluate = reporter, evaluate
        self.progress = Progress(reporter)
        self.model = stepper.model
        self.total = recipe.total_steps(pipeline.steps_per_epoch)
        self.probe = recipe.probe_steps(pipeline.steps_per_epoch)
        self.step = 0
        self.until = self.total
        self.signalled = self.ended = False  # by a signal; by a callback
        self.history: list[dict[str, Any]] = []
        self.best = -1.0
        self.seconds = 0.0
        self._logs: dict[str, Any] = {}  # of the last epoch
        self._epoch_start = np.zeros(4)  # the sums in `stepper.totals` when the epoch began
        self._resumed: checkpoint.Checkpoint | None = None
        self._averaging = WeightAverages(stepper.weights, stepper.averages)
        self._callbacks = Callbacks(
            callbacks,
            model=self.model,
            optimizer=stepper.optimizer,
            recipe=recipe,
            show=self._averaging.show,
            params={
                "verbose": 0 if reporter.quiet else 1,
                "epochs": self._epoch(self.total),
                "steps": pipeline.steps_per_epoch,
                "batch_size": recipe.train.batch_size,
            },
        )
        self._variables = {
            f"model/{index}/{v.path}": v for index, v in enumerate(self.model.variables)
        } | stepper.state()

    @property
    def complete(self) -> bool:
        """Whether training is over: at its last step, or where a callback ended it."""
        return self.step == self.total or self.ended

    @property
    def callback_names(self) -> list[str]:
        """The class names of the callbacks that a resumed run must be given again."""
        return self._callbacks.names

    def resume(self) -> None:
        """Return to the newest readable checkpoint. Raises ReszooError if it belongs to another model."""
        found = checkpoint.newest(self.run.checkpoints, self.reporter.line)
        if found is None:
            return
        if (net := found.meta["net"]) != self.model.name:
            raise ReszooError(
                f"checkpoint {found.path} is of {net}, but the recipe asks for {self.model.name}"
            )
        shapes = {name: tuple(variable.shape) for name, variable in self._variables.items()}
        if wrong := [
            name
            for name in shapes
            if name not in found.arrays or found.arrays[name].shape != shapes[name]
        ]:
            raise ReszooError(
                f"checkpoint {found.path} does not fit the recipe: {wrong[0]} is missing or of another shape"
            )
        self._resumed = found
        self._restore(found)
        self.step, self.history = found.meta["step"], found.meta["history"]
        self.best, self.seconds = found.meta["best"], found.meta["seconds"]
        self.ended = found.meta.get("ended", False)
        self._epoch_start = np.array(found.meta.get("epoch_start", [0.0] * 4))

    def _restore(self, found: checkpoint.Checkpoint) -> None:
        """Give every variable its value in a checkpoint."""
        self._averaging.forget()
        for name, variable in self._variables.items():
            variable.assign(found.arrays[name])
        self.stepper.spread_seeds()

    def fit(self, until: int = 0) -> bool:
        """Train to the end, or until a callback sets model.stop_training; return False when a signal or `until` stopped it.

        When training is over the model holds the weights that the recipe selects, or what a callback restored at its end.

        Args:
            until: Stop after so many steps of the whole run, as a signal would, and evaluate there; 0 for the end.

        Either way a checkpoint stands at the last step; `signalled` says whether a signal came, if only in the last one.

        Raises:
            ReszooError: When the loss is no longer a number; the last good checkpoint stays.
        """
        self.until = min(until or self.total, self.total)
        self.run.write_history(self.history)
        if self.complete and self._load_result():
            return True
        board = TensorBoard(self.run, self.history)
        try:
            self._begin()
            with stop_on_signal() as stopped:
                if not self.complete:
                    self._take_steps(board, stopped)
                self.signalled = stopped.is_set()
        finally:
            self.progress.end()
            board.close()
        self._end()
        return self.complete

    def _begin(self) -> None:
        """Start the callbacks, and the progress bar."""
        self.model.stop_training = False
        if self._resumed is None:
            self._callbacks.begin(self._rate(self.step))
        else:
            self._callbacks.begin(None)
            if (
                self.step % self.pipeline.steps_per_epoch
            ):  # what they set up there, they need in mid-epoch too
                self._callbacks.call(
                    "on_epoch_begin", self.step // self.pipeline.steps_per_epoch, None
                )
            # What callbacks changed as they began was changed in the first process too.
            self._restore(self._resumed)
            meta = self._resumed.meta
            for line in self._callbacks.restore(meta.get("callbacks", []), self._resumed.arrays):
                self.reporter.line(line)
            self._callbacks.take_learning_rate()
            self.model.stop_training = self.ended
            self._resumed = None
        self.progress.begin(self.step, self.total)

    def _end(self) -> None:
        """Leave in the model the weights that the recipe selects; callbacks may then replace them by others."""
        if not self.complete:
            self._averaging.show()
            self._callbacks.call("on_train_end", self._logs)
            return
        self._select()
        self._callbacks.call("on_train_end", self._logs)
        if self._callbacks.may_change(
            "on_train_end"
        ):  # what they did cannot be repeated after a restart
            weights = {
                name: v.numpy() for name, v in self._variables.items() if name.startswith("model/")
            }
            checkpoint.save(self.run.checkpoints / RESULT, weights, self._meta())

    def _select(self) -> None:
        """Leave in the model the weights that the recipe selects: the best, the averaged, or the last."""
        path = self.run.checkpoints / "best.npz"
        if self.recipe.train.select == "best" and path.is_file():
            self._averaging.forget()
            self._load_weights(checkpoint.load(path))
        else:
            self._averaging.show()

    def _load_result(self) -> bool:
        """Load the weights that an earlier process left at the end of training, if callbacks had a say in them."""
        path = self.run.checkpoints / RESULT
        if not path.is_file() or (found := checkpoint.load(path)).meta["step"] != self.step:
            return False
        self._load_weights(found)
        return True

    def _load_weights(self, found: checkpoint.Checkpoint) -> None:
        for name, variable in self._variables.items():
            if name.startswith("model/"):
                variable.assign(found.arrays[name])

    def _take_steps(self, board: TensorBoard, stopped: threading.Event) -> None:
        """Take steps up to `until`, or until `stopped` is set or a callback stops training."""
        begun = time.monotonic() - self.seconds
        for images, labels in self.pipeline.train(self.step).take(max(self.until - self.step, 0)):
            self._take_step(images, labels)
            self.seconds = time.monotonic() - begun
            self._after_step()
            if self._epoch_ends():
                self._end_epoch(board)
            self.ended = bool(self.model.stop_training)
            stop = stopped.is_set() or self.ended
            if stop or self._checkpoint_due():
                self._save()
            if stop:
                break

    def _take_step(self, images: Any, labels: Any) -> None:
        epoch, place = divmod(self.step, self.pipeline.steps_per_epoch)
        if not place:
            self._callbacks.call("on_epoch_begin", epoch, None)
        self._callbacks.call("on_train_batch_begin", place, None)
        self._averaging.hide()
        own = self._callbacks.learning_rate
        now = self._rate(self.step) if own is None else own
        if self.probe and self.step == self.probe:
            self.stepper.restart()
            self.reporter.line(thawed(self.recipe, self.step))
        take = self.stepper.probe if self.step < self.probe else self.stepper
        take(images, labels, now)
        self._callbacks.stepped(now)

    def learning_rates(self) -> list[tuple[int, float]]:
        """Return (step, learning rate) of each update so far, of at most some 10,000 evenly spaced ones.

        The schedule gives them. If a callback set another learning rate, only those in the history are known.
        """
        known = [(row["step"], row["rate"]) for row in self.history]
        if any(not math.isclose(rate, self._rate(step - 1), rel_tol=1e-6) for step, rate in known):
            return known
        return [
            (step, self._rate(step - 1))
            for step in range(1, self.step + 1, max(1, self.step // 10_000))
        ]

    def _rate(self, step: int) -> float:
        """Return the learning rate of an update, numbered from 0, by the schedule."""
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
            logs = _means(self._sums() - self._epoch_start)
        self._callbacks.call("on_train_batch_end", self.step % self.pipeline.steps_per_epoch, logs)
        self.step += 1
        if self.step % CHECK_EVERY == 0:
            self._check_finite()
        self.progress.step(self.step, self._summary)

    def _epoch(self, step: int) -> int:
        return math.ceil(step / self.pipeline.steps_per_epoch)

    def _epoch_ends(self) -> bool:
        at_end = self.step % self.pipeline.steps_per_epoch == 0 or self.step == self.until
        return at_end or bool(self.model.stop_training)

    def _sums(self) -> np.ndarray:
        """Return the loss summed over the images since the last row, right answers, images and skipped steps."""
        return np.array(self.stepper.totals.numpy(), np.float64)

    def _summary(self) -> dict[str, float]:
        """Return the mean loss and accuracy over the images seen since the last row."""
        return _means(self._sums())

    def _end_epoch(self, board: TensorBoard) -> None:
        epoch = self._epoch(self.step)
        learning_rate = self.stepper.rate
        logs = _means(self._sums() - self._epoch_start)
        due = (
            epoch % self.recipe.train.evaluate_every == 0
            or self.step == self.until
            or self.model.stop_training
        )
        if due:
            row = self._add_row(epoch, board)
            logs |= {
                key: value
                for key, value in row.items()
                if key not in ("epoch", "step", "rate", *logs)
            }
        else:
            self._epoch_start = self._sums()
        self._logs = logs | {"learning_rate": learning_rate}
        self._callbacks.call("on_epoch_end", epoch - 1, self._logs)
        if self.model.stop_training and not due:
            self._add_row(epoch, board)

    def _add_row(self, epoch: int, board: TensorBoard) -> dict[str, Any]:
        """Evaluate, and add a row to the history."""
        self._check_finite()
        row = self._row(epoch)
        self.history.append(row)
        self.stepper.totals.assign(np.zeros(4))
        self._epoch_start = np.zeros(4)
        self.progress.row(row)
        self.run.write_history(self.history)
        board.add(row)
        return row

    def _row(self, epoch: int) -> dict[str, Any]:
        row: dict[str, Any] = {"epoch": epoch, "step": self.step}
        row["rate"] = self.stepper.rate
        row |= self._summary()
        if self.recipe.train.precision == "mixed_float16":
            row["skipped"] = int(self._sums()[3])
        if self.evaluate is not None:
            self._averaging.show()
            row |= self._validate(self.evaluate)
            if row["val_accuracy"] > self.best:
                self.best = row["val_accuracy"]
                if self.recipe.train.select == "best":
                    weights = {
                        name: v.numpy()
                        for name, v in self._variables.items()
                        if name.startswith("model/")
                    }
                    checkpoint.save(self.run.checkpoints / "best.npz", weights, self._meta())
        return row

    def _validate(self, evaluate: Evaluate) -> dict[str, float]:
        """Return the validation scores, with Keras' hooks around them."""
        self._callbacks.call("on_test_begin", None)
        scores = dict(evaluate(self._watched))
        self._callbacks.call(
            "on_test_end", {key.removeprefix("val_"): value for key, value in scores.items()}
        )
        return scores

    def _watched(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Pass on batches, with Keras' hooks around each."""
        for index, batch in enumerate(batches):
            self._callbacks.call("on_test_batch_begin", index, None)
            yield batch
            self._callbacks.call("on_test_batch_end", index, {})

    def _checkpoint_due(self) -> bool:
        every = self.recipe.train.checkpoint_every
        return self.step == self.until or (self.step % every == 0 if every else self._epoch_ends())

    def _save(self) -> None:
        self._averaging.hide()
        arrays = {name: variable.numpy() for name, variable in self._variables.items()}
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise self._diverged(f"{name.split('/', 2)[-1]} holds values that are no numbers")
        records, more = self._callbacks.state()
        meta = self._meta() | {"callbacks": records}
        checkpoint.save(checkpoint.step_path(self.run.checkpoints, self.step), arrays | more, meta)
        checkpoint.prune(self.run.checkpoints)

    def _meta(self) -> dict[str, Any]:
        return {
            "net": self.model.name,
            "step": self.step,
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
            "ended": self.ended,
            "epoch_start": self._epoch_start.tolist(),
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


def _means(sums: np.ndarray) -> dict[str, float]:
    """Return the mean loss and accuracy of sums of loss, right answers, images and skipped steps."""
    loss, right, images, _ = (float(value) for value in sums)
    return (
        {"loss": loss / images, "accuracy": right / images}
        if images
        else {"loss": math.nan, "accuracy": 0.0}
    )


def thawed(recipe: Recipe, step: int) -> str:
    """Return the line that tells the end of a probe."""
    *lower, head = recipe.layer_groups[len(recipe.frozen_groups) :]
    norms = (
        ["the frozen normalisations"]
        if recipe.frozen_groups and recipe.finetune.batch_norm == "train"
        else []
    )
    now = ", ".join([*norms, *lower])
    return f"step {step}: the classifier has learnt alone; now {now} and {head} learn"
