"""The table [schedule]: a pure function from step and history to learning rate."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic import Field

from reszoo.references import call_function, invalid_reference
from reszoo.types import JsonMapping
from reszoo.validation.table import Floats, Reference, Table

History = Sequence[JsonMapping]
Factor = Annotated[float, Field(gt=0, lt=1, description="Factor of each drop.")]
FinalRate = Annotated[float, Field(ge=0, description="Learning rate at the end.")]


class Moment(NamedTuple):
    """A step of a training.

    Attributes:
        step: Number of the update, from 0 to total_steps - 1.
        scale: Factor of all learning rates of the recipe.
        unit: Steps in one unit of the recipe, a step or an epoch.
        total_steps: Number of updates of the training.
        history: One row per evaluation so far.
        steps_per_epoch: Updates in one epoch.
    """

    step: int
    scale: float
    unit: int
    total_steps: int
    history: History
    steps_per_epoch: int


class Schedule(Table):
    """What all schedules share. `rate_at` gives the learning rate of a step.

    No line or cosine reaches a learning rate of 0, unless a warm-up starts there: a rise over n
    steps takes n + 1 equal parts of which step t has t + 1, and a fall from step a reaches its end
    at `total_steps`, one past the last step.
    """

    TABLE: ClassVar[str] = "schedule"
    CHOICE: ClassVar[str] = "kind"

    rate: float = Field(gt=0, description="The highest learning rate.")
    rate_batch: int = Field(
        0,
        ge=0,
        description="The batch size for which all learning rates of this table are stated. "
        "They are multiplied by `batch_size` / `rate_batch`. 0: not scaled.",
    )
    unit: Literal["steps", "epochs"] = Field("steps", description="Unit of boundaries and warmup.")

    def rate_at(
        self,
        step: int,
        *,
        total_steps: int,
        steps_per_epoch: int,
        batch_size: int,
        history: History = (),
    ) -> float:
        """Return the learning rate of an update, > 0, or 0 where `warmup_start` is 0.

        Args:
            step: Number of the update, from 0 to total_steps - 1.
            total_steps: Number of updates of the training.
            steps_per_epoch: Updates in one epoch.
            batch_size: Images per update.
            history: One row per evaluation so far, with `step` (updates before it) and
                `val_accuracy` or, without validation images, `accuracy`. Only PlateauSchedule reads
                it, and only rows before `step`.
        """
        scale = batch_size / self.rate_batch if self.rate_batch else 1.0
        unit = steps_per_epoch if self.unit == "epochs" else 1
        return self._rate(Moment(step, scale, unit, total_steps, history, steps_per_epoch))

    @abstractmethod
    def _rate(self, at: Moment) -> float:
        """Return the learning rate of a step."""

    def _check_final_rate(self, final_rate: float) -> None:
        if final_rate >= self.rate:
            raise self.contradiction("final_rate", f"less than schedule.rate = {self.rate:g}", 0)


class _Warmed(Schedule):
    warmup: float = Field(0.0, ge=0, description="Length of the warm-up at the start.")
    warmup_rate: float | None = Field(
        None,
        gt=0,
        examples=[0.01],
        description="Learning rate during the warm-up. By default it rises in a line from 0.",
    )
    warmup_start: float | None = Field(
        None,
        ge=0,
        examples=[0.0],
        description="Learning rate of the first step, from which the warm-up rises in a line to "
        "`rate`, as in torchvision, timm and big_vision.",
    )
    every: Literal["step", "epoch"] = Field(
        "step",
        description="How often the learning rate changes. `epoch`: each step has that of the "
        "first step of its epoch, as in torchvision and timm.",
    )

    def check(self) -> None:
        """Raise ReszooError for keys of a warm-up that contradict each other."""
        for key in ("warmup_rate", "warmup_start"):
            if getattr(self, key) is not None and not self.warmup:
                expected = "schedule.warmup > 0 with it"
                raise self.contradiction(key, expected, "schedule.warmup=400")
        lines = self.warmup_start is not None
        if lines and self.warmup_rate is not None:
            expected = "no schedule.warmup_rate with it; give one of them"
            raise self.contradiction("warmup_start", expected)
        if self.every == "epoch" and self.unit != "epochs":
            raise self.contradiction("every", 'schedule.unit = "epochs" with "epoch"', "step")
        if self.every == "epoch" and self.warmup and not lines and self.warmup_rate is None:
            expected = 'schedule.warmup_start or warmup_rate with "epoch" and a warm-up'
            raise self.contradiction("every", expected, "schedule.warmup_start=0.001")

    def _rate(self, at: Moment) -> float:
        if self.every == "epoch":
            at = Moment(at.step - at.step % at.unit, *at[1:])
        warmup = round(self.warmup * at.unit)
        if at.step >= warmup:
            return self._after_warmup(at)
        rate = self.rate * (at.step + 1) / (warmup + 1)
        if self.warmup_rate is not None:
            rate = self.warmup_rate
        elif self.warmup_start is not None:
            rate = self.warmup_start + (self.rate - self.warmup_start) * at.step / warmup
        return at.scale * rate

    def _after_warmup(self, at: Moment) -> float:
        return at.scale * self.rate


class ConstantSchedule(_Warmed):
    """The same learning rate throughout."""

    kind: Literal["constant"]


class StepSchedule(_Warmed):
    """The learning rate drops at given steps (arXiv 1512.03385, section 4.2)."""

    kind: Literal["step"]
    boundaries: Floats = Field(
        min_length=1,
        examples=[[32000, 48000]],
        description="When the learning rate drops: rising numbers after the warm-up.",
    )
    factor: Factor = 0.1

    def check(self) -> None:
        """Raise ReszooError for boundaries that do not rise."""
        super().check()
        ends = (self.warmup, *self.boundaries)
        if any(after <= before for before, after in zip(ends, ends[1:], strict=False)):
            expected = f"rising numbers > schedule.warmup = {self.warmup:g}"
            raise self.contradiction("boundaries", expected, [32000, 48000])

    def _after_warmup(self, at: Moment) -> float:
        passed = sum(at.step >= round(boundary * at.unit) for boundary in self.boundaries)
        return at.scale * self.rate * self.factor**passed


class PlateauSchedule(_Warmed):
    """The learning rate drops when accuracy stops rising (arXiv 1512.03385, section 3.4)."""

    kind: Literal["plateau"]
    patience: int = Field(
        ge=1, examples=[3], description="Evaluations without a better accuracy before a drop."
    )
    factor: Factor = 0.1

    def _after_warmup(self, at: Moment) -> float:
        return (
            at.scale * self.rate * self.factor ** count_plateaus(at.history, at.step, self.patience)
        )


class CosineSchedule(_Warmed):
    """The learning rate falls along half a cosine (arXiv 1608.03983)."""

    kind: Literal["cosine"]
    final_rate: FinalRate = 0.0
    include_warmup: bool = Field(
        False,
        description="The cosine starts at step 0, and the warm-up replaces its start, as in timm. "
        "By default it starts after the warm-up.",
    )

    def check(self) -> None:
        """Raise ReszooError for an end above the start."""
        super().check()
        self._check_final_rate(self.final_rate)

    def _after_warmup(self, at: Moment) -> float:
        start = 0 if self.include_warmup else round(self.warmup * at.unit)
        done = (at.step - start) / max(1, at.total_steps - start)
        fall = (self.rate - self.final_rate) * (1 + math.cos(math.pi * done)) / 2
        return at.scale * (self.final_rate + fall)


class TriangularSchedule(Schedule):
    """The learning rate rises and falls in straight lines (arXiv 1708.07120)."""

    kind: Literal["triangular"]
    peak: float = Field(
        0.25, gt=0, lt=1, description="Fraction of the training after which the rate is highest."
    )
    final_rate: FinalRate = 0.0

    def check(self) -> None:
        """Raise ReszooError for an end above the top."""
        self._check_final_rate(self.final_rate)

    def _rate(self, at: Moment) -> float:
        top = round(self.peak * at.total_steps)
        if at.step < top:
            return at.scale * self.rate * (at.step + 1) / (top + 1)
        done = (at.step - top) / max(1, at.total_steps - top)
        return at.scale * (self.rate + (self.final_rate - self.rate) * done)


class CustomSchedule(Schedule):
    """Your own: a function of `step`, from 0, that returns the learning rate.

    It may also take `rate` (scaled by `rate_batch`), `total_steps`, `steps_per_epoch` and
    `history`.
    """

    kind: Reference

    def _rate(self, at: Moment) -> float:
        arguments = {
            "step": at.step,
            "rate": at.scale * self.rate,
            "total_steps": at.total_steps,
            "steps_per_epoch": at.steps_per_epoch,
            "history": at.history,
        }
        found = call_function("schedule.kind", self.kind, self.load_object("kind"), arguments)
        try:
            rate = float(found)
        except (TypeError, ValueError):
            rate = math.nan
        if not 0 <= rate < math.inf:
            why = f"it returned {found!r} at step {at.step}; expected a finite number >= 0"
            raise invalid_reference("schedule.kind", self.kind, why)
        return rate


ScheduleConfig: TypeAlias = (
    StepSchedule
    | CosineSchedule
    | TriangularSchedule
    | ConstantSchedule
    | PlateauSchedule
    | CustomSchedule
)


def validation_score(row: JsonMapping) -> float | None:
    """Return the score of a row of the history that selects weights; None without validation.

    If an image may have several classes, the accuracy would be near 0 for many epochs.
    """
    score: float | None = row.get("val_mean_average_precision", row.get("val_accuracy"))
    return score


def count_plateaus(history: History, step: int, patience: int) -> int:
    """Return how often accuracy did not rise for `patience` evaluations before update `step`.

    Only a strictly better accuracy than ever before counts as a rise. The count starts again after
    each plateau.
    """
    best, waited, count = -math.inf, 0, 0
    for row in history:
        if row["step"] > step:
            break
        score = validation_score(row)
        accuracy = row["accuracy"] if score is None else score
        if accuracy > best:
            best, waited = accuracy, 0
        elif (waited := waited + 1) == patience:
            waited, count = 0, count + 1
    return count
