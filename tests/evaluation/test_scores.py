"""Scores, compared with scikit-learn and with arithmetic by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics

from reszoo.errors import ReszooError
from reszoo.evaluation.evaluator import Evaluator, evaluate_model, score_rows
from reszoo.evaluation.scores import Scores, calibration_error
from reszoo.types import Array

CLASSES, ROWS = 7, 41
RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.normal(size=(ROWS, 4, 4, 2)).astype("float32")
LABELS = RANDOM.integers(0, CLASSES, ROWS).astype("int32")


class Counting(keras.layers.Layer):
    """Adds the number of rows of each trace to a list."""

    def __init__(self, traces: list[int]) -> None:
        super().__init__()
        self.count = lambda x: traces.append(x.shape[0])

    def call(self, x: tf.Tensor) -> tf.Tensor:
        self.count(x)
        return x


def make_model(traces: list[int] | None = None) -> keras.Model:
    inputs = keras.Input((4, 4, 2))
    x = keras.layers.BatchNormalization()(inputs)
    x = keras.layers.Dropout(0.5)(Counting([] if traces is None else traces)(x))
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x)))


def batched(size: int) -> list[tuple[Array, Array]]:
    return [(IMAGES[at : at + size], LABELS[at : at + size]) for at in range(0, ROWS, size)]


def score_logits(logits: Any, labels: Any) -> Scores:
    images = np.asarray(logits, "float32")[:, None, None, :]
    inputs = keras.Input(images.shape[1:])
    model = keras.Model(inputs, keras.layers.Flatten()(inputs))
    return evaluate_model(model, [(images, np.asarray(labels))], classes=images.shape[-1])


@pytest.mark.parametrize(("replicas", "batch_size"), [(1, 1), (1, 7), (2, 1), (2, 7), (2, 40)])
def test_scores_equal_sklearn_for_any_batch_size_and_replica_count(
    replicas: int, batch_size: int, strategy: tf.distribute.Strategy
) -> None:
    # With two replicas, the last batches of 1, 6 and 1 rows leave one replica short or empty.
    over = strategy if replicas == 2 else tf.distribute.get_strategy()
    with over.scope():
        model = make_model()
    logits = model(IMAGES, training=False).numpy().astype("float64")

    scores = evaluate_model(model, batched(batch_size), classes=CLASSES, strategy=over)

    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    predicted, every = logits.argmax(1), range(CLASSES)
    matrix = metrics.confusion_matrix(LABELS, predicted, labels=every)
    loss = metrics.log_loss(LABELS, probabilities, labels=every)
    assert (scores.examples, scores.not_finite) == (ROWS, 0)
    assert scores.top1 == metrics.accuracy_score(LABELS, predicted)
    assert scores.top5 == metrics.top_k_accuracy_score(LABELS, logits, k=5, labels=every)
    assert scores.loss == pytest.approx(loss, abs=1e-6)
    assert scores.confusion == matrix.tolist()
    assert scores.per_class == pytest.approx(list(matrix.diagonal() / matrix.sum(1)))
    assert scores.balanced_accuracy == pytest.approx(
        metrics.balanced_accuracy_score(LABELS, predicted)
    )
    assert scores.macro_f1 == pytest.approx(metrics.f1_score(LABELS, predicted, average="macro"))
    assert scores.calibration_error == pytest.approx(binned_gap(probabilities, LABELS), abs=1e-6)
    assert scores.error == pytest.approx(100 * (1 - scores.top1))


def binned_gap(probabilities: Array, labels: Array) -> float:
    """The expected calibration error as algorithm: for each bin its share times its gap."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for low in np.arange(15) / 15:
        chosen = (confidence > low) & (confidence <= low + 1 / 15)
        if chosen.any():
            total += chosen.mean() * abs(right[chosen].mean() - confidence[chosen].mean())
    return float(total)


def test_the_calibration_error_of_a_few_examples() -> None:
    # Bins (9/15, 10/15], (12/15, 13/15] and (14/15, 1]; an error of one bin cannot cancel another's.
    confidence, correct = [0.61, 0.65, 0.85, 1.0], [True, False, True, False]
    expected = (abs(1 - 0.61 - 0.65) + 0.15 + 1.0) / 4
    assert calibration_error(np.array(confidence), np.array(correct)) == pytest.approx(expected)
    edge = np.array([1 / 15, 0.05])  # an edge belongs to the bin below it
    assert calibration_error(edge, np.array([False, True])) == pytest.approx((0.95 - 1 / 15) / 2)
    logits = np.log([[0.8, 0.2], [0.3, 0.7]])
    assert score_logits(logits, [0, 0]).calibration_error == pytest.approx((0.2 + 0.7) / 2)


