"""Keras callbacks in reszoo's training: they do what they do in `fit`, to the model that is evaluated and exported."""

from __future__ import annotations

import collections
import csv
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import reszoo
from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.evaluation.scores import evaluate_model
from reszoo.trainer import Result, train
from reszoo.training import checkpoint
from reszoo.training.callback_checks import check_callbacks
from reszoo.training.callbacks import Callbacks

C = keras.callbacks
TABLES: dict[str, Any] = {
    "name": "tiny",
    "model": {"name": "resnet8", "depths": [1], "widths": [8], "stem_width": 8},
    "data": {"name": "digits", "validation": 100, "examples": 128},
    "train": {"epochs": 5, "batch_size": 32, "export": False},  # four steps per epoch
    "optimizer": {"name": "sgd"},
    "schedule": {"kind": "constant", "rate": 0.05},
}
COSINE = {"kind": "cosine", "rate": 0.05}


def recipe(schedule: dict[str, Any] | None = None, **fields: Any) -> Recipe:
    tables = (
        TABLES | {"train": TABLES["train"] | fields} | ({"schedule": schedule} if schedule else {})
    )
    return Recipe(**tables)


def run(
    folder: Path, *callbacks: C.Callback, schedule: Any = None, devices: str = "auto", **fields: Any
) -> Result:
    resume = (folder / "recipe.toml").exists()
    return train(
        recipe(schedule, **fields),
        run_dir=folder,
        callbacks=callbacks,
        devices=devices,
        resume=resume,
        quiet=True,
    )


def validation_loss(result: Result, model: keras.Model | None = None) -> float:
    pipeline = result.run.open_pipeline()
    pipeline.preprocessing = result.run.preprocessing
    return evaluate_model(
        model or result.run.load_model(), pipeline.evaluation("validation"), classes=10
    ).loss


class Worse(C.Callback):
    """Makes the validation loss that later callbacks see a bad one from an epoch on."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch >= self.first:
            logs["val_loss"] = 99.0


class Interrupt(C.Callback):
    """Ends the process, as far as a test can, before an epoch or after a batch."""

    def __init__(self, epoch: int = -1, batches: int = -1) -> None:
        super().__init__()
        self.epoch, self.batches, self.seen = epoch, batches, []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch:
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(batch)
        if len(self.seen) == self.batches:
            raise KeyboardInterrupt


# What callbacks save and restore is what is evaluated


@pytest.mark.parametrize(
    ("devices", "ema"),
    [
        ("auto", 0.0),
        ("auto", 0.9),
        ("cpu:2", 0.9),
        pytest.param("cpu:2", 0.0, marks=pytest.mark.slow),
    ],
)
def test_restored_weights_are_those_of_the_best_epoch(
    devices: str, ema: float, strategy: tf.distribute.Strategy, tmp_path: Path
) -> None:
    early = C.EarlyStopping(monitor="val_loss", patience=2, restore_best_weights=True)
    result = run(tmp_path / "run", Worse(2), early, ema=ema, devices=devices)
    history = result.run.history
    assert len(history) == early.best_epoch + 3  # the last epochs were trained and dropped
    assert validation_loss(result) == pytest.approx(history[early.best_epoch]["val_loss"], rel=1e-5)
    assert result.test and result.test == reszoo.evaluate(result.run, out=tmp_path)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_saved_models_are_those_that_were_evaluated(ema: float, tmp_path: Path) -> None:
    result = run(
        tmp_path / "run",
        C.ModelCheckpoint(
            str(tmp_path / "best.keras"), monitor="val_accuracy", save_best_only=True
        ),
        C.ModelCheckpoint(str(tmp_path / "all{epoch}.keras")),
        C.ModelCheckpoint(str(tmp_path / "all{epoch}.weights.h5"), save_weights_only=True),
        ema=ema,
        epochs=3,
    )
    for row in result.run.history:
        whole = keras.models.load_model(tmp_path / f"all{row['epoch']}.keras")
        assert validation_loss(result, whole) == pytest.approx(row["val_loss"], rel=1e-5)
        whole.load_weights(tmp_path / f"all{4 - row['epoch']}.weights.h5")
        other = result.run.history[3 - row["epoch"]]
        assert validation_loss(result, whole) == pytest.approx(other["val_loss"], rel=1e-5)
    best = max(
        result.run.history, key=lambda row: row["val_accuracy"]
    )  # the first of equals, as with Keras
    assert validation_loss(
        result, keras.models.load_model(tmp_path / "best.keras")
    ) == pytest.approx(best["val_loss"], rel=1e-5)


def test_models_saved_every_so_many_steps_hold_the_averages(tmp_path: Path) -> None:
    """Also where a checkpoint of reszoo's own lies at the same step, which holds both."""
    saver = C.ModelCheckpoint(str(tmp_path / "at{epoch}-{batch}.keras"), save_freq=3)
    run(tmp_path / "run", saver, ema=0.9, epochs=2, checkpoint_every=3)
    assert sorted(path.name for path in tmp_path.glob("*.keras")) == ["at1-3.keras", "at2-2.keras"]
    held = checkpoint.load(checkpoint.step_path(tmp_path / "run" / "checkpoints", 6)).arrays
    model = keras.models.load_model(tmp_path / "at2-2.keras")
    for weight in model.trainable_variables:
        np.testing.assert_array_equal(weight.numpy(), held[f"average/{weight.path}"])
    raw = [held[name] for name in held if name.startswith("model/0/")]
    assert not np.array_equal(raw[0], model.variables[0].numpy())


