"""Keras callbacks in the training loop: what is rejected, when each hook is called, and what a checkpoint keeps of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError, did_you_mean

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
# Attributes that Keras' callbacks make anew by themselves; `min_delta` changes its sign when they do.
REMADE = {
    *("_model", "params", "model", "monitor_op", "min_delta"),  # any callback, those with a monitor
    *("csv_file", "writer", "keys", "append_header"),  # CSVLogger
    *("_writers", "_summary_module", "_prev_summary_state", "_batch_trace_context", "_is_tracing"),  # TensorBoard
    *("_profiler_started", "_should_trace", "_should_write_train_graph"),
    *("progbar", "seen", "target", "_called_in_fit"),  # ProgbarLogger
}
CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {"list": list, "tuple": tuple, "set": set, "deque": deque}


def check_callbacks(
    callbacks: Any, recipe: Recipe, *, validation: bool, resume: bool = False
) -> list[keras.callbacks.Callback]:
    """Return the callbacks as a flat list.

    Args:
        callbacks: One callback, or nested lists of them, as `Model.fit` takes them.
        recipe: The recipe of the run.
        validation: Whether validation images are held out.
        resume: Whether the run resumes from a checkpoint of its own.

    Raises:
        ReszooError: For a callback that could not do in this run what it is for.
    """
    found: list[keras.callbacks.Callback] = []
    for given in keras.tree.flatten(callbacks) if callbacks else []:
        if not isinstance(given, keras.callbacks.Callback):
            shown = given.__name__ if isinstance(given, type) else repr(given)
            raise ReszooError(
                f"callbacks: {shown} is invalid; expected instances of keras.callbacks.Callback. "
                "Example: callbacks=[keras.callbacks.CSVLogger('log.csv')]"
            )
        found += given.callbacks if isinstance(given, keras.callbacks.CallbackList) else [given]
    known = ["loss", "accuracy", "learning_rate", *(["val_loss", "val_accuracy"] if validation else [])]
    known += ["skipped"] if recipe.train.precision == "mixed_float16" else []
    own = [callback for callback in found if not type(callback).__module__.startswith("keras.")]
    for callback in found:
        if isinstance(callback, keras.callbacks.SwapEMAWeights):
            raise ReszooError(
                "callbacks: SwapEMAWeights is invalid; expected the recipe key train.ema, which shows the averaged "
                'weights to every callback. Example: overrides=["train.ema=0.999"]'
            )
        if isinstance(callback, keras.callbacks.LearningRateScheduler | keras.callbacks.ReduceLROnPlateau):
            _refuse_second_schedule(callback, recipe)
        if isinstance(callback, keras.callbacks.BackupAndRestore) and not resume:
            _refuse_backup(callback)
        monitor = _monitor(callback)
        # A callback that somebody wrote may add keys to the logs.
        if monitor and monitor not in known and (not own or _mode(callback) == "auto"):
            raise _unknown_monitor(callback, monitor, known, validation)
        if isinstance(callback, keras.callbacks.ModelCheckpoint) and not own:
            _check_file_name(callback, known)
    return found


def sets_learning_rate(recipe: Recipe) -> bool:
    """Return whether callbacks may set the learning rate: the schedule sets it once, at the start."""
    return recipe.schedule.kind == "constant" and not recipe.schedule.warmup


def _name(callback: keras.callbacks.Callback) -> str:
    return type(callback).__name__


def _refuse_second_schedule(callback: keras.callbacks.Callback, recipe: Recipe) -> None:
    if not sets_learning_rate(recipe):
        raise second_schedule(f"{_name(callback)} sets the learning rate", recipe)


def second_schedule(what: str, recipe: Recipe) -> ReszooError:
    """Return the error for a callback that sets the learning rate although the schedule does."""
    schedule = recipe.schedule
    other = f'schedule.kind = "{schedule.kind}"' if schedule.kind != "constant" else "schedule.warmup"
    return ReszooError(
        f'callbacks: {what}, and so does {other}; expected schedule.kind = "constant" without warmup. '
        'Example: overrides=["schedule.kind=constant", "schedule.warmup=0"]'
    )


def _refuse_backup(callback: keras.callbacks.BackupAndRestore) -> None:
    if (Path(os.fspath(callback.backup_dir)) / "latest.weights.h5").exists():
        raise ReszooError(
            f"callbacks: BackupAndRestore: {callback.backup_dir} holds the backup of an earlier run; expected an empty "
            "folder, because a run resumes from its own checkpoints. Example: resume=True with that run's run_dir"
        )


def _monitor(callback: keras.callbacks.Callback) -> str:
    """Return what a callback of Keras' monitors, or nothing if it does not use that."""
    monitor = getattr(callback, "monitor", None)
    if not isinstance(monitor, str) or not hasattr(callback, "mode"):
        return ""
    unused = getattr(callback, "save_best_only", True) is False
    return "" if unused and (_mode(callback) != "auto" or monitor.removeprefix("val_") == "loss") else monitor


