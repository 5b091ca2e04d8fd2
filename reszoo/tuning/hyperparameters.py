"""Hyperparameters: what a search may change in a recipe, as the table [space] states it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from reszoo.errors import ReszooError, did_you_mean
from reszoo.types import JsonMapping, JsonObject
from reszoo.validation.messages import contradiction, show
from reszoo.validation.table import AS_TUPLE, Table

Value: TypeAlias = str | int | float
Labels = Annotated[tuple[str, ...], AS_TUPLE, Field(min_length=1)]
Number = Annotated[int | float, Field(gt=-1e300, lt=1e300)]

KEYS = ("choices", "options", "low", "high", "log", "step", "when")
DIGITS = 4  # significant digits of a number drawn from a range: what a person would type


class Choice(Table):
    """A hyperparameter with options by label, each of which sets recipe keys."""

    name: str = Field(min_length=1)
    options: dict[str, JsonObject] = Field(
        min_length=1, examples=[{"small": {"model.widths": [8, 16, 32]}}]
    )
    when: dict[str, Labels] = {}

    def check(self) -> None:
        """Raise ReszooError for equal options, or options that set no recipe keys."""
        seen: dict[str, str] = {}
        for label, sets in self.options.items():
            if not label.isprintable():
                raise contradiction("options", label, "a label that can be printed")
            if wrong := [key for key in sets if "." not in key]:
                raise contradiction(
                    f"options.{label}", wrong[0], "a recipe key such as model.widths"
                )
            if (other := seen.setdefault(repr(sorted(sets.items())), label)) != label:
                raise contradiction(f"options.{label}", sets, f"other values than options.{other}")

    @property
    def default(self) -> Value:
        """The value where the hyperparameter is inactive."""
        return next(iter(self.options))

    @property
    def size(self) -> int:
        """The number of values."""
        return len(self.options)

    def overrides(self, value: Value) -> JsonObject:
        """Return the recipe keys that a value sets."""
        return self.options[str(value)]

    def all_values(self) -> list[Value]:
        """Return every value."""
        return list(self.options)

    def value_at(self, fraction: float) -> Value:
        """Return the value at a fraction, from 0 to below 1, of all values in order."""
        return list(self.options)[_index(fraction, self.size)]

    def fraction_of(self, value: Value) -> float:
        """Return the middle of the fractions that have this value."""
        return (list(self.options).index(str(value)) + 0.5) / self.size


class Range(Table):
    """A recipe key from `low` to `high`; values are integers if both ends are."""

    name: str = Field(min_length=1)
    low: Number
    high: Number
    log: bool = Field(False, description="Draw uniformly in the logarithm.")
    step: Number = Field(0, description="Distance of values, a factor with `log`; 0 for any value.")
    when: dict[str, Labels] = {}

    def check(self) -> None:
        """Raise ReszooError for numbers that contradict each other."""
        if not self.low < self.high:
            raise contradiction("low", self.low, f"a number below high = {self.high}")
        if self.log and self.low <= 0:
            raise contradiction("low", self.low, "a number > 0 with log = true")
        if self.step and self.step <= (1 if self.log else 0):
            raise contradiction("step", self.step, "a factor > 1" if self.log else "a number > 0")
        if self.whole and self.step != int(self.step):
            raise contradiction("step", self.step, "an integer where low and high are integers")

    @property
    def whole(self) -> bool:
        """Whether values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def default(self) -> Value:
        """The value where the hyperparameter is inactive."""
        return self.low if self.whole else float(self.low)

    @property
    def size(self) -> int:
        """The number of values. Raises ReszooError for numbers without a step."""
        if not self.step and (self.log or not self.whole):
            raise ReszooError(
                f"space.{self.name}.step: missing; expected a step, or choices, to try every value"
            )
        if self.log:
            return int(math.log(self.high / self.low, self.step) + 1e-8) + 1
        return int((self.high - self.low) / (self.step or 1) + 1e-8) + 1

    def overrides(self, value: Value) -> JsonObject:
        """Return the recipe keys that a value sets."""
        return {self.name: value}

    def all_values(self) -> list[Value]:
        """Return every value. Raises ReszooError for a range without a step, except of integers."""
        return [self._at_step(index) for index in range(self.size)]

    def value_at(self, fraction: float) -> Value:
        """Return the value at a fraction, from 0 to below 1, of the range."""
        if self.step or (self.whole and not self.log):
            return self._at_step(_index(fraction, self.size))
        if self.log:
            found = self.low * math.pow(self._end / self.low, fraction)
        else:
            found = fraction * (self.high - self.low) + self.low
        return int(found) if self.whole else round_number(found)

    def fraction_of(self, value: Value) -> float:
        """Return the fraction of the range that has this value, the middle of those of a step."""
        number = float(value)
        if self.step or (self.whole and not self.log):
            distance = (
                math.log(number / self.low, self.step)
                if self.log
                else round((number - self.low) / (self.step or 1))
            )
            return (distance + 0.5) / self.size
        if not self.log:
            return (number - self.low) / (self.high - self.low)
        return math.log((number + 0.5 * self.whole) / self.low) / math.log(self._end / self.low)

    @property
    def _end(self) -> float:
        """The upper end of what is drawn; integers are the whole numbers below it."""
        return self.high + 1 if self.whole else self.high

    def _at_step(self, index: int) -> Value:
        step = self.step or 1
        found = self.low * math.pow(step, index) if self.log else self.low + step * index
        return round(found) if self.whole else round_number(found)


