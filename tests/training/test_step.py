"""The step: N replicas equal one device, a step equals Keras' fit, an overflow skips the step."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.config.optimizer import Optimizer
from reszoo.config.training import TrainConfig
from reszoo.errors import ReszooError
from reszoo.models.batchnorm import synchronize_batch_norm
from reszoo.models.build import build
from reszoo.training.devices import open_strategy, precision
from reszoo.training.loss_scale import START
from reszoo.training.optimizers import make_optimizer
from reszoo.training.step import Stepper

SHAPE = (8, 8, 3)
SMALL: dict[str, Any] = {"depths": (1, 1), "widths": (4, 8), "stem_width": 4}
STEPS = 5
CLASS_WEIGHTS = [0.2, 3.0, *[1.0] * 6, 0.5, 2.0]
ONE = tf.distribute.get_strategy
SLOW = pytest.mark.slow


def make(
    strategy: tf.distribute.Strategy | None = None,
    *,
    sync: bool = True,
    optimizer: dict[str, Any] | None = None,
    policy: str = "",
    fields: dict[str, Any] = SMALL,
    images_on: str = "CPU:0",
    workers: Mapping[str, int] = {},
    class_weights: Sequence[float] = (),
    shape: tuple[int, int, int] = SHAPE,
    **train: Any,
) -> Stepper:
    """Return a stepper over a small model that starts alike every time."""
    keras.utils.set_random_seed(1)
    strategy = strategy or ONE()
    settings = TrainConfig(**{"batch_size": 16, "steps": STEPS, **train})
    config = Optimizer.of(**(optimizer or {"name": "sgd", "weight_decay": 1e-4}))
    with strategy.scope(), precision(policy or settings.precision):
        model = build("resnet8", input_shape=shape, **fields)
        if sync:
            synchronize_batch_norm(model)
        return Stepper(
            model,
            make_optimizer(config),
            settings,
            config,
            strategy,
            images_on=images_on,
            class_weights=class_weights,
            **workers,
        )


def batches(rows: int, steps: int = STEPS) -> list[tuple[tf.Tensor, tf.Tensor]]:
    random = np.random.default_rng(0)
    images = random.normal(size=(steps, rows, *SHAPE)).astype(np.float32)
    labels = random.integers(0, 10, (steps, rows)).astype(np.int32)
    return list(zip(map(tf.constant, images), map(tf.constant, labels), strict=True))


def arrays(variables: Any) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def weights(stepper: Stepper) -> list[np.ndarray]:
    return arrays(stepper.model.variables)


def difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Return the largest difference."""
    pairs = zip(one, other, strict=True)
    return max((float(np.abs(a - b).max()) for a, b in pairs), default=0.0)


def train(stepper: Stepper, rows: int = 16, rate: float = 0.01) -> Stepper:
    for images, labels in batches(rows):
        stepper(images, labels, rate)
    return stepper


def test_soft_targets_are_learned_and_counted() -> None:
    """Targets of one class give the step of labels; others the mean of the losses."""
    (images, labels), *_ = batches(8)
    targets = tf.one_hot(labels, 10)
    hard, soft = make(ema=0.9), make(workers={"soft": True}, ema=0.9)
    hard(images, labels, 0.01)
    soft(images, targets, 0.01)
    assert difference(weights(hard), weights(soft)) == 0
    np.testing.assert_array_equal(hard.totals, soft.totals)
    mixed = make(workers={"soft": True}, loss="binary_sum")
    logits = mixed.model(images, training=True).numpy()
    half = 0.75 * targets.numpy() + 0.25 * targets.numpy()[::-1]
    mixed(images, tf.constant(half), 0.0)
    sigmoid = 1 / (1 + np.exp(-logits.astype("f8")))
    loss = -(half * np.log(sigmoid) + (1 - half) * np.log(1 - sigmoid)).sum()
    right = (logits.argmax(axis=-1) == labels.numpy()).sum()
    np.testing.assert_allclose(mixed.totals[:3], [loss, right, 8], rtol=1e-5)
    # An image with several classes is right if each of them is.
    several, decided = make(workers={"multi_label": True}, loss="bce"), logits > 0
    own = decided.astype(np.float32)
    own[:5, 3] = 1 - own[:5, 3]
    several(images, tf.constant(own), 0.0)
    loss = -(own * np.log(sigmoid) + (1 - own) * np.log(1 - sigmoid)).mean(axis=-1).sum()
    np.testing.assert_allclose(several.totals[:3], [loss, 3, 8], rtol=1e-5)


