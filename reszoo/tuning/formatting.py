"""Values of a trial as text: in reports, on the terminal and in the header of a recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from reszoo.tuning.hyperparameters import Value
from reszoo.tuning.space import Values


def format_values(values: Values, names: Iterable[str]) -> str:
    """Return values as "n 5, rate 0.05"; `names` are those of all hyperparameters."""
    short = short_names([*names, *values])
    return ", ".join(f"{short[name]} {format_value(value)}" for name, value in values.items())


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return each name without its table if that leaves it unique."""
    unique = dict.fromkeys(names)
    count = Counter(name.rpartition(".")[2] for name in unique)
    return {name: end if count[end := name.rpartition(".")[2]] == 1 else name for name in unique}


def format_value(value: Value) -> str:
    """Return a value as a person would type it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def format_share(share: float) -> str:
    """Return " after 33 % of the training", "" for all of it."""
    return f" after {100 * share:.0f} % of the training" if share < 1 else ""
