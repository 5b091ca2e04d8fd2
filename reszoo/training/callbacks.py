"""Keras callbacks in the training loop: when each hook is called, and with which weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from reszoo.config.recipe import Recipe
from reszoo.data.batches import Batch
from reszoo.errors import ReszooError
from reszoo.training.callback_checks import class_name, second_schedule, sets_learning_rate
from reszoo.training.callback_state import (
    Unsupported,
    encode_attributes,
    equal,
    own_classes,
    restore_value,
    store_value,
)
from reszoo.training.protocols import Evaluator
from reszoo.types import Array, JsonObject

BATCH_HOOKS = ("on_train_batch_begin", "on_train_batch_end")
# A hook that calls another one unless it is overridden.
ALIASES = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}
# Keras' callbacks whose hooks neither read nor change the weights or the learning rate.
BYSTANDERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.History,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TerminateOnNaN,
)


class Callbacks:
    """Calls the hooks of Keras callbacks one callback after the other, as `Model.fit` does.

    Args:
        callbacks: The callbacks, as `check_callbacks` returns them.
        model: The model in training.
        optimizer: The optimizer, whose learning rate callbacks may set if `settable`.
        recipe: The recipe of the run.
        show: Puts into the model the weights that are evaluated and saved.
        params: What callbacks find in `params`.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        *,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        recipe: Recipe,
        show: Callable[[], None],
        params: JsonObject,
    ) -> None:
        self.given = list(callbacks)
        self._kept = [
            callback for callback in self.given if not getattr(callback, "ignores_model", False)
        ]
        self._model, self._optimizer, self._recipe, self._show = model, optimizer, recipe, show
        self._settable = sets_learning_rate(recipe)
        self._variable = optimizer._learning_rate
        self._params = dict(params)
        self._all: list[keras.callbacks.Callback] = []
        self._before: list[JsonObject] = []
        self.learning_rate: float | None = None
        """The learning rate that a callback may have set; None while the schedule sets it."""
        self._seen = 0.0

    @property
    def names(self) -> list[str]:
        """The class names of the callbacks that a resumed run must be given again."""
        return [class_name(callback) for callback in self._kept]

    def begin(self, learning_rate: float | None) -> None:
        """Call on_train_begin.

        Args:
            learning_rate: The first learning rate; None on a resume, to keep the optimizer's.
        """
        if learning_rate is not None and self._variable is not None:
            self._variable.assign(learning_rate)
        self.take_learning_rate()
        for callback in self.given if learning_rate is None else ():
            if isinstance(callback, keras.callbacks.CSVLogger):
                callback.append = True  # the file holds the epochs before the checkpoint
        if self.given and not self._all:
            made = keras.callbacks.CallbackList(
                self.given, add_history=True, model=self._model, **self._params
            )
            self._all = made.callbacks
        self.call("on_train_begin", None)
        self._before = [encode_attributes(callback) for callback in self._kept]

    def take_learning_rate(self) -> None:
        """Take the learning rate that the optimizer holds, if callbacks may set it."""
        self._seen = self._value()
        self.learning_rate = self._seen if self._settable else None

    def stepped(self, learning_rate: float) -> None:
        """Note the learning rate of the step that was just taken."""
        self._seen = float(np.float32(learning_rate))

    def wants(self, *hooks: str) -> bool:
        """Return whether a callback overrides one of the hooks and uses its logs."""
        return any(
            _overrides(each, hook)
            for each in self._all
            for hook in hooks
            if not _ignores_logs(each, hook)
        )

    def may_change(self, hook: str) -> bool:
        """Return whether a callback that overrides the hook may change the model there."""
        return any(_overrides(each, hook) and _is_concerned(each, hook) for each in self._all)

    def call(self, hook: str, *arguments: Any) -> None:
        """Call a hook of each callback that overrides it.

        Meanwhile the model holds the weights that are evaluated.

        Raises:
            ReszooError: If a callback set the learning rate although the schedule does.
        """
        for callback in self._all:
            if not _overrides(callback, hook):
                continue
            concerned = _is_concerned(callback, hook)
            if concerned:
                self._show()
            try:
                getattr(callback, hook)(*arguments)
            except ReszooError:
                raise
            except Exception as error:
                error.add_note(f"raised in {hook} of the callback {class_name(callback)}")
                raise
            if concerned:
                self._look(callback)

    def around(self, evaluate: Evaluator) -> dict[str, float]:
        """Return the validation scores; hooks are called around it and each batch, as in Keras."""

        def watch(batches: Iterable[Batch]) -> Iterator[Batch]:
            for index, batch in enumerate(batches):
                self.call("on_test_batch_begin", index, None)
                yield batch
                self.call("on_test_batch_end", index, {})

        self.call("on_test_begin", None)
        scores = dict(evaluate(watch))
        logs = {key.removeprefix("val_"): value for key, value in scores.items()}
        self.call("on_test_end", logs)
        return scores

    def _value(self) -> float:
        return float(keras.ops.convert_to_numpy(self._variable.value))

    def _look(self, callback: keras.callbacks.Callback) -> None:
        """Take the learning rate that `callback` set, or reject it."""
        if (
            self._model.optimizer is not self._optimizer
            or self._optimizer._learning_rate is not self._variable
        ):
            raise ReszooError(
                f"callbacks: {class_name(callback)} replaced the optimizer or its learning rate by "
                "another object; expected a number. Example: "
                "self.model.optimizer.learning_rate = 0.01"
            )
        value = self._value()
        if value == self._seen:
            return
        if not self._settable:
            raise second_schedule(
                f"{class_name(callback)} sets the learning rate (to {value:g})", self._recipe
            )
        self._seen = self.learning_rate = value

    def state(self) -> tuple[list[JsonObject], dict[str, Array]]:
        """Return what a checkpoint keeps: one record per callback, and the arrays they name."""
        records: list[JsonObject] = []
        arrays: dict[str, Array] = {}
        for index, (callback, before) in enumerate(zip(self._kept, self._before, strict=True)):
            after = encode_attributes(callback)
            changed = {
                name: value
                for name, value in after.items()
                if not equal(value, before.get(name, _MISSING))
            }
            lost = sorted(name for name, value in changed.items() if isinstance(value, Unsupported))
            record: JsonObject = {"class": class_name(callback)}
            if lost:
                record["lost"] = lost[0]
            else:
                record["state"] = {
                    name: store_value(value, f"callback/{index}/{name}", arrays)
                    for name, value in changed.items()
                }
            records.append(record)
        return records, arrays

    def restore(self, records: Sequence[JsonObject], arrays: Mapping[str, Array]) -> list[str]:
        """Restore the state of the callbacks; return one line per callback that starts anew.

        Callbacks of the same class are matched in their order.
        """
        left, lines = list(records), []
        for callback in self._kept:
            match = next(
                (record for record in left if record["class"] == class_name(callback)), None
            )
            if match is None:
                name = class_name(callback)
                lines.append(f"callback {name} starts anew: the checkpoint was written without it")
                continue
            left.remove(match)
            if "lost" in match:
                lines.append(
                    f"callback {class_name(callback)} starts anew: a checkpoint cannot hold its "
                    f"attribute {match['lost']}"
                )
            for name, value in match.get("state", {}).items():
                setattr(callback, name, restore_value(value, arrays))
        for record in left:
            lines.append(
                f"callback {record['class']} is missing: the run had it until this checkpoint"
            )
        return lines