def _mode(callback: keras.callbacks.Callback) -> str:
    return str(getattr(callback, "mode", "auto"))


def _unknown_monitor(
    callback: keras.callbacks.Callback, monitor: str, known: list[str], validation: bool
) -> ReszooError:
    if monitor.startswith("val_") and not validation:
        more = "no validation images are held out. Example: overrides=['data.validation=500']"
    else:
        more = f"Example: keras.callbacks.{_name(callback)}(monitor='{known[-1]}'){did_you_mean(monitor, known)}"
    return ReszooError(
        f"callbacks: {_name(callback)}: monitor '{monitor}' is invalid; expected one of {', '.join(known)}"
        + (f"; {more}" if more[0] == "n" else f". {more}")
    )


def _check_file_name(callback: keras.callbacks.ModelCheckpoint, known: list[str]) -> None:
    keys = ["epoch", "batch", "loss", "accuracy"] if callback.save_freq != "epoch" else ["epoch", *known]
    values = {key: 1 if key in ("epoch", "batch", "skipped") else 0.5 for key in keys}
    try:
        callback.filepath.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        raise ReszooError(
            f"callbacks: ModelCheckpoint: filepath '{callback.filepath}' is invalid ({error}); expected only the keys "
            f"{', '.join(keys)}. Example: 'best-{{epoch}}.keras'"
        ) from None


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
        params: Mapping[str, Any],
    ) -> None:
        self.given = list(callbacks)
        self._kept = [callback for callback in self.given if not getattr(callback, "ignores_model", False)]
        self._model, self._optimizer, self._recipe, self._show = model, optimizer, recipe, show
        self._settable = sets_learning_rate(recipe)
        self._variable = optimizer._learning_rate
        self._params = dict(params)
        self._all: list[keras.callbacks.Callback] = []
        self._before: list[dict[str, Any]] = []
        self.learning_rate: float | None = None
        """The learning rate that a callback may have set; None while the schedule sets it."""
        self._seen = 0.0

    @property
    def names(self) -> list[str]:
        """The class names of the callbacks that a resumed run must be given again."""
        return [_name(callback) for callback in self._kept]

    def begin(self, learning_rate: float | None) -> None:
        """Call on_train_begin.

        Args:
            learning_rate: The learning rate to start with. None on a resume, when it is the optimizer's.
        """
        if learning_rate is not None and self._variable is not None:
            self._variable.assign(learning_rate)
        self.take_learning_rate()
        for callback in self.given if learning_rate is None else ():
            if isinstance(callback, keras.callbacks.CSVLogger):
                callback.append = True  # the file holds the epochs before the checkpoint
        if self.given and not self._all:
            made = keras.callbacks.CallbackList(self.given, add_history=True, model=self._model, **self._params)
            self._all = made.callbacks
        self.call("on_train_begin", None)
        self._before = [_encoded_attributes(callback) for callback in self._kept]

    def take_learning_rate(self) -> None:
        """Go on with the learning rate that the optimizer holds, where callbacks may set it."""
        self._seen = self._value()
        self.learning_rate = self._seen if self._settable else None

    def stepped(self, learning_rate: float) -> None:
        """Note the learning rate of the step that was just taken."""
        self._seen = float(np.float32(learning_rate))

    def wants(self, *hooks: str) -> bool:
        """Return whether a callback overrides one of the hooks and uses its logs."""
        return any(_overrides(each, hook) for each in self._all for hook in hooks if not _ignores_logs(each, hook))

    def may_change(self, hook: str) -> bool:
        """Return whether a callback that overrides the hook may change the model there."""
        return any(_overrides(each, hook) and _is_concerned(each, hook) for each in self._all)

    def call(self, hook: str, *arguments: Any) -> None:
        """Call a hook of each callback that overrides it; the model holds the weights that are evaluated meanwhile.

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
                error.add_note(f"raised in {hook} of the callback {_name(callback)}")
                raise
            if concerned:
                self._look(callback)

    def _value(self) -> float:
        return float(keras.ops.convert_to_numpy(self._variable.value))

    def _look(self, callback: keras.callbacks.Callback) -> None:
        """Take over the learning rate that `callback` set, or reject it."""
        if self._model.optimizer is not self._optimizer or self._optimizer._learning_rate is not self._variable:
            raise ReszooError(
                f"callbacks: {_name(callback)} replaced the optimizer or its learning rate by another object; expected "
                "a number. Example: self.model.optimizer.learning_rate = 0.01"
            )
        value = self._value()
        if value == self._seen:
            return
        if not self._settable:
            raise second_schedule(f"{_name(callback)} sets the learning rate (to {value:g})", self._recipe)
        self._seen = self.learning_rate = value

    def state(self) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """Return what a checkpoint keeps: one record per callback, fit for JSON, and the arrays that they name."""
        records: list[dict[str, Any]] = []
        arrays: dict[str, np.ndarray] = {}
        for index, (callback, before) in enumerate(zip(self._kept, self._before, strict=True)):
            after = _encoded_attributes(callback)
            changed = {name: value for name, value in after.items() if not _equal(value, before.get(name, _MISSING))}
            lost = sorted(name for name, value in changed.items() if isinstance(value, _Opaque))
            record: dict[str, Any] = {"class": _name(callback)}
            if lost:
                record["lost"] = lost[0]
            else:
                record["state"] = {
                    name: _stored(value, f"callback/{index}/{name}", arrays) for name, value in changed.items()
                }
            records.append(record)
        return records, arrays

    def restore(self, records: Sequence[Mapping[str, Any]], arrays: Mapping[str, np.ndarray]) -> list[str]:
        """Give the callbacks the state that a checkpoint keeps; return the lines that say which could not be restored.

        A callback takes the state of the callback of the same class, the first the first's and so on.
        """
        left, lines = list(records), []
        for callback in self._kept:
            match = next((record for record in left if record["class"] == _name(callback)), None)
            if match is None:
                lines.append(f"callback {_name(callback)} starts anew: the checkpoint was written without it")
                continue
            left.remove(match)
            if "lost" in match:
                lines.append(
                    f"callback {_name(callback)} starts anew: a checkpoint cannot hold its attribute {match['lost']}"
                )
            for name, value in match.get("state", {}).items():
                setattr(callback, name, _read(value, arrays))
        for record in left:
            lines.append(f"callback {record['class']} is missing: the run had it until this checkpoint")
        return lines


_MISSING = object()


class _Opaque:
    """A value that a checkpoint cannot hold, equal to itself alone."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _overrides(callback: keras.callbacks.Callback, hook: str) -> bool:
    """Return whether a callback does something in a hook."""
    hooks = {hook, ALIASES.get(hook, hook)}
    if hooks & vars(callback).keys():
        return True
    return any(hooks & vars(kind).keys() for kind in _classes(callback))


