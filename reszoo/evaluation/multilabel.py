"""Scores of a model whose images may have several classes: one yes or no per image and class."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from reszoo.evaluation.rows import MultiLabelRows
from reszoo.evaluation.scores import (
    LISTED,
    NOT_FINITE,
    Scores,
    calibration_error,
    finite_or_none,
    format_percent,
    mean_known,
)
from reszoo.lazy import tf
from reszoo.types import JsonObject, Tensor


@dataclass(frozen=True, kw_only=True)
class MultiLabelScores(Scores):
    """Scores of a model on a split whose images may have several classes.

    A class is predicted if its probability exceeds 0.5. An image with a logit that is not finite
    counts as wrong and in `not_finite`, has no predicted class, and makes the loss NaN. Lists are
    in label order.

    Attributes:
        top1: Subset accuracy in 0..1: the share of images of which every class is right. `accuracy`
            and `val_accuracy` of the history are this score.
        top5: None.
        loss: Mean binary cross-entropy over images and classes in nats.
        calibration_error: Expected calibration error of all decisions, as `Scores` defines it. The
            confidence is the probability of the decision.
        per_class: The recall of each class; None for a class without images.
        precision: As of `Scores`.
        f1: As of `Scores`.
        confusion: Empty.
        average_precision: The area under the precision-recall curve of each class, the sum of
            (recall - recall before) * precision; None for a class without images.
        micro: Precision, recall and F1 of all decisions together.
        images: How many images have each class.

    Reference: scikit-learn, `average_precision_score`, `precision_recall_fscore_support`,
    `accuracy_score`.
    """

    average_precision: list[float | None] = field(repr=False)
    micro: tuple[float, float, float]
    images: list[int] = field(repr=False)

    @property
    def single_class(self) -> None:
        """None: an image may have no class."""

    @property
    def mean_average_precision(self) -> float:
        """Mean of `average_precision`; NaN without any positive."""
        return mean_known(self.average_precision)

    def to_history(self) -> dict[str, float]:
        """Return what the history records of the validation split."""
        return {
            **super().to_history(),
            "val_mean_average_precision": self.mean_average_precision,
            "val_macro_f1": self.macro_f1,
        }

    def to_dict(self) -> JsonObject:
        """Return all scores for JSON. NaN becomes None."""
        precision, recall, f1 = self.micro
        return {
            "test": self.test,
            "examples": self.examples,
            "multi_label": True,
            "subset_accuracy": self.top1,
            "mean_average_precision": finite_or_none(self.mean_average_precision),
            "macro_f1": finite_or_none(self.macro_f1),
            "micro_f1": f1,
            "micro_precision": precision,
            "micro_recall": recall,
            "loss": finite_or_none(self.loss),
            "calibration_error": finite_or_none(self.calibration_error),
            "not_finite": self.not_finite,
            "average_precision": self.average_precision,
            "per_class": self.per_class,
            "precision": self.precision,
            "f1": self.f1,
            **({"metrics": self.metrics} if self.metrics else {}),
        }

    def rows(self) -> list[tuple[str, str]]:
        """Return the name and the value of each score of the whole split, formatted."""
        precision, recall, f1 = self.micro
        return [
            ("images", f"{self.examples:,}"),
            ("images with a wrong class", f"{self.error:.2f} %"),
            ("mean average precision", f"{100 * self.mean_average_precision:.2f} %"),
            ("macro F1", f"{100 * self.macro_f1:.2f} %"),
            ("micro F1", f"{100 * f1:.2f} %"),
            ("micro precision, recall", f"{100 * precision:.2f} %, {100 * recall:.2f} %"),
            ("calibration error", f"{100 * self.calibration_error:.2f} %"),
            ("loss", f"{self.loss:.4f}"),
            *([(NOT_FINITE, f"{self.not_finite:,}")] if self.not_finite else []),
        ]

    def class_table(self, limit: int = LISTED) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return headers, and a row with the scores of each class, formatted; see `Scores`."""
        headers, rows = super().class_table(limit)
        more = zip(self.images, self.average_precision, strict=True)
        names = self.class_names or map(str, range(len(self.images)))
        known = dict(zip(names, more, strict=True))
        return (*headers, "average precision", "images"), [
            (*row, format_percent(known[row[0]][1]), f"{known[row[0]][0]:,}") for row in rows
        ]


def score_multi_label(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Score each row of logits by itself.

    Args:
        logits: Float [n, classes].
        targets: 0 and 1, float [n, classes].

    Returns:
        Mean binary cross-entropy over the classes in nats, float32 [n], and the probabilities,
        float32 [n, classes]; both NaN where a logit is not finite.
    """
    logits = tf.cast(logits, tf.float32)
    finite = tf.reduce_all(tf.math.is_finite(logits), axis=-1)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(targets, tf.float32), logits)
    probabilities = tf.where(finite[:, tf.newaxis], tf.nn.sigmoid(logits), math.nan)
    return tf.where(finite, tf.reduce_mean(losses, axis=-1), math.nan), probabilities


def to_probabilities(logits: Tensor, *, multi_label: bool) -> Tensor:
    """Return the probabilities of logits [n, classes]: a sigmoid of each, or their softmax."""
    return tf.nn.sigmoid(logits) if multi_label else tf.nn.softmax(logits)


def compute_multi_label_scores(rows: MultiLabelRows) -> MultiLabelScores:
    """Return the scores of all examples."""
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support

    finite = np.isfinite(rows.probabilities).all(axis=1)
    targets, predicted = rows.targets, rows.predicted
    probabilities = np.nan_to_num(rows.probabilities)
    decided = np.where(predicted, rows.probabilities, 1 - rows.probabilities)
    support = precision_recall_fscore_support
    precision, recall, f1, _ = support(targets, predicted, average=None, zero_division=math.nan)
    micro = support(targets, predicted, average="micro", zero_division=0)
    return MultiLabelScores(
        examples=rows.count,
        top1=int(np.count_nonzero((predicted == targets).all(axis=1) & finite)) / rows.count,
        top5=None,
        loss=math.fsum(rows.loss.tolist()) / rows.count,
        calibration_error=calibration_error(decided.ravel(), (predicted == targets).ravel()),
        per_class=list(map(finite_or_none, recall.tolist())),
        precision=list(map(finite_or_none, precision.tolist())),
        f1=list(map(finite_or_none, f1.tolist())),
        confusion=[],
        not_finite=int(np.count_nonzero(~finite)),
        average_precision=[
            float(average_precision_score(own, scores)) if own.any() else None
            for own, scores in zip(targets.T, probabilities.T, strict=True)
        ],
        micro=(float(micro[0]), float(micro[1]), float(micro[2])),
        images=np.count_nonzero(targets, axis=0).tolist(),
    )
