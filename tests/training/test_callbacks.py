"""Keras callbacks do what they do in `fit`, to the model that is evaluated and exported."""

from __future__ import annotations

import collections
import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import reszoo
from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.evaluation.evaluator import evaluate_model
from reszoo.trainer import Result, Trainer, train
from reszoo.training import checkpoint
from reszoo.training.callback_checks import check_callbacks
from reszoo.training.callbacks import Callbacks

C = keras.callbacks
CONSTANT: dict[str, Any] = {"kind": "constant", "rate": 0.05}
COSINE = {"kind": "cosine", "rate": 0.05}


def recipe(schedule: dict[str, Any] = CONSTANT, **fields: Any) -> Recipe:
    """Return a recipe of four steps per epoch, with the given keys of the table train."""
    return Recipe(
        name="tiny",
        model={"name": "resnet8", "depths": [1], "widths": [8], "stem_width": 8},
        data={"name": "digits", "validation": 100, "examples": 128},
        train={"epochs": 5, "batch_size": 32, "export": False} | fields,
        optimizer={"name": "sgd"},
        schedule=schedule,
    )


def run(folder: Path, *callbacks: C.Callback, quiet: bool = True, **fields: Any) -> Result:
    """Train, or resume if there is a run."""
    resume = (folder / "recipe.toml").exists()
    return train(recipe(**fields), run_dir=folder, callbacks=callbacks, resume=resume, quiet=quiet)


def arrays(result: Result, step: int) -> dict[str, np.ndarray]:
    return checkpoint.load(checkpoint.step_path(result.run.checkpoints, step)).arrays


def validation_loss(result: Result, model: keras.Model | None = None) -> float:
    pipeline = result.run.open_pipeline()
    pipeline.preprocessing = result.run.preprocessing
    batches = pipeline.evaluation("validation")
    return evaluate_model(model or result.run.load_model(), batches, classes=10).loss


def set_all(model: keras.Model, value: float) -> None:
    model.set_weights([np.full_like(array, value) for array in model.get_weights()])


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
        self.epoch, self.batches, self.seen = epoch, batches, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch:
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        if self.seen == self.batches:
            raise KeyboardInterrupt


def early() -> C.EarlyStopping:
    return C.EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True)


# What callbacks save and restore is what is evaluated