def _classes(callback: keras.callbacks.Callback) -> list[type]:
    """Return the classes of a callback below keras.callbacks.Callback."""
    order = type(callback).__mro__
    return [kind for kind in order[: order.index(keras.callbacks.Callback)]]


def _ignores_logs(callback: keras.callbacks.Callback, hook: str) -> bool:
    return bool(getattr(callback, "ignores_model", False)) or (hook in BATCH_HOOKS and _waits_for_epoch(callback))


def _waits_for_epoch(callback: keras.callbacks.Callback) -> bool:
    """Return whether a callback of Keras' overrides batch hooks, but does nothing with logs or model there."""
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


def _encoded_attributes(callback: keras.callbacks.Callback) -> dict[str, Any]:
    remade = (
        REMADE if any(kind.__module__.startswith("keras.") for kind in _classes(callback)) else {"_model", "params"}
    )
    return {name: _encoded(value) for name, value in vars(callback).items() if name not in remade}


def _encoded(value: Any) -> Any:
    """Return a copy of a value made of numbers, text, arrays and containers; anything else becomes `_Opaque`."""
    if isinstance(value, np.ndarray | np.generic):  # NumPy's float64 is a float too
        return np.array(value) if value.dtype.kind in "biufSU" else _Opaque(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value) is dict:
        parts = [(_encoded(key), _encoded(item)) for key, item in value.items()]
        opaque = any(isinstance(part, _Opaque) for pair in parts for part in pair)
        return _Opaque(value) if opaque else {"dict": [list(pair) for pair in parts]}
    for name, kind in CONTAINERS.items():
        if type(value) is kind:
            items = [_encoded(item) for item in value]
            return _Opaque(value) if any(isinstance(item, _Opaque) for item in items) else {name: items}
    return _Opaque(value)


def _equal(one: Any, other: Any) -> bool:
    """Return whether two encoded values are the same."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        both = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
        return both and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, _Opaque) or isinstance(other, _Opaque):
        return isinstance(one, _Opaque) and isinstance(other, _Opaque) and one.value is other.value
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _stored(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return an encoded value fit for JSON; its arrays go to `arrays` under names that begin with `name`."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict):
        return {key: _stored(item, name, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_stored(item, f"{name}/{index}", arrays) for index, item in enumerate(value)]
    return value


def _read(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the value that `_stored` made fit for JSON."""
    if isinstance(value, dict):
        (kind, items), *_ = value.items()
        if kind == "array":
            return arrays[items] if arrays[items].ndim else arrays[items][()]
        read = [_read(item, arrays) for item in items]
        return dict(read) if kind == "dict" else CONTAINERS[kind](read)
    return [_read(item, arrays) for item in value] if isinstance(value, list) else value
