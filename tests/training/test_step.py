"""The step: N replicas equal one device, a step equals Keras' fit, an overflow on any replica skips the step."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.config.optimizer import SGD, Optimizer
from reszoo.config.training import TrainConfig
from reszoo.errors import ReszooError
from reszoo.models.batchnorm import synchronize_batch_norm
from reszoo.models.build import build
from reszoo.training.devices import open_strategy, precision
from reszoo.training.loss_scale import START
from reszoo.training.optimizers import decays, make_optimizer
from reszoo.training.step import Stepper

SHAPE = (8, 8, 3)
SMALL: dict[str, Any] = {"depths": (1, 1), "widths": (4, 8), "stem_width": 4}
STEPS = 20


def make(
    strategy: tf.distribute.Strategy,
    *,
    sync: bool = True,
    optimizer: dict[str, Any] | None = None,
    policy: str = "",
    **train: Any,
) -> Stepper:
    """Return a stepper over a small net that starts alike every time."""
    keras.utils.set_random_seed(1)
    settings = TrainConfig(**{"batch_size": 16, "steps": STEPS, **train})
    config = Optimizer.of(**(optimizer or {"name": "sgd", "weight_decay": 1e-4}))
    with strategy.scope(), precision(policy or settings.precision):
        model = build("resnet8", input_shape=SHAPE, **SMALL)
        if sync:
            synchronize_batch_norm(model)
        return Stepper(model, make_optimizer(config), settings, config, strategy)


def batches(rows: int, steps: int = STEPS) -> list[tuple[tf.Tensor, tf.Tensor]]:
    random = np.random.default_rng(0)
    return [
        (
            tf.constant(random.normal(size=(rows, *SHAPE)), tf.float32),
            tf.constant(random.integers(0, 10, rows), tf.int32),
        )
        for _ in range(steps)
    ]


def weights(stepper: Stepper) -> list[np.ndarray]:
    return [variable.numpy() for variable in stepper.model.variables]


def largest_difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def train(stepper: Stepper, rows: int = 16, rate: float = 0.01) -> Stepper:
    for images, labels in batches(rows):
        stepper(images, labels, rate)
    return stepper


CASES = {
    "sgd": {},
    "nesterov": {"optimizer": {"name": "sgd", "nesterov": True, "weight_decay": 1e-4}},
    "adam": {"optimizer": {"name": "adam"}},
    "adamw": {
        "optimizer": {
            "name": "adamw",
            "weight_decay": 0.1,
            "decay": "decoupled",
            "decay_norms": False,
        }
    },
    "lamb": {"optimizer": {"name": "lamb"}},
    "rmsprop": {"optimizer": {"name": "rmsprop"}},
    "ragged": {"rows": 7},
    "accumulated": {"accumulate": 2},
    "accumulated, ragged and clipped": {"accumulate": 2, "rows": 13, "clip_norm": 0.5},
    "clipped": {"clip_norm": 0.5},
    "averaged": {"ema": 0.9},
    "smoothed": {"label_smoothing": 0.1},
}


def test_two_replicas_equal_one_device_in_float32(strategy: tf.distribute.Strategy) -> None:
    one, two = make(tf.distribute.get_strategy()), make(strategy)
    images, labels = batches(16, 1)[0]
    one(images, labels, 0.1)
    two(images, labels, 0.1)
    assert largest_difference(weights(one), weights(two)) < 1e-6


ALWAYS = ("sgd", "accumulated, ragged and clipped")


@pytest.mark.parametrize(
    "case",
    [case if case in ALWAYS else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
)
def test_two_replicas_equal_one_device(case: str, strategy: tf.distribute.Strategy) -> None:
    settings = dict(CASES[case])
    rows = settings.pop("rows", 16)
    # In float64, where rounding does not push a pre-activation across its ReLU's kink and two runs apart.
    one = train(make(tf.distribute.get_strategy(), policy="float64", **settings), rows)
    two = train(make(strategy, policy="float64", **settings), rows)
    assert largest_difference(weights(one), weights(two)) < 1e-6
    assert (
        largest_difference(
            [a.numpy() for a in one.averages] or [np.zeros(1)],
            [a.numpy() for a in two.averages] or [np.zeros(1)],
        )
        < 1e-6
    )
    np.testing.assert_allclose(one.totals.numpy(), two.totals.numpy(), rtol=1e-6)
    assert one.totals.numpy()[2] == rows * STEPS


@pytest.mark.parametrize(
    ("rows", "accumulate"),
    [(13, 2), *(pytest.param(rows, 1, marks=pytest.mark.slow) for rows in (16, 7, 2))],
)
def test_three_replicas_equal_one_device(rows: int, accumulate: int, two_devices: None) -> None:
    """Shares of five and six images, of two and three, of one and none, and of micro-batches."""
    settings = {"policy": "float64", "accumulate": accumulate, "steps": 3}
    one, three = (
        make(tf.distribute.get_strategy(), **settings),
        make(open_strategy("cpu:3"), **settings),
    )
    for images, labels in batches(rows, 3):
        one(images, labels, 0.01)
        three(images, labels, 0.01)
    assert three.strategy.num_replicas_in_sync == 3
    if rows >= 3:  # a replica without an image normalizes one that does not count
        assert largest_difference(weights(one), weights(three)) < 1e-6
    else:
        assert all(np.isfinite(value).all() for value in weights(three))
    np.testing.assert_array_equal(one.totals.numpy()[2:], three.totals.numpy()[2:])
    assert three.totals.numpy()[2] == rows * 3


JIT_CASES = {
    name: CASES[name] for name in ("sgd", "adamw", "ragged", "accumulated", "clipped", "averaged")
}
JIT_QUICK = (("accumulated", 1),)


@pytest.mark.parametrize(
    ("case", "replicas"),
    [
        pytest.param(*each, marks=() if each in JIT_QUICK else pytest.mark.slow)
        for each in itertools.product(JIT_CASES, (1, 2))
    ],
)
def test_a_compiled_step_equals_the_plain_one(
    case: str, replicas: int, strategy: tf.distribute.Strategy
) -> None:
    """Steps, a step of a probe, and a short batch, which is compiled anew; for Adam in float64, whose steps are signs at first."""
    settings = dict(JIT_CASES[case])
    rows = settings.pop("rows", 16)
    policy = "float64" if case == "adamw" else "float32"
    over = strategy if replicas > 1 else tf.distribute.get_strategy()
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
    for ours, theirs in zip(weights(compiled), weights(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    assert all(
        (before != after).any() for before, after in zip(start, weights(compiled), strict=True)
    )
    for ours, theirs in zip(compiled.averages, plain.averages, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)
    np.testing.assert_array_equal(compiled.totals.numpy()[1:], plain.totals.numpy()[1:])


def test_jit_compiles_the_gradients_with_xla() -> None:
    """The equalities above would also hold for a key that nobody reads."""
    for jit in (False, True):
        stepper = make(tf.distribute.get_strategy(), sync=False, jit=jit)
        graph = stepper._step.get_concrete_function().graph.as_graph_def()
        compiled = [each for each in graph.library.function if each.attr["_XlaMustCompile"].b]
        convolutions = [
            sum(node.op == "Conv2DBackpropFilter" for node in each.node_def) for each in compiled
        ]
        assert convolutions == ([6] if jit else [])
        assert any(node.op == "Conv2DBackpropFilter" for node in graph.node) != jit


@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
def test_jit_under_mixed_precision_follows_the_plain_path(policy: str) -> None:
    """XLA keeps more digits inside a fused operation, so that only the first digits agree."""
    plain, compiled = (
        make(tf.distribute.get_strategy(), sync=False, precision=policy, jit=jit)
        for jit in (False, True)
    )
    for images, labels in batches(16, 3):
        plain(images, labels, 0.01)
        compiled(images, labels, 0.01)
    np.testing.assert_allclose(compiled.totals.numpy()[0], plain.totals.numpy()[0], rtol=2e-3)
    np.testing.assert_array_equal(compiled.totals.numpy()[2:], plain.totals.numpy()[2:])
    assert compiled.loss_scale.scale.numpy() == plain.loss_scale.scale.numpy()


def test_jit_skips_a_step_that_overflows() -> None:
    stepper = make(tf.distribute.get_strategy(), sync=False, precision="mixed_float16", jit=True)
    images, labels = batches(16, 1)[0]
    before = [v.numpy() for v in stepper.weights]
    stepper(tf.where(tf.range(16)[:, None, None, None] == 3, 1e30, images), labels, 0.01)
    assert largest_difference(before, [v.numpy() for v in stepper.weights]) == 0
    assert stepper.loss_scale.scale.numpy() == START / 2 and stepper.totals.numpy()[3] == 1


def test_jit_rejects_a_model_that_draws_random_numbers() -> None:
    settings, config = TrainConfig(batch_size=4, steps=1, jit=True), SGD()
    model = build("resnet8", input_shape=SHAPE, dropout=0.1)
    with pytest.raises(
        ReszooError,
        match=r"^train\.jit: true is invalid; .*dropout.*Example: --set train\.jit=false$",
    ):
        Stepper(model, make_optimizer(config), settings, config, tf.distribute.get_strategy())


def test_a_step_leaves_the_global_options_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph optimizer is off for the step alone: set while it is traced, for the functions inside, and given with each call."""
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("there is a GPU, on which the graph optimizer stays on")
    stepper, before = (
        make(tf.distribute.get_strategy(), sync=False),
        tf.config.optimizer.get_experimental_options(),
    )
    given: list[Any] = []
    call, change = tf.raw_ops.StatefulPartitionedCall, tf.config.optimizer.set_experimental_options
    changed = []

    def record(**arguments: Any) -> Any:
        given.append(arguments["config_proto"])
        assert tf.config.optimizer.get_experimental_options() == before
        return call(**arguments)

    monkeypatch.setattr(tf.raw_ops, "StatefulPartitionedCall", record)
    monkeypatch.setattr(
        tf.config.optimizer,
        "set_experimental_options",
        lambda options: changed.append(options) or change(options),
    )
    images, labels = batches(16, 1)[0]
    for take in (stepper, stepper, stepper.probe, stepper.probe):
        take(images, labels, 0.01)
        assert tf.config.optimizer.get_experimental_options() == before
    assert len(changed) == 2 * 2  # on and off, once for the step and once for the probe
    functions = stepper._step.get_concrete_function().graph.as_graph_def().node
    given += [
        node.attr["config_proto"].s for node in functions if node.op.endswith("PartitionedCall")
    ]
    assert len(given) > 4
    for each in map(tf.compat.v1.ConfigProto.FromString, given):
        assert (
            each.graph_options.rewrite_options.disable_meta_optimizer and each.allow_soft_placement
        )
    assert stepper.totals.numpy()[2] == 4 * 16


