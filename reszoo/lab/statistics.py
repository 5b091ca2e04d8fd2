"""Arithmetic that several experiments share: differences over seeds, medians, short numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def difference_sign(differences: Sequence[float]) -> int:
    """Return 1 or -1 if differences, one per seed, are clearly above or below 0, else 0.

    Clearly: all have that sign, and their mean is beyond two of its standard errors. A single
    difference counts by its sign.
    """
    points = np.asarray(differences, np.float64)
    error = points.std(ddof=1) / np.sqrt(len(points)) if len(points) > 1 else 0.0
    agreed = len(set(np.sign(points))) == 1
    return int(np.sign(points[0])) if agreed and abs(points.mean()) > 2 * error else 0


def median(values: Sequence[float | None]) -> float:
    """Return the median over seeds; None, a stack that diverged, counts as infinite."""
    return float(np.median([np.inf if value is None else value for value in values]))


def format_number(value: float) -> str:
    """Return a number with two digits, or "not finite"."""
    if not np.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if 100 <= value < 1e5 else f"{value:.2g}"


def round_numbers(values: Iterable[float]) -> list[float | None]:
    """Return numbers with six digits for a record; None if not finite."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def format_range(values: Sequence[float | None]) -> str:
    """Return the median of values and, in parentheses, their range; None is infinite."""
    numbers = [np.inf if value is None else value for value in values]
    low, high = format_number(min(numbers)), format_number(max(numbers))
    return format_number(median(values)) + ("" if low == high else f" ({low} to {high})")
