"""BatchNormalization is Keras' BatchNormalization: outputs, gradients, statistics, weights and config."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.models.batchnorm import BatchNormalization
from reszoo.models.build import build

from .helpers import images


def pair(
    policy: str = "float32", shape: tuple[int, ...] = (5, 4, 3), **config: Any
) -> tuple[Any, Any]:
    """Return ours and Keras' with equal, random weights."""
    layers = [
        make(momentum=0.9, epsilon=1e-5, dtype=policy, **config)
        for make in (BatchNormalization, keras.layers.BatchNormalization)
    ]
    for layer in layers:
        layer.build((None, *shape))
        random = np.random.default_rng(0)
        for variable in layer.weights:
            variable.assign(random.uniform(0.5, 1.5, tuple(variable.shape)))
    return layers[0], layers[1]


def step(layer: Any, batch: Any, upstream: Any, training: bool) -> tuple[Any, Any, list[Any]]:
    """Return a layer's output and its gradients by its input and by its scale and offset."""
    x = tf.cast(batch, layer.compute_dtype)
    trained = [weight.value for weight in (layer.gamma, layer.beta)]
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = layer(x, training=training)
        loss = tf.reduce_sum(tf.cast(output, "float32") * upstream)
    by_input, *by_weights = tape.gradient(loss, [x, *trained])
    return output, by_input, by_weights


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("float32", 2e-5), ("mixed_float16", 4e-3), ("mixed_bfloat16", 3e-2)]
)
def test_training_equals_keras_step_by_step(policy: str, tolerance: float) -> None:
    ours, theirs = pair(policy)
    for number in range(5):
        # Another batch size and offset at each step, so that the average over batches has something to forget.
        batch = images((4 + number, 5, 4, 3), number) * 2 + number
        upstream = images(batch.shape, 100 + number)
        for mine, other in zip(
            *(_flat(step(layer, batch, upstream, True)) for layer in (ours, theirs)), strict=True
        ):
            assert mine.dtype == other.dtype
            _near(mine, other, tolerance)
        for mine, other in zip(ours.weights, theirs.weights, strict=True):
            assert mine.dtype == other.dtype == "float32"
            _near(mine, other, tolerance if policy != "float32" else 1e-6)
    assert float(np.abs(np.asarray(ours.moving_mean) - 1).max()) > 0.5, (
        "the statistics should have moved"
    )


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("float32", 2e-5), ("mixed_float16", 4e-3), ("mixed_bfloat16", 3e-2)]
)
def test_inference_equals_keras(policy: str, tolerance: float) -> None:
    ours, theirs = pair(policy)
    batch, upstream = images((4, 5, 4, 3)), images((4, 5, 4, 3), 1)
    kept = [np.asarray(weight) for weight in ours.weights]
    for mine, other in zip(
        *(_flat(step(layer, batch, upstream, False)) for layer in (ours, theirs)), strict=True
    ):
        _near(mine, other, tolerance)
    for before, weight in zip(kept, ours.weights, strict=True):
        np.testing.assert_array_equal(before, np.asarray(weight))


