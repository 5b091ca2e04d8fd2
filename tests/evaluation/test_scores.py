"""Scores against scikit-learn and arithmetic by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics

from reszoo.errors import ReszooError
from reszoo.evaluation.scores import Evaluator, Scores, evaluate_model, score_rows

CLASSES = 7
ROWS = 41


def small_net(classes: int = CLASSES) -> keras.Model:
    inputs = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(5, 3)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.Dropout(0.5)(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Flatten()(x)))


def passthrough(classes: int) -> keras.Model:
    """A net whose logits are its input: images [n, 1, 1, classes]."""
    inputs = keras.Input((1, 1, classes))
    return keras.Model(inputs, keras.layers.Flatten()(inputs))


def examples(rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(rows, 4, 4, 2)).astype("float32"), rng.integers(
        0, CLASSES, rows
    ).astype("int32")


def batched(images: np.ndarray, labels: np.ndarray, size: int) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(size)


def score_logits(logits: list[list[float]], labels: list[int]) -> Scores:
    images = np.asarray(logits, "float32")[:, None, None, :]
    return evaluate_model(
        passthrough(images.shape[-1]), [(images, np.asarray(labels))], classes=images.shape[-1]
    )


@pytest.mark.parametrize("batch_size", [1, 2, 7, 40, 41, 64])
@pytest.mark.parametrize("replicas", [1, 2])
def test_scores_equal_sklearn_for_any_batch_size_and_replica_count(
    replicas: int, batch_size: int, strategy: tf.distribute.Strategy
) -> None:
    # With two replicas the last batches of 1, 7 x 6 - 1 and 41 rows leave one replica short or empty.
    images, labels = examples()
    keras.utils.set_random_seed(0)
    if replicas == 2:
        with strategy.scope():
            model = small_net()
    else:
        model = small_net()
    logits = model(images, training=False).numpy().astype("float64")

    scores = evaluate_model(
        model,
        batched(images, labels, batch_size),
        classes=CLASSES,
        strategy=strategy if replicas == 2 else None,
    )

    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    every = range(CLASSES)
    matrix = metrics.confusion_matrix(labels, logits.argmax(1), labels=every)
    assert scores.examples == ROWS
    assert scores.top1 == metrics.accuracy_score(labels, logits.argmax(1))
    assert scores.top5 == metrics.top_k_accuracy_score(labels, logits, k=5, labels=every)
    assert scores.loss == pytest.approx(
        metrics.log_loss(labels, probabilities, labels=every), abs=1e-6
    )
    assert scores.confusion == matrix.tolist()
    assert scores.per_class == pytest.approx(list(matrix.diagonal() / matrix.sum(1)))
    assert scores.not_finite == 0
    assert scores.error == pytest.approx(100 * (1 - scores.top1))


@pytest.mark.parametrize("replicas", [1, 2])
def test_images_are_dealt_out_where_they_lie(
    replicas: int, strategy: tf.distribute.Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images on the second device are padded and sliced there: on a GPU, no batch makes the way over the CPU."""
    images, labels = examples()
    model, over = small_net(), tf.distribute.get_strategy()
    if replicas == 2:
        over = strategy
        with strategy.scope():
            model = small_net()
    found, gathered = [], []
    gather = tf.gather

    def record(*args: Any, **kwargs: Any) -> Any:
        rows = gather(*args, **kwargs)
        gathered.extend(
            [] if kwargs else [rows]
        )  # Keras' own gathers, inside the traced step, give batch_dims
        return rows

    monkeypatch.setattr(tf, "gather", record)
    for device in ("CPU:0", "CPU:1"):
        with tf.device(device):
            batches = [
                (tf.constant(images[at : at + 16]), labels[at : at + 16])
                for at in range(0, ROWS, 16)
            ]
        found.append(evaluate_model(model, batches, classes=CLASSES, strategy=over).to_dict())
        assert gathered and all(each.device.endswith(device) for each in gathered)
        gathered.clear()
    assert found[0] == found[1]


def test_each_replica_scores_its_own_rows(strategy: tf.distribute.Strategy) -> None:
    """A net that is right on the first half of the batch only scores one half, not all or nothing."""
    logits = np.zeros((8, 1, 1, 2), "float32")
    logits[:4, ..., 0] = 1
    logits[4:, ..., 1] = 1
    traces: list[int] = []
    with strategy.scope():
        inputs = keras.Input((1, 1, 2))
        model = keras.Model(inputs, keras.layers.Flatten()(Counting(traces)(inputs)))
    traces.clear()
    scores = evaluate_model(model, [(logits, np.zeros(8, int))], classes=2, strategy=strategy)
    assert scores.top1 == 0.5 and scores.confusion == [[4, 4], [0, 0]]
    assert traces == [4, 4], "half of the batch for each replica"


class Counting(keras.layers.Layer):
    """Adds the number of rows of each trace to a list."""

    def __init__(self, traces: list[int]) -> None:
        super().__init__()
        self.rows = lambda x: traces.append(x.shape[0])

    def call(self, x: tf.Tensor) -> tf.Tensor:
        self.rows(x)
        return x


def test_the_model_is_traced_once_over_ragged_batches_and_repeated_calls(
    strategy: tf.distribute.Strategy,
) -> None:
    traces: list[int] = []
    with strategy.scope():
        inputs = keras.Input((4, 4, 2))
        counting = Counting(traces)
        model = keras.Model(
            inputs, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(counting(inputs)))
        )
        images, labels = examples()
        evaluator = Evaluator(model, classes=CLASSES, strategy=strategy)
        traces.clear()
        first = evaluator(batched(images, labels, 12))
        again = evaluator(batched(images, labels, 5))
    assert traces == [6, 6], "one trace for each replica, of half a batch"
    assert first.confusion == again.confusion


