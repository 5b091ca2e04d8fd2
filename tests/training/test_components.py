"""A user's own parts of a run: equal to reszoo's to the bit, resumed exactly, rejected in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import reszoo
from reszoo.config.load import load_recipe
from reszoo.errors import ReszooError
from reszoo.references import load_reference
from reszoo.trainer import Trainer

PARTS = Path(__file__).with_name("own_parts.py")
SHORT = {
    "data.normalize": "unit", "data.validation": 32, "train.steps": 24, "train.batch_size": 32,
    "train.export": False, "optimizer.weight_decay": 1e-3, "augment.crop": "none",
    "schedule.kind": "cosine", "schedule.rate": 0.1, "schedule.warmup": 0, "schedule.unit": "steps",
    "model.name": "own_parts:model", "data.name": "own_parts:dataset",
}  # fmt: skip
OWN = {
    "model.units": 8,
    "optimizer.name": "own_parts:sgd",
    "schedule.kind": "own_parts:cosine",
    "schedule.rate": 0.1,
    "train.loss": "own_parts:loss",
    "train.callbacks": ["own_parts:Steps", "keras.callbacks:TerminateOnNaN"],
}


@pytest.fixture(autouse=True)
def _import_from_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs in a folder of its own, from which the parts are imported."""
    (tmp_path / "own_parts.py").write_text(PARTS.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)


@pytest.fixture(scope="module")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The weights of reszoo's optimizer, schedule and loss."""
    path = tmp_path_factory.mktemp("builtin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(PARTS.parent), *sys.path])
        result = reszoo.train("quickstart", overrides=SHORT, run_dir=path / "run", quiet=True)
        return [weight.numpy() for weight in result.run.load_model().weights]


def assert_equal_weights(run: reszoo.Run, expected: list[Any]) -> None:
    for one, other in zip(run.load_model().weights, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_references_equal_the_built_in_parts_and_resume_exactly(builtin: list[Any]) -> None:
    recipe = load_recipe("quickstart", SHORT | OWN)
    first = Trainer.prepare(recipe, run_dir="run", quiet=True)
    assert not first.fit(until=10)
    result = reszoo.train("run/recipe.toml", run_dir="run", resume=True, quiet=True)
    assert_equal_weights(result.run, builtin)
    assert Path("run/steps.txt").read_text() == "24"  # the callback's state was resumed too
    assert result.run.recipe == recipe and result.run.meta["own_model"] == "own"
    assert reszoo.evaluate("run").top1 == result.test.top1  # its dataset is found again


def test_objects_equal_the_built_in_parts_and_must_be_passed_again(builtin: list[Any]) -> None:
    own_parts = load_reference("model.name", "own_parts:model").__globals__
    splits = own_parts["dataset"]()
    splits["train"] = tf.data.Dataset.from_tensor_slices(splits["train"]).batch(100)
    overrides = {"data.name": "digits", "model.name": "resnet20"}

    def given(momentum: float = 0.9) -> dict[str, Any]:
        return {
            "dataset": splits,
            "optimizer": keras.optimizers.SGD(momentum=momentum),
            "loss": keras.losses.CategoricalCrossentropy(from_logits=True),
            "schedule": own_parts["cosine"],
            "model": lambda pipeline: own_parts["model"](pipeline.info.input_shape, 10),
            "metrics": [
                keras.metrics.SparseCategoricalAccuracy("own"),
                keras.metrics.F1Score("macro"),
            ],
        }

    def train(**parts: Any) -> reszoo.Run:
        options = {"overrides": SHORT | overrides, "run_dir": "run", "resume": True, "quiet": True}
        return reszoo.train("quickstart", **options, **parts)

    class Stop(keras.callbacks.Callback):
        ignores_model = True

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(**given(), callbacks=[Stop()])
    with pytest.raises(ReszooError, match=r"pass them again: reszoo.train\(..., metrics=..., opt"):
        train(
            dataset=splits,
            model=given()["model"],
            schedule=own_parts["cosine"],
            loss=given()["loss"],
        )
    with pytest.raises(ReszooError, match="optimizer: this is not the object that run was started"):
        train(**given(momentum=0.5))
    result = train(**given())
    assert_equal_weights(result.run, builtin)
    last = result.run.history[-1]
    assert last["val_own"] == pytest.approx(last["val_accuracy"])
    assert result.test.metrics["own"] == pytest.approx(result.test.top1)
    known = json.loads(Path("run/run.json").read_text())["given"]
    assert (
        known["optimizer"]["config"]["momentum"] == 0.9 and known["schedule"] == "own_parts:cosine"
    )
    with pytest.raises(ReszooError, match='data.name: "given:dict" is invalid; only the Python'):
        reszoo.evaluate("run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optimizer.name": "nowhere:sgd"}, 'optimizer.name: "nowhere:sgd" is invalid; no module'),
        ({"optimizer.name": "own_parts:sgdd"}, "own_parts does not have sgdd; did you mean 'sgd'"),
        ({"optimizer.name": "own_parts:needs_more"}, "it needs the argument momentum; expected a"),
        ({"optimizer.name": "own_parts:constant"}, "of learning_rate, or of some of them, not int"),
        ({"optimizer.name": "own_parts:model"}, "it needs the argument input_shape"),
        ({"optimizer.name": "builtins:dict"}, "expected a Keras optimizer, not dict"),
        ({"optimizer.name": "own_parts:decays"}, "its weight_decay = 0.004 would have no effect"),
        ({"optimizer.name": "sdg"}, "expected one of"),
        ({"schedule.kind": "own_parts:negative"}, "it returned -1.0 at step 0; expected a finite"),
        ({"train.loss": "own_parts:wrong_loss"}, "it returned (); expected one loss per image"),
        ({"train.loss": "own_parts:negative"}, "it raised TypeError"),
        ({"train.callbacks": ["own_parts:loss"]}, "it needs the argument targets"),
        ({"train.callbacks": ["builtins:dict"]}, "expected a Keras callback, not dict"),
        ({"augment.extra": ["own_parts:unseeded"]}, "it returned two results with one seed"),
        ({"augment.extra": ["own_parts:loss"]}, "augment.extra"),
        ({"data.name": "own_parts:floats"}, "its images are float64 [2, 8, 8, 1]; expected uint8"),
        ({"data.name": "own_parts:sgd"}, "it needs the argument learning_rate; it is called with"),
        ({"data.name": "builtins:dict"}, "expected a dict of train, test and perhaps validation"),
        ({"model.depth": 3, "model.name": "own_parts:dataset"}, "expected a Keras model, not dict"),
        ({"finetune.freeze": "stem"}, 'finetune.freeze: "stem" is invalid; expected the default'),
    ],
)
def test_what_is_not_a_part_is_one_line_before_training(
    overrides: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ReszooError) as caught:
        reszoo.train("quickstart", overrides=SHORT | overrides, run_dir="run", quiet=True)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("run").exists()
