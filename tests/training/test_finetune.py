"""Fine-tuning: what learns and at which learning rate, over a resume and on replicas."""

from __future__ import annotations

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
from reszoo.models.batchnorm import synchronize_batch_norm
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
SLOW = pytest.mark.slow
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
        return Stepper(
            model,
            make_optimizer(config),
            plan,
            config,
            strategy,
            FinetuneConfig(stage_decay=stage_decay),
        )


def batches(steps: int, rows: int = 16) -> list[tuple[tf.Tensor, tf.Tensor]]:
    random = np.random.default_rng(0)
    images = random.normal(size=(steps, rows, *SHAPE)).astype(np.float32)
    labels = random.integers(0, 10, (steps, rows)).astype(np.int32)
    return list(zip(map(tf.constant, images), map(tf.constant, labels), strict=True))


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: variable.numpy() for variable in model.variables}


def averages(stepper: Stepper) -> dict[str, np.ndarray]:
    pairs = zip(stepper.averaged, stepper.averages, strict=True)
    return {weight.path: average.numpy() for weight, average in pairs}


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
        pytest.param({"optimizer": {"weight_decay": 0.1}, "ema": 0.9}, marks=SLOW),
        EVERYTHING | {"precision": "mixed_float16", "policy": "mixed_float16"},
    ],
    ids=["coupled", "everything"],
)
def test_frozen_weights_stay_bit_equal_and_have_no_slots(settings: dict[str, Any]) -> None:
    stepper = make(until="stage2", **settings)
    before = values(stepper.model)
    for images, labels in batches(2):
        stepper(images, labels, 0.01)
    assert moved(before, values(stepper.model)) == at(before, "stage3", "head")
    learning = 2 * 3 + 2  # of two convolutions, each with a batch normalization, and the classifier
    assert len(stepper.weights) == len(stepper.averages) == learning
    slots = 1 if stepper.optimizer.name.startswith("sgd") else 2
    assert len(stepper.optimizer.variables) == 2 + slots * learning
    # Frozen statistics are left out: a mean over three replicas would round them.
    assert len(stepper._statistics) == 2 * 2
    for weight, average in zip(stepper.weights, stepper.averages, strict=True):
        assert (before[weight.path] != average.numpy()).any()


def backward_convolutions(traced: Any) -> int:
    graph = traced.get_concrete_function().graph.as_graph_def()
    nodes = [node.op for node in graph.node]
    nodes += [node.op for each in graph.library.function for node in each.node_def]
    assert nodes.count("Conv2DBackpropFilter") == nodes.count("Conv2DBackpropInput")
    return nodes.count("Conv2DBackpropFilter")


def test_the_backward_pass_ends_where_learning_ends() -> None:
    stepper = make(until="stage2")
    assert backward_convolutions(stepper.trace(True, *SHAPE).function) == 2
    assert backward_convolutions(stepper.trace(False, *SHAPE).function) == 0
    # Option A, twice, is a convolution in training.
    assert backward_convolutions(make().trace(True, *SHAPE).function) == 7 + 2