def test_an_evaluator_reads_the_weights_of_the_moment() -> None:
    images, labels = examples()
    model = small_net()
    evaluator = Evaluator(model, classes=CLASSES)
    before = evaluator(batched(images, labels, 16))
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 0)
    model.layers[-1].bias.assign(np.arange(CLASSES, dtype="float32"))
    after = evaluator(batched(images, labels, 16))
    assert before.confusion != after.confusion
    assert after.top1 == np.mean(labels == CLASSES - 1)


def test_a_constant_net_scores_chance_in_top5_too() -> None:
    """Ties go to the lower index; counting every tied class as found would give this net 100 %."""
    scores = score_logits([[0.0] * 10] * 10, list(range(10)))
    assert scores.top1 == 0.1
    assert scores.top5 == 0.5
    assert [row[0] for row in scores.confusion] == [1] * 10


@pytest.mark.smoke
def test_ties_are_broken_by_index_in_rank_and_prediction_alike() -> None:
    predicted, rank, _ = score_rows(
        tf.constant([[1.0, 3, 3, 0], [1.0, 3, 3, 0]]), tf.constant([1, 2])
    )
    assert predicted.numpy().tolist() == [1, 1]
    assert rank.numpy().tolist() == [0, 1]


@pytest.mark.parametrize(("classes", "expected"), [(2, None), (5, None), (6, 5 / 6)])
def test_top5_is_absent_where_it_could_only_be_one(classes: int, expected: float | None) -> None:
    # Every label, and logits that fall with the index: the rank of class i is i.
    assert (
        score_logits([list(range(classes, 0, -1))] * classes, list(range(classes))).top5 == expected
    )


def test_rows_that_are_not_finite_are_wrong_and_counted() -> None:
    nan, inf = math.nan, math.inf
    scores = score_logits([[nan, 0, 0], [9, inf, 0], [nan, nan, nan], [0, 0, 9]], [0, 1, 2, 2])
    assert scores.not_finite == 3
    assert scores.top1 == 0.25
    assert scores.per_class == [0, 0, 0.5]
    assert sum(map(sum, scores.confusion)) == 1
    assert math.isnan(scores.loss)
    assert json.loads(json.dumps(scores.to_dict(), allow_nan=False))["loss"] is None


def test_a_row_that_is_not_finite_is_outside_the_top5() -> None:
    logits = np.zeros((2, 7))
    logits[0, 3] = math.nan
    scores = score_logits(logits.tolist(), [0, 0])
    assert (scores.top1, scores.top5, scores.not_finite) == (0.5, 0.5, 1)


def test_large_logits_give_a_finite_loss() -> None:
    scores = score_logits([[1e4, 0.0], [1e4, 0.0]], [0, 1])
    assert scores.loss == pytest.approx(5e3)


@pytest.mark.smoke
def test_a_class_without_examples_has_no_accuracy() -> None:
    assert score_logits([[1.0, 0, 0]] * 2, [0, 2]).per_class == [1.0, None, 0.0]


def test_batch_norm_and_dropout_are_in_inference_mode() -> None:
    images, labels = examples()
    model = small_net()
    first = evaluate_model(model, batched(images, labels, 8), classes=CLASSES)
    moving = model.layers[2].moving_mean.numpy()
    assert first == evaluate_model(model, batched(images, labels, 8), classes=CLASSES)
    assert not moving.any(), "the moving mean stays where it began"


@pytest.mark.parametrize("bad", [-1, CLASSES])
def test_a_label_that_is_no_class_is_refused(bad: int) -> None:
    images, labels = examples(3)
    labels[1] = bad
    with pytest.raises(ReszooError, match=rf"label {bad} is none of the 7 classes 0\.\.6"):
        evaluate_model(small_net(), batched(images, labels, 3), classes=CLASSES)


def test_no_examples_and_another_number_of_classes_are_refused() -> None:
    images, labels = examples(3)
    with pytest.raises(ReszooError, match="no examples"):
        evaluate_model(small_net(), batched(images, labels, 3).take(0), classes=CLASSES)
    with pytest.raises(ReszooError, match=r"\(None, 7\), but the data has 9 classes"):
        evaluate_model(small_net(), batched(images, labels, 3), classes=9)


def test_balanced_accuracy_equals_sklearn_and_leaves_out_absent_classes() -> None:
    labels, predicted = np.array([0, 0, 0, 0, 1, 1, 3]), np.array([0, 0, 0, 2, 1, 0, 0])
    scores = score_logits(np.eye(4)[predicted].tolist(), labels.tolist())
    with pytest.warns(UserWarning, match="contains classes not in y_true"):
        wanted = metrics.balanced_accuracy_score(labels, predicted)
    assert scores.balanced_accuracy == pytest.approx(wanted)
    assert scores.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert scores.single_class is None
    told = scores.to_dict()
    assert (told["balanced_accuracy"], told["single_class"]) == (scores.balanced_accuracy, None)


def test_a_model_that_calls_everything_a_cat_is_told_from_one_that_knows_cats() -> None:
    cats = [[0.0, 1.0, 0.0]] * 10
    always = score_logits(cats, [1] * 9 + [2])
    assert (always.top1, always.balanced_accuracy, always.single_class) == (0.9, 0.5, 1)
    assert always.to_dict()["single_class"] == 1
    assert score_logits(cats, [1] * 10).single_class is None, "there are only cats"
    assert score_logits([*cats[:9], [0.0, 0.0, 1.0]], [1] * 9 + [2]).single_class is None
    broken = score_logits([[math.nan] * 3] * 2, [0, 1])
    assert broken.single_class is None and broken.balanced_accuracy == 0
