"""Sharpness-aware minimization: the gradient is taken where the loss is largest near the weights.

Reference: arXiv 2010.01412, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reszoo.lazy import tf
from reszoo.training.gradients import LossGradient
from reszoo.training.loss_scale import LossScale
from reszoo.training.protocols import Strategy
from reszoo.types import Tensor, Variable

EPSILON = 1e-12  # of the norm, as in the authors' code


class Ascent(NamedTuple):
    """What the first of two passes leaves on a replica.

    Attributes:
        moves: What to add to each weight.
        values: The weights before the move.
        statistics: The moving statistics after the first pass, which alone changes them.
        sums: Those of the first pass: loss, right answers, images.
    """

    moves: list[Tensor]
    values: list[Tensor]
    statistics: list[Tensor]
    sums: Tensor


class Sharpness:
    """Moves weights by a radius up the gradient of the whole batch, and back.

    Args:
        strategy: The strategy.
        radius: The length of the move, over all weights together.
        statistics: The moving statistics of batch norms.
        seeds: The seeds of random layers, which draw the same masks in both passes.
        loss_scale: The factor on the loss.
    """

    def __init__(
        self,
        strategy: Strategy,
        radius: float,
        statistics: Sequence[Variable],
        seeds: Sequence[Variable],
        loss_scale: LossScale,
    ) -> None:
        self._strategy, self._radius = strategy, radius
        self._statistics, self._seeds, self._loss_scale = statistics, seeds, loss_scale

    def climb(self, images: Tensor, labels: Tensor, rows: Tensor, gradient: LossGradient) -> Ascent:
        """Take the first pass on every replica, and move the weights.

        Returns:
            The parts, each of every replica, for `descend` and `come_back`.
        """
        ascent: Ascent = self._strategy.run(self._ascend, args=(images, labels, rows, gradient))
        for weight, move in zip(gradient.weights, ascent.moves, strict=True):
            self._strategy.extended.update(
                weight.value, lambda one, by: one.assign_add(by), args=(move,), group=False
            )
        return ascent

    def come_back(self, ascent: Ascent, gradient: LossGradient) -> None:
        """Give the weights the values from before `climb`, to the bit."""
        for weight, value in zip(gradient.weights, ascent.values, strict=True):
            self._strategy.extended.update(
                weight.value, lambda one, new: one.assign(new), args=(value,), group=False
            )

    def end_pass(self, ascent: Ascent) -> None:
        """Give the moving statistics of a replica the values of the first pass."""
        for variable, value in zip(self._statistics, ascent.statistics, strict=True):
            variable.value.assign(value)

    def _ascend(
        self, images: Tensor, labels: Tensor, rows: Tensor, gradient: LossGradient
    ) -> Ascent:
        seeds = [tf.identity(seed.value) for seed in self._seeds]
        gradients, sums = gradient(images, labels, rows, self._loss_scale.scale)
        gradients, _ = self._loss_scale.unscale(gradients)
        factor = self._radius / (tf.linalg.global_norm(gradients) + EPSILON)
        ascent = Ascent(
            [each * tf.cast(factor, each.dtype) for each in gradients],
            [tf.identity(weight.value) for weight in gradient.weights],
            [tf.identity(variable.value) for variable in self._statistics],
            sums,
        )
        for seed, value in zip(self._seeds, seeds, strict=True):
            seed.value.assign(value)
        return ascent
