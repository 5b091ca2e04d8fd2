"""Exact scores over a whole split: every example counts once, whatever the batch size and the number of replicas."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from reszoo.errors import ReszooError
from reszoo.lazy import tf

TOP = 5


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a net scores on a set of examples. Accuracies are fractions in 0..1.

    A class is ranked by how many classes stand before it: those with a larger logit, and those with the same logit and
    a lower index. The prediction is the class of rank 0, and exactly `k` classes make the top `k`, ties or no ties.
    A row with a logit that is not a finite number predicts nothing: it counts as wrong, is counted in `not_finite`,
    stands nowhere in the confusion matrix, and makes the loss NaN.
    """

    examples: int
    top1: float
    top5: float | None
    """None where there are no more than five classes: it could only be 1."""
    loss: float
    """Mean cross-entropy in nats, without label smoothing or weight penalty."""
    per_class: list[float | None]
    """Top-1 accuracy among the examples of each class; None for a class without examples."""
    confusion: list[list[int]]
    """`confusion[true][predicted]`, in examples."""
    not_finite: int = 0

    @property
    def error(self) -> float:
        """Top-1 error in percent, as the papers print it."""
        return 100.0 * (1.0 - self.top1)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of `per_class` over the classes with examples: 1 / classes for a model that always predicts the same class."""
        return mean_recall(self.per_class)

    @property
    def single_class(self) -> int | None:
        """The class that every example was predicted as, though the examples have several classes; else None."""
        return single_class(self.confusion)

    def to_dict(self) -> dict[str, Any]:
        """Return every figure but the confusion matrix, fit for JSON (a loss that is not a number becomes None)."""
        return {
            "examples": self.examples,
            "top1": self.top1,
            "balanced_accuracy": self.balanced_accuracy,
            "single_class": self.single_class,
            "top5": self.top5,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "not_finite": self.not_finite,
            "per_class": self.per_class,
        }


class Evaluator:
    """Scores one model, compiled once: later calls, with the weights of that moment, do not trace again.

    `model` maps float32 images [n, h, w, c] to logits [n, classes]; under a `strategy` of several replicas it must have
    been made in its scope. Of several workers each scores every example by itself on its own devices.
    Raises ReszooError when the model does not give `classes` logits.
    """

    def __init__(
        self, model: Any, *, classes: int, strategy: tf.distribute.Strategy | None = None
    ) -> None:
        shape = tuple(model.output_shape)
        if len(shape) != 2 or shape[-1] != classes:
            raise ReszooError(
                f"the model's output has shape {shape}, but the data has {classes} classes"
            )
        self.classes = classes
        self._strategy = strategy or tf.distribute.get_strategy()
        self._replicas = len(
            self._local(self._strategy.experimental_distribute_values_from_function(lambda _: 0))
        )
        self._piece = 0  # rows a replica takes; grows to the largest batch seen

        def score(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return score_rows(model(images, training=False), labels)

        @tf.function(reduce_retracing=False)  # type: ignore[untyped-decorator]
        def step(images: tf.Tensor, labels: tf.Tensor) -> Any:
            return self._strategy.run(score, args=(images, labels))

        self._step = step

    def __call__(self, batches: Iterable[tuple[Any, Any]]) -> Scores:
        """Score `batches` of (float images [n, h, w, c], integer labels [n] in 0..classes-1), to the end.

        Raises ReszooError when there is no example, or a label is no class.
        """
        tally = _Tally(self.classes)
        # A batch's results are read while the next one is being computed, so that a GPU does not stand waiting.
        waiting = None
        for images, labels in batches:
            done, waiting = waiting, self._run(images, labels)
            if done is not None:
                tally.add(*done)
        if waiting is None:
            raise ReszooError("nothing to evaluate: the split holds no examples")
        tally.add(*waiting)
        return tally.scores()

    def _run(self, images: Any, labels: Any) -> tuple[np.ndarray, list[Any]]:
        """Start one batch: pad it to the compiled shape with copies of its last row and deal it out to the replicas."""
        labels = np.asarray(labels)
        if labels.size and not (labels.min() >= 0 and labels.max() < self.classes):
            wrong = labels[(labels < 0) | (labels >= self.classes)][0]
            raise ReszooError(
                f"label {wrong} is none of the {self.classes} classes 0..{self.classes - 1}"
            )
        rows = len(labels)
        self._piece = max(self._piece, -(-rows // self._replicas))
        index = np.minimum(np.arange(self._piece * self._replicas), rows - 1)
        # Only a replica's share leaves the device that the images lie on.
        with tf.device(images.device if isinstance(images, tf.Tensor) else "CPU:0"):
            if len(index) > rows:
                images = tf.gather(images, index)
            padded = labels[index].astype(np.int32)
            pieces = [
                (
                    images[start : start + self._piece],
                    tf.constant(padded[start : start + self._piece]),
                )
                for start in range(0, len(index), self._piece)
            ]
        # Replicas are numbered over all workers; modulo gives the number among this worker's own.
        dealt = [
            self._strategy.experimental_distribute_values_from_function(
                lambda context, part=part: pieces[
                    context.replica_id_in_sync_group % self._replicas
                ][part]
            )
            for part in (0, 1)
        ]
        return labels, [self._local(column) for column in self._step(*dealt)]

    def _local(self, value: Any) -> tuple[Any, ...]:
        values: tuple[Any, ...] = self._strategy.experimental_local_results(value)
        return values


def evaluate_model(
    model: Any,
    batches: Iterable[tuple[Any, Any]],
    *,
    classes: int,
    strategy: tf.distribute.Strategy | None = None,
) -> Scores:
    """Score `model` once on `batches`, each example exactly once; see `Evaluator`, which to score repeatedly is cheaper."""
    return Evaluator(model, classes=classes, strategy=strategy)(batches)


def score_rows(logits: Any, labels: Any) -> tuple[Any, Any, Any]:
    """Score each row of `logits` [n, classes] against its label [n] by itself.

    Returns the predicted class (int32 [n]; -1 where a logit is not finite), the rank of the true class (int32 [n]; see
    `Scores`; `classes` where a logit is not finite) and the cross-entropy (float32 [n], nats; NaN there).
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
    """Return the balanced accuracy: the mean accuracy of the classes, without those that have no examples (None)."""
    known = [accuracy for accuracy in per_class if accuracy is not None]
    return math.fsum(known) / len(known)