def test_in_a_probe_the_classifier_alone_learns_on_the_features_of_inference() -> None:
    """Against arithmetic: softmax regression on the pooled features, with decay and clipping."""
    rate, decay, limit = 0.1, 0.01, 0.05
    stepper = make(
        optimizer={"momentum": 0.0, "weight_decay": decay}, net={"drop_path": 0.5}, ema=0.5,
        clip_norm=limit, stage_decay=0.5,
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
    assert moved(averages(stepper), before) == at(before, "head")

    stepper(more, others, rate)
    changed = moved(after, values(stepper.model))
    assert {weight.path for weight in stepper.weights} < changed
    assert any("seed" in path for path in changed)


def test_steps_after_a_restart_have_the_right_length() -> None:
    """Adam's first step has the length of the learning rate (arXiv 1412.6980, section 2.1)."""
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


@pytest.mark.parametrize("decay", [pytest.param("coupled", marks=SLOW), "decoupled"])
def test_each_layer_group_has_its_own_learning_rate(decay: str) -> None:
    """One plain step against another tape: w - rate * share * (g + decay * w)."""
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


@pytest.mark.parametrize("batch_norm", ["eval", pytest.param("train", marks=SLOW)])
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
    x, y = (np.concatenate([each.numpy() for each in column]) for column in zip(*data, strict=True))
    theirs.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    one, other = values(ours.model), values(theirs)
    for path in one:  # processors round differently, and moving variances are of the order of 10
        np.testing.assert_allclose(one[path], other[path], rtol=1e-6, atol=1e-6, err_msg=path)


def test_two_replicas_equal_one_device(strategy: tf.distribute.Strategy) -> None:
    """Three steps of a probe, a restart and three more; synchronized and in float64."""
    settings = EVERYTHING | {"until": "stage2", "stage_decay": 0.5, "policy": "float64"}
    results = []
    for each in (tf.distribute.get_strategy(), strategy):
        stepper = make(each, **settings)
        synchronize_batch_norm(stepper.model)
        for step, (images, labels) in enumerate(batches(6, rows=13)):
            if step == 3:
                stepper.restart()
            (stepper.probe if step < 3 else stepper)(images, labels, 0.01)
        results.append((values(stepper.model), averages(stepper)))
    for one, other in zip(*results, strict=True):
        assert max(float(np.abs(one[path] - other[path]).max()) for path in one) < 1e-6


# Runs


def recipe(**tables: dict[str, Any]) -> Recipe:
    base: dict[str, dict[str, Any]] = {
        "model": {"name": "resnet8", "drop_path": 0.3},
        "data": {"name": "digits", "examples": 120},
        "train": {"epochs": 4, "batch_size": 40, "export": False, "deterministic": True},
        "optimizer": {"name": "adam"},
        "schedule": {"kind": "constant", "rate": 0.01},
        "finetune": {"freeze": "stem", "probe_epochs": 2, "stage_decay": 0.5},
    }
    base["train"] |= {"checkpoint_every": 1, "ema": 0.5}
    return Recipe(name="tuned", **{key: base[key] | tables.get(key, {}) for key in base})


NONE = {"freeze": "none", "probe_epochs": 0, "stage_decay": 1}


def start(folder: Path, **more: Any) -> bool:
    """Train as in another process, where Keras counts names from zero."""
    keras.backend.clear_session()
    return train(recipe(), run_dir=folder, quiet=True, **more).finished


def last(folder: Path) -> checkpoint.Checkpoint:
    return checkpoint.load(checkpoint.steps(Run(folder).checkpoints)[-1])


def trained(found: checkpoint.Checkpoint) -> dict[str, np.ndarray]:
    """Return a checkpoint's arrays without those of callbacks, of which the runs have others."""
    return {name: array for name, array in found.arrays.items() if not name.startswith("callback/")}


class Watch(keras.callbacks.Callback):
    """Collects which layer groups each step moved."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.before: dict[str, np.ndarray] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        self.before = values(self.model)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        before, self.before = self.before, values(self.model)
        groups = {parse_layer_group(path) for path in moved(before, self.before)}
        self.rows.append(sorted(groups - {""}))


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def unbroken(watch: Watch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 12 steps, 6 of them in the probe."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    assert start(folder, callbacks=[watch])
    return folder


def test_a_run_reports_what_learns_and_restarts_its_optimizer_after_the_probe(
    unbroken: Path, watch: Watch
) -> None:
    log = (unbroken / "train.log").read_text()
    for line in (
        "  frozen: stem\n",
        "  linear probe: only the classifier is trained for 6 steps\n",
        "step 6: the linear probe ends; now training stage1, stage2, stage3 and head\n",
    ):
        assert log.count(line) == 1
    probe, rest = ["head"], ["head", "stage1", "stage2", "stage3"]
    assert watch.rows == [probe] * 6 + [rest] * 6
    arrays = last(unbroken).arrays
    assert int(arrays["optimizer/0"]) == 6
    assert not any("/stem" in name for name in arrays if name.startswith("average/"))
    model = Run(unbroken).load_model()
    assert not model.get_layer("stem_conv1").trainable
    assert model.get_layer("stage1_block1_conv1").trainable


def test_each_stage_of_a_run_has_its_own_step_size(unbroken: Path) -> None:
    """Adam's sixth step is at most 1.016 times the learning rate.

    It is sqrt(sum a_i^2 / b_i) over the weights of its two means.
    """
    paths = checkpoint.steps(Run(unbroken).checkpoints)
    before, after = (checkpoint.load(path).arrays for path in paths)
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


@pytest.mark.parametrize(
    "breaks",
    [(4, 6), *(pytest.param((step + 1,), marks=pytest.mark.slow) for step in (5, 6, 7))],
    ids=str,
)
def test_a_run_broken_in_the_probe_and_after_it_equals_an_unbroken_one(
    breaks: tuple[int, ...], unbroken: Path, tmp_path: Path
) -> None:
    folder, step = tmp_path / "run", 0
    for after in breaks:
        with pytest.raises(Broken):  # a step's checkpoint is written after its callbacks
            start(folder, callbacks=[Break(after)], resume=step > 0)
        step += after - 1
        assert last(folder).meta["step"] == step
    assert start(folder, resume=True)
    one, other = last(unbroken), last(folder)
    assert one.meta["step"] == other.meta["step"] == 12
    assert trained(one).keys() == trained(other).keys()
    assert moved(trained(one), trained(other)) == set()
    assert (unbroken / "test.json").read_text() == (folder / "test.json").read_text()


@pytest.mark.slow
def test_a_frozen_run_grows_with_its_slots(tmp_path: Path) -> None:
    fields = {
        "finetune": NONE | {"freeze": "stage2"},
        "train": {"epochs": 1, "checkpoint_every": 0},
    }
    assert train(recipe(**fields), run_dir=tmp_path / "small", quiet=True).finished
    fields["train"]["grow_from"] = str(tmp_path / "small")
    grown = recipe(model={"name": "resnet14"}, **fields)
    assert train(grown, run_dir=tmp_path / "grown", quiet=True).finished
    run = Run(tmp_path / "grown")
    assert run.meta["grown_from"]["slots"] == 2 * 8  # Adam's two, of the eight weights that learnt
    old, new = values(Run(tmp_path / "small").load_model()), values(run.load_model())
    kept = {path for path in at(old, "stem", "stage1", "stage2") if "seed" not in path}
    assert len(kept) == 25 and not moved({path: old[path] for path in kept}, new)


def test_a_run_from_before_the_table_resumes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    plain = recipe(finetune=NONE)
    text = plain.to_toml()
    assert plain.finetune == FinetuneConfig() and "[finetune]" in text
    folder.mkdir()
    (folder / "recipe.toml").write_text(text[: text.index("[finetune]")])
    run = Run.open(folder)
    assert run.recipe == resolve_recipe(plain)
    run.reject_other(plain)
    with pytest.raises(ReszooError, match=r"another \[finetune\]"):
        run.reject_other(recipe())


# Lines and errors


def test_the_lines_of_a_run() -> None:
    assert describe_finetuning(recipe(finetune=NONE), 3) == []
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
    blocks = recipe(finetune=NONE | {"block_decay": 0.7})
    line = "factor on the learning rate from block to block: 0.7"
    assert describe_finetuning(blocks, 3) == [line]
    assert norms.frozen_groups == PLACES[:-1]
    end = "now training frozen batch normalization"
    assert describe_unfreezing(norms, 9).endswith(f"{end} and head")
    lower = recipe(finetune={"freeze": "stage2", "batch_norm": "train"})
    assert describe_unfreezing(lower, 9).endswith(f"{end}, stage3 and head")
    assert lower.frozen_groups == PLACES[:3] and lower.layer_groups == PLACES


@pytest.mark.parametrize(
    ("table", "key", "words"),
    [
        ({"freeze": "satge2"}, "freeze", "is invalid; expected"),
        ({"freeze": "stage4"}, "freeze", "'stage3', 'all' with model resnet8"),
        ({"freeze": 3}, "freeze", "expected text"),
        ({"batch_norm": "evla", "freeze": "stem"}, "batch_norm", "did you mean 'eval'"),
        ({"freeze": "none", "batch_norm": "train"}, "batch_norm", "not used with"),
        ({"freeze": "all"}, "probe_epochs", "not used with"),
        ({"freeze": "stage3"}, "probe_epochs", "not used with"),
        ({"freeze": "all", "probe_epochs": 0}, "stage_decay", "not used with"),
        ({"freeze": "stage3", "probe_epochs": 0}, "stage_decay", "not used with"),
        ({"block_decay": 0.5}, "block_decay", "expected 1 with finetune.stage_decay = 0.5"),
        ({"stage_decay": 0}, "stage_decay", "expected a number > 0 and <= 1"),
        ({"probe_epochs": -1}, "probe_epochs", "expected a number >= 0"),
        ({"probe_epochs": 4}, "probe_epochs", "expected less than train.epochs = 4"),
        ({"probe_epoch": 4}, "probe_epoch", "did you mean 'probe_epochs'"),
    ],
)
def test_an_invalid_table_is_rejected_in_one_line(
    table: dict[str, Any], key: str, words: str
) -> None:
    with pytest.raises(ReszooError) as caught:
        recipe(finetune=table)
    line = str(caught.value)
    assert f"finetune.{key}: " in line and words in line and "\n" not in line


def test_a_probe_as_long_as_the_training_is_rejected_before_anything_is_written(
    tmp_path: Path,
) -> None:
    tables = recipe().to_dict()
    tables["train"] |= {"epochs": 0, "steps": 6}  # of 3 steps to an epoch
    with pytest.raises(ReszooError, match=r"^finetune.probe_epochs: 2 \(6 steps\) .*6 steps"):
        train(Recipe(**tables), run_dir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    tables["finetune"]["probe_epochs"] = 0.01
    assert Recipe(**tables).probe_steps(3) == 1