def test_options_that_the_user_set_stay() -> None:
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        make(tf.distribute.get_strategy())(*batches(16, 1)[0], 0.01)
        assert tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"]
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.mark.parametrize("replicas", [1, 2])
def test_only_a_share_leaves_the_device_of_the_images(
    replicas: int, strategy: tf.distribute.Strategy
) -> None:
    """Images on the second device give the same step to the bit, and are sliced there."""
    over = strategy if replicas > 1 else tf.distribute.get_strategy()
    found = []
    for device in ("CPU:0", "CPU:1"):
        keras.utils.set_random_seed(1)
        settings, config = TrainConfig(batch_size=16, steps=1), SGD()
        with over.scope():
            model = build("resnet8", input_shape=SHAPE, **SMALL)
            stepper = Stepper(
                model, make_optimizer(config), settings, config, over, images_on=device
            )
        nodes = stepper._step.get_concrete_function().graph.get_operations()
        slices = [
            node
            for node in nodes
            if node.type == "StridedSlice" and node.outputs[0].shape.rank == 4
        ]
        assert len(slices) >= replicas
        assert {node.device[-5:] for node in slices if node.inputs[0].op.type == "Placeholder"} == {
            device
        }
        for images, labels in batches(16, 2):
            with tf.device(device):
                images = tf.identity(images)
            stepper(images, labels, 0.01)
        found.append(weights(stepper))
    assert largest_difference(*found) == 0