def test_each_row_has_its_probabilities_in_order(strategy: tf.distribute.Strategy) -> None:
    with strategy.scope():
        model = make_model()
    evaluator = Evaluator(model, classes=CLASSES, strategy=strategy, probabilities=True)
    rows = evaluator.rows(batched(7))
    logits = model(IMAGES, training=False).numpy().astype("float64")
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(rows.probabilities, expected, atol=1e-6)
    assert rows.labels.tolist() == LABELS.tolist()
    np.testing.assert_allclose(rows.confidence, expected.max(1), atol=1e-6)


@pytest.mark.parametrize("replicas", [1, 2])
def test_images_are_sliced_on_their_own_device(
    replicas: int, strategy: tf.distribute.Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = strategy if replicas == 2 else tf.distribute.get_strategy()
    with over.scope():
        model = make_model()
    found, devices = [], []
    gather = tf.gather

    def record(*args: Any, **kwargs: Any) -> Any:
        rows = gather(*args, **kwargs)
        if not kwargs:  # Keras' own gathers, inside the traced step, have batch_dims
            devices.append(rows.device)
        return rows

    monkeypatch.setattr(tf, "gather", record)
    for device in ("CPU:0", "CPU:1"):
        with tf.device(device):
            batches = [(tf.constant(images), labels) for images, labels in batched(16)]
        found.append(evaluate_model(model, batches, classes=CLASSES, strategy=over))
        assert devices and all(each.endswith(device) for each in devices)
        devices.clear()
    assert found[0] == found[1]


def test_the_model_is_traced_once_with_half_of_the_batch_per_replica(
    strategy: tf.distribute.Strategy,
) -> None:
    traces: list[int] = []
    with strategy.scope():
        evaluator = Evaluator(make_model(traces), classes=CLASSES, strategy=strategy)
    traces.clear()
    assert evaluator(batched(12)).confusion == evaluator(batched(5)).confusion
    assert traces == [6, 6]


def test_an_evaluator_uses_the_weights_of_the_moment_in_inference_mode() -> None:
    model = make_model()
    evaluator = Evaluator(model, classes=CLASSES)
    before = evaluator(batched(16))
    assert before == evaluator(batched(16)), "dropout is off"
    assert not model.layers[1].moving_mean.numpy().any(), "batch norm does not learn"
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 0)
    model.layers[-1].bias.assign(np.arange(CLASSES, dtype="float32"))
    after = evaluator(batched(16))
    assert before.confusion != after.confusion
    assert after.top1 == np.mean(LABELS == CLASSES - 1)


@pytest.mark.smoke
def test_equal_logits_are_ranked_by_index_in_rank_and_prediction() -> None:
    logits = tf.constant([[1.0, 3, 3, 0], [1.0, 3, 3, 0]])
    predicted, rank, *_ = score_rows(logits, tf.constant([1, 2]))
    assert (predicted.numpy().tolist(), rank.numpy().tolist()) == ([1, 1], [0, 1])
    constant = score_logits(np.zeros((10, 10)), range(10))
    assert (constant.top1, constant.top5) == (0.1, 0.5), "not 100 % by counting all equal classes"
    assert [row[0] for row in constant.confusion] == [1] * 10


@pytest.mark.parametrize(("classes", "expected"), [(2, None), (5, None), (6, 5 / 6)])
def test_top5_is_none_where_it_could_only_be_one(classes: int, expected: float | None) -> None:
    # Logits fall with the index, so the rank of class i is i.
    assert score_logits([range(classes, 0, -1)] * classes, range(classes)).top5 == expected


def test_rows_that_are_not_finite_are_wrong_and_counted() -> None:
    nan, inf = math.nan, math.inf
    scores = score_logits([[nan, 0, 0], [9, inf, 0], [nan, nan, nan], [0, 0, 9]], [0, 1, 2, 2])
    assert (scores.not_finite, scores.top1, scores.per_class) == (3, 0.25, [0, 0, 0.5])
    assert sum(map(sum, scores.confusion)) == 1
    assert math.isnan(scores.loss) and math.isnan(scores.calibration_error)
    assert (scores.precision, scores.f1) == ([None, None, 1], [0, 0, pytest.approx(2 / 3)])
    recorded = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert recorded["loss"] is recorded["calibration_error"] is None
    logits = np.zeros((2, 7))
    logits[0, 3] = nan
    scores = score_logits(logits, [0, 0])
    assert (scores.top1, scores.top5, scores.not_finite) == (0.5, 0.5, 1)


