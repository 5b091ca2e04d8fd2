"""Knobs: what of a recipe a search may change, and how a space's file tells it. Standard library only."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reszoo.config import tomlfile
from reszoo.errors import ReszooError, did_you_mean

KNOB_KEYS = {"choices", "options", "low", "high", "log", "step", "when"}
DIGITS = 4  # significant digits of a number drawn from a range: what a person would type


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A knob with options by label, each setting recipe keys; the first is the default.

    when: options of earlier knobs under which this one acts, by the knob's name.
    """

    name: str
    options: Mapping[str, Mapping[str, Any]]
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def default(self) -> str:
        """The option that stands where nothing was chosen."""
        return next(iter(self.options))

    def sets(self, value: Any) -> Mapping[str, Any]:
        """Return the recipe keys that an option sets."""
        return self.options[value]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, from which `knob` makes an equal one."""
        when = {name: list(allowed) for name, allowed in self.when.items()}
        return {
            "options": {label: dict(sets) for label, sets in self.options.items()},
            "when": when,
        }


@dataclass(frozen=True, kw_only=True)
class Range:
    """A knob on one recipe key, from `low` to `high`; whole numbers where both are.

    log: drawn evenly in the logarithm. step: distance between values (a factor with `log`), 0 for any.
    """

    name: str
    low: float
    high: float
    log: bool = False
    step: float = 0
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def default(self) -> float:
        """The value that stands where nothing was chosen."""
        return self.low

    def sets(self, value: Any) -> Mapping[str, Any]:
        """Return the recipe key that a value sets."""
        return {self.name: value}

    def between(self) -> list[float]:
        """Return a value between the ends of a range that any number may be drawn from, none of another."""
        return (
            [] if self.whole or self.step else [rounded(self.low + 0.3717 * (self.high - self.low))]
        )

    @property
    def size(self) -> int:
        """How many values there are in a range with a step or of whole numbers. Raises ReszooError for any other."""
        if not self.step and (self.log or not self.whole):
            raise ReszooError(
                f"{self.name} is a range without end; give it a step, or choices, to try all of it"
            )
        if self.log:
            return int(math.log(self.high / self.low, self.step) + 1e-9) + 1
        return int((self.high - self.low) / (self.step or 1) + 1e-9) + 1

    def steps(self) -> list[float]:
        """Return every value of a range with a step or of whole numbers. Raises ReszooError for any other."""
        _ = self.size
        found, value, index = [], float(self.low), 0
        step = self.step or 1
        while value <= self.high * (1 + 1e-9):
            found.append(int(round(value)) if self.whole else rounded(value))
            index += 1
            value = self.low * step**index if self.log else self.low + step * index
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, from which `knob` makes an equal one."""
        when = {name: list(allowed) for name, allowed in self.when.items()}
        return {
            "low": self.low,
            "high": self.high,
            "log": self.log,
            "step": self.step,
            "when": when,
        }


Knob = Choice | Range


def rounded(number: float) -> float:
    """Return a number to four significant digits."""
    return float(f"{number:.{DIGITS}g}")


def read_knobs(tables: Mapping[str, Any]) -> tuple[Knob, ...]:
    """Return the knobs that a table [space] tells, in its order.

    Raises ReszooError in one line for what is no knob, or a condition on one that does not stand before it.
    """
    found: dict[str, Knob] = {}
    for name, told in _flat(tables):
        try:
            if "/" in name or not name.isprintable():
                raise ReszooError("a knob's name has no / and no line breaks")
            knob = _knob(name, told, found)
        except ReszooError as error:
            raise ReszooError(f"space.{name}: {error}") from None
        found[name] = knob
    return tuple(found.values())


