"""Run a model on every example of a split once, for any batch size and number of replicas."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from reszoo.errors import ReszooError
from reszoo.evaluation.multilabel import (
    compute_multi_label_scores,
    score_multi_label,
    to_probabilities,
)
from reszoo.evaluation.rows import TOP, MultiLabelRows, Rows
from reszoo.evaluation.scores import Scores, compute_scores
from reszoo.lazy import tf
from reszoo.training.workers import Workers
from reszoo.types import Array, Tensor


class Evaluator:
    """Evaluates one model, traced once: later calls use its weights of that moment.

    Each of several workers evaluates its own batches on its own devices, and gets all scores.

    Args:
        model: Maps float32 images [n, h, w, c] to logits [n, classes]. For several replicas it must
            have been made in the strategy's scope.
        classes: Number of classes.
        strategy: Distributes batches over replicas; by default the current strategy.
        workers: The workers of the strategy, on several hosts.
        probabilities: Whether `rows` returns the probability of each class.
        best: Whether `rows` returns the `TOP` most probable classes instead.
        multi_label: Whether an image may have several classes.
        metrics: Further Keras metrics. They get targets and probabilities, [n, classes]; labels,
            [n], and probabilities if the name of their class begins with "Sparse".

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
        probabilities: bool = False,
        best: bool = False,
        multi_label: bool = False,
        metrics: Sequence[keras.metrics.Metric] = (),
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
        self._metrics, probabilities = metrics, probabilities or bool(metrics)
        self._best, self._multi_label = best and not probabilities, multi_label
        kept = classes if probabilities else 2 * TOP if self._best else 0
        self._columns = 1 + 2 * classes if multi_label else 5 + kept

        def score(images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
            logits = model(images, training=False)
            if multi_label:
                return score_multi_label(logits, labels)
            scored = score_rows(logits, labels)
            if not probabilities and not best:
                return scored
            found = to_probabilities(ops.cast(logits, "float32"), multi_label=False)
            if probabilities:
                return (*scored, found)
            highest = tf.math.top_k(found, TOP)
            return (*scored, highest.values, highest.indices)

        @tf.function(reduce_retracing=False)  # type: ignore[untyped-decorator]
        def step(images: Tensor, labels: Tensor) -> Any:
            return self._strategy.run(score, args=(images, labels))

        self._step = step

    def __call__(self, batches: Iterable[tuple[Tensor | Array, Tensor | Array]]) -> Scores:
        """Evaluate all batches and return their scores; the arguments are those of `rows`."""
        rows = self.rows(batches)
        return dataclasses.replace(self.compute(rows), metrics=dict(self._measure(rows)))

    def compute(self, rows: Rows | MultiLabelRows) -> Scores:
        """Return the scores of the results of `rows`, without metrics."""
        if isinstance(rows, MultiLabelRows):
            return compute_multi_label_scores(rows)
        return compute_scores(self.classes, rows)

    def _measure(self, rows: Rows | MultiLabelRows) -> Iterator[tuple[str, float]]:
        if isinstance(rows, Rows):
            labels, targets = rows.labels, ops.one_hot(rows.labels, self.classes)
        else:
            labels = targets = rows.targets.astype(np.float32)
        for metric in self._metrics:
            metric.reset_state()
            sparse = type(metric).__name__.startswith("Sparse")
            metric.update_state(labels if sparse else targets, rows.probabilities)
            yield metric.name, float(np.mean(metric.result()))

    def rows(
        self, batches: Iterable[tuple[Tensor | Array, Tensor | Array]]
    ) -> Rows | MultiLabelRows:
        """Evaluate all batches and return the result of each example, in order.

        Args:
            batches: This worker's batches: float images [n, h, w, c] and integer labels [n] in
                0..classes-1, or 0 and 1, [n, classes], if an image may have several classes.

        Raises:
            ReszooError: There are no examples, or a label is not a class.
        """
        rows: list[Array] = []
        # A batch's results are read while the next one is computed, so that a GPU is never idle.
        waiting = None
        for images, labels in batches:
            done, waiting = waiting, self._start(images, np.asarray(labels))
            if done:
                rows.append(_read(*done))
        if waiting:
            rows.append(_read(*waiting))
        # Labels, classes and ranks are small integers, and the rest float32: exact in float64.
        own = np.concatenate([np.zeros((0, self._columns)), *rows])
        gathered = self._workers.gather(own.tobytes())
        table = np.frombuffer(b"".join(gathered)).reshape(-1, self._columns)
        if not len(table):
            raise ReszooError("nothing to evaluate: the split holds no examples")
        if self._multi_label:
            targets, loss, probabilities = np.split(table, [self.classes, self.classes + 1], axis=1)
            return MultiLabelRows(targets > 0, probabilities, loss[:, 0])
        labels, predicted, rank = table[:, :3].T.astype(np.int64)
        kept, best = table[:, 5:], None
        if self._best:
            kept, best = kept[:, :TOP], kept[:, TOP:].astype(np.int64)
        return Rows(labels, predicted, rank, table[:, 3], table[:, 4], kept, best)

    def _start(self, images: Tensor | Array, labels: Array) -> tuple[Array, list[Any]]:
        """Start a batch: pad it with copies of its last row, and distribute it over replicas.

        Returns:
            Labels [n], and for each column of `score_rows` its parts of all replicas.
        """
        count, what = (2, "values") if self._multi_label else (self.classes, "classes")
        wrong = labels[(labels < 0) | (labels >= count)]
        if wrong.size:
            raise ReszooError(f"label {wrong[0]} is none of the {count} {what} 0..{count - 1}")
        rows = len(labels)
        self._rows = max(self._rows, -(-rows // self._replicas))
        index = np.minimum(np.arange(self._rows * self._replicas), rows - 1)
        padded = labels[index].astype(np.float32 if self._multi_label else np.int32)
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


def score_rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Score each row of logits by itself.

    Args:
        logits: Float [n, classes].
        labels: Integer [n].

    Returns:
        The predicted class, int32 [n], -1 where a logit is not finite; the rank of the true class,
        int32 [n] (see `Scores`), `classes` there; the cross-entropy in nats, float32 [n], NaN
        there; and the probability of the predicted class, float32 [n], NaN there.
    """
    logits, labels = ops.cast(logits, "float32"), ops.cast(labels, "int32")[:, None]
    classes = logits.shape[-1]
    finite = ops.all(ops.isfinite(logits), axis=-1)
    own = ops.take_along_axis(logits, labels, axis=-1)
    lower = ops.arange(classes, dtype="int32")[None] < labels
    before = ops.logical_or(logits > own, ops.logical_and(logits == own, lower))
    rank = ops.sum(ops.cast(before, "int32"), axis=-1)
    predicted = ops.cast(ops.argmax(logits, axis=-1), "int32")
    total = ops.logsumexp(logits, axis=-1)
    return (
        ops.where(finite, predicted, -1),
        ops.where(finite, rank, classes),
        ops.where(finite, total - own[:, 0], math.nan),
        ops.where(finite, ops.exp(ops.max(logits, axis=-1) - total), math.nan),
    )


def _read(labels: Array, columns: Sequence[Sequence[Tensor]]) -> Array:
    """Return labels and columns of a batch, [n, columns], without the rows of padding."""
    joined = (np.concatenate([np.asarray(part) for part in column]) for column in columns)
    return np.column_stack([labels, *(column[: len(labels)] for column in joined)])
