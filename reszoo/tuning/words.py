"""A trial's values in words, for people: on the page, on the terminal, in a recipe's header. Standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def in_words(values: Mapping[str, Any], space: Mapping[str, Any]) -> str:
    """Return a trial's values such as "n 5, shortcut A, rate 0.05"."""
    names = short_names([*space, *values])
    return ", ".join(f"{names[key]} {value_in_words(value)}" for key, value in values.items())


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return recipe keys by themselves without their table, where that leaves them different."""
    unique = list(dict.fromkeys(keys))
    count = Counter(key.rpartition(".")[2] for key in unique)
    return {key: short if count[short := key.rpartition(".")[2]] == 1 else key for key in unique}


def value_in_words(value: Any) -> str:
    """Return a knob's value as a person would type it."""
    return f"{value:g}" if isinstance(value, float) else str(value)
