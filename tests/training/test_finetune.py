"""Fine-tuning: what learns, at which rate and from when on; exact over a resume, alike on replicas, refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo import Recipe, Run
from reszoo.config.optimizer import Optimizer
from reszoo.config.resolve import resolve_recipe
from reszoo.config.training import FinetuneConfig, TrainConfig
from reszoo.errors import ReszooError
from reszoo.models.build import build
from reszoo.models.freeze import freeze
from reszoo.trainer import train
from reszoo.training import checkpoint
from reszoo.training.devices import precision
from reszoo.training.finetuning import describe_finetuning, describe_unfreezing
from reszoo.training.optimizers import make_optimizer
from reszoo.training.step import Stepper
from reszoo.zoo.layer_names import parse_layer_group

SHAPE = (8, 8, 3)
PLACES = ("stem", "stage1", "stage2", "stage3", "head")


def make(
    strategy: tf.distribute.Strategy | None = None,
    *,
    until: str = "none",
    batch_norm: str = "eval",
    stage_decay: float = 1.0,
    optimizer: dict[str, Any] | None = None,
    policy: str = "float32",
    net: dict[str, Any] | None = None,
    **settings: Any,
) -> Stepper:
    """A stepper over a small net that starts alike every time."""
    keras.utils.set_random_seed(1)
    strategy = strategy or tf.distribute.get_strategy()
    config, plan = (
        Optimizer.of(**(optimizer or {})),
        TrainConfig(**{"batch_size": 16, "steps": 1, **settings}),
    )
    with strategy.scope(), precision(policy):
        model = freeze(build("resnet8", input_shape=SHAPE, **(net or {})), until, batch_norm)
        return Stepper(model, make_optimizer(config), plan, config, strategy, stage_decay)


def batches(steps: int, rows: int = 16) -> list[tuple[tf.Tensor, tf.Tensor]]:
    random = np.random.default_rng(0)
    return [
        (
            tf.constant(random.normal(size=(rows, *SHAPE)), tf.float32),
            tf.constant(random.integers(0, 10, rows), tf.int32),
        )
        for _ in range(steps)
    ]


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: variable.numpy() for variable in model.variables}


def moved(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {path for path in before if not np.array_equal(before[path], after[path])}


def at(paths: Any, *places: str) -> set[str]:
    return {path for path in paths if parse_layer_group(path) in places}


# What learns

EVERYTHING: dict[str, Any] = {
    "optimizer": {"name": "adamw", "weight_decay": 0.1, "decay": "decoupled"},
    "ema": 0.9,
    "clip_norm": 1.0,
    "accumulate": 2,
}


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": {"weight_decay": 0.1}, "ema": 0.9},
        EVERYTHING | {"precision": "mixed_float16", "policy": "mixed_float16"},
    ],
    ids=["coupled", "everything"],
)
def test_what_is_frozen_stays_to_the_bit_and_has_no_slots(settings: dict[str, Any]) -> None:
    stepper = make(until="stage2", **settings)
    before = values(stepper.model)
    for images, labels in batches(2):
        stepper(images, labels, 0.01)
    assert moved(before, values(stepper.model)) == at(before, "stage3", "head")
    learning = (
        2 * 3 + 2
    )  # two convolutions with their normalisations' two, and the classifier's two
    assert len(stepper.weights) == len(stepper.averages) == learning
    slots = 1 if stepper.optimizer.name.startswith("sgd") else 2
    assert len(stepper.optimizer.variables) == 2 + slots * learning
    assert (
        len(stepper._statistics) == 2 * 2
    )  # a mean over three replicas would round what stands still
    for weight, average in zip(stepper.weights, stepper.averages, strict=True):
        assert (before[weight.path] != average.numpy()).any()


def backward_convolutions(traced: Any) -> int:
    graph = traced.get_concrete_function().graph.as_graph_def()
    nodes = [node.op for node in graph.node] + [
        node.op for each in graph.library.function for node in each.node_def
    ]
    assert nodes.count("Conv2DBackpropFilter") == nodes.count("Conv2DBackpropInput")
    return nodes.count("Conv2DBackpropFilter")


def test_the_backward_pass_ends_where_learning_ends() -> None:
    stepper = make(until="stage2")
    assert backward_convolutions(stepper._step) == 2
    assert backward_convolutions(stepper._probe) == 0
    assert (
        backward_convolutions(make()._step) == 7 + 2
    )  # option A, twice, is a convolution in training


def test_in_a_probe_the_classifier_alone_learns_on_the_features_of_inference() -> None:
    """Against arithmetic: softmax regression on the pooled features, clipped by its own norm, its decay its own."""
    rate, decay, limit = 0.1, 0.01, 0.05
    stepper = make(
        optimizer={"momentum": 0.0, "weight_decay": decay}, net={"drop_path": 0.5}, ema=0.5, clip_norm=limit,
        stage_decay=0.5,
    )  # fmt: skip
    (images, labels), (more, others) = batches(2)
    before = values(stepper.model)
    features = keras.Model(stepper.model.input, stepper.model.get_layer("head_pool").output)
    x = np.asarray(features(images, training=False), np.float64)
    kernel, bias = before["head_dense/kernel"], before["head_dense/bias"]
    logits = x @ kernel + bias
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (chances - np.eye(10)[labels.numpy()]) / len(x)
    gradients = [x.T @ error + decay * kernel, error.sum(0) + decay * bias]
    length = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    assert length > limit
    stepper.probe(images, labels, rate)
    after = values(stepper.model)
    assert moved(before, after) == at(before, "head")
    for path, gradient in zip(("head_dense/kernel", "head_dense/bias"), gradients, strict=True):
        np.testing.assert_allclose(
            after[path], before[path] - rate * gradient * limit / length, atol=1e-6
        )
    averages = {
        weight.path: mean.numpy()
        for weight, mean in zip(stepper.weights, stepper.averages, strict=True)
    }
    assert moved(averages, before) == at(before, "head")

    stepper(more, others, rate)
    stirred = moved(after, values(stepper.model))
    assert {weight.path for weight in stepper.weights} < stirred and any(
        "seed" in path for path in stirred
    )


def test_a_restart_gives_thawed_weights_steps_of_the_right_length() -> None:
    """Adam's first step is the rate itself, by the sign of the gradient (arXiv 1412.6980, section 2.1)."""
    stepper = make(optimizer={"name": "adam", "epsilon": 1e-12})
    stepper.optimizer.iterations.assign(5000)
    (images, labels), _ = batches(2)
    stepper.probe(images, labels, 0.01)
    assert int(stepper.optimizer.iterations.numpy()) == 5001
    stepper.restart()
    assert all(not variable.numpy().any() for variable in stepper.optimizer.variables)
    before = {weight.path: weight.numpy() for weight in stepper.weights}
    stepper(images, labels, 0.01)
    for weight in stepper.weights:
        step = np.abs(weight.numpy() - before[weight.path])
        # A gradient of exactly 0, of a dead rectifier, is no step; most have one.
        assert (step > 0).mean() > 0.5, weight.path
        np.testing.assert_allclose(step[step > 0], 0.01, rtol=0.02)