CASES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "nesterov": {"optimizer": {"name": "sgd", "nesterov": True, "weight_decay": 1e-4}},
    "adam": {"optimizer": {"name": "adam"}},
    "adamw": {
        "optimizer": {
            "name": "adamw", "weight_decay": 0.1, "decay": "decoupled", "decay_norms": False
        }
    },
    "gradients": {"optimizer": {"name": "sgd", "velocity": "gradients", "nesterov": True}},
    "lamb": {"optimizer": {"name": "lamb"}},
    "lamb update": {"optimizer": {"name": "lamb", "weight_decay": 0.1, "decay": "update"}},
    "rmsprop": {"optimizer": {"name": "rmsprop"}},
    "ragged": {"rows": 7},
    "accumulated": {"accumulate": 2},
    "clipped": {"clip_norm": 0.5},
    "averaged": {"ema": 0.9, "ema_batch_norm": True},
    "clipped adaptively": {"clip_adaptive": 0.01},
    "smoothed": {"label_smoothing": 0.1},
    "all": {
        "accumulate": 2, "rows": 13, "clip_norm": 0.5, "ema": 0.9, "label_smoothing": 0.1,
        "class_weights": CLASS_WEIGHTS,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [case if case == "all" else pytest.param(case, marks=SLOW) for case in CASES]
)
def test_two_replicas_equal_one_device(case: str, strategy: tf.distribute.Strategy) -> None:
    settings = dict(CASES[case])
    rows = settings.pop("rows", 16)
    # In float64, where rounding does not move a pre-activation across the kink of its ReLU.
    one, two = (train(make(each, policy="float64", **settings), rows) for each in (ONE(), strategy))
    assert difference(weights(one), weights(two)) < 1e-6
    assert difference(arrays(one.averages), arrays(two.averages)) < 1e-6
    np.testing.assert_allclose(one.totals.numpy(), two.totals.numpy(), rtol=1e-6)
    assert one.totals.numpy()[2] == rows * STEPS


@pytest.mark.parametrize(
    ("rows", "accumulate"), [(13, 2), *(pytest.param(rows, 1, marks=SLOW) for rows in (16, 7, 2))]
)
def test_three_replicas_equal_one_device(rows: int, accumulate: int, two_devices: None) -> None:
    """Shares of five and six images, of two and three, of one and none, and of micro-batches."""
    over = open_strategy("cpu:3")
    one, three = (make(each, policy="float64", accumulate=accumulate) for each in (ONE(), over))
    for images, labels in batches(rows, 3):
        one(images, labels, 0.01)
        three(images, labels, 0.01)
    assert over.num_replicas_in_sync == 3
    if rows >= 3:  # a replica without an image normalizes one that does not count
        assert difference(weights(one), weights(three)) < 1e-6
    else:
        assert all(np.isfinite(value).all() for value in weights(three))
    np.testing.assert_array_equal(one.totals.numpy()[2:], three.totals.numpy()[2:])
    assert three.totals.numpy()[2] == rows * 3


@pytest.mark.parametrize("sync", [False, pytest.param(True, marks=SLOW)])
def test_fewer_rows_than_replicas_stay_finite(sync: bool, strategy: tf.distribute.Strategy) -> None:
    stepper = make(strategy, sync=sync)
    for images, labels in batches(1, 3):
        stepper(images, labels, 0.01)
    assert all(np.isfinite(value).all() for value in weights(stepper))
    assert stepper.totals.numpy()[2] == 3