def _flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield knobs by their whole name: TOML makes a table of tables of `model.shortcut = [...]`."""
    for key, value in tables.items():
        if isinstance(value, Mapping) and value and not KNOB_KEYS & value.keys():
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _knob(name: str, told: Any, before: Mapping[str, Knob]) -> Knob:
    if isinstance(told, list):
        told = {"choices": told}
    if not isinstance(told, Mapping) or not told:
        raise ReszooError(
            f"{told!r} is no knob: give a list of choices, {{ low = ..., high = ... }}, or options"
        )
    for key in told:
        if key not in KNOB_KEYS:
            raise ReszooError(
                f"no key {key}{did_you_mean(key, KNOB_KEYS) or '; a knob has ' + ', '.join(KNOB_KEYS)}"
            )
    kinds = [key for key in ("choices", "options", "low") if key in told]
    if len(kinds) != 1:
        raise ReszooError("give exactly one of choices, options, or low and high")
    extra = {
        "choices": {"low", "high", "log", "step"},
        "options": {"low", "high", "log", "step"},
        "low": set(),
    }
    if idle := sorted(told.keys() & extra[kinds[0]]):
        raise ReszooError(f"{idle[0]} belongs to a range; with {kinds[0]} leave it out")
    when = _when(told.get("when", {}), before)
    if kinds[0] == "low":
        return _range(name, told, when)
    if kinds[0] == "options":
        options = _options(told["options"])
    else:
        options = _choices(name, told["choices"])
    return Choice(name=name, options=options, when=when)


def _choices(name: str, choices: Any) -> dict[str, dict[str, Any]]:
    if "." not in name:
        raise ReszooError(
            "choices need a recipe key, such as model.shortcut; a name of your own takes options"
        )
    if (
        not isinstance(choices, list)
        or not choices
        or any(isinstance(value, Mapping) for value in choices)
    ):
        raise ReszooError("choices must be a list of values")
    options = {_label(value): {name: value} for value in choices}
    if len(options) != len(choices):
        raise ReszooError("two choices are the same")
    if broken := [label for label in options if not label.isprintable()]:
        raise ReszooError(f"{broken[0]!r} is no choice that can be told in a line")
    return options


def _options(told: Any) -> dict[str, dict[str, Any]]:
    if (
        not isinstance(told, Mapping)
        or not told
        or not all(isinstance(sets, Mapping) for sets in told.values())
    ):
        raise ReszooError(
            "options must be tables by name, such as options.small = { model.widths = [8, 16, 32] }"
        )
    options = {str(label): dict(_pairs(sets)) for label, sets in told.items()}
    told_as = {
        label: json.dumps(sets, sort_keys=True, default=str) for label, sets in options.items()
    }  # 1 is not true
    if same := [
        one for one, other in itertools.combinations(options, 2) if told_as[one] == told_as[other]
    ]:
        raise ReszooError(f"option {same[0]} sets what another sets too")
    for label, sets in options.items():
        if not label.isprintable():
            raise ReszooError(f"{label!r} is no name for an option")
        if wrong := [key for key in sets if "." not in key]:
            raise ReszooError(
                f"option {label} sets {wrong[0]}, which is no recipe key such as model.widths"
            )
    return options


def _pairs(sets: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in sets.items():
        if isinstance(value, Mapping):
            yield from _pairs(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _range(name: str, told: Mapping[str, Any], when: dict[str, tuple[str, ...]]) -> Range:
    if "." not in name:
        raise ReszooError("a range needs a recipe key, such as schedule.rate")
    numbers = {key: told.get(key) for key in ("low", "high")} | {"step": told.get("step", 0)}
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
            raise ReszooError(f"{key} is {value!r}, but must be a number")
    if not isinstance(told.get("log", False), bool):
        raise ReszooError(f"log is {told['log']!r}, but must be true or false")
    low, high, step, log = numbers["low"], numbers["high"], numbers["step"], told.get("log", False)
    if isinstance(low, int) != isinstance(high, int):
        low, high = float(low), float(high)  # type: ignore[arg-type]
    if not low < high:  # type: ignore[operator]
        raise ReszooError(f"low is {low} and high is {high}, but low must be below high")
    if log and low <= 0:  # type: ignore[operator]
        raise ReszooError(f"low is {low}, but a range with log = true must be above 0")
    if step and (step <= (1 if log else 0) or (isinstance(low, int) and step != int(step))):
        raise ReszooError(
            f"step is {step}, but must be {'a factor above 1' if log else 'above 0'}, whole where low is"
        )
    return Range(name=name, low=low, high=high, log=log, step=step, when=when)  # type: ignore[arg-type]


def _when(told: Any, before: Mapping[str, Knob]) -> dict[str, tuple[str, ...]]:
    if not isinstance(told, Mapping):
        raise ReszooError(
            f"when is {told!r}, but must be a table of earlier knobs and the choices under which this one acts"
        )
    found: dict[str, tuple[str, ...]] = {}
    for name, wanted in _conditions(told):
        earlier = before.get(name)
        if earlier is None:
            raise ReszooError(
                f"when names {name}, which is no knob that stands before it{did_you_mean(name, before)}"
            )
        if not isinstance(earlier, Choice):
            raise ReszooError(
                f"when names {name}, which is a range; a condition needs a knob with choices"
            )
        if isinstance(wanted, Mapping):
            found[name] = _from_on(earlier, wanted)
            continue
        labels = tuple(
            _label(value) for value in (wanted if isinstance(wanted, list) else [wanted])
        )
        if wrong := [label for label in labels if label not in earlier.options]:
            raise ReszooError(
                f"when says {name} = {wrong[0]}, which is none of {', '.join(earlier.options)}"
            )
        if not labels:
            raise ReszooError(f"when gives no choice of {name}")
        found[name] = labels
    return found


def _conditions(told: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in told.items():
        if isinstance(value, Mapping) and value.keys() - {"low", "high"}:
            yield from _conditions(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _from_on(knob: Choice, bounds: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the options of a knob whose labels are numbers within bounds."""
    low, high = bounds.get("low", float("-inf")), bounds.get("high", float("inf"))
    try:
        found = tuple(label for label in knob.options if low <= float(label) <= high)
    except (TypeError, ValueError):
        raise ReszooError(
            f"when bounds {knob.name}, whose choices are no numbers; list them instead"
        ) from None
    if not found:
        raise ReszooError(f"when leaves no choice of {knob.name}")
    return found


def _label(value: Any) -> str:
    return value if isinstance(value, str) else tomlfile.spell(value)