# At which rate


@pytest.mark.parametrize("decay", ["coupled", "decoupled"])
def test_each_place_learns_at_its_own_rate(decay: str) -> None:
    """One plain step against a tape of its own: w - rate * share * (g + decay * w), the shares written out."""
    rate, wd = 0.2, 0.05
    shares = {"stem": 0.5**4, "stage1": 0.5**3, "stage2": 0.5**2, "stage3": 0.5, "head": 1.0}
    settings = {"momentum": 0.0, "weight_decay": wd, "decay": decay}
    stepper = make(optimizer=settings, net={"order": "pre"}, stage_decay=0.5)
    model = stepper.model
    (images, labels), _ = batches(2)
    reference = make(net={"order": "pre"}).model
    with tf.GradientTape() as tape:
        logits = reference(images, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    gradients = tape.gradient(loss, [weight.value for weight in reference.trainable_variables])
    stepper(images, labels, rate)
    for weight, start, gradient in zip(
        model.trainable_variables, reference.trainable_variables, gradients, strict=True
    ):
        place = "stage3" if weight.path.startswith("head_bn") else parse_layer_group(weight.path)
        expected = start.numpy() - rate * shares[place] * (gradient.numpy() + wd * start.numpy())
        np.testing.assert_allclose(weight.numpy(), expected, atol=2e-6, err_msg=weight.path)


# Against Keras, and on replicas


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_equals_keras_fit(batch_norm: str) -> None:
    ours = make(until="stage1", batch_norm=batch_norm)
    theirs = make(until="stage1", batch_norm=batch_norm).model
    theirs.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    data = batches(10)
    for images, labels in data:
        ours(images, labels, 0.01)
    x, y = (
        np.concatenate([column.numpy() for column in columns])
        for columns in zip(*data, strict=True)
    )
    theirs.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    one, other = values(ours.model), values(theirs)
    for path in one:  # processors round differently, and moving variances are of the order of 10
        np.testing.assert_allclose(one[path], other[path], rtol=1e-6, atol=1e-6, err_msg=path)


def test_two_replicas_equal_one_device(strategy: tf.distribute.Strategy) -> None:
    """Three steps of a probe, a restart and three more; statistics synchronised and in float64, as in test_step."""
    settings = EVERYTHING | {"until": "stage2", "stage_decay": 0.5, "policy": "float64"}
    results = []
    for each in (tf.distribute.get_strategy(), strategy):
        stepper = make(each, **settings)
        for layer in stepper.model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True
        for step, (images, labels) in enumerate(batches(6, rows=13)):
            if step == 3:
                stepper.restart()
            (stepper.probe if step < 3 else stepper)(images, labels, 0.01)
        averages = {
            weight.path: mean.numpy()
            for weight, mean in zip(stepper.weights, stepper.averages, strict=True)
        }
        results.append((values(stepper.model), averages))
    for one, other in zip(*results, strict=True):
        assert max(float(np.abs(one[path] - other[path]).max()) for path in one) < 1e-6


# Runs

TABLES: dict[str, Any] = {
    "name": "tuned",
    "model": {"name": "resnet8", "drop_path": 0.3},
    "data": {"name": "digits", "examples": 120},
    "train": {
        "epochs": 4,
        "batch_size": 40,
        "export": False,
        "deterministic": True,
        "checkpoint_every": 1,
        "ema": 0.5,
    },
    "optimizer": {"name": "adam"},
    "schedule": {"kind": "constant", "rate": 0.01},
    "finetune": {"freeze": "stem", "probe_epochs": 2, "stage_decay": 0.5},
}


def recipe(**tables: Any) -> Recipe:
    return Recipe(
        **(
            {
                key: {**value, **tables.get(key, {})} if isinstance(value, dict) else value
                for key, value in TABLES.items()
            }
        )
    )


def start(folder: Path, **more: Any) -> bool:
    """Train as in a process of its own, where Keras' counters of names begin at zero; return whether it finished."""
    keras.backend.clear_session()
    return train(recipe(), run_dir=folder, quiet=True, **more).finished


def last(folder: Path) -> checkpoint.Checkpoint:
    found = checkpoint.newest(Run(folder).checkpoints, print)
    assert found is not None
    return found


def trained(found: checkpoint.Checkpoint) -> dict[str, np.ndarray]:
    """Return a checkpoint's arrays without those of callbacks, of which the runs have others."""
    return {name: array for name, array in found.arrays.items() if not name.startswith("callback/")}


class Watch(keras.callbacks.Callback):
    """Writes down after each step which places it moved."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.rows, self.before = path, [], {}  # type: ignore[var-annotated]

    def on_train_begin(self, logs: Any = None) -> None:
        self.before = values(self.model)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        before, self.before = self.before, values(self.model)
        self.rows.append(
            sorted({parse_layer_group(path) for path in moved(before, self.before)} - {""})
        )
        self.path.write_text(json.dumps(self.rows))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 12 steps, 6 of them in the probe; beside it, which places each step moved."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    assert start(folder, callbacks=[Watch(folder.with_name("moved.json"))])
    return folder


def test_a_run_tells_what_learns_and_starts_its_optimizer_anew_after_the_probe(
    unbroken: Path,
) -> None:
    log = (unbroken / "train.log").read_text()
    assert (
        log.count("  frozen: stem\n")
        == log.count("  linear probe: only the classifier is trained for 6 steps\n")
        == 1
    )
    assert (
        log.count("step 6: the linear probe ends; now training stage1, stage2, stage3 and head\n")
        == 1
    )
    probe, rest = ["head"], ["head", "stage1", "stage2", "stage3"]
    assert json.loads(unbroken.with_name("moved.json").read_text()) == [probe] * 6 + [rest] * 6
    arrays = last(unbroken).arrays
    assert int(arrays["optimizer/0"]) == 6
    assert not any("/stem" in name for name in arrays if name.startswith("average/"))
    model = Run(unbroken).load_model()
    assert (
        not model.get_layer("stem_conv1").trainable
        and model.get_layer("stage1_block1_conv1").trainable
    )


def test_a_run_takes_the_steps_of_each_place(unbroken: Path) -> None:
    """Adam's sixth step is at most 1.016 times the rate: sqrt(sum a_i^2 / b_i) over the weights of its two means."""
    before, after = (
        checkpoint.load(path).arrays for path in checkpoint.steps(Run(unbroken).checkpoints)
    )
    shares = {"stem": 0.0, "stage1": 0.125, "stage2": 0.25, "stage3": 0.5, "head": 1.0}
    for place, share in shares.items():
        weights = [
            name for name in before if name.split("/")[-1] in ("kernel", "gamma", "beta", "bias")
            and name.startswith("model/") and parse_layer_group(name.split("/")[2]) == place
        ]  # fmt: skip
        step = max(float(np.abs(after[name] - before[name]).max()) for name in weights)
        assert 0.5 * 0.01 * share <= step <= 1.02 * 0.01 * share, place


class Broken(Exception):
    pass


class Break(keras.callbacks.Callback):
    """Fails after some steps, as a run does that is killed."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = iter(range(after - 1))  # not a number, which a resumed run would restore

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if next(self.left, None) is None:
            raise Broken


def test_a_run_broken_in_the_probe_and_after_it_equals_an_unbroken_one(
    unbroken: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Broken):  # a step's checkpoint is written after its callbacks
        start(folder, callbacks=[Break(4)])
    assert last(folder).meta["step"] == 3
    with pytest.raises(Broken):
        start(folder, callbacks=[Break(6)], resume=True)
    assert last(folder).meta["step"] == 8
    assert start(folder, resume=True)
    one, other = last(unbroken), last(folder)
    assert (
        one.meta["step"] == other.meta["step"] == 12
        and trained(one).keys() == trained(other).keys()
    )
    assert moved(trained(one), trained(other)) == set()
    assert (unbroken / "test.json").read_text() == (folder / "test.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 6, 7])
def test_a_run_broken_beside_the_end_of_the_probe_equals_an_unbroken_one(
    step: int, unbroken: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Broken):
        start(folder, callbacks=[Break(step + 1)])
    assert last(folder).meta["step"] == step
    assert start(folder, resume=True)
    assert moved(trained(last(unbroken)), trained(last(folder))) == set()


@pytest.mark.slow
def test_a_frozen_run_grows_and_hands_on_its_slots(tmp_path: Path) -> None:
    frozen = {"freeze": "stage2", "probe_epochs": 0, "stage_decay": 1.0}
    plain = {"epochs": 1, "ema": 0.5}
    assert train(
        recipe(finetune=frozen, train=plain), run_dir=tmp_path / "small", quiet=True
    ).finished
    grown = recipe(
        finetune=frozen,
        model={"name": "resnet14"},
        train=plain | {"grow_from": str(tmp_path / "small")},
    )
    assert train(grown, run_dir=tmp_path / "grown", quiet=True).finished
    run = Run(tmp_path / "grown")
    assert run.meta["grown_from"]["slots"] == 2 * 8  # Adam's two, of the eight weights that learnt
    old, new = values(Run(tmp_path / "small").load_model()), values(run.load_model())
    kept = {
        path
        for path in old
        if parse_layer_group(path) in ("stem", "stage1", "stage2") and "seed" not in path
    }
    assert len(kept) == 25 and not moved({path: old[path] for path in kept}, new)


def test_a_run_from_before_the_table_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    plain = recipe(finetune={"freeze": "none", "probe_epochs": 0, "stage_decay": 1})
    text = plain.to_toml()
    assert plain.finetune == FinetuneConfig() and "[finetune]" in text
    folder.mkdir()
    (folder / "recipe.toml").write_text(text[: text.index("[finetune]")])
    assert Run.open(folder).recipe == resolve_recipe(plain)
    Run.open(folder).refuse_other(plain)
    with pytest.raises(ReszooError, match=r"another \[finetune\]"):
        Run.open(folder).refuse_other(recipe())


# What is said and refused


def test_the_lines_of_a_run() -> None:
    assert (
        describe_finetuning(
            recipe(finetune={"freeze": "none", "probe_epochs": 0, "stage_decay": 1}), 3
        )
        == []
    )
    assert describe_finetuning(recipe(), 3) == [
        "frozen: stem",
        "linear probe: only the classifier is trained for 6 steps",
        "factors on the learning rate: head 1, stage3 0.5, stage2 0.25, stage1 0.125",
    ]
    norms = recipe(finetune={"freeze": "all", "batch_norm": "train"})
    assert describe_finetuning(norms, 3)[::2] == [
        "frozen: stem, stage1, stage2, stage3 except batch normalization",
        "factors on the learning rate: head 1, stage3 0.5, stage2 0.25, stage1 0.125, stem 0.0625",
    ]
    assert describe_unfreezing(norms, 9).endswith(
        "now training frozen batch normalization and head"
    )
    lower = recipe(finetune={"freeze": "stage2", "batch_norm": "train"})
    assert describe_unfreezing(lower, 9).endswith(
        "now training frozen batch normalization, stage3 and head"
    )


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"freeze": "satge2"}, 'finetune.freeze: "satge2" is invalid; expected'),
        ({"freeze": "head"}, 'finetune.freeze: "head" is invalid; expected'),
        ({"freeze": "stage0"}, 'finetune.freeze: "stage0" is invalid; expected'),
        ({"freeze": "stage4"}, "expected one of 'none', 'stem', 'stage1', 'stage2', 'stage3', 'all' with model resnet8"),
        ({"freeze": 3}, "finetune.freeze: 3 is invalid; expected text"),
        ({"batch_norm": "evla", "freeze": "stem"}, "did you mean 'eval'"),
        ({"freeze": "none", "batch_norm": "train"}, 'finetune.batch_norm: not used with finetune.freeze = "none"'),
        ({"freeze": "all"}, 'finetune.probe_epochs: not used with finetune.freeze = "all". Remove finetune.probe_epochs'),
        ({"freeze": "stage3"}, 'finetune.probe_epochs: not used with finetune.freeze = "stage3"'),
        ({"freeze": "all", "probe_epochs": 0}, 'finetune.stage_decay: not used with finetune.freeze = "all"'),
        ({"freeze": "stage3", "probe_epochs": 0}, 'finetune.stage_decay: not used with finetune.freeze = "stage3"'),
        ({"stage_decay": 0}, "finetune.stage_decay: 0 is invalid; expected a number > 0 and <= 1"),
        ({"stage_decay": 1.5}, "finetune.stage_decay: 1.5 is invalid; expected a number > 0 and <= 1"),
        ({"probe_epochs": -1}, "finetune.probe_epochs: -1 is invalid; expected a number >= 0"),
        ({"probe_epochs": 4}, "finetune.probe_epochs: 4.0 is invalid; expected less than train.epochs = 4"),
        ({"probe_epoch": 4}, "finetune.probe_epoch: unknown key; did you mean 'probe_epochs'"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_one_line(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ReszooError) as caught:
        recipe(finetune=table)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_configs_made_in_python_are_refused_alike() -> None:
    with pytest.raises(ReszooError, match="finetune.probe_epochs: not used with finetune.freeze"):
        FinetuneConfig(freeze="all", probe_epochs=1)
    assert recipe(finetune={"freeze": "all", "batch_norm": "train"}).frozen_groups == PLACES[:-1]
    assert (
        recipe(finetune={"freeze": "stage2"}).frozen_groups == PLACES[:3]
        and recipe().layer_groups == PLACES
    )


def test_a_probe_as_long_as_the_training_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    tables = recipe().to_dict()
    tables["train"] |= {"epochs": 0, "steps": 6}  # of 3 steps to an epoch
    with pytest.raises(ReszooError) as caught:
        train(Recipe(**tables), run_dir=tmp_path / "run", quiet=True)
    assert (
        "finetune.probe_epochs: 2 (6 steps) is invalid; expected less than 2 epochs, the whole training (6 steps)"
        in str(caught.value)
    )
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
    tables["finetune"]["probe_epochs"] = 0.01
    assert Recipe(**tables).probe_steps(3) == 1