class Look(C.Callback):
    """Uses the model in its hooks, and keeps the weights that it finds."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.predict(np.zeros((2, 8, 8, 1)), verbose=0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.weights = self.model.get_weights()


@dataclass(frozen=True)
class Watched:
    """A run with callbacks of all kinds, which EarlyStopping ended and took back by two epochs."""

    result: Result
    early: C.EarlyStopping
    look: Look
    folder: Path
    fields: dict[str, Any]
    devices: str


@pytest.fixture(
    scope="module",
    params=[("cpu:2", 0.9), pytest.param(("auto", 0.0), marks=pytest.mark.slow)],
    ids=["two replicas, averages", "one device"],
)
def watched(
    request: pytest.FixtureRequest, strategy: object, tmp_path_factory: pytest.TempPathFactory
) -> Watched:
    (devices, ema), folder = request.param, tmp_path_factory.mktemp("watched")
    stop, look = C.EarlyStopping(monitor="val_loss", patience=2, restore_best_weights=True), Look()
    callbacks = [
        C.CSVLogger(str(folder / "log.csv")),
        C.ReduceLROnPlateau("val_accuracy", patience=9),
        C.TensorBoard(
            str(folder / "board"), histogram_freq=1, update_freq=2, write_steps_per_second=True
        ),
        C.ModelCheckpoint(str(folder / "best.keras"), monitor="val_accuracy", save_best_only=True),
        C.ModelCheckpoint(str(folder / "all{epoch}.keras")),
        C.ModelCheckpoint(str(folder / "all{epoch}.weights.h5"), save_weights_only=True),
        C.ModelCheckpoint(str(folder / "at{epoch}-{batch}.keras"), save_freq=3),
        C.BackupAndRestore(str(folder / "backup"), save_freq=2, delete_checkpoint=False),
        C.LambdaCallback(on_train_batch_end=lambda batch, logs: None),
        C.ProgbarLogger(),
        C.TerminateOnNaN(),
        Worse(2),
        stop,
        look,
    ]
    fields = {"ema": ema, "checkpoint_every": 3}
    result = train(
        recipe(**fields), run_dir=folder / "run", callbacks=callbacks, devices=devices, quiet=True
    )
    return Watched(result, stop, look, folder, fields, devices)


def test_restored_weights_are_those_of_the_best_epoch(watched: Watched, tmp_path: Path) -> None:
    result, best = watched.result, watched.early.best_epoch
    history = result.run.history
    assert len(history) == best + 3  # the last epochs were trained and dropped
    assert validation_loss(result) == pytest.approx(history[best]["val_loss"], rel=1e-5)
    assert result.test and result.test == reszoo.evaluate(result.run, out=tmp_path)


def test_saved_models_are_those_that_were_evaluated(watched: Watched) -> None:
    result, folder = watched.result, watched.folder
    history = result.run.history
    for index, row in enumerate(history):
        whole = keras.models.load_model(folder / f"all{row['epoch']}.keras")
        assert validation_loss(result, whole) == pytest.approx(row["val_loss"], rel=1e-5)
        other = history[index - 1]
        whole.load_weights(folder / f"all{other['epoch']}.weights.h5")
        assert validation_loss(result, whole) == pytest.approx(other["val_loss"], rel=1e-5)
    best = max(history, key=lambda row: row["val_accuracy"])  # the first of equals, as with Keras
    saved = keras.models.load_model(folder / "best.keras")
    assert validation_loss(result, saved) == pytest.approx(best["val_loss"], rel=1e-5)


def test_models_saved_every_so_many_steps_hold_the_averages(watched: Watched) -> None:
    """Also where a checkpoint of reszoo's own lies at the same step, which holds both."""
    step = watched.result.run.history[-1]["step"] // 3 * 3
    model = keras.models.load_model(
        watched.folder / f"at{(step - 1) // 4 + 1}-{(step - 1) % 4 + 1}.keras"
    )
    held = arrays(watched.result, step)
    raw = {name.split("/", 2)[2]: array for name, array in held.items() if name[:5] == "model"}
    for weight in model.trainable_variables:
        if watched.fields["ema"]:
            np.testing.assert_array_equal(weight.numpy(), held[f"average/{weight.path}"])
        else:
            np.testing.assert_array_equal(weight.numpy(), raw[weight.path])
    first = model.trainable_variables[0]
    assert np.array_equal(raw[first.path], first.numpy()) == (not watched.fields["ema"])


def test_callbacks_leave_the_raw_weights_to_training(watched: Watched, tmp_path: Path) -> None:
    """A run is the same whether somebody looks at its model or not."""
    step = watched.result.run.history[-1]["step"]
    plain = Trainer.prepare(
        recipe(**watched.fields), run_dir=tmp_path / "run", devices=watched.devices, quiet=True
    )
    plain.fit(until=step)
    one, other = arrays(watched.result, step), arrays(Result(plain.run, None), step)
    for name in set(other) - {"totals"}:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6, err_msg=name)
    for array, expected in zip(watched.look.weights, plain.model.get_weights(), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)