def test_settings_matter() -> None:
    """The equalities above would also hold for settings that nobody reads."""
    plain = weights(train(make(tf.distribute.get_strategy(), optimizer={"name": "sgd"})))
    for settings in ({"clip_norm": 0.5}, {"label_smoothing": 0.1}, {"accumulate": 2}):
        assert (
            largest_difference(
                plain,
                weights(
                    train(make(tf.distribute.get_strategy(), optimizer={"name": "sgd"}, **settings))
                ),
            )
            > 1e-5
        )
    for optimizer in (
        {"name": "sgd", "weight_decay": 0.01},
        {"name": "sgd", "weight_decay": 0.01, "decay": "decoupled"},
    ):
        assert (
            largest_difference(
                plain, weights(train(make(tf.distribute.get_strategy(), optimizer=optimizer)))
            )
            > 1e-5
        )


def test_moving_statistics_are_the_mean_of_the_replicas(strategy: tf.distribute.Strategy) -> None:
    """Against arithmetic: what two nets, each trained one step on its half of the batch, have in the mean."""
    both, (images, labels) = make(strategy, sync=False), batches(16, 1)[0]
    both(images, labels, 0.01)
    halves = []
    for half in (slice(0, 8), slice(8, 16)):
        alone = make(tf.distribute.get_strategy(), sync=False)
        alone(images[half], labels[half], 0.01)
        halves.append([variable.numpy() for variable in alone.model.non_trainable_variables])
    for index, variable in enumerate(both.model.non_trainable_variables):
        copies = [local.numpy() for local in strategy.experimental_local_results(variable.value)]
        np.testing.assert_array_equal(copies[0], copies[1])
        np.testing.assert_allclose(
            copies[0], (halves[0][index] + halves[1][index]) / 2, rtol=1e-5, atol=1e-6
        )