@pytest.mark.parametrize(
    "hook",
    [
        "on_epoch_end",
        "on_train_batch_end",
        *(
            pytest.param(hook, marks=pytest.mark.slow)
            for hook in ("on_epoch_begin", "on_train_batch_begin")
        ),
    ],
)
def test_weights_that_a_callback_sets_are_trained_on_and_averaged(
    hook: str, tmp_path: Path
) -> None:
    """The learning rate is so small that the weights stay as they were set."""
    done: list[int] = []

    def write(model: keras.Model) -> None:
        if not done:
            done.append(1)
            model.set_weights(
                [np.full(array.shape, 0.25, array.dtype) for array in model.get_weights()]
            )

    class Writer(C.Callback):
        pass

    setattr(Writer, hook, lambda self, index, logs=None: write(self.model))
    schedule = {"kind": "constant", "rate": 1e-30}
    run(tmp_path / "run", Writer(), ema=0.9, steps=4, epochs=0, schedule=schedule)
    held = checkpoint.load(checkpoint.step_path(tmp_path / "run" / "checkpoints", 4)).arrays
    averages = [name for name in held if name.startswith("average/")]
    weights = [
        n
        for n in held
        if n.startswith("model/") and not n.endswith(("moving_mean", "moving_variance"))
    ]
    assert len(averages) == len(weights) > 10
    for name in [*averages, *weights]:
        np.testing.assert_array_equal(held[name], np.full_like(held[name], 0.25), err_msg=name)


