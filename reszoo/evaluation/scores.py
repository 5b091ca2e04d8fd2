"""Exact scores of a split: every example counts once, for any batch size and number of replicas."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.reporting.notebook import html_table
from reszoo.training.workers import Workers
from reszoo.types import Array, JsonObject, Tensor

TOP = 5


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a model on a split.

    Classes are ranked by logit; of equal logits the lower index comes first. The prediction is the
    first class, and exactly `k` classes are in the top `k`. A row with a logit that is not finite
    has no prediction: it counts as wrong and in `not_finite`, is not in the confusion matrix, and
    makes the loss NaN.

    Attributes:
        examples: Number of examples.
        top1: Accuracy in 0..1.
        top5: Accuracy in 0..1; None for five classes or fewer, where it could only be 1.
        loss: Mean cross-entropy in nats, without label smoothing or weight penalty.
        per_class: Accuracy in 0..1 of each class; None for a class without examples.
        confusion: `confusion[true][predicted]` counts examples.
        not_finite: Examples with a logit that is not finite.
        test: Which views of an image were evaluated: the name of `Views`, such as "10-crop".
    """

    examples: int
    top1: float
    top5: float | None
    loss: float
    per_class: list[float | None] = field(repr=False)
    confusion: list[list[int]] = field(repr=False)
    not_finite: int = 0
    test: str = "1-crop"

    @property
    def error(self) -> float:
        """Top-1 error in percent."""
        return 100.0 * (1.0 - self.top1)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of `per_class`; 1 / classes for a model that always predicts the same class."""
        return mean_recall(self.per_class)

    @property
    def single_class(self) -> int | None:
        """The only predicted class if the examples have several classes; else None."""
        return single_class(self.confusion)

    def to_dict(self) -> JsonObject:
        """Return all scores but the confusion matrix, for JSON. A loss of NaN becomes None."""
        return {
            "test": self.test,
            "examples": self.examples,
            "top1": self.top1,
            "balanced_accuracy": self.balanced_accuracy,
            "single_class": self.single_class,
            "top5": self.top5,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "not_finite": self.not_finite,
            "per_class": self.per_class,
        }

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        rows = [
            ("images", f"{self.examples:,}"),
            ("error", f"{self.error:.2f} %"),
            ("balanced accuracy", f"{100 * self.balanced_accuracy:.2f} %"),
            ("loss", f"{self.loss:.4f}"),
        ]
        if self.top5 is not None:
            rows.insert(2, ("error, top 5", f"{100 * (1 - self.top5):.2f} %"))
        if self.not_finite:
            rows.append(("outputs that are not finite", f"{self.not_finite:,}"))
        return html_table(("score", "value"), rows)


class Evaluator:
    """Evaluates one model, traced once: later calls use its weights of that moment.

    Each of several workers evaluates its own batches on its own devices, and gets all scores.

    Args:
        model: Maps float32 images [n, h, w, c] to logits [n, classes]. For several replicas it must
            have been made in the strategy's scope.
        classes: Number of classes.
        strategy: Distributes batches over replicas; by default the current strategy.
        workers: The workers of the strategy, on several hosts.

    Raises:
        ReszooError: The model does not return `classes` logits.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        classes: int,
        strategy: tf.distribute.Strategy | None = None,
        workers: Workers | None = None,
    ) -> None:
        shape = tuple(model.output_shape)
        if len(shape) != 2 or shape[-1] != classes:
            raise ReszooError(
                f"the model's output has shape {shape}, but the data has {classes} classes"
            )
        self.classes = classes
        self._strategy = strategy or tf.distribute.get_strategy()
        self._workers = workers or Workers(self._strategy)
        self._replicas = len(self._local(self._distribute(lambda _: 0)))
        self._rows = 0  # per replica: those of the largest batch so far

        def score(images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
            return score_rows(model(images, training=False), labels)

        @tf.function(reduce_retracing=False)  # type: ignore[untyped-decorator]
        def step(images: Tensor, labels: Tensor) -> Any:
            return self._strategy.run(score, args=(images, labels))

        self._step = step

    def __call__(self, batches: Iterable[tuple[Tensor | Array, Tensor | Array]]) -> Scores:
        """Evaluate all batches.

        Args:
            batches: This worker's batches: float images [n, h, w, c] and integer labels [n] in
                0..classes-1.

        Raises:
            ReszooError: There are no examples, or a label is not a class.
        """
        rows: list[tuple[Array, ...]] = []
        # A batch's results are read while the next one is computed, so that a GPU is never idle.
        waiting = None
        for images, labels in batches:
            done, waiting = waiting, self._start(images, np.asarray(labels))
            if done:
                rows.append(_read(*done))
        if waiting:
            rows.append(_read(*waiting))
        # Labels, classes and ranks are small integers, and losses float32: exact in float64.
        own = np.concatenate([np.zeros((4, 0)), *map(np.stack, rows)], axis=1)
        gathered = self._workers.gather(own.tobytes())
        every = [np.frombuffer(each).reshape(4, -1) for each in gathered]
        labels, predicted, rank, loss = np.concatenate(every, axis=1)
        if not labels.size:
            raise ReszooError("nothing to evaluate: the split holds no examples")
        labels, predicted, rank = (each.astype(np.int64) for each in (labels, predicted, rank))
        return _compute_scores(self.classes, labels, predicted, rank, loss)

    def _start(self, images: Tensor | Array, labels: Array) -> tuple[Array, list[Any]]:
        """Start a batch: pad it with copies of its last row, and distribute it over replicas.

        Returns:
            Labels [n], and for each column of `score_rows` its parts of all replicas.
        """
        wrong = labels[(labels < 0) | (labels >= self.classes)]
        if wrong.size:
            raise ReszooError(
                f"label {wrong[0]} is none of the {self.classes} classes 0..{self.classes - 1}"
            )
        rows = len(labels)
        self._rows = max(self._rows, -(-rows // self._replicas))
        index = np.minimum(np.arange(self._rows * self._replicas), rows - 1)
        padded = labels[index].astype(np.int32)
        # Images are sliced on their own device: only a replica's rows are copied to another one.
        with tf.device(images.device if isinstance(images, tf.Tensor) else "CPU:0"):
            if len(index) > rows:
                images = tf.gather(images, index)
            slices = [slice(at, at + self._rows) for at in range(0, len(index), self._rows)]
            parts = [(images[part], tf.constant(padded[part])) for part in slices]

        # Replicas are numbered over all workers; modulo gives the number on this worker.
        def distribute(column: int) -> Any:
            return self._distribute(
                lambda context: parts[context.replica_id_in_sync_group % self._replicas][column]
            )

        return labels, [self._local(value) for value in self._step(distribute(0), distribute(1))]

    def _distribute(self, value_of: Any) -> Any:
        return self._strategy.experimental_distribute_values_from_function(value_of)

    def _local(self, value: Any) -> tuple[Tensor, ...]:
        values: tuple[Tensor, ...] = self._strategy.experimental_local_results(value)
        return values


def evaluate_model(
    model: keras.Model,
    batches: Iterable[tuple[Tensor | Array, Tensor | Array]],
    *,
    classes: int,
    strategy: tf.distribute.Strategy | None = None,
) -> Scores:
    """Evaluate a model once; the arguments are those of `Evaluator` and its call."""
    return Evaluator(model, classes=classes, strategy=strategy)(batches)


def score_rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Score each row of logits by itself.

    Args:
        logits: Float [n, classes].
        labels: Integer [n].

    Returns:
        The predicted class, int32 [n], -1 where a logit is not finite; the rank of the true class,
        int32 [n] (see `Scores`), `classes` there; and the cross-entropy in nats, float32 [n], NaN
        there.
    """
    logits, labels = ops.cast(logits, "float32"), ops.cast(labels, "int32")[:, None]
    classes = logits.shape[-1]
    finite = ops.all(ops.isfinite(logits), axis=-1)
    own = ops.take_along_axis(logits, labels, axis=-1)
    lower = ops.arange(classes, dtype="int32")[None] < labels
    before = ops.logical_or(logits > own, ops.logical_and(logits == own, lower))
    rank = ops.sum(ops.cast(before, "int32"), axis=-1)
    predicted = ops.cast(ops.argmax(logits, axis=-1), "int32")
    loss = ops.logsumexp(logits, axis=-1) - own[:, 0]
    return (
        ops.where(finite, predicted, -1),
        ops.where(finite, rank, classes),
        ops.where(finite, loss, math.nan),
    )


def mean_recall(per_class: Sequence[float | None]) -> float:
    """Return the balanced accuracy: the mean over classes, without those that have None."""
    known = [accuracy for accuracy in per_class if accuracy is not None]
    return math.fsum(known) / len(known)


def single_class(confusion: Sequence[Sequence[int]]) -> int | None:
    """Return the only predicted class if the examples have several classes; else None.

    Args:
        confusion: `confusion[true][predicted]` counts examples.
    """
    counts = np.asarray(confusion)
    predicted = np.flatnonzero(counts.any(axis=0))
    several = np.count_nonzero(counts.any(axis=1)) > 1
    return int(predicted[0]) if len(predicted) == 1 and several else None


def one_class_line(name: str) -> str:
    """Return the line that reports a model whose predictions are all the class `name`."""
    return f"every image was predicted as {name!r}: the model does not distinguish the classes"


def _read(labels: Array, columns: Sequence[Sequence[Tensor]]) -> tuple[Array, ...]:
    """Return the labels and columns of a batch, each [n], without the rows of padding."""
    joined = (np.concatenate([np.asarray(part) for part in column]) for column in columns)
    return (labels, *(column[: len(labels)] for column in joined))


def _compute_scores(
    classes: int, labels: Array, predicted: Array, rank: Array, loss: Array
) -> Scores:
    """Return the scores of rows [n]. The order of the rows does not change a bit of them."""
    examples, valid = len(labels), predicted >= 0
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels[valid], predicted[valid]), 1)
    counts = zip(
        confusion.diagonal().tolist(), np.bincount(labels, minlength=classes).tolist(), strict=True
    )
    return Scores(
        examples=examples,
        top1=int(confusion.trace()) / examples,
        top5=int(np.count_nonzero(rank < TOP)) / examples if classes > TOP else None,
        loss=math.fsum(loss.tolist()) / examples,
        per_class=[correct / count if count else None for correct, count in counts],
        confusion=confusion.tolist(),
        not_finite=int(np.count_nonzero(~valid)),
    )
