"""The step: N replicas equal one device, the engine equals Keras' fit, an overflow on any replica skips the step."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.nets.batchnorm import synchronise
from reszoo.nets.build import build
from reszoo.training.config import OptimizerConfig, TrainConfig
from reszoo.training.devices import precision
from reszoo.training.optimizers import decays, make_optimizer
from reszoo.training.step import SCALE_START, Stepper

SHAPE = (8, 8, 3)
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
    config = OptimizerConfig(**(optimizer or {"name": "sgd", "weight_decay": 1e-4}))
    with strategy.scope(), precision(policy or settings.precision):
        model = build("resnet8", input_shape=SHAPE)
        if sync:
            synchronise(model)
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
    "adamw": {"optimizer": {"name": "adamw", "weight_decay": 0.1, "decay": "decoupled", "decay_norms": False}},
    "lamb": {"optimizer": {"name": "lamb"}},
    "rmsprop": {"optimizer": {"name": "rmsprop"}},
    "ragged": {"rows": 7},
    "accumulated": {"accumulate": 2},
    "accumulated and ragged": {"accumulate": 2, "rows": 13},
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


ALWAYS = ("sgd", "ragged", "accumulated and ragged", "clipped")


@pytest.mark.parametrize(
    "case", [case if case in ALWAYS else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
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
            [a.numpy() for a in one.averages] or [np.zeros(1)], [a.numpy() for a in two.averages] or [np.zeros(1)]
        )
        < 1e-6
    )
    np.testing.assert_allclose(one.totals.numpy(), two.totals.numpy(), rtol=1e-6)
    assert one.totals.numpy()[2] == rows * STEPS


def test_settings_matter() -> None:
    """The equalities above would also hold for settings that nobody reads."""
    plain = weights(train(make(tf.distribute.get_strategy(), optimizer={"name": "sgd"})))
    for settings in ({"clip_norm": 0.5}, {"label_smoothing": 0.1}, {"accumulate": 2}):
        assert (
            largest_difference(
                plain, weights(train(make(tf.distribute.get_strategy(), optimizer={"name": "sgd"}, **settings)))
            )
            > 1e-5
        )
    for optimizer in (
        {"name": "sgd", "weight_decay": 0.01},
        {"name": "sgd", "weight_decay": 0.01, "decay": "decoupled"},
    ):
        assert largest_difference(plain, weights(train(make(tf.distribute.get_strategy(), optimizer=optimizer)))) > 1e-5


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
        np.testing.assert_allclose(copies[0], (halves[0][index] + halves[1][index]) / 2, rtol=1e-5, atol=1e-6)


def test_replicas_draw_masks_of_their_own(strategy: tf.distribute.Strategy) -> None:
    keras.utils.set_random_seed(1)
    settings, config = TrainConfig(batch_size=16, steps=1), OptimizerConfig()
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
    one, two = train(make(tf.distribute.get_strategy(), sync=False)), train(make(strategy, sync=False))
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
    ours = make(tf.distribute.get_strategy(), sync=False, optimizer={"name": "sgd", "nesterov": True})
    theirs = make(tf.distribute.get_strategy(), sync=False, optimizer={"name": "sgd"}).model
    theirs.compile(
        keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    data = batches(16)
    for images, labels in data:
        ours(images, labels, 0.01)
    x, y = (np.concatenate([column.numpy() for column in columns]) for columns in zip(*data, strict=True))
    history = theirs.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    assert largest_difference(weights(ours), [variable.numpy() for variable in theirs.variables]) < 1e-6
    loss, _, rows, _ = ours.totals.numpy()
    assert loss / rows == pytest.approx(history.history["loss"][0], rel=1e-5)


def test_decay_is_the_gradient_of_its_penalty() -> None:
    """One SGD step with coupled decay, against arithmetic: w - rate * (g + decay * w)."""
    rate, decay = 0.1, 0.01
    data = batches(16, 1)[0]
    steppers = [
        make(tf.distribute.get_strategy(), optimizer={"name": "sgd", "momentum": 0.0, "weight_decay": wd})
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
    config = OptimizerConfig(name="sgd", weight_decay=0.1, decay_norms=False)
    spared = [v.path for v in build("resnet8").trainable_variables if not decays(v, config)]
    assert {path.split("/")[-1] for path in spared} == {"gamma", "beta", "bias"}
    assert all(decays(v, OptimizerConfig(name="sgd", weight_decay=0.1)) for v in build("resnet8").trainable_variables)


def test_average_against_arithmetic() -> None:
    stepper = make(tf.distribute.get_strategy(), ema=0.9)
    mean = [v.numpy() for v in stepper.model.trainable_variables]
    for images, labels in batches(16, 5):
        stepper(images, labels, 0.05)
        mean = [0.9 * m + 0.1 * v.numpy() for m, v in zip(mean, stepper.model.trainable_variables, strict=True)]
    assert largest_difference(mean, [average.numpy() for average in stepper.averages]) < 1e-6


@pytest.mark.parametrize("broken", [0, 1])
def test_overflow_on_any_replica_skips_the_step(broken: int, strategy: tf.distribute.Strategy) -> None:
    stepper = make(strategy, precision="mixed_float16")
    images, labels = batches(16, 1)[0]
    stepper(images, labels, 0.01)
    before, slots = weights(stepper), [v.numpy() for v in stepper.optimizer.variables]
    trainable = [v.numpy() for v in stepper.model.trainable_variables]

    bad = images.numpy()
    bad[8 * broken] = 1e30  # infinite in float16, and in the half of the batch that this replica gets
    stepper(tf.constant(bad), labels, 0.01)
    assert largest_difference(trainable, [v.numpy() for v in stepper.model.trainable_variables]) == 0
    assert largest_difference(slots[2:], [v.numpy() for v in stepper.optimizer.variables][2:]) == 0
    assert stepper.scale.numpy() == SCALE_START / 2
    assert stepper.totals.numpy()[3] == 1

    assert len(before) == len(weights(stepper))
    stepper(images, labels, 0.01)
    assert largest_difference(trainable, [v.numpy() for v in stepper.model.trainable_variables]) > 0


@pytest.mark.parametrize("policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
def test_mixed_precision_follows_float32(policy: str, strategy: tf.distribute.Strategy) -> None:
    full, mixed = make(strategy), make(strategy, precision=policy)
    for images, labels in batches(16, 3):
        full(images, labels, 0.01)
        mixed(images, labels, 0.01)
    assert mixed.model.layers[1].compute_dtype == policy.removeprefix("mixed_")
    np.testing.assert_allclose(full.totals.numpy()[0], mixed.totals.numpy()[0], rtol=0.02)
    assert mixed.totals.numpy()[3] == 0