def test_replicas_draw_masks_of_their_own(strategy: tf.distribute.Strategy) -> None:
    keras.utils.set_random_seed(1)
    settings, config = TrainConfig(batch_size=16, steps=1), SGD()
    with strategy.scope():
        model = build("resnet8", input_shape=SHAPE, drop_path=0.5)
        stepper = Stepper(model, make_optimizer(config), settings, config, strategy)
    seeds = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    first = [seed.numpy() for seed in seeds]
    stepper.spread_seeds()
    assert len(seeds) == 3
    for seed, before in zip(seeds, first, strict=True):
        one, two = (local.numpy() for local in strategy.experimental_local_results(seed.value))
        np.testing.assert_array_equal(one, before)  # what a checkpoint stores stays what it was
        assert (one != two).any()
    stepper(*batches(16, 1)[0], 0.01)


def test_local_statistics_are_each_replicas_own(strategy: tf.distribute.Strategy) -> None:
    one, two = (
        train(make(tf.distribute.get_strategy(), sync=False)),
        train(make(strategy, sync=False)),
    )
    assert largest_difference(weights(one), weights(two)) > 1e-3


def test_fewer_rows_than_replicas_stay_finite(strategy: tf.distribute.Strategy) -> None:
    for sync in (False, True):
        stepper = make(strategy, sync=sync)
        for images, labels in batches(1, 3):
            stepper(images, labels, 0.01)
        assert all(np.isfinite(value).all() for value in weights(stepper))
        assert stepper.totals.numpy()[2] == 3


