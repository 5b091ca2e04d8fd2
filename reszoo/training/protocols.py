"""What training needs of the data, the step, the evaluation and the strategy.

The loop and the state of a run use only these, so that several hosts or other data can be added
without changing them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

import keras

from reszoo.data.batches import Batch, Batches
from reszoo.data.info import DataInfo
from reszoo.data.micro_batches import Part
from reszoo.errors import ReszooError
from reszoo.images.preprocessing import Preprocessing
from reszoo.lazy import tf
from reszoo.types import Tensor, Variable

PerReplica: TypeAlias = Any
"""A value of each replica, or one value if there is only one replica."""

Watch: TypeAlias = Callable[[Iterable[Batch]], Iterable[Batch]]
"""Passes batches through, and calls callbacks around each."""


class Pipeline(Protocol):
    """The data of a run, in batches."""

    info: DataInfo
    preprocessing: Preprocessing
    steps_per_epoch: int
    train_sizes: dict[int, tuple[int, int]]

    def train(self, start_step: int = 0, part: Part | None = None) -> Batches:
        """Return the training batches from a step on, without end; of each only `part`."""

    def rows(self, step: int) -> int:
        """Return how many images the whole batch of a step holds."""

    def evaluation(self, split: str, part: Part | None = None) -> Batches:
        """Return a split once, in order, without augmentation; only the batches of `part`."""

    def explain(self, error: Exception) -> ReszooError | None:
        """Return the error of a damaged image if it is the cause of `error`."""


class Stepper(Protocol):
    """Updates a model."""

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    weights: list[Variable]
    averaged: list[Variable]
    averages: list[Variable]
    share: float
    totals: Variable
    wishes: Variable
    part: Part
    radius: float

    @property
    def rate(self) -> float:
        """The learning rate of the last update."""

    def __call__(
        self, images: Tensor, labels: Tensor, rate: float, rows: int, wishes: tuple[bool, bool]
    ) -> None:
        """Take one step on a global batch, of which `images` are this worker's part."""

    def probe(
        self, images: Tensor, labels: Tensor, rate: float, rows: int, wishes: tuple[bool, bool]
    ) -> None:
        """Take one step of a linear probe."""

    def restart(self) -> None:
        """Reset the optimizer."""

    def state(self) -> dict[str, Variable]:
        """Return every variable besides the model's by a stable name."""

    def spread_seeds(self) -> None:
        """Give each replica its own random masks."""


class Evaluator(Protocol):
    """Evaluates the model on the validation split."""

    def __call__(self, watch: Watch) -> Mapping[str, float]:
        """Return "val_loss" and "val_accuracy"; `watch` sees the batches."""


class Strategy(Protocol):
    """Runs a step on each replica: the part of `tf.distribute.Strategy` that training uses."""

    num_replicas_in_sync: int
    extended: tf.distribute.StrategyExtended

    def scope(self) -> AbstractContextManager[object]:
        """Return the scope in which variables are created on every replica."""

    def run(self, function: Callable[..., PerReplica], args: Sequence[object] = ()) -> PerReplica:
        """Call a function on every replica."""

    def reduce(self, reduce_op: str, value: PerReplica, axis: int | None) -> Tensor:
        """Return a value reduced over the replicas."""

    def experimental_local_results(self, value: PerReplica) -> tuple[Tensor, ...]:
        """Return the value of each replica of this host."""
