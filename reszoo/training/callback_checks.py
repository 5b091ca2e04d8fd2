"""Which Keras callbacks are rejected before training, and why."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import keras

from reszoo.config.recipe import Recipe
from reszoo.config.schedule import ConstantSchedule
from reszoo.errors import ReszooError, did_you_mean


def check_callbacks(
    callbacks: object,
    recipe: Recipe,
    *,
    validation: bool,
    resume: bool = False,
    metrics: Sequence[keras.metrics.Metric] = (),
) -> list[keras.callbacks.Callback]:
    """Return the callbacks as a flat list.

    Args:
        callbacks: One callback, or nested lists of them, as `Model.fit` takes them.
        recipe: The recipe of the run.
        validation: Whether validation images are held out.
        resume: Whether the run resumes from a checkpoint of its own.
        metrics: Further metrics of the validation split.

    Raises:
        ReszooError: If a callback cannot work in this run.
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
    known = ["loss", "accuracy", "learning_rate"]
    names = ["loss", "accuracy", *(each.name for each in metrics)]
    names += ["mean_average_precision", "macro_f1"] if recipe.data.multi_label else []
    known += [f"val_{name}" for name in names] if validation else []
    known += ["skipped"] if recipe.train.precision == "mixed_float16" else []
    own = [callback for callback in found if not type(callback).__module__.startswith("keras.")]
    for callback in found:
        if isinstance(callback, keras.callbacks.SwapEMAWeights):
            raise ReszooError(
                "callbacks: SwapEMAWeights is invalid; expected the recipe key train.ema, which "
                "shows the averaged weights to every callback. Example: "
                'overrides=["train.ema=0.999"]'
            )
        if isinstance(
            callback, keras.callbacks.LearningRateScheduler | keras.callbacks.ReduceLROnPlateau
        ):
            _reject_second_schedule(callback, recipe)
        if isinstance(callback, keras.callbacks.BackupAndRestore) and not resume:
            _reject_backup(callback)
        monitor = _monitor(callback)
        # A user's own callback may add keys to the logs.
        if monitor and monitor not in known and (not own or _mode(callback) == "auto"):
            raise _unknown_monitor(callback, monitor, known, validation)
        if isinstance(callback, keras.callbacks.ModelCheckpoint) and not own:
            _check_file_name(callback, known)
    return found


def sets_learning_rate(recipe: Recipe) -> bool:
    """Return whether callbacks may set the learning rate, which is otherwise constant."""
    return isinstance(recipe.schedule, ConstantSchedule) and not recipe.schedule.warmup


def class_name(callback: keras.callbacks.Callback) -> str:
    """Return the name of a callback's class."""
    return type(callback).__name__


def _reject_second_schedule(callback: keras.callbacks.Callback, recipe: Recipe) -> None:
    if not sets_learning_rate(recipe):
        raise second_schedule(f"{class_name(callback)} sets the learning rate", recipe)


def second_schedule(what: str, recipe: Recipe) -> ReszooError:
    """Return the error for a callback that sets the learning rate although the schedule does."""
    schedule = recipe.schedule
    other = (
        f'schedule.kind = "{schedule.kind}"' if schedule.kind != "constant" else "schedule.warmup"
    )
    return ReszooError(
        f'callbacks: {what}, and so does {other}; expected schedule.kind = "constant" without '
        'warmup. Example: overrides=["schedule.kind=constant", "schedule.warmup=0"]'
    )


def _reject_backup(callback: keras.callbacks.BackupAndRestore) -> None:
    if (Path(os.fspath(callback.backup_dir)) / "latest.weights.h5").exists():
        raise ReszooError(
            f"callbacks: BackupAndRestore: {callback.backup_dir} holds the backup of an earlier "
            "run; expected an empty folder, because a run resumes from its own checkpoints. "
            "Example: resume=True with that run's run_dir"
        )


def _monitor(callback: keras.callbacks.Callback) -> str:
    """Return the metric that a callback monitors, or "" if it does not use one."""
    monitor = getattr(callback, "monitor", None)
    if not isinstance(monitor, str) or not hasattr(callback, "mode"):
        return ""
    unused = getattr(callback, "save_best_only", True) is False
    if unused and (_mode(callback) != "auto" or monitor.removeprefix("val_") == "loss"):
        return ""
    return monitor


def _mode(callback: keras.callbacks.Callback) -> str:
    return str(getattr(callback, "mode", "auto"))


def _unknown_monitor(
    callback: keras.callbacks.Callback, monitor: str, known: list[str], validation: bool
) -> ReszooError:
    name = class_name(callback)
    if monitor.startswith("val_") and not validation:
        more = "; no validation images are held out. Example: overrides=['data.validation=500']"
    else:
        near = did_you_mean(monitor, known)
        more = f". Example: keras.callbacks.{name}(monitor='{known[-1]}'){near}"
    return ReszooError(
        f"callbacks: {name}: monitor '{monitor}' is invalid; "
        f"expected one of {', '.join(known)}{more}"
    )


def _check_file_name(callback: keras.callbacks.ModelCheckpoint, known: list[str]) -> None:
    by_epoch = callback.save_freq == "epoch"
    keys = ["epoch", *known] if by_epoch else ["epoch", "batch", "loss", "accuracy"]
    values = {key: 1 if key in ("epoch", "batch", "skipped") else 0.5 for key in keys}
    try:
        callback.filepath.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        raise ReszooError(
            f"callbacks: ModelCheckpoint: filepath '{callback.filepath}' is invalid ({error}); "
            f"expected only the keys {', '.join(keys)}. Example: 'best-{{epoch}}.keras'"
        ) from None
