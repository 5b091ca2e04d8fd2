"""Learning rates against hand arithmetic, at the steps where they change."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reszoo.config.load import load_recipe
from reszoo.config.schedule import (
    ConstantSchedule,
    CosineSchedule,
    PlateauSchedule,
    Schedule,
    ScheduleConfig,
    StepSchedule,
    TriangularSchedule,
)


def rates(
    config: ScheduleConfig, steps: Any, total: int = 100, per_epoch: int = 10, **rest: Any
) -> list[float]:
    arguments = {"total_steps": total, "steps_per_epoch": per_epoch, "batch_size": 128} | rest
    return [config.rate_at(step, **arguments) for step in steps]


@pytest.mark.smoke
def test_he_2015_as_packaged_drops_at_32k_and_48k() -> None:
    steps = [0, 1, 31_999, 32_000, 47_999, 48_000, 63_999]
    config = load_recipe("cifar10_resnet20").schedule
    assert rates(config, steps, 64_000, 352) == pytest.approx(
        [0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


def test_he_2015_resnet110_as_packaged_starts_400_steps_at_a_tenth() -> None:
    config = load_recipe("cifar10_resnet110").schedule
    assert rates(config, [0, 399, 400, 31_999, 32_000], 64_000, 352) == pytest.approx(
        [0.01, 0.01, 0.1, 0.1, 0.01]
    )


def test_boundaries_and_warmup_in_epochs_are_steps_of_the_epoch_at_hand() -> None:
    config = StepSchedule(
        kind="step", rate=1, unit="epochs", boundaries=(30, 60.5), warmup=2, warmup_rate=0.5
    )
    steps = [0, 703, 704, 30 * 352 - 1, 30 * 352, 21_295, 21_296]
    assert rates(config, steps, 31_680, 352) == pytest.approx([0.5, 0.5, 1, 1, 0.1, 0.1, 0.01])


@pytest.mark.smoke
def test_linear_warmup_climbs_in_equal_parts_and_is_never_0() -> None:
    config = ConstantSchedule(kind="constant", rate=0.5, warmup=4)
    assert rates(config, range(6)) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


def test_cosine_starts_full_after_warmup_and_ends_just_above_its_last_rate() -> None:
    config = CosineSchedule(kind="cosine", rate=1, warmup=20, final_rate=0.2)
    first, third, half, last = rates(config, [20, 40, 60, 99])
    assert first == 1.0
    assert third == pytest.approx(
        0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2
    )  # a quarter of the way: cos(45 degrees)
    assert half == pytest.approx(0.6)
    assert 0.2 < last < 0.2005


TORCHVISION = CosineSchedule(
    kind="cosine", rate=0.5, unit="epochs", every="epoch", warmup=2, warmup_start=0.005
)


def test_learning_rates_of_torchvision_change_once_in_an_epoch() -> None:
    """LinearLR from a hundredth, then CosineAnnealingLR, each stepped after an epoch."""
    falling = [0.25 * (1 + math.cos(math.pi * epoch / 8)) for epoch in range(8)]
    expected = [0.005, 0.2525, *falling]
    found = rates(TORCHVISION, range(100))
    assert found == pytest.approx([rate for rate in expected for _ in range(10)], rel=1e-12)


def test_a_cosine_that_includes_the_warmup_starts_at_step_0() -> None:
    """timm's CosineLRScheduler in updates and in epochs, without a prefix."""
    values = {"warmup": 2, "warmup_start": 0.1, "final_rate": 0.01, "include_warmup": True}
    for every, per in (("step", 1), ("epoch", 10)):
        config = CosineSchedule(kind="cosine", rate=0.5, unit="epochs", every=every, **values)
        expected = [
            0.1 + 0.4 * t / 20 if t < 20 else 0.01 + 0.245 * (1 + math.cos(math.pi * t / 100))
            for t in (step // per * per for step in range(100))
        ]
        assert rates(config, range(100)) == pytest.approx(expected, rel=1e-12)


def test_a_warmup_may_start_at_0() -> None:
    config = StepSchedule(kind="step", rate=0.8, warmup=4, warmup_start=0, boundaries=(6,))
    expected = [0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.08]
    assert rates(config, range(7)) == pytest.approx(expected)


def test_triangle_is_at_the_top_once_and_nowhere_0() -> None:
    config = TriangularSchedule(kind="triangular", rate=0.84, peak=0.3)
    expected = [0.21, 0.42, 0.63, 0.84, 0.72, 0.60, 0.48, 0.36, 0.24, 0.12]
    assert rates(config, range(10), total=10) == pytest.approx(expected)


def test_triangle_falls_to_its_final_learning_rate() -> None:
    config = TriangularSchedule(kind="triangular", rate=0.9, peak=0.5, final_rate=0.4)
    assert rates(config, [5, 6, 9, 10], total=10) == pytest.approx([0.9, 0.8, 0.5, 0.4])


def test_learning_rates_stated_for_a_batch_size_follow_the_batch_size() -> None:
    config = CosineSchedule(
        kind="cosine", rate=0.1, rate_batch=256, warmup=1, warmup_rate=0.02, final_rate=0.05
    )
    assert rates(config, [0, 1, 100], batch_size=512) == pytest.approx([0.04, 0.2, 0.1])
    assert rates(config, [0, 1, 100], batch_size=256) == pytest.approx([0.02, 0.1, 0.05])


def rows(*accuracies: float, key: str = "val_accuracy") -> list[dict[str, Any]]:
    """One evaluation each ten steps."""
    return [{"step": 10 * (index + 1), key: accuracy} for index, accuracy in enumerate(accuracies)]


PLATEAU = PlateauSchedule(kind="plateau", rate=1, patience=2)


def test_plateau_drops_after_patience_evaluations_without_a_better_one() -> None:
    #               10   20   30   40   50   60   70
    history = rows(0.5, 0.6, 0.6, 0.5, 0.6, 0.6, 0.7)
    steps = [0, 10, 39, 40, 59, 60, 70, 99]
    assert rates(PLATEAU, steps, history=history) == pytest.approx(
        [1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01]
    )


def test_plateau_reads_training_accuracy_without_validation_images() -> None:
    history = [row | {"val_accuracy": None} for row in rows(0.5, 0.5, 0.5, key="accuracy")]
    assert rates(PLATEAU, [29, 30], history=history) == pytest.approx([1, 0.1])
    assert rates(PLATEAU, [29, 30], history=rows(0.5, 0.5, 0.5, key="accuracy")) == pytest.approx(
        [1, 0.1]
    )
    rising = [row | {"accuracy": 0.5} for row in rows(0.5, 0.6, 0.7)]
    assert rates(PLATEAU, [30], history=rising) == [1]


@settings(max_examples=100, deadline=None)
@given(accuracies=st.lists(st.sampled_from([0.1, 0.2, 0.3]), max_size=12), cut=st.integers(0, 12))
def test_plateau_is_the_same_before_and_after_a_resume(accuracies: list[float], cut: int) -> None:
    history = rows(*accuracies)
    upto = [row for row in history if row["step"] <= 10 * cut]
    assert rates(PLATEAU, [10 * cut], history=upto) == rates(PLATEAU, [10 * cut], history=history)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["step", "cosine", "triangular", "constant", "plateau"]),
    total=st.integers(1, 50),
    peak=st.floats(0.01, 0.99),
    warmup=st.integers(0, 60),
)
def test_every_step_of_every_schedule_has_a_learning_rate_above_0_and_at_most_the_highest(
    kind: str, total: int, peak: float, warmup: int
) -> None:
    fields = {
        "step": {"boundaries": (100,)}, "plateau": {"patience": 1}, "triangular": {"peak": peak},
    }.get(kind, {}) | ({} if kind == "triangular" else {"warmup": warmup})  # fmt: skip
    config = Schedule.of(kind=kind, rate=0.7, **fields)  # type: ignore[arg-type]
    values = rates(config, range(total), total=total)
    assert all(0 < value <= 0.7 for value in values)
    if kind == "triangular":
        top = values.index(max(values))
        assert values[: top + 1] == sorted(values[: top + 1])
        assert values[top:] == sorted(values[top:], reverse=True)