def test_callbacks_see_the_averages_and_leave_the_raw_weights_to_training(tmp_path: Path) -> None:
    """A run is the same whether somebody looks at its model or not."""
    seen: dict[str, list[np.ndarray]] = {}

    class Look(C.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen["batch"] = self.model.get_weights()
            self.model.predict(np.zeros((2, 8, 8, 1)), verbose=0)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.save(tmp_path / "looked.keras")

        def on_train_end(self, logs: Any = None) -> None:
            seen["end"] = self.model.get_weights()

    one = run(tmp_path / "looked", Look(), ema=0.9, epochs=2)
    other = run(tmp_path / "plain", ema=0.9, epochs=2)
    a, b = (
        checkpoint.load(checkpoint.step_path(each.run.checkpoints, 8)).arrays
        for each in (one, other)
    )
    for name in b:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6, err_msg=name)
    final = one.run.load_model().get_weights()
    for name in ("batch", "end"):
        for array, expected in zip(seen[name], final, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_a_callback_has_the_last_word_over_the_best_epoch(tmp_path: Path) -> None:
    """With train.select = "best" it finds the best weights in the model, and what it leaves there is the result."""
    found: list[np.ndarray] = []

    class Zero(C.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            found.extend(self.model.get_weights())
            self.model.set_weights([np.zeros_like(array) for array in self.model.get_weights()])

    result = run(tmp_path / "run", Zero(), ema=0.9, select="best", epochs=2)
    best = checkpoint.load(result.run.checkpoints / "best.npz").arrays
    for array, expected in zip(found, best.values(), strict=False):
        np.testing.assert_array_equal(array, expected)
    assert not any(array.any() for array in result.run.load_model().get_weights())


# Resuming


def test_early_stopping_resumes_with_its_best_epoch(tmp_path: Path) -> None:
    """The best epoch lies before the interruption; the resumed process must wait on, and restore that epoch."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Worse(1), early(), Interrupt(epoch=2), ema=0.9)
    again = early()
    result = run(tmp_path / "run", Worse(1), again, Interrupt(), ema=0.9)
    assert again.stopped_epoch == 3 and again.best_epoch == 0 and again.wait == 3
    assert [row["epoch"] for row in result.run.history] == [1, 2, 3, 4]
    assert validation_loss(result) == pytest.approx(result.run.history[0]["val_loss"], rel=1e-5)


def early() -> C.EarlyStopping:
    return C.EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True)


def test_resuming_an_ended_run_keeps_what_callbacks_restored(tmp_path: Path) -> None:
    """It does not train on to the recipe's last step, and needs no callbacks."""
    result = run(tmp_path / "run", Worse(1), early())
    before = json.loads((tmp_path / "run" / "test.json").read_text())
    loss = validation_loss(result)
    for name in ("model.keras", "test.json"):
        (tmp_path / "run" / name).unlink()
    again = run(tmp_path / "run")
    assert again.finished and len(again.run.history) == 4
    assert validation_loss(again) == pytest.approx(loss, rel=1e-6)
    assert json.loads((tmp_path / "run" / "test.json").read_text()) == before


def test_killed_while_callbacks_end_they_end_again(tmp_path: Path) -> None:
    class Die(C.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Die(), Worse(1), early())
    result = run(tmp_path / "run", Worse(1), early())
    assert validation_loss(result) == pytest.approx(result.run.history[0]["val_loss"], rel=1e-5)


def test_callbacks_resume_in_mid_epoch_as_if_never_stopped(tmp_path: Path) -> None:
    """Counters, files that are saved every so many steps, and hooks that a callback's own attributes come from."""

    class Own(C.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.total, self.kinds = 0, collections.deque([1])

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.of_epoch: dict[int, list[float]] = {epoch: []}

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.total += 1
            self.kinds.append(batch)
            ((epoch, losses),) = self.of_epoch.items()
            losses.append(logs["loss"])

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            assert len(self.of_epoch[epoch]) == 4
            assert self.of_epoch[epoch][-1] == pytest.approx(logs["loss"])

    own, saver = Own(), C.ModelCheckpoint(str(tmp_path / "{epoch}-{batch}.keras"), save_freq=3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", own, saver, Interrupt(batches=7), checkpoint_every=2, epochs=3)
    again, saver = Own(), C.ModelCheckpoint(str(tmp_path / "{epoch}-{batch}.keras"), save_freq=3)
    (tmp_path / "2-2.keras").unlink()  # of step 6
    run(tmp_path / "run", again, saver, Interrupt(), checkpoint_every=2, epochs=3)
    assert own.total == 7 and again.total == 12
    assert again.kinds == collections.deque([1, *range(4), *range(4), *range(4)])
    assert sorted(path.name for path in tmp_path.glob("*.keras")) == [
        "1-3.keras",
        "3-1.keras",
        "3-4.keras",
    ]


def test_a_resume_says_which_callbacks_start_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Opaque(C.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.thing = object()

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", early(), Opaque(), Interrupt(epoch=1))
    train(
        recipe(epochs=5),
        run_dir=tmp_path / "run",
        callbacks=[Opaque(), C.TerminateOnNaN()],
        resume=True,
    )
    said = capsys.readouterr().out
    assert "callback Opaque starts anew: a checkpoint cannot hold its attribute thing" in said
    assert "callback TerminateOnNaN starts anew: the checkpoint was written without it" in said
    assert "callback EarlyStopping is missing: the run had it until this checkpoint" in said


def test_a_log_file_is_continued(tmp_path: Path) -> None:
    logger = C.CSVLogger(str(tmp_path / "log.csv"))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", logger, Interrupt(epoch=2))
    logger.csv_file.close()
    run(tmp_path / "run", C.CSVLogger(str(tmp_path / "log.csv")), Interrupt())
    with open(tmp_path / "log.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2", "3", "4"]


def test_state_goes_through_a_checkpoint_unchanged() -> None:
    """Every kind of value, also what equals its start again."""
    values = {
        "number": 3,
        "text": "a",
        "flag": True,
        "nothing": None,
        "real": 0.5,
        "scalar": np.float32(2.5),
        "array": np.arange(3),
        "weights": [np.ones((2, 2), np.float32), np.zeros(1)],
        "table": {1: [2, {"a": (3, None)}], "b": {4, 5}},
        "queue": collections.deque([1, 2]),
    }

    def opened(callback: C.Callback) -> Callbacks:
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        optimizer = keras.optimizers.SGD(0.1)
        model.compile(optimizer)
        hooks = Callbacks(
            [callback],
            model=model,
            optimizer=optimizer,
            recipe=recipe(),
            show=lambda: None,
            params={"epochs": 1},
        )
        hooks.begin(0.1)
        return hooks

    class Own(C.Callback):
        pass

    one, other = Own(), Own()
    first, second = opened(one), opened(other)
    vars(one).update(values)
    records, arrays = first.state()
    assert second.restore(json.loads(json.dumps(records)), arrays) == []
    for name, value in values.items():
        read = getattr(other, name)
        assert type(read) is type(value), name
        if name in ("array", "weights"):
            for a, b in zip(read, value, strict=True):
                np.testing.assert_array_equal(a, b, strict=True)
        else:
            assert read == value, name
    assert other.model is not one.model


# Learning rate


class Halve(C.Callback):
    """Halves the learning rate after each epoch, as people write it."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate.numpy()) / 2


@pytest.mark.parametrize(
    ("make", "rates"),
    [
        (Halve, [0.05, 0.025, 0.0125]),
        (lambda: C.LearningRateScheduler(lambda epoch, rate: rate * 0.1), [5e-3, 5e-4, 5e-5]),
        (lambda: C.ReduceLROnPlateau(patience=0, min_delta=100.0, factor=0.2), [0.05, 0.05, 0.01]),
    ],
    ids=["own", "scheduler", "plateau"],
)
def test_callbacks_set_a_constant_learning_rate(
    make: Any, rates: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[tuple[int, float]]] = []
    monkeypatch.setattr("reszoo.trainer.curves", lambda *args, rates, **named: drawn.append(rates))
    result = run(tmp_path / "run", make(), epochs=3)
    assert [row["rate"] for row in result.run.history] == pytest.approx(rates)
    assert [rate for _, rate in drawn[0]] == pytest.approx(rates), (
        "the schedule's are not those of the steps"
    )


def test_a_learning_rate_of_zero_stops_learning(tmp_path: Path) -> None:
    """It is what the steps use, not only what the history says."""
    start = run(tmp_path / "start", C.LearningRateScheduler(lambda epoch: 0.0), epochs=1)
    held = checkpoint.load(checkpoint.step_path(start.run.checkpoints, 4)).arrays
    run(tmp_path / "one", epochs=1)
    learned = checkpoint.load(checkpoint.step_path(tmp_path / "one" / "checkpoints", 4)).arrays
    scales = [name for name in held if name.endswith("/gamma")]
    assert scales and all((held[name] == 1).all() for name in scales)
    assert not all((learned[name] == 1).all() for name in scales)


def test_a_learning_rate_that_was_set_outlives_a_resume(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Halve(), Interrupt(epoch=2), epochs=4)
    result = run(tmp_path / "run", Halve(), Interrupt(), epochs=4)
    assert [row["rate"] for row in result.run.history] == pytest.approx(
        [0.05, 0.025, 0.0125, 0.00625]
    )


@pytest.mark.parametrize(
    ("schedule", "other"),
    [
        (COSINE, 'schedule.kind = "cosine"'),
        ({"kind": "constant", "rate": 0.1, "warmup": 2}, "schedule.warmup"),
    ],
)
@pytest.mark.parametrize(
    "make", [lambda: C.LearningRateScheduler(lambda epoch: 0.1), C.ReduceLROnPlateau]
)
def test_two_schedules_are_refused_before_training(
    make: Any, schedule: Any, other: str, tmp_path: Path
) -> None:
    with pytest.raises(
        ReszooError, match="callbacks: .* sets the learning rate, and so does"
    ) as caught:
        run(tmp_path / "run", make(), schedule=schedule)
    assert other in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_learning_rate_set_beside_a_schedule_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(
        ReszooError, match=r"Halve sets the learning rate \(to .*\), and so does schedule.kind"
    ):
        run(tmp_path / "run", Halve(), schedule=COSINE)
    assert reszoo.Run.open(tmp_path / "run").meta["status"] == "failed"


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    class Compile(C.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.compile("adam")

    with pytest.raises(ReszooError, match="Compile replaced the optimizer"):
        run(tmp_path / "run", Compile())


# Checks before training


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda folder: [C.EarlyStopping],
            "callbacks: EarlyStopping is invalid; expected instances of",
        ),
        (lambda folder: [print], "is invalid; expected instances of keras.callbacks.Callback"),
        (
            lambda folder: [C.SwapEMAWeights()],
            "SwapEMAWeights is invalid; expected the recipe key train.ema",
        ),
        (
            lambda folder: [C.EarlyStopping("val_acc")],
            "monitor 'val_acc' is invalid; expected one of loss, accuracy",
        ),
        (lambda folder: [C.EarlyStopping("val_acc", mode="max")], "did you mean 'val_accuracy'"),
        (
            lambda folder: [Halve(), C.EarlyStopping("val_f1")],
            "EarlyStopping: monitor 'val_f1' is invalid",
        ),
        (
            lambda folder: [C.ModelCheckpoint("{val_acc}.keras")],
            "filepath '{val_acc}.keras' is invalid",
        ),
        (
            lambda folder: [C.ModelCheckpoint("{val_loss}.keras", save_freq=2)],
            "expected only the keys epoch, batch",
        ),
        (lambda folder: [C.BackupAndRestore(folder)], "holds the backup of an earlier run"),
    ],
)
def test_callbacks_that_cannot_work_are_refused(make: Any, line: str, tmp_path: Path) -> None:
    (tmp_path / "latest.weights.h5").touch()
    with pytest.raises(ReszooError) as caught:
        check_callbacks(make(str(tmp_path)), recipe(), validation=True)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_monitor_of_validation_needs_validation_images() -> None:
    with pytest.raises(
        ReszooError, match=r"no validation images are held out\. Example: .*data\.validation=500"
    ):
        check_callbacks([C.EarlyStopping()], recipe(), validation=False)


@pytest.mark.parametrize(
    "callbacks",
    [
        C.EarlyStopping("accuracy"),
        [C.EarlyStopping("val_accuracy"), [C.ModelCheckpoint("{epoch}-{val_loss:.2f}.keras")]],
        [
            Halve(),
            C.EarlyStopping("val_f1", mode="max"),
        ],  # a callback of one's own may add it to the logs
        [C.ModelCheckpoint("{epoch}-{batch}-{loss:.2f}.keras", save_freq=5)],
        [C.LearningRateScheduler(lambda epoch: 0.1), C.ReduceLROnPlateau()],
        C.CallbackList([C.EarlyStopping("loss")]),
        None,
        [],
    ],
)
def test_callbacks_that_work_are_taken_as_fit_takes_them(callbacks: Any) -> None:
    found = check_callbacks(callbacks, recipe(), validation=True)
    assert all(type(each) is not C.CallbackList for each in found)
    assert len(found) == (
        0 if not callbacks else 2 if isinstance(callbacks, list) and len(callbacks) == 2 else 1
    )


def test_a_refusal_comes_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ReszooError, match="train.ema"):
        run(tmp_path / "run", C.SwapEMAWeights())
    assert not (tmp_path / "run").exists()


# Keras' own callbacks, and mistakes in a user's


@pytest.mark.parametrize("devices", [pytest.param("auto", marks=pytest.mark.slow), "cpu:2"])
def test_all_of_keras_callbacks_run(
    devices: str,
    strategy: tf.distribute.Strategy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = train(
        recipe(epochs=2, ema=0.9),
        run_dir=tmp_path / "run",
        devices=devices,
        callbacks=[
            C.BackupAndRestore(str(tmp_path / "backup"), save_freq=2, delete_checkpoint=False),
            C.CSVLogger(str(tmp_path / "log.csv")),
            C.EarlyStopping("val_accuracy", restore_best_weights=True),
            C.LambdaCallback(on_train_batch_end=lambda batch, logs: None),
            C.ModelCheckpoint(
                str(tmp_path / "best.keras"), monitor="val_accuracy", save_best_only=True
            ),
            C.ProgbarLogger(),
            C.ReduceLROnPlateau("val_accuracy"),
            C.TensorBoard(
                str(tmp_path / "board"),
                histogram_freq=1,
                update_freq=2,
                write_steps_per_second=True,
            ),
            C.TerminateOnNaN(),
        ],
    )
    assert result.finished
    assert "4/4" in capsys.readouterr().out
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0].keys() == {
        "epoch",
        "accuracy",
        "loss",
        "learning_rate",
        "val_accuracy",
        "val_loss",
    }
    for row, expected in zip(rows, result.run.history, strict=True):
        assert float(row["val_loss"]) == pytest.approx(expected["val_loss"])
        assert float(row["loss"]) == pytest.approx(expected["loss"])
    assert (tmp_path / "best.keras").is_file() and (
        tmp_path / "backup" / "latest.weights.h5"
    ).is_file()
    assert list((tmp_path / "board" / "train").iterdir()) and list(
        (tmp_path / "board" / "validation").iterdir()
    )


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    schedule = {"kind": "constant", "rate": 1e30}
    with pytest.raises(ReszooError, match="at step 2 "):
        run(tmp_path / "run", C.TerminateOnNaN(), schedule=schedule)


def test_a_mistake_in_a_callback_stays_what_it_is(tmp_path: Path) -> None:
    class Mistaken(C.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise KeyError("val_f1")

    with pytest.raises(KeyError, match="val_f1") as caught:
        run(tmp_path / "run", Mistaken())
    assert caught.value.__notes__ == ["raised in on_epoch_end of the callback Mistaken"]
    meta = reszoo.Run.open(tmp_path / "run").meta
    assert meta["status"] == "failed" and "val_f1" in meta["reason"]


def test_files_are_closed_when_a_callback_cannot_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(
        "reszoo.training.tensorboard.TensorBoard.close", lambda self: closed.append(True)
    )
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "run", C.CSVLogger(str(tmp_path / "nowhere" / "log.csv")))
    assert closed == [True]