_MISSING = object()


def _overrides(callback: keras.callbacks.Callback, hook: str) -> bool:
    """Return whether a callback overrides a hook, or its alias."""
    hooks = {hook, ALIASES.get(hook, hook)}
    if hooks & vars(callback).keys():
        return True
    return any(hooks & vars(kind).keys() for kind in own_classes(callback))


def _ignores_logs(callback: keras.callbacks.Callback, hook: str) -> bool:
    return bool(getattr(callback, "ignores_model", False)) or (
        hook in BATCH_HOOKS and _waits_for_epoch(callback)
    )


def _waits_for_epoch(callback: keras.callbacks.Callback) -> bool:
    """Return whether a Keras callback overrides batch hooks, but uses neither logs nor model."""
    if type(callback) in (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore):
        return bool(callback.save_freq == "epoch")
    return type(callback) is keras.callbacks.TensorBoard and callback.update_freq == "epoch"


def _is_concerned(callback: keras.callbacks.Callback, hook: str) -> bool:
    """Return whether a hook may read or change the weights or the learning rate."""
    if type(callback) in BYSTANDERS or getattr(callback, "ignores_model", False):
        return False
    if hook in BATCH_HOOKS and type(callback) is keras.callbacks.TensorBoard:
        return False
    return not (hook in BATCH_HOOKS and _waits_for_epoch(callback))