@SLOW
@pytest.mark.parametrize("replicas", [1, 2])
def test_images_of_another_size_take_the_step_of_a_model_of_that_size(
    replicas: int, strategy: tf.distribute.Strategy
) -> None:
    """With masks: on one device with micro-batches, and on two replicas."""
    over = strategy if replicas > 1 else None
    fields, accumulate = {**SMALL, "drop_path": 0.5}, 3 - replicas
    (images, labels), *_ = batches(16)
    small, found = images[:, :4, :4], []
    for shape in (SHAPE, (4, 4, 3)):
        stepper = make(over, shape=shape, sync=False, fields=fields, accumulate=accumulate)
        stepper(small, labels, 0.01)
        assert stepper.model.input_shape == (None, *shape)
        assert stepper.totals.numpy()[2] == 16
        found.append([*weights(stepper), stepper.totals.numpy()])
    assert difference(*found) == 0


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=SLOW)])
def test_gradients_of_blocks_that_are_computed_again_are_the_same(
    replicas: int, strategy: tf.distribute.Strategy
) -> None:
    """With masks, which are drawn alike, and statistics, which change once."""
    over = strategy if replicas > 1 else None
    fields, found, calls = {**SMALL, "drop_path": 0.5}, [], []
    for checkpoint in (False, True):
        stepper = make(over, sync=False, fields=fields, checkpoint_gradients=checkpoint)
        for images, labels in batches(16, 2):
            stepper(images, labels, 0.01)
        found.append([*weights(stepper), stepper.totals.numpy()])
        graph = stepper.trace(True, *SHAPE).function.get_concrete_function().graph.as_graph_def()
        nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
        calls.append(sum(node.op.endswith(("Conv2D", "PartitionedCall")) for node in nodes))
    assert difference(*found) < 1e-6
    assert calls[1] > calls[0]


def test_moving_statistics_are_the_mean_of_the_replicas(strategy: tf.distribute.Strategy) -> None:
    """Against arithmetic: the mean of two models, each after a step on half of the batch."""
    both, (images, labels) = make(strategy, sync=False), batches(16, 1)[0]
    both(images, labels, 0.01)
    alone = make(sync=False)
    start, halves = weights(alone), []
    for half in (slice(0, 8), slice(8, 16)):
        alone.model.set_weights(start)
        alone(images[half], labels[half], 0.01)
        halves.append(arrays(alone.model.non_trainable_variables))
    for variable, one, other in zip(both.model.non_trainable_variables, *halves, strict=True):
        copies = arrays(strategy.experimental_local_results(variable.value))
        np.testing.assert_array_equal(copies[0], copies[1])
        np.testing.assert_allclose(copies[0], (one + other) / 2, rtol=1e-5, atol=1e-6)


def test_replicas_draw_their_own_masks(strategy: tf.distribute.Strategy) -> None:
    stepper = make(strategy, sync=False, fields={"drop_path": 0.5})
    seeds = [v for v in stepper.model.variables if v.path.endswith("seed_generator_state")]
    first = arrays(seeds)
    stepper.spread_seeds()
    assert len(seeds) == 3
    for seed, before in zip(seeds, first, strict=True):
        one, two = arrays(strategy.experimental_local_results(seed.value))
        np.testing.assert_array_equal(one, before)  # what a checkpoint stores stays what it was
        assert (one != two).any()
    stepper(*batches(16, 1)[0], 0.01)


# Compiled by XLA

JIT_CASES = ("sgd", "adamw", "ragged", "accumulated", "clipped", "averaged")


