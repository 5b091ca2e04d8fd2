"""The result of each example of a split, as an evaluation reads and writes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from reszoo.types import Array

COLUMNS = 100  # classes whose probabilities predictions.csv holds
TOP = 5  # classes that it holds of more
THRESHOLD = 0.5  # probability above which a class is predicted, if an image may have several


class ExampleRows(Protocol):
    """What a report needs of the results."""

    shown: ClassVar[str]
    """Which class of a mistake the page explains."""

    @property
    def count(self) -> int:
        """The number of examples."""

    def header(self, class_names: Sequence[str]) -> list[str]:
        """Return the names of the columns of predictions.csv after the file."""

    def cells(self, number: int, class_names: Sequence[str]) -> list[str]:
        """Return the cells of an example in these columns."""

    def mistakes(self) -> tuple[Array, Array]:
        """Return the wrong examples and the class that each is shown for, the worst first."""

    def describe(self, number: int, label: int, class_names: Sequence[str]) -> list[str]:
        """Return the lines that the page shows below a mistake."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The results of a split whose examples have one class each.

    Attributes:
        labels: True classes, int64 [n].
        predicted: Predicted classes, int64 [n]; -1 where a logit is not finite.
        rank: How many classes are ranked before the true class, int64 [n].
        loss: Cross-entropy in nats, float64 [n].
        confidence: Probability of the predicted class, float64 [n].
        probabilities: Of each class, float64 [n, classes], or of the classes in `best`; [n, 0] if
            they were not kept.
        best: The most probable classes, the first one first, int64 [n, k]; None if the
            probabilities are those of all classes.
    """

    labels: Array
    predicted: Array
    rank: Array
    loss: Array
    confidence: Array
    probabilities: Array
    best: Array | None = None

    shown: ClassVar[str] = "the predicted class"

    @property
    def count(self) -> int:
        """The number of examples."""
        return len(self.labels)

    def header(self, class_names: Sequence[str]) -> list[str]:
        """Return the names of the columns of predictions.csv after the file."""
        kept = self.probabilities.shape[1]
        if self.best is None:
            classes = [f"p_{name}" for name in class_names[:kept]]
        else:
            classes = [f"{what}_{rank}" for rank in range(1, kept + 1) for what in ("class", "p")]
        return ["true", "predicted", "probability", "true_probability", *classes]

    def cells(self, number: int, class_names: Sequence[str]) -> list[str]:
        """Return the cells of an example; empty ones for what is unknown without finite logits."""
        true, predicted = class_names[self.labels[number]], self.predicted[number]
        if predicted < 0:
            return [true, *[""] * (len(self.header(class_names)) - 1)]
        found = [f"{value:.6g}" for value in self.probabilities[number]]
        if self.best is not None:
            pairs = zip((class_names[label] for label in self.best[number]), found, strict=True)
            found = [cell for pair in pairs for cell in pair]
        known = (self.confidence[number], math.exp(-self.loss[number]))
        return [true, class_names[predicted], *(f"{value:.6g}" for value in known), *found]

    def mistakes(self) -> tuple[Array, Array]:
        """Return the wrong predictions, int64, the most confident first, and their classes."""
        wrong = np.flatnonzero((self.predicted >= 0) & (self.predicted != self.labels))
        wrong = wrong[np.argsort(-self.confidence[wrong], kind="stable")]
        return wrong, self.predicted[wrong]

    def describe(self, number: int, label: int, class_names: Sequence[str]) -> list[str]:
        """Return the lines that the page shows below a mistake."""
        true, probability = class_names[self.labels[number]], math.exp(-self.loss[number])
        return [
            f"true: {true}, {100 * probability:.1f} %",
            f"predicted: {class_names[label]}, {100 * self.confidence[number]:.1f} %",
        ]


@dataclass(frozen=True, eq=False)
class MultiLabelRows:
    """The results of a split whose examples have any number of classes.

    Attributes:
        targets: Whether an example has a class, bool [n, classes].
        probabilities: Of each class, float64 [n, classes]; NaN where a logit is not finite.
        loss: Mean binary cross-entropy over the classes in nats, float64 [n].
    """

    targets: Array
    probabilities: Array
    loss: Array

    shown: ClassVar[str] = "the class in the first line"

    @property
    def count(self) -> int:
        """The number of examples."""
        return len(self.loss)

    @property
    def predicted(self) -> Array:
        """Whether a class is predicted, bool [n, classes]: its probability exceeds `THRESHOLD`."""
        found: Array = self.probabilities > THRESHOLD
        return found

    def header(self, class_names: Sequence[str]) -> list[str]:
        """Return the names of the columns of predictions.csv after the file."""
        if len(class_names) > COLUMNS:
            top = [f"{what}_{rank}" for rank in range(1, TOP + 1) for what in ("class", "p")]
            return ["true", "predicted", *top]
        return ["true", "predicted", *(f"p_{name}" for name in class_names)]

    def cells(self, number: int, class_names: Sequence[str]) -> list[str]:
        """Return the cells of an example, classes separated by ";"."""
        names, probabilities = np.array(class_names, object), self.probabilities[number]
        true = ";".join(names[self.targets[number]])
        if not np.isfinite(probabilities).all():
            return [true, *[""] * (len(self.header(class_names)) - 1)]
        found = [f"{value:.6g}" for value in probabilities]
        if len(names) > COLUMNS:
            best = np.argsort(-probabilities, kind="stable")[:TOP]
            found = [cell for label in best for cell in (names[label], found[label])]
        return [true, ";".join(names[self.predicted[number]]), *found]

    def mistakes(self) -> tuple[Array, Array]:
        """Return the examples with a wrong class and the most wrong class, the worst first."""
        errors = np.abs(self.probabilities - self.targets)
        worst = np.nan_to_num(errors).argmax(axis=1)
        size = errors[np.arange(len(errors)), worst]
        wrong = np.flatnonzero((self.predicted != self.targets).any(axis=1) & ~np.isnan(size))
        wrong = wrong[np.argsort(-size[wrong], kind="stable")]
        return wrong, worst[wrong]

    def describe(self, number: int, label: int, class_names: Sequence[str]) -> list[str]:
        """Return the lines that the page shows below a mistake; the class that is shown first."""
        kind = "missed" if self.targets[number, label] else "not in the image"
        share = f"{100 * self.probabilities[number, label]:.1f} %"
        true, predicted = (
            ", ".join(np.array(class_names, object)[each[number]]) or "none"
            for each in (self.targets, self.predicted)
        )
        return [
            f"{class_names[label]}: {share}, {kind}",
            f"true: {true}",
            f"predicted: {predicted}",
        ]