def test_equals_keras_fit() -> None:
    """Same net, same batches: the loop of `Model.fit` with Keras' own loss and optimizer ends at the same weights."""
    ours = make(
        tf.distribute.get_strategy(), sync=False, optimizer={"name": "sgd", "nesterov": True}
    )
    theirs = make(tf.distribute.get_strategy(), sync=False, optimizer={"name": "sgd"}).model
    theirs.compile(
        keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    data = batches(16)
    for images, labels in data:
        ours(images, labels, 0.01)
    x, y = (
        np.concatenate([column.numpy() for column in columns])
        for columns in zip(*data, strict=True)
    )
    history = theirs.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    assert (
        largest_difference(weights(ours), [variable.numpy() for variable in theirs.variables])
        < 1e-6
    )
    loss, _, rows, _ = ours.totals.numpy()
    assert loss / rows == pytest.approx(history.history["loss"][0], rel=1e-5)


def test_decay_is_the_gradient_of_its_penalty() -> None:
    """One SGD step with coupled decay, against arithmetic: w - rate * (g + decay * w)."""
    rate, decay = 0.1, 0.01
    data = batches(16, 1)[0]
    steppers = [
        make(
            tf.distribute.get_strategy(),
            optimizer={"name": "sgd", "momentum": 0.0, "weight_decay": wd},
        )
        for wd in (0.0, decay)
    ]
    start = weights(steppers[0])
    for stepper in steppers:
        stepper(*data, rate)
    for variable, before, free, decayed in zip(
        steppers[0].model.variables, start, weights(steppers[0]), weights(steppers[1]), strict=True
    ):
        expected = free - rate * decay * before if variable.trainable else free
        np.testing.assert_allclose(decayed, expected, atol=1e-6)


def test_decay_leaves_norms_out_when_told() -> None:
    config = SGD(weight_decay=0.1, decay_norms=False)
    spared = [v.path for v in build("resnet8").trainable_variables if not decays(v, config)]
    assert {path.split("/")[-1] for path in spared} == {"gamma", "beta", "bias"}
    assert all(decays(v, SGD(weight_decay=0.1)) for v in build("resnet8").trainable_variables)


def test_average_against_arithmetic() -> None:
    stepper = make(tf.distribute.get_strategy(), ema=0.9)
    mean = [v.numpy() for v in stepper.model.trainable_variables]
    for images, labels in batches(16, 5):
        stepper(images, labels, 0.05)
        mean = [
            0.9 * m + 0.1 * v.numpy()
            for m, v in zip(mean, stepper.model.trainable_variables, strict=True)
        ]
    assert largest_difference(mean, [average.numpy() for average in stepper.averages]) < 1e-6
    kept = {
        name: variable.numpy()
        for name, variable in stepper.state().items()
        if name.startswith("average/")
    }
    assert list(kept) == [f"average/{weight.path}" for weight in stepper.model.trainable_variables]
    assert largest_difference(mean, list(kept.values())) < 1e-6
    assert not any(
        name.startswith("average/") for name in make(tf.distribute.get_strategy()).state()
    )


@pytest.mark.parametrize("broken", [0, 1])
def test_overflow_on_any_replica_skips_the_step(
    broken: int, strategy: tf.distribute.Strategy
) -> None:
    stepper = make(strategy, precision="mixed_float16")
    images, labels = batches(16, 1)[0]
    stepper(images, labels, 0.01)
    before, slots = weights(stepper), [v.numpy() for v in stepper.optimizer.variables]
    trainable = [v.numpy() for v in stepper.model.trainable_variables]

    bad = images.numpy()
    bad[8 * broken] = (
        1e30  # infinite in float16, and in the half of the batch that this replica gets
    )
    stepper(tf.constant(bad), labels, 0.01)
    assert (
        largest_difference(trainable, [v.numpy() for v in stepper.model.trainable_variables]) == 0
    )
    assert largest_difference(slots[2:], [v.numpy() for v in stepper.optimizer.variables][2:]) == 0
    assert stepper.loss_scale.scale.numpy() == START / 2
    assert stepper.totals.numpy()[3] == 1

    assert len(before) == len(weights(stepper))
    stepper(images, labels, 0.01)
    assert largest_difference(trainable, [v.numpy() for v in stepper.model.trainable_variables]) > 0


@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
def test_mixed_precision_follows_float32(policy: str, strategy: tf.distribute.Strategy) -> None:
    full, mixed = make(strategy), make(strategy, precision=policy)
    for images, labels in batches(16, 3):
        full(images, labels, 0.01)
        mixed(images, labels, 0.01)
    assert mixed.model.layers[1].compute_dtype == policy.removeprefix("mixed_")
    np.testing.assert_allclose(full.totals.numpy()[0], mixed.totals.numpy()[0], rtol=0.02)
    assert mixed.totals.numpy()[3] == 0
