"""A run by Keras' own `fit`: the engine on Keras' JAX backend, with the checkpoints, rows and ends of `Loop`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from reszoo.data.resident import Resident
from reszoo.errors import ReszooError
from reszoo.training.loop import Loop
from reszoo.training.planned import Totals, make_planned, row_losses
from reszoo.training.recipe import Recipe
from reszoo.training.run import TensorBoard
from reszoo.training.schedule import rate


def refuse_unfit(recipe: Recipe) -> None:
    """Raise ReszooError for what a recipe asks of the TensorFlow engine alone."""
    train, schedule, finetune = recipe.train, recipe.schedule, recipe.finetune
    reasons = {
        f"train.accumulate = {train.accumulate}": train.accumulate > 1,
        'train.precision = "mixed_float16" (mixed_bfloat16 works)': train.precision == "mixed_float16",
        "train.grow_from": bool(train.grow_from),
        'schedule.kind = "plateau"': schedule.kind == "plateau",
        "finetune.probe_epochs": finetune.probe_epochs > 0,
        "finetune.stage_decay": finetune.stage_decay != 1,
        "train.jit (JAX compiles every step)": train.jit,
        "data.on_device (under JAX the images always stay on the device)": recipe.data.on_device,
    }
    for what, asked in reasons.items():
        if asked:
            raise ReszooError(f"{what} needs Keras' TensorFlow backend; unset KERAS_BACKEND, or leave it out")


class FitStepper:
    """A model compiled to be trained by `fit` as `Stepper` would, with what `Loop` asks of a stepper."""

    def __init__(self, model: keras.Model, recipe: Recipe, steps_per_epoch: int) -> None:
        train, total = recipe.train, recipe.total_steps(steps_per_epoch)
        rates = [
            rate(recipe.schedule, step, total_steps=total, steps_per_epoch=steps_per_epoch, batch_size=train.batch_size)
            for step in range(total)
        ]
        self.model = model
        self.optimizer = make_planned(recipe.optimizer, train, np.array(rates))
        self.weights = model.trainable_variables
        self.optimizer.build(self.weights)
        self.averages = self.optimizer.averages
        metric = Totals(train.label_smoothing)
        self.totals = metric.sums

        def loss(labels: Any, logits: Any) -> Any:
            return row_losses(ops.cast(ops.reshape(labels, [-1]), "int32"), logits, train.label_smoothing)

        # By the name of the second one Keras' callbacks know in which direction an accuracy is better.
        metrics = [metric, keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        model.compile(self.optimizer, loss=loss, metrics=metrics, auto_scale_loss=False)

    @property
    def rate(self) -> float:
        """The rate of the last update."""
        rates = self.optimizer._rates
        return float(rates[min(max(int(self.optimizer.iterations.numpy()) - 1, 0), len(rates) - 1)])

    def spread_seeds(self) -> None:
        """Nothing: one program serves all devices, with masks of the whole batch."""

    def state(self) -> dict[str, Any]:
        """Return every variable besides the model's, by the names of `Stepper.state`."""
        slots = self.optimizer.variables[: len(self.optimizer.variables) - len(self.averages)]
        averages = {f"average/{weight.path}": mean for weight, mean in zip(self.weights, self.averages, strict=False)}
        return {f"optimizer/{index}": v for index, v in enumerate(slots)} | averages | {"totals": self.totals}


class FitLoop(Loop):
    """`Loop` whose steps are taken by `model.fit`, an epoch a call."""

    pipeline: Resident  # type: ignore[assignment]
    _batch_logs: dict[str, Any]

    def _take_steps(self, book: Callable[[], bool]) -> None:
        watch = _Watch(self, book)
        while self.step < self.until and not watch.stop:
            epoch = self.pipeline.steps_per_epoch
            steps = min(epoch - self.step % epoch, self.until - self.step)
            batches = _Batches(self.pipeline, self.step)
            self.model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[watch])

    def _sums(self) -> np.ndarray:
        return np.array([float(self._batch_logs[name]) for name in ("loss_sum", "right", "images")] + [0.0])

    # `fit` keeps weights, slots and sums apart from the model while it runs.

    def _end_epoch(self, board: TensorBoard) -> None:
        self.model.jax_state_sync()
        super()._end_epoch(board)

    def _save(self) -> None:
        self.model.jax_state_sync()
        super()._save()


class _Batches(keras.utils.PyDataset):
    """Training batches from step `start` on."""

    def __init__(self, pipeline: Resident, start: int) -> None:
        super().__init__()
        self._pipeline, self._start = pipeline, start

    @property
    def num_batches(self) -> None:
        """None: as many as are asked for."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._pipeline.batch(self._start + index)


class _Watch(keras.callbacks.Callback):
    """Does around each of `fit`'s steps what `Loop` does around its own."""

    def __init__(self, loop: FitLoop, book: Callable[[], bool]) -> None:
        super().__init__()
        self._loop, self._book = loop, book
        self.stop = False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._loop._before_step()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._loop._batch_logs = logs or {}
        self.stop = self.model.stop_training = self._book()