@pytest.mark.parametrize(
    ("case", "replicas"),
    [
        pytest.param(*each, marks=() if each == ("accumulated", 1) else SLOW)
        for each in itertools.product(JIT_CASES, (1, 2))
    ],
)
def test_a_compiled_step_equals_the_plain_one(
    case: str, replicas: int, strategy: tf.distribute.Strategy
) -> None:
    """Steps, a probe and a short batch; for Adam, whose first steps are signs, in float64."""
    settings = dict(CASES[case])
    rows = settings.pop("rows", 16)
    policy = "float64" if case == "adamw" else "float32"
    over = strategy if replicas > 1 else ONE()
    plain, compiled = (
        make(over, sync=False, policy=policy, jit=jit, **settings) for jit in (False, True)
    )
    start = weights(plain)
    losses: dict[bool, list[float]] = {False: [], True: []}
    for number, (images, labels) in enumerate([*batches(rows, 4), *batches(5, 1)]):
        for stepper, jit in ((plain, False), (compiled, True)):
            (stepper.probe if number == 1 else stepper)(images, labels, 0.01)
            losses[jit].append(float(stepper.totals.numpy()[0]))
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-6)
    for before, ours, theirs in zip(start, weights(compiled), weights(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
        assert (before != ours).any()
    assert difference(arrays(compiled.averages), arrays(plain.averages)) < 1e-6
    np.testing.assert_array_equal(compiled.totals.numpy()[1:], plain.totals.numpy()[1:])


def test_jit_compiles_the_gradients_with_xla() -> None:
    """The equalities above would also hold for a key that nobody reads."""
    for jit in (False, True):
        graph = (
            make(sync=False, jit=jit)
            .trace(True, *SHAPE)
            .function.get_concrete_function()
            .graph.as_graph_def()
        )
        compiled = [each for each in graph.library.function if each.attr["_XlaMustCompile"].b]
        name = "Conv2DBackpropFilter"
        convolutions = [sum(node.op == name for node in each.node_def) for each in compiled]
        assert sorted(convolutions) == ([0, 6] if jit else [])  # update, gradients
        assert any(node.op == name for node in graph.node) != jit


@SLOW
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_jit_under_mixed_precision_follows_the_plain_path(policy: str) -> None:
    """XLA keeps more digits inside a fused operation, so that only the first digits agree."""
    plain, compiled = (make(sync=False, precision=policy, jit=jit) for jit in (False, True))
    for images, labels in batches(16, 3):
        plain(images, labels, 0.01)
        compiled(images, labels, 0.01)
    np.testing.assert_allclose(compiled.totals.numpy()[0], plain.totals.numpy()[0], rtol=2e-3)
    np.testing.assert_array_equal(compiled.totals.numpy()[2:], plain.totals.numpy()[2:])
    assert compiled.loss_scale.scale.numpy() == plain.loss_scale.scale.numpy()


def test_jit_skips_a_step_that_overflows() -> None:
    stepper = make(sync=False, precision="mixed_float16", jit=True)
    images, labels = batches(16, 1)[0]
    before = arrays(stepper.weights)
    stepper(tf.where(tf.range(16)[:, None, None, None] == 3, 1e30, images), labels, 0.01)
    assert difference(before, arrays(stepper.weights)) == 0
    assert stepper.loss_scale.scale.numpy() == START / 2 and stepper.totals.numpy()[3] == 1


def test_jit_rejects_a_model_that_draws_random_numbers() -> None:
    line = r"^train\.jit: true is invalid; .*dropout.*Example: --set train\.jit=false$"
    with pytest.raises(ReszooError, match=line):
        make(jit=True, fields={"dropout": 0.1})


# Options and devices


def test_a_step_leaves_the_global_options_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph optimizer is off only for the step: while it is traced, and in each call."""
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("there is a GPU, on which the graph optimizer stays on")
    options = tf.config.optimizer
    stepper, before = make(sync=False), options.get_experimental_options()
    given: list[Any] = []
    changed: list[Any] = []
    call, change = tf.raw_ops.StatefulPartitionedCall, options.set_experimental_options

    def record(**arguments: Any) -> Any:
        given.append(arguments["config_proto"])
        assert options.get_experimental_options() == before
        return call(**arguments)

    def record_change(values: Any) -> None:
        changed.append(values)
        change(values)

    monkeypatch.setattr(tf.raw_ops, "StatefulPartitionedCall", record)
    monkeypatch.setattr(options, "set_experimental_options", record_change)
    images, labels = batches(16, 1)[0]
    for take in (stepper, stepper, stepper.probe, stepper.probe):
        take(images, labels, 0.01)
        assert options.get_experimental_options() == before
    assert len(changed) == 2 * 2  # on and off, once for the step and once for the probe
    nodes = stepper.trace(True, *SHAPE).function.get_concrete_function().graph.as_graph_def().node
    given += [node.attr["config_proto"].s for node in nodes if node.op.endswith("PartitionedCall")]
    assert len(given) > 4
    for each in map(tf.compat.v1.ConfigProto.FromString, given):
        assert each.graph_options.rewrite_options.disable_meta_optimizer
        assert each.allow_soft_placement
    assert stepper.totals.numpy()[2] == 4 * 16


def test_options_that_the_user_set_stay() -> None:
    options = tf.config.optimizer
    options.set_experimental_options({"disable_meta_optimizer": True})
    try:
        make()(*batches(16, 1)[0], 0.01)
        assert options.get_experimental_options()["disable_meta_optimizer"]
    finally:
        options.set_experimental_options({"disable_meta_optimizer": False})


@pytest.mark.parametrize("replicas", [pytest.param(1, marks=SLOW), 2])
def test_only_a_share_leaves_the_device_of_the_images(
    replicas: int, strategy: tf.distribute.Strategy
) -> None:
    """Images on the second device give the same step to the bit, and are sliced there."""
    found = []
    for device in ("CPU:0", "CPU:1"):
        stepper = make(strategy if replicas > 1 else None, sync=False, images_on=device)
        nodes = stepper.trace(True, *SHAPE).function.get_concrete_function().graph.get_operations()
        slices = [
            node
            for node in nodes
            if node.type == "StridedSlice" and node.outputs[0].shape.rank == 4
        ]
        assert len(slices) >= replicas
        placed = {node.device[-5:] for node in slices if node.inputs[0].op.type == "Placeholder"}
        assert placed == {device}
        for images, labels in batches(16, 2):
            with tf.device(device):
                images = tf.identity(images)
            stepper(images, labels, 0.01)
        found.append(weights(stepper))
    assert difference(*found) == 0


# Against Keras and arithmetic


def test_equals_keras_fit() -> None:
    """`Model.fit` with Keras' own loss, class weights and optimizer ends at the same weights."""
    momentum = {"name": "sgd", "nesterov": True}
    ours = make(sync=False, optimizer=momentum, class_weights=CLASS_WEIGHTS)
    theirs = make(sync=False).model
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True)
    theirs.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = batches(16, 20)
    for images, labels in data:
        ours(images, labels, 0.01)
    x, y = (np.concatenate([each.numpy() for each in column]) for column in zip(*data, strict=True))
    each = dict(enumerate(CLASS_WEIGHTS))
    history = theirs.fit(x, y, batch_size=16, shuffle=False, verbose=0, class_weight=each)
    assert difference(weights(ours), arrays(theirs.variables)) < 1e-6
    loss, _, rows, _ = ours.totals.numpy()
    assert loss / rows == pytest.approx(history.history["loss"][0], rel=1e-5)


def test_settings_matter() -> None:
    """The equalities above would also hold for settings that nobody reads."""
    plain = {"name": "sgd"}
    cases: list[dict[str, Any]] = [{}, {"clip_norm": 0.5}, {"label_smoothing": 0.1}]
    cases += [
        {"accumulate": 2},
        {"class_weights": CLASS_WEIGHTS},
        {"optimizer": plain | {"weight_decay": 0.01, "decay": "decoupled"}},
    ]
    base, *others = [weights(train(make(**({"optimizer": plain} | case)))) for case in cases]
    for case, other in zip(cases[1:], others, strict=True):
        assert difference(base, other) > 1e-5, case


def test_decay_is_the_gradient_of_its_penalty() -> None:
    """One SGD step with coupled decay, against arithmetic: w - rate * (g + decay * w)."""
    rate, decay = 0.1, 0.01
    data = batches(16, 1)[0]
    settings = {"name": "sgd", "momentum": 0.0}
    free, decayed = (make(optimizer=settings | {"weight_decay": wd}) for wd in (0.0, decay))
    start = weights(free)
    for stepper in (free, decayed):
        stepper(*data, rate)
    for variable, before, other in zip(free.model.variables, start, weights(decayed), strict=True):
        penalty = rate * decay * before if variable.trainable else 0
        np.testing.assert_allclose(other, variable.numpy() - penalty, atol=1e-6)


def test_a_pattern_without_weights_is_rejected() -> None:
    with pytest.raises(ReszooError, match=r"optimizer.no_decay: .*\*/gamm.* of resnet8"):
        make(optimizer={"name": "sgd", "weight_decay": 0.1, "no_decay": ["*/gamma", "*/gamm"]})


@pytest.mark.parametrize("batch_norm", [False, True])
def test_average_against_arithmetic(batch_norm: bool, strategy: tf.distribute.Strategy) -> None:
    stepper = make(strategy if batch_norm else None, ema=0.9, ema_batch_norm=batch_norm, sync=False)
    own = stepper.model.trainable_variables
    if batch_norm:
        own += [v for v in stepper.model.variables if v.path.endswith(("_mean", "_variance"))]
        assert len(own) == len(stepper.model.variables)
    mean = arrays(own)
    for (images, labels), share in zip(batches(16), (None, 1.0, 0.0, 0.3), strict=False):
        stepper.share = stepper.share if share is None else share
        stepper(images, labels, 0.05)
        part = 0.1 if share is None else share
        mean = [(1 - part) * m + part * v for m, v in zip(mean, arrays(own), strict=True)]
        assert difference(mean, arrays(stepper.averages)) < 1e-6
        if share == 1:
            assert difference(arrays(own), arrays(stepper.averages)) == 0
    kept = {name: v.numpy() for name, v in stepper.state().items() if name[:8] == "average/"}
    assert list(kept) == [f"average/{weight.path}" for weight in own]
    assert difference(mean, list(kept.values())) < 1e-6
    assert not any(name.startswith("average/") for name in make().state())


@pytest.mark.parametrize("broken", [pytest.param(0, marks=SLOW), 1])
def test_overflow_on_any_replica_skips_the_step(
    broken: int, strategy: tf.distribute.Strategy
) -> None:
    stepper = make(strategy, precision="mixed_float16")
    images, labels = batches(16, 1)[0]
    stepper(images, labels, 0.01)
    before, slots = arrays(stepper.weights), arrays(stepper.optimizer.variables)
    bad = images.numpy()
    bad[8 * broken] = 1e30  # infinite in float16, and in this replica's half of the batch
    stepper(tf.constant(bad), labels, 0.01)
    assert difference(before, arrays(stepper.weights)) == 0
    assert difference(slots[2:], arrays(stepper.optimizer.variables)[2:]) == 0
    assert stepper.loss_scale.scale.numpy() == START / 2 and stepper.totals.numpy()[3] == 1
    stepper(images, labels, 0.01)
    assert difference(before, arrays(stepper.weights)) > 0


@pytest.mark.parametrize("policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=SLOW)])
def test_mixed_precision_follows_float32(policy: str, strategy: tf.distribute.Strategy) -> None:
    full, mixed = make(strategy), make(strategy, precision=policy)
    for images, labels in batches(16, 3):
        full(images, labels, 0.01)
        mixed(images, labels, 0.01)
    assert mixed.model.layers[1].compute_dtype == policy.removeprefix("mixed_")
    np.testing.assert_allclose(full.totals.numpy()[0], mixed.totals.numpy()[0], rtol=0.02)
    assert mixed.totals.numpy()[3] == 0