def test_all_of_keras_callbacks_write_their_files(watched: Watched) -> None:
    with open(watched.folder / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = {"epoch", "accuracy", "loss", "learning_rate", "val_accuracy", "val_loss"}
    assert rows[0].keys() == names
    for row, expected in zip(rows, watched.result.run.history, strict=True):
        for name in ("val_loss", "loss"):
            assert float(row[name]) == pytest.approx(expected[name])
    assert (watched.folder / "backup" / "latest.weights.h5").is_file()
    for split in ("train", "validation"):
        assert list((watched.folder / "board" / split).iterdir())


def test_weights_that_a_callback_sets_are_trained_on_and_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a learning rate of almost 0 weights stay as they were set, per epoch by another hook."""
    monkeypatch.setattr(checkpoint, "KEEP", 9)
    hooks = ("on_train_batch_end", "on_train_batch_begin", "on_epoch_begin", "on_epoch_end")
    epochs: list[int] = []

    class Writer(C.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            epochs.append(epoch)
            self.write(2)

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.write(1, batch)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.write(0, batch)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.write(3)

        def write(self, epoch: int, batch: int = 1) -> None:
            if epochs[-1] == epoch and batch == 1:
                set_all(self.model, 0.25 + epoch)

    schedule = {"kind": "constant", "rate": 1e-30}
    small_steps = recipe(ema=0.9, schedule=schedule)
    trainer = Trainer.prepare(
        small_steps, run_dir=tmp_path / "run", callbacks=[Writer()], quiet=True
    )
    trainer.fit()
    for epoch, hook in enumerate(hooks):
        held = arrays(Result(trainer.run, None), 20 if hook == "on_epoch_end" else 4 * epoch + 4)
        statistics = ("moving_mean", "moving_variance")
        averages = [name for name in held if name.startswith("average/")]
        weights = [n for n in held if n.startswith("model/") and not n.endswith(statistics)]
        assert len(averages) == len(weights) > 10
        for name in [*averages, *weights]:
            assert (held[name] == np.float32(0.25 + epoch)).all(), (hook, name)


def test_a_callback_can_replace_the_best_epoch(tmp_path: Path) -> None:
    """It finds the best weights in the model, and what it leaves there is the result."""
    found: list[np.ndarray] = []

    class Zero(C.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            found.extend(self.model.get_weights())
            set_all(self.model, 0)

    result = run(tmp_path / "run", Zero(), ema=0.9, select="best", epochs=2)
    best = checkpoint.load(result.run.checkpoints / "best.npz").arrays
    for array, expected in zip(found, best.values(), strict=False):
        np.testing.assert_array_equal(array, expected)
    assert not any(array.any() for array in result.run.load_model().get_weights())


# Resuming


def test_early_stopping_resumes_with_its_best_epoch(tmp_path: Path) -> None:
    """The process ends after the best epoch, while callbacks end, and before the model is saved."""

    class Die(C.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    for other in (Interrupt(epoch=2), Die()):
        with pytest.raises(KeyboardInterrupt):
            run(folder, Worse(1), early(), other, ema=0.9)
    again = early()
    result = run(folder, Worse(1), again, ema=0.9)
    assert again.stopped_epoch == 3 and again.best_epoch == 0 and again.wait == 3
    assert [row["epoch"] for row in result.run.history] == [1, 2, 3, 4]
    loss = validation_loss(result)
    assert loss == pytest.approx(result.run.history[0]["val_loss"], rel=1e-5)

    before = (folder / "test.json").read_text()
    for name in ("model.keras", "test.json"):
        (folder / name).unlink()
    ended = run(folder, ema=0.9)  # needs no callbacks, and does not train on to the last step
    assert ended.finished and len(ended.run.history) == 4
    assert validation_loss(ended) == pytest.approx(loss, rel=1e-6)
    assert (folder / "test.json").read_text() == before


def test_callbacks_resume_in_mid_epoch_as_if_never_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counters, files saved every so many steps, logs, and attributes that hooks make."""

    class Own(C.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.total, self.seen = 0, collections.deque([1])

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.of_epoch: dict[int, list[float]] = {epoch: []}

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.total += 1
            self.seen.append(batch)
            ((epoch, losses),) = self.of_epoch.items()
            losses.append(logs["loss"])

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            assert len(self.of_epoch[epoch]) == 4
            assert self.of_epoch[epoch][-1] == pytest.approx(logs["loss"])

    class Lossy(C.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.thing = object()

    def callbacks() -> list[C.Callback]:
        return [
            Own(),
            C.ModelCheckpoint(str(tmp_path / "{epoch}-{batch}.keras"), save_freq=3),
            C.CSVLogger(str(tmp_path / "log.csv")),
            Lossy(),
        ]

    fields = {"checkpoint_every": 2, "epochs": 3}
    first, again = callbacks(), callbacks()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", *first, early(), Interrupt(batches=7), **fields)
    first[2].csv_file.close()
    (tmp_path / "2-2.keras").unlink()  # of step 6, from which the run resumes
    run(tmp_path / "run", *again, Interrupt(), C.TerminateOnNaN(), quiet=False, **fields)
    assert first[0].total == 7 and again[0].total == 12
    assert again[0].seen == collections.deque([1, *range(4), *range(4), *range(4)])
    saved = sorted(path.name for path in tmp_path.glob("*.keras"))
    assert saved == ["1-3.keras", "3-1.keras", "3-4.keras"]
    with open(tmp_path / "log.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    printed = capsys.readouterr().out
    assert "Lossy starts anew: a checkpoint cannot hold its attribute thing" in printed
    assert "TerminateOnNaN starts anew: the checkpoint was written without it" in printed
    assert "EarlyStopping is missing: the run had it until this checkpoint" in printed


def opened(callback: C.Callback, recipe: Recipe) -> Callbacks:
    """Return the callbacks of a run that begins, without its data."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.1)
    model.compile(optimizer)
    hooks = Callbacks(
        [callback],
        model=model,
        optimizer=optimizer,
        recipe=recipe,
        show=lambda: None,
        params={"epochs": 1},
    )
    hooks.begin(0.1)
    return hooks


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

    class Own(C.Callback):
        pass

    one, other = Own(), Own()
    first, second = opened(one, recipe()), opened(other, recipe())
    vars(one).update(values)
    records, stored = first.state()
    assert second.restore(json.loads(json.dumps(records)), stored) == []
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


def test_callbacks_set_a_constant_learning_rate_also_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[tuple[int, float]]] = []
    monkeypatch.setattr(
        "reszoo.run_results.draw_curves", lambda *args, rates, **named: drawn.append(rates)
    )

    def callbacks() -> list[C.Callback]:
        plateau = C.ReduceLROnPlateau(patience=0, min_delta=100.0, factor=0.2)  # from epoch 2 on
        return [Halve(), C.LearningRateScheduler(lambda epoch, rate: rate / 10), plateau]

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", *callbacks(), Interrupt(epoch=2), epochs=3)
    result = run(tmp_path / "run", *callbacks(), Interrupt(), epochs=3)
    rates = [0.05 / 10, 0.05 / 10 / 2 / 10, 0.05 / 10 / 2 / 10 / 2 / 5 / 10]
    assert [row["rate"] for row in result.run.history] == pytest.approx(rates)
    assert [rate for _, rate in drawn[0]] == pytest.approx(rates)  # those of the steps


def test_a_learning_rate_of_zero_stops_learning(tmp_path: Path) -> None:
    """It is what the steps use, not only what the history says."""
    still = C.LearningRateScheduler(lambda epoch: 0.05 if epoch else 0.0)
    trainer = Trainer.prepare(
        recipe(epochs=2), run_dir=tmp_path / "run", callbacks=[still], quiet=True
    )
    trainer.fit()
    before, after = (arrays(Result(trainer.run, None), step) for step in (4, 8))
    scales = [name for name in before if name.endswith("/gamma")]
    assert scales and all((before[name] == 1).all() for name in scales)
    assert not all((after[name] == 1).all() for name in scales)


class Compile(C.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.compile("adam")


class Mistaken(C.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        raise KeyError("val_f1")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (Halve, ReszooError, r"Halve sets the learning rate \(to .*\), and so does schedule.kind"),
        (Compile, ReszooError, "Compile replaced the optimizer"),
        (Mistaken, KeyError, "val_f1"),
    ],
)
def test_invalid_actions_of_a_hook_are_rejected(
    make: type[C.Callback], error: type[Exception], message: str
) -> None:
    hooks = opened(make(), recipe(COSINE))
    with pytest.raises(error, match=message) as caught:
        hooks.call("on_epoch_end", 0, {})
    if error is KeyError:
        assert caught.value.__notes__ == ["raised in on_epoch_end of the callback Mistaken"]


# Checks before training


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda folder: [C.EarlyStopping], "EarlyStopping is invalid; expected instances of"),
        (lambda folder: [print], "is invalid; expected instances of keras.callbacks.Callback"),
        (lambda folder: [C.SwapEMAWeights()], "expected the recipe key train.ema"),
        (
            lambda folder: [C.EarlyStopping("val_acc")],
            "monitor 'val_acc' is invalid; expected one of loss, accuracy",
        ),
        (lambda folder: [C.EarlyStopping("val_acc", mode="max")], "did you mean 'val_accuracy'"),
        (lambda folder: [Halve(), C.EarlyStopping("val_f1")], "monitor 'val_f1' is invalid"),
        (lambda folder: [C.ModelCheckpoint("{val_acc}.keras")], "'{val_acc}.keras' is invalid"),
        (
            lambda folder: [C.ModelCheckpoint("{val_loss}.keras", save_freq=2)],
            "expected only the keys epoch, batch",
        ),
        (lambda folder: [C.BackupAndRestore(folder)], "holds the backup of an earlier run"),
    ],
)
def test_callbacks_that_cannot_work_are_rejected(make: Any, line: str, tmp_path: Path) -> None:
    (tmp_path / "latest.weights.h5").touch()
    with pytest.raises(ReszooError) as caught:
        check_callbacks(make(str(tmp_path)), recipe(), validation=True)
    assert line in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("schedule", "other"),
    [(COSINE, 'schedule.kind = "cosine"'), (CONSTANT | {"warmup": 2}, "schedule.warmup")],
)
def test_two_schedules_are_rejected(schedule: Any, other: str) -> None:
    for callback in (C.LearningRateScheduler(lambda epoch: 0.1), C.ReduceLROnPlateau()):
        with pytest.raises(ReszooError, match="sets the learning rate, and so does ") as caught:
            check_callbacks(callback, recipe(schedule), validation=True)
        assert other in str(caught.value) and "\n" not in str(caught.value)


def test_a_monitor_of_validation_needs_validation_images() -> None:
    line = r"no validation images are held out\. Example: .*data\.validation=500"
    with pytest.raises(ReszooError, match=line):
        check_callbacks([C.EarlyStopping()], recipe(), validation=False)


@pytest.mark.parametrize(
    ("callbacks", "count"),
    [
        (C.EarlyStopping("accuracy"), 1),
        ([C.EarlyStopping("val_accuracy"), [C.ModelCheckpoint("{epoch}-{val_loss:.2f}.keras")]], 2),
        ([Halve(), C.EarlyStopping("val_f1", mode="max")], 2),  # one's own may add it to the logs
        ([C.ModelCheckpoint("{epoch}-{batch}-{loss:.2f}.keras", save_freq=5)], 1),
        ([C.LearningRateScheduler(lambda epoch: 0.1), C.ReduceLROnPlateau()], 2),
        (C.CallbackList([C.EarlyStopping("loss")]), 1),
        (None, 0),
        ([], 0),
    ],
)
def test_callbacks_that_work_are_taken_as_fit_takes_them(callbacks: Any, count: int) -> None:
    found = check_callbacks(callbacks, recipe(), validation=True)
    assert len(found) == count and C.CallbackList not in map(type, found)


def test_a_rejected_callback_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ReszooError, match="train.ema"):
        run(tmp_path / "run", C.SwapEMAWeights())
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(ReszooError, match="at step 2 "):
        run(tmp_path / "run", C.TerminateOnNaN(), schedule=CONSTANT | {"rate": 1e30})


def test_files_are_closed_when_a_callback_cannot_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    name = "reszoo.training.tensorboard.TensorBoard.close"
    monkeypatch.setattr(name, lambda self: closed.append(True))
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "run", C.CSVLogger(str(tmp_path / "nowhere" / "log.csv")))
    assert closed == [True]
