"""The learning rate of a step, as a pure function of the recipe and of what was measured before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reszoo.training.config import ScheduleConfig


def rate(
    config: ScheduleConfig,
    step: int,
    *,
    total_steps: int,
    steps_per_epoch: int,
    batch_size: int,
    history: Sequence[Mapping[str, Any]] = (),
) -> float:
    """Return the learning rate of update `step` (from 0 to total_steps - 1), above 0 throughout.

    history: the rows of the evaluations so far, each with `step` (updates done before it) and `val_accuracy` or, without
        validation images, `accuracy`; only kind "plateau" reads them, and only those that lie before `step`, so that the
        same step gets the same rate before and after a resume.

    A line or cosine never gives a rate of 0: a climb over n steps takes n + 1 equal parts of which step t has t + 1, and a
    fall from step a reaches its end at `total_steps`, just past the last step.
    """
    scale = batch_size / config.rate_batch if config.rate_batch else 1.0
    unit = steps_per_epoch if config.unit == "epochs" else 1
    warmup = round(config.warmup * unit)
    if step < warmup:
        climbing = config.rate * (step + 1) / (warmup + 1)
        return scale * (climbing if config.warmup_rate is None else config.warmup_rate)
    if config.kind == "step":
        passed = sum(step >= round(boundary * unit) for boundary in config.boundaries)
        return scale * config.rate * config.factor**passed
    if config.kind == "plateau":
        return scale * config.rate * config.factor ** plateaus(history, step, config.patience)
    if config.kind == "cosine":
        done = (step - warmup) / max(1, total_steps - warmup)
        return scale * (config.final_rate + (config.rate - config.final_rate) * (1 + math.cos(math.pi * done)) / 2)
    if config.kind == "triangular":
        top = round(config.peak * total_steps)
        if step < top:
            return scale * config.rate * (step + 1) / (top + 1)
        done = (step - top) / max(1, total_steps - top)
        return scale * (config.rate + (config.final_rate - config.rate) * done)
    return scale * config.rate


def plateaus(history: Sequence[Mapping[str, Any]], step: int, patience: int) -> int:
    """Return how often accuracy had stood still for `patience` evaluations before update `step`.

    Only a strictly better accuracy than ever before counts as progress; each plateau starts the count again.
    """
    best, waited, count = -math.inf, 0, 0
    for row in history:
        if row["step"] > step:
            break
        accuracy = row.get("val_accuracy")
        if accuracy is None:
            accuracy = row["accuracy"]
        if accuracy > best:
            best, waited = accuracy, 0
        elif (waited := waited + 1) == patience:
            waited, count = 0, count + 1
    return count
