"""The training loop: hooks in the order of `fit`, the end of an epoch, and the last weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import reszoo
from reszoo.config.recipe import Recipe
from reszoo.trainer import Result, train
from reszoo.training import checkpoint, state

HOOKS = [
    f"on_{what}_{when}"
    for what in ("train", "epoch", "train_batch", "test", "test_batch")
    for when in ("begin", "end")
]


STEP = {"kind": "step", "rate": 0.05, "boundaries": [6]}


def make_recipe(schedule: dict[str, Any], **fields: Any) -> Recipe:
    """Return a recipe with four steps and three validation batches per epoch."""
    return Recipe(
        name="tiny",
        model={"name": "resnet8", "depths": [1], "widths": [8], "stem_width": 8},
        data={"name": "digits", "validation": 96, "examples": 128},
        train={"epochs": 2, "batch_size": 32, "export": False} | fields,
        optimizer={"name": "sgd"},
        schedule=schedule,
    )


def run(
    folder: Path,
    *callbacks: keras.callbacks.Callback,
    resume: bool = False,
    schedule: dict[str, Any] = STEP,
    **fields: Any,
) -> Result:
    recipe = make_recipe(schedule, **fields)
    return train(recipe, run_dir=folder, callbacks=callbacks, resume=resume, quiet=True)


class Record(keras.callbacks.Callback):
    """Keeps each hook that is called, its index, and the keys of its logs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int | None, list[str] | None]] = []
        self.last: dict[str, Any] = {}


def record(hook: str) -> Any:
    indexed = "epoch" in hook or "batch" in hook

    def called(self: Record, *arguments: Any, logs: Any = None) -> None:
        index = arguments[0] if indexed else None
        logs = [*arguments[indexed:], logs][0]
        self.calls.append((hook, index, sorted(logs) if logs else None))
        if logs:
            self.last[hook] = dict(logs)

    return called


for name in HOOKS:
    setattr(Record, name, record(name))


def test_hooks_are_called_as_by_fit(tmp_path: Path) -> None:
    """All ten, in the same order, with the same indices and keys; test batches have no logs."""
    ours, theirs = Record(), Record()
    epochs: list[int] = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            epochs.append(len(self.model.history.epoch))

    result = run(tmp_path / "run", ours, Watch())
    assert epochs == [0, 1]
    model = reszoo.build("resnet8", classes=10, input_shape=(8, 8, 1))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    x, y = np.zeros((128, 8, 8, 1)), np.zeros(128)
    data: Any = {"batch_size": 32, "epochs": 2, "validation_data": (x[:96], y[:96]), "verbose": 0}
    model.fit(x, y, callbacks=[theirs], **data)

    expected = []
    for hook, index, keys in theirs.calls:
        if keys and hook in ("on_epoch_end", "on_train_end"):
            keys = sorted([*keys, "learning_rate"])
        expected.append((hook, index, None if hook == "on_test_batch_end" else keys))
    assert ours.calls == expected
    assert {call[0] for call in ours.calls} == set(HOOKS)
    assert ours.params.items() >= {"verbose": 0, "epochs": 2, "steps": 4, "batch_size": 32}.items()
    assert theirs.params.items() <= ours.params.items()
    row = result.run.history[-1]
    last = {**row, "learning_rate": row["rate"]}
    del last["epoch"], last["step"], last["rate"]
    assert ours.last["on_epoch_end"] == ours.last["on_train_end"] == last
    assert ours.last["on_train_batch_end"] == {"loss": row["loss"], "accuracy": row["accuracy"]}
    assert ours.last["on_test_end"] == {"loss": row["val_loss"], "accuracy": row["val_accuracy"]}
    assert all(type(value) is float for value in ours.last["on_epoch_end"].values())