Hyperparameter: TypeAlias = Choice | Range


def round_number(number: float) -> float:
    """Return a number with four significant digits."""
    return float(f"{number:.{DIGITS}g}")


def read_hyperparameters(tables: JsonMapping) -> tuple[Hyperparameter, ...]:
    """Return the hyperparameters of a table [space], in order.

    Raises:
        ReszooError: For an invalid entry, or a condition on something that is not before it.
    """
    found: dict[str, Hyperparameter] = {}
    for name, entry in _flatten(tables, KEYS):
        try:
            if "/" in name or not name.isprintable():
                raise ReszooError(
                    f"name: {show(name)} is invalid; expected a name without / and line breaks"
                )
            found[name] = _read(name, entry, found)
        except ReszooError as error:
            raise ReszooError(f"space.{name}.{error}") from None
    return tuple(found.values())


def _read(name: str, entry: Any, earlier: Mapping[str, Hyperparameter]) -> Hyperparameter:
    if isinstance(entry, list):
        entry = {"choices": entry}
    if not isinstance(entry, Mapping):
        raise contradiction("choices", entry, "a list of choices, { low = 1, high = 2 } or options")
    if unknown := [key for key in entry if key not in KEYS]:
        near = did_you_mean(unknown[0], KEYS) or f"; expected one of {', '.join(KEYS)}"
        raise ReszooError(f"{unknown[0]}: unknown key{near}")
    kinds = [key for key in ("choices", "options", "low") if key in entry]
    if len(kinds) != 1:
        raise ReszooError(
            "choices: missing or not alone; expected one of choices, options, and low with high"
        )
    entry = {**entry, "when": _read_conditions(entry.get("when", {}), earlier)}
    if "options" not in entry and "." not in name:
        raise ReszooError(f"{kinds[0]}: expected options, or a recipe key such as schedule.rate")
    if "low" in entry:
        return Range(name=name, **entry)
    if "choices" in entry:
        entry["options"] = _label_choices(name, entry.pop("choices"))
    elif isinstance(entry["options"], Mapping):
        entry["options"] = {
            label: dict(_flatten(sets)) if isinstance(sets, Mapping) else sets
            for label, sets in entry["options"].items()
        }
    return Choice(name=name, **entry)


def _label_choices(name: str, choices: Any) -> dict[str, JsonObject]:
    if not isinstance(choices, list) or any(isinstance(value, Mapping) for value in choices):
        raise contradiction("choices", choices, "a list of values")
    options = {_label(value): {name: value} for value in choices}
    if len(options) != len(choices):
        raise contradiction("choices", choices, "different values")
    return options


def _label(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return value if isinstance(value, str) else show(value)


def _read_conditions(when: Any, earlier: Mapping[str, Hyperparameter]) -> dict[str, list[str]]:
    """Return the labels of earlier hyperparameters under which one is active."""
    if not isinstance(when, Mapping):
        raise contradiction("when", when, "a table of earlier hyperparameters and their values")
    found = {}
    for name, wanted in _flatten(when, ("low", "high")):
        other = earlier.get(name)
        if not isinstance(other, Choice):
            raise ReszooError(
                f"when.{name}: expected a hyperparameter with choices that stands before this one"
                f"{did_you_mean(name, earlier)}"
            )
        if isinstance(wanted, Mapping):
            labels = _between(other, wanted)
        else:
            labels = [_label(value) for value in (wanted if isinstance(wanted, list) else [wanted])]
        if not labels or not set(labels) <= set(other.options):
            raise contradiction(f"when.{name}", wanted, f"some of {', '.join(other.options)}")
        found[name] = labels
    return found


def _between(other: Choice, bounds: JsonMapping) -> list[str]:
    """Return the labels that are numbers within bounds; none if one is not a number."""
    low, high = bounds.get("low", -math.inf), bounds.get("high", math.inf)
    try:
        return [label for label in other.options if low <= float(label) <= high]
    except (TypeError, ValueError):
        return []


def _flatten(
    tables: JsonMapping, until: tuple[str, ...] = (), prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield values by their whole key, because TOML reads `model.shortcut` as a table in a table.

    Args:
        tables: Values and tables.
        until: A table with any of these keys is a value.
        prefix: Of the keys.
    """
    for key, value in tables.items():
        if isinstance(value, Mapping) and value and not value.keys() & set(until):
            yield from _flatten(value, until, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _index(fraction: float, size: int) -> int:
    return min(int(fraction / (1 / size)), size - 1)
