"""Scores of a model on a split whose examples have one class each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from reszoo.evaluation.rows import TOP, Rows
from reszoo.reporting.notebook import html_table
from reszoo.types import Array, JsonObject

LISTED = 20  # classes whose scores are shown one by one
NOT_FINITE = "images with non-finite logits, counted as wrong"
BINS = 15  # of the calibration error, as in the tables of arXiv 1706.04599


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a model on a split.

    Classes are ranked by logit; of equal logits the lower index comes first. The prediction is the
    first class, and exactly `k` classes are in the top `k`. A row with a logit that is not finite
    has no prediction: it counts as wrong and in `not_finite`, is not in the confusion matrix, and
    makes the loss NaN.

    A class occurs if examples are of it or predicted as it.

    Attributes:
        examples: Number of examples.
        top1: Accuracy in 0..1.
        top5: Accuracy in 0..1; None for five classes or fewer, where it could only be 1.
        loss: Mean cross-entropy in nats, without label smoothing or weight penalty.
        calibration_error: Expected calibration error in 0..1 over 15 bins of equal width, the sum
            of (examples in the bin / examples) |accuracy - mean confidence|. The confidence is the
            probability of the predicted class. NaN if a logit is not finite.
        per_class: Accuracy in 0..1 of each class, its recall; None for a class without examples.
        precision: For each class, the share of its predictions that are right; None for a class
            that is never predicted.
        f1: For each class, the harmonic mean of precision and recall, 0 without a right prediction;
            None for a class that does not occur.
        confusion: `confusion[true][predicted]` counts examples.
        not_finite: Examples with a logit that is not finite.
        metrics: The values of further Keras metrics by name.
        test: Which views of an image were evaluated: the name of `Views`, such as "10-crop".
        class_names: If they are known.

    Reference: arXiv 1706.04599, equation 3 (calibration error).
    """

    examples: int
    top1: float
    top5: float | None
    loss: float
    calibration_error: float
    per_class: list[float | None] = field(repr=False)
    precision: list[float | None] = field(repr=False)
    f1: list[float | None] = field(repr=False)
    confusion: list[list[int]] = field(repr=False)
    not_finite: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    test: str = "1-crop"
    class_names: tuple[str, ...] = field(default=(), repr=False)

    @property
    def error(self) -> float:
        """Top-1 error in percent."""
        return 100.0 * (1.0 - self.top1)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of `per_class`; 1 / classes for a model that always predicts the same class."""
        return mean_known(self.per_class)

    @property
    def macro_f1(self) -> float:
        """Mean of `f1` over the classes that occur."""
        return mean_known(self.f1)

    @property
    def single_class(self) -> int | None:
        """The only predicted class if the examples have several classes; else None."""
        return single_class(self.confusion)

    def to_history(self) -> dict[str, float]:
        """Return what the history records of the validation split."""
        own = {f"val_{name}": value for name, value in self.metrics.items()}
        return {"val_loss": self.loss, "val_accuracy": self.top1, **own}

    def to_dict(self) -> JsonObject:
        """Return all scores but the confusion matrix, for JSON. NaN becomes None."""
        return {
            "test": self.test,
            "examples": self.examples,
            "top1": self.top1,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "single_class": self.single_class,
            "top5": self.top5,
            "loss": finite_or_none(self.loss),
            "calibration_error": finite_or_none(self.calibration_error),
            "not_finite": self.not_finite,
            "per_class": self.per_class,
            "precision": self.precision,
            "f1": self.f1,
            **({"metrics": self.metrics} if self.metrics else {}),
        }

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        scores = html_table(("score", "value"), self.rows())
        return f"{scores}\n{html_table(*self.class_table())}"

    def rows(self) -> list[tuple[str, str]]:
        """Return the name and the value of each score of the whole split, formatted."""
        return [
            ("images", f"{self.examples:,}"),
            ("top-1 error", f"{self.error:.2f} %"),
            *([] if self.top5 is None else [("top-5 error", f"{100 * (1 - self.top5):.2f} %")]),
            ("balanced accuracy", f"{100 * self.balanced_accuracy:.2f} %"),
            ("macro F1", f"{100 * self.macro_f1:.2f} %"),
            ("calibration error", f"{100 * self.calibration_error:.2f} %"),
            ("loss", f"{self.loss:.4f}"),
            *([(NOT_FINITE, f"{self.not_finite:,}")] if self.not_finite else []),
        ]

    def class_table(self, limit: int = LISTED) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return headers, and a row with the scores of each class, formatted.

        Args:
            limit: With more classes, as many with the lowest F1 are returned, the lowest first.
        """
        names = self.class_names or tuple(map(str, range(len(self.f1))))
        order = list(range(len(names)))
        if len(order) > limit:
            known = [1.0 if value is None else value for value in self.f1]
            order.sort(key=known.__getitem__)
        head = "class" if len(order) <= limit else f"class, the {limit} of lowest F1"
        values = list(zip(self.precision, self.per_class, self.f1, strict=True))
        rows = [(names[label], *map(format_percent, values[label])) for label in order[:limit]]
        return (head, "precision", "recall", "F1"), rows

    def confusion_table(self, limit: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return headers, and a row for each of the `limit` most frequent confusions, formatted."""
        names = self.class_names or tuple(map(str, range(len(self.f1))))
        found = [
            (-count / sum(row), true, predicted)
            for true, row in enumerate(self.confusion)
            for predicted, count in enumerate(row)
            if predicted != true and count
        ]
        rows: list[tuple[str, ...]] = [
            (names[true], names[predicted], f"{-100 * share:.1f} %")
            for share, true, predicted in sorted(found)[:limit]
        ]
        return ("class", "predicted as", "share of the class"), rows


def mean_known(per_class: Sequence[float | None]) -> float:
    """Return the mean over classes, without those that have None; NaN if all have."""
    known = [value for value in per_class if value is not None]
    return math.fsum(known) / len(known) if known else math.nan


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


def compute_scores(classes: int, rows: Rows) -> Scores:
    """Return the scores of all examples. Their order does not change a bit of them."""
    from sklearn.metrics import precision_recall_fscore_support

    labels, predicted = rows.labels, rows.predicted
    examples, valid = len(labels), predicted >= 0
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels[valid], predicted[valid]), 1)
    precision, _, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=math.nan
    )
    counts = zip(
        confusion.diagonal().tolist(), np.bincount(labels, minlength=classes).tolist(), strict=True
    )
    return Scores(
        examples=examples,
        top1=int(confusion.trace()) / examples,
        top5=int(np.count_nonzero(rows.rank < TOP)) / examples if classes > TOP else None,
        loss=math.fsum(rows.loss.tolist()) / examples,
        calibration_error=calibration_error(rows.confidence, labels == predicted),
        per_class=[correct / count if count else None for correct, count in counts],
        precision=list(map(finite_or_none, precision.tolist())),
        f1=list(map(finite_or_none, f1.tolist())),
        confusion=confusion.tolist(),
        not_finite=int(np.count_nonzero(~valid)),
    )


def calibration_error(confidence: Array, correct: Array) -> float:
    """Return the expected calibration error; see `Scores`. Bin m of M is ((m - 1) / M, m / M].

    Args:
        confidence: Probability of the predicted class, float [n]; NaN gives NaN.
        correct: Whether the prediction is right, bool [n].

    Reference: arXiv 1706.04599, equation 3.
    """
    if not np.isfinite(confidence).all():
        return math.nan
    bins = np.maximum(np.ceil(confidence * BINS), 1)
    gaps = correct - confidence
    return math.fsum(abs(math.fsum(gaps[bins == m])) for m in np.unique(bins)) / len(gaps)


def finite_or_none(value: float) -> float | None:
    """Return a number, or None for NaN and infinity, which JSON lacks."""
    return value if math.isfinite(value) else None


def format_percent(value: float | None) -> str:
    """Return a share as a percentage; "-" for None."""
    return "-" if value is None else f"{100 * value:.2f} %"