def single_class(confusion: Sequence[Sequence[int]]) -> int | None:
    """Return the class that every example was predicted as, though the examples have several classes; else None.

    confusion: `confusion[true][predicted]`, in examples.
    """
    predicted = [
        number for number, column in enumerate(zip(*confusion, strict=True)) if any(column)
    ]
    true = sum(any(row) for row in confusion)
    return predicted[0] if len(predicted) == 1 and true > 1 else None


def one_class_line(name: str) -> str:
    """Return the line that reports a model whose predictions are all the class `name`."""
    return f"every image was predicted as {name!r}: the model does not tell the classes apart"


class _Tally:
    """Counts in integers and sums in float64, so that neither order nor grouping of the rows can show."""

    def __init__(self, classes: int) -> None:
        self.confusion = np.zeros((classes, classes), np.int64)
        self.examples = np.zeros(classes, np.int64)
        self.top5 = 0
        self.not_finite = 0
        self.losses: list[np.ndarray] = []

    def add(self, labels: np.ndarray, columns: Sequence[Any]) -> None:
        """Add one batch: labels [n], and for each column of `score_rows` the replicas' pieces, n rows and padding."""
        predicted, rank, loss = (
            np.concatenate([np.asarray(piece) for piece in column])[: len(labels)]
            for column in columns
        )
        valid = predicted >= 0
        np.add.at(self.examples, labels, 1)
        np.add.at(self.confusion, (labels[valid], predicted[valid]), 1)
        self.top5 += int(np.count_nonzero(rank < TOP)) if len(self.examples) > TOP else 0
        self.not_finite += int(np.count_nonzero(~valid))
        self.losses.append(loss)

    def scores(self) -> Scores:
        classes, examples = len(self.examples), int(self.examples.sum())
        right = self.confusion.diagonal()
        return Scores(
            examples=examples,
            top1=int(right.sum()) / examples,
            top5=self.top5 / examples if classes > TOP else None,
            loss=math.fsum(float(loss) for part in self.losses for loss in part) / examples,
            per_class=[
                int(r) / int(n) if n else None for r, n in zip(right, self.examples, strict=True)
            ],
            confusion=self.confusion.tolist(),
            not_finite=self.not_finite,
        )