def test_inference_by_hand() -> None:
    ours, _ = pair()
    gamma, beta, mean, variance = (np.asarray(weight, np.float64) for weight in ours.weights)
    batch = images((4, 5, 4, 3))
    _near(
        ours(batch, training=False), (batch - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 1e-5
    )


def test_statistics_are_of_the_population() -> None:
    """Over n, not n - 1, even where n is two."""
    ours, theirs = pair(shape=(1, 1, 3))
    batch = images((2, 1, 1, 3))
    before = np.asarray(ours.moving_variance)
    for layer in (ours, theirs):
        layer(batch, training=True)
    _near(ours.moving_variance, before * 0.9 + batch.var(axis=(0, 1, 2)) * 0.1, 1e-5)
    _near(ours.moving_variance, theirs.moving_variance, 1e-5)


def test_frozen_is_inference() -> None:
    ours, theirs = pair()
    batch = images((4, 5, 4, 3)) + 3
    expected, kept = np.asarray(ours(batch, training=False)), np.asarray(ours.moving_mean)
    ours.trainable = theirs.trainable = False
    np.testing.assert_array_equal(np.asarray(ours(batch, training=True)), expected)
    np.testing.assert_array_equal(np.asarray(ours.moving_mean), kept)
    _near(expected, theirs(batch, training=True), 1e-5)
    ours.trainable = True
    assert np.abs(np.asarray(ours(batch, training=True)) - expected).max() > 0.1


@pytest.mark.parametrize(
    "config", [{"synchronized": True}, {"center": False}, {"scale": False}, {"axis": 1}]
)
def test_other_forms_equal_keras_too(config: dict[str, Any]) -> None:
    ours, theirs = pair(**config)
    batch = images((4, 5, 4, 3))
    for training in (True, False):
        _near(ours(batch, training=training), theirs(batch, training=training), 2e-5)
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        _near(mine, other, 1e-6)


def test_other_ranks_equal_keras_too() -> None:
    ours, theirs = pair(shape=(3,))
    batch = images((8, 3))
    for training in (True, False):
        _near(ours(batch, training=training), theirs(batch, training=training), 2e-5)


def test_synchronized_statistics_equal_keras_with_fewer_collectives(
    strategy: tf.distribute.Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [images((3 + 2 * replica, 5, 4, 3), replica) * 2 + replica for replica in range(2)]
    reduced: list[Any] = []
    reduce = tf.distribute.ReplicaContext.all_reduce

    def count(self: Any, op: Any, value: Any, options: Any = None) -> Any:
        reduced.append(value)
        return reduce(self, op, value, options)

    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", count)
    with strategy.scope():
        layers = pair("float64", synchronized=True)

    def take_step(layer: Any) -> Any:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        batch = tf.cond(tf.equal(replica, 0), lambda: batches[0], lambda: batches[1])
        return step(layer, batch, batch**2, True)

    found, calls = [], []
    for layer in layers:
        result = tf.function(lambda layer=layer: strategy.run(take_step, args=(layer,)))()
        local = [strategy.experimental_local_results(each) for each in tf.nest.flatten(result)]
        found.append([*tf.nest.flatten(local), *layer.weights])
        calls.append(len(reduced) - sum(calls))
    for mine, other in zip(*found, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-12)
    assert calls == [4, 12]  # one or three for each of two replicas and two directions


def test_one_kernel_does_the_work() -> None:
    ours, _ = pair()

    @tf.function
    def run(x: Any) -> Any:
        return ours(x, training=True)

    operations = [
        node.type
        for node in run.get_concrete_function(tf.TensorSpec((4, 5, 4, 3))).graph.get_operations()
    ]
    assert operations.count("FusedBatchNormV3") == 1 and "Rsqrt" not in operations


def test_weights_names_and_config_are_keras_own() -> None:
    ours, theirs = pair()
    assert [weight.name for weight in ours.weights] == [weight.name for weight in theirs.weights]
    mine, other = ours.get_config(), theirs.get_config()
    assert mine.keys() == other.keys()
    assert {key for key in mine if mine[key] != other[key]} <= {"name"}
    there = keras.layers.BatchNormalization.from_config(mine)
    back = BatchNormalization.from_config(there.get_config())
    assert back.get_config() == mine


def test_saved_weights_go_over_to_keras_layer_and_back() -> None:
    ours, theirs = pair()
    stored: dict[str, Any] = {}
    for weight in ours.weights:
        weight.assign(images(tuple(weight.shape), len(weight.name)) ** 2)
    ours.save_own_variables(stored)
    there = {key: np.asarray(value) for key, value in stored.items()}
    theirs.load_own_variables(there)
    batch = images((4, 5, 4, 3))
    _near(ours(batch, training=False), theirs(batch, training=False), 2e-5)
    back = BatchNormalization(epsilon=1e-5)
    back.build((None, 5, 4, 3))
    theirs.save_own_variables(stored)
    back.load_own_variables({key: np.asarray(value) for key, value in stored.items()})
    np.testing.assert_array_equal(
        np.asarray(back(batch, training=False)), np.asarray(ours(batch, training=False))
    )


def test_a_saved_model_reopens_as_this_layer(tmp_path: Any) -> None:
    model = keras.Sequential([keras.Input((5, 4, 3)), BatchNormalization(name="norm")])
    model.layers[0].moving_mean.assign([1.0, 2.0, 3.0])
    model.save(tmp_path / "norm.keras")
    opened = keras.models.load_model(tmp_path / "norm.keras")
    assert type(opened.layers[0]) is BatchNormalization
    batch = images((2, 5, 4, 3))
    np.testing.assert_array_equal(np.asarray(opened(batch)), np.asarray(model(batch)))


def test_a_models_weights_file_fits_the_same_model_of_keras_own_layers(tmp_path: Any) -> None:
    model = build("resnet8", input_shape=(8, 8, 3))

    def keras_own(layer: Any) -> Any:
        config = layer.get_config()
        own = isinstance(layer, BatchNormalization)
        return (
            keras.layers.BatchNormalization.from_config(config)
            if own
            else type(layer).from_config(config)
        )

    twin = keras.models.clone_model(model, clone_function=keras_own)
    assert not any(isinstance(layer, BatchNormalization) for layer in twin.layers)
    for weight in model.weights:
        weight.assign(images(tuple(weight.shape), len(weight.path)) ** 2 / 10)
    model.save_weights(tmp_path / "ours.weights.h5")
    twin.load_weights(tmp_path / "ours.weights.h5")
    batch = images((2, 8, 8, 3))
    _near(model(batch), twin(batch), 1e-5)
    twin.save_weights(tmp_path / "theirs.weights.h5")
    build("resnet8", input_shape=(8, 8, 3), weights=tmp_path / "theirs.weights.h5")


def _flat(result: tuple[Any, Any, list[Any]]) -> list[Any]:
    output, by_input, by_weights = result
    return [output, by_input, *by_weights]


def _near(mine: Any, other: Any, tolerance: float) -> None:
    """Compare two arrays to a fraction of the largest entry."""
    first, second = (
        np.asarray(keras.ops.cast(value, "float32"), np.float64) for value in (mine, other)
    )
    np.testing.assert_allclose(
        first, second, rtol=0, atol=tolerance * max(1.0, np.abs(second).max())
    )