def test_large_logits_give_a_finite_loss() -> None:
    assert score_logits([[1e4, 0.0], [1e4, 0.0]], [0, 1]).loss == pytest.approx(5e3)


@pytest.mark.smoke
def test_classes_without_examples_are_excluded_from_balanced_accuracy() -> None:
    labels, predicted = [0, 0, 0, 0, 1, 1, 3], [0, 0, 0, 2, 1, 0, 0]
    scores = score_logits(np.eye(4)[predicted], labels)
    assert scores.per_class == [3 / 4, 1 / 2, None, 0]
    assert scores.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    # Predicted as 0: three right, one of class 1, one of class 3; class 2 occurs as a prediction only.
    assert scores.precision == [3 / 5, 1, 0, None]
    assert scores.f1 == pytest.approx([6 / 9, 2 / 3, 0, 0])
    assert scores.macro_f1 == pytest.approx((6 / 9 + 2 / 3) / 4)
    recorded = scores.to_dict()
    assert recorded["balanced_accuracy"] == scores.balanced_accuracy
    assert recorded["macro_f1"] == scores.macro_f1
    assert (recorded["precision"], recorded["f1"]) == (scores.precision, scores.f1)
    assert scores.single_class is recorded["single_class"] is None


def test_a_model_that_always_predicts_one_class_is_detected() -> None:
    cats = [[0.0, 1.0, 0.0]] * 10
    always = score_logits(cats, [1] * 9 + [2])
    assert (always.top1, always.balanced_accuracy, always.single_class) == (0.9, 0.5, 1)
    assert always.to_dict()["single_class"] == 1
    assert score_logits(cats, [1] * 10).single_class is None, "all examples are of that class"
    assert score_logits([*cats[:9], [0.0, 0.0, 1.0]], [1] * 9 + [2]).single_class is None
    broken = score_logits([[math.nan] * 3] * 2, [0, 1])
    assert (broken.single_class, broken.balanced_accuracy) == (None, 0)


def test_many_classes_are_listed_by_their_f1() -> None:
    scores = score_logits(np.eye(4)[[0, 0, 1, 2]], [0, 1, 1, 0])
    names = dataclasses.replace(scores, class_names=("cat", "dog", "owl", "bee"))
    assert scores.class_table()[1] == [
        ("0", "50.00 %", "50.00 %", "50.00 %"),
        ("1", "100.00 %", "50.00 %", "66.67 %"),
        ("2", "0.00 %", "-", "0.00 %"),
        ("3", "-", "-", "-"),
    ]
    (head, *_), rows = names.class_table(2)
    assert (head, [row[0] for row in rows]) == ("class, the 2 of lowest F1", ["owl", "cat"])


def test_the_most_frequent_confusions_are_first_and_equal_ones_by_class() -> None:
    labels = [0] * 10 + [1] * 2 + [2] * 10
    predicted = [0] * 9 + [1] + [1, 2] + [0, 1] + [2] * 8
    scores = score_logits(np.eye(3)[predicted], labels)
    named = dataclasses.replace(scores, class_names=("a", "b", "c"))
    expected = [("b", "c", "50.0 %"), ("a", "b", "10.0 %"), ("c", "a", "10.0 %")]
    assert named.confusion_table(3)[1] == expected
    assert named.confusion_table(1)[1] == expected[:1]
    assert score_logits([[9.0, 0]], [0]).confusion_table(3)[1] == []


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_labels_that_are_not_classes_are_rejected(label: int) -> None:
    with pytest.raises(ReszooError, match=rf"label {label} is none of the 7 classes 0\.\.6"):
        score_logits(np.zeros((2, CLASSES)), [0, label])


def test_no_examples_and_another_number_of_classes_are_rejected() -> None:
    with pytest.raises(ReszooError, match="no examples"):
        evaluate_model(make_model(), [], classes=CLASSES)
    with pytest.raises(ReszooError, match=r"\(None, 7\), but the data has 9 classes"):
        evaluate_model(make_model(), batched(3), classes=9)