def test_every_epoch_has_logs_of_its_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also without an evaluation; a row of the history is over all images since the last row."""
    drawn: list[list[tuple[int, float]]] = []
    monkeypatch.setattr(
        "reszoo.run_results.draw_curves", lambda *args, rates, **named: drawn.append(rates)
    )
    seen: list[dict[str, float]] = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(logs)))
    schedule = {"kind": "cosine", "rate": 0.2, "warmup": 1, "unit": "epochs", "rate_batch": 128}
    result = run(tmp_path / "run", watch, epochs=4, evaluate_every=2, schedule=schedule)
    assert [len(logs) for logs in seen] == [3, 5, 3, 5]
    assert [row["epoch"] for row in result.run.history] == [2, 4]
    for row, logs in zip(result.run.history, (seen[:2], seen[2:]), strict=True):
        assert row["loss"] == pytest.approx(np.mean([each["loss"] for each in logs]))
        assert logs[0]["loss"] != pytest.approx(row["loss"], rel=1e-4)
    # Four steps of warm-up to 0.2 * 32 / 128, then a cosine over the other twelve.
    cosine = [0.05 * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(12)]
    rates = [0.01, 0.02, 0.03, 0.04, *cosine]
    assert [logs["learning_rate"] for logs in seen] == pytest.approx(rates[3::4])
    assert [step for step, _ in drawn[0]] == list(range(1, 17))
    assert [rate for _, rate in drawn[0]] == pytest.approx(rates)
    # Without callbacks that change the model, no result is kept beside the checkpoints.
    kept = sorted(path.name for path in result.run.checkpoints.iterdir())
    assert kept == ["step-00000012.npz", "step-00000016.npz"]


class Stop(keras.callbacks.Callback):
    def __init__(self, hook: str) -> None:
        super().__init__()
        setattr(self, hook, self.stop)

    def stop(self, index: int, logs: Any = None) -> None:
        self.model.stop_training = True


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("hook", "step", "every"),
    [
        ("on_train_batch_end", 1, 1),
        ("on_epoch_end", 4, 3),
        pytest.param("on_epoch_end", 4, 1, marks=SLOW),
        pytest.param("on_train_batch_end", 1, 3, marks=SLOW),
        pytest.param("on_epoch_begin", 1, 1, marks=SLOW),
        pytest.param("on_train_batch_begin", 1, 3, marks=SLOW),
    ],
)
def test_a_run_that_a_callback_stops_is_evaluated_there_and_stays_ended(
    hook: str, step: int, every: int, tmp_path: Path
) -> None:
    seen = Record()
    fields = {"evaluate_every": every, "ema": 0.5, "ema_start": 9.0}
    result = run(tmp_path / "run", Stop(hook), seen, **fields)
    assert result.finished
    held = checkpoint.load(checkpoint.steps(result.run.checkpoints)[-1]).arrays
    raw = {name.split("/", 2)[2]: each for name, each in held.items() if name[:6] == "model/"}
    averages = {name[8:]: each for name, each in held.items() if name[:8] == "average/"}
    assert averages and all(np.array_equal(raw[path], averages[path]) for path in averages)
    history = result.run.history
    assert [(row["epoch"], row["step"]) for row in history] == [(1, step)]
    assert [call[1] for call in seen.calls if call[0] == "on_epoch_end"] == [0]
    scores = reszoo.evaluate(result.run, split="validation", out=tmp_path)
    assert scores.top1 == history[0]["val_accuracy"]
    again = run(tmp_path / "run", resume=True, **fields)
    assert again.finished and again.run.history == history


@pytest.mark.parametrize("ema", [0.5, pytest.param(0.0, marks=SLOW)])
def test_the_best_epoch_that_is_not_the_last_is_loaded(ema: float, tmp_path: Path) -> None:
    """A callback ruins the model after the second of three epochs."""

    class Ruin(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                self.model.set_weights([0 * array for array in self.model.get_weights()])

    result = run(tmp_path / "run", Ruin(), epochs=3, select="best", ema=ema)
    accuracies = [row["val_accuracy"] for row in result.run.history]
    best = max(accuracies[:2])
    assert best > accuracies[2] + 0.02
    assert reszoo.evaluate(result.run, split="validation", out=tmp_path).top1 == best
    saved = checkpoint.load(result.run.checkpoints / "best.npz").arrays
    for array, weight in zip(saved.values(), result.run.load_model().variables, strict=False):
        np.testing.assert_array_equal(array, weight.numpy())


def test_a_mean_over_no_images_is_not_a_number() -> None:
    assert state._means(np.array([6.0, 3.0, 4.0, 0.0])) == {"loss": 1.5, "accuracy": 0.75}
    none = state._means(np.array([0.0, 0.0, 0.0, 2.0]))
    assert math.isnan(none["loss"]) and none["accuracy"] == 0
