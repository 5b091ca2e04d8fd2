"""From a TOML value to the type a dataclass field states, or one line saying what is wanted."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from reszoo.errors import ReszooError, did_you_mean

Table = TypeVar("Table")

EXAMPLES: dict[Any, tuple[str, str]] = {
    str: ("text", '"digits"'),
    bool: ("true or false", "true"),
    int: ("a whole number", "128"),
    float: ("a number", "0.1"),
}


def hints(cls: type) -> dict[str, Any]:
    """Return the fields of a dataclass with the type of each, in their order."""
    resolved = get_type_hints(cls)
    return {field.name: resolved[field.name] for field in dataclasses.fields(cls)}


def wanted(hint: Any) -> str:
    """Return in words, with an example, what a field of type `hint` takes."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if is_union(hint):
        return wanted(next(arm for arm in get_args(hint) if arm is not type(None)))
    if get_origin(hint) is tuple:
        arms = get_args(hint)
        count = "a list" if arms[-1] is Ellipsis else f"a list of {len(arms)}"
        kind, example = EXAMPLES.get(arms[0], ("values", "1"))
        items = [example] * (2 if arms[-1] is Ellipsis else len(arms))
        return f"{count}, each {kind}, such as [{', '.join(items)}]"
    kind, example = EXAMPLES.get(hint, (getattr(hint, "__name__", str(hint)), "1"))
    return kind if hint is bool else f"{kind}, such as {example}"


def is_union(hint: Any) -> bool:
    """Return whether `hint` is `X | None` or another union."""
    return get_origin(hint) in (Union, types.UnionType)


def convert(value: Any, hint: Any, key: str) -> Any:
    """Return `value` as a field of type `hint` holds it: lists become tuples, whole numbers may stand for floats.

    Raises ReszooError naming `key`, the type wanted and an example. NaN and infinity are no numbers here, and what UTF-8
    cannot write is no text.
    """
    result = _fit(value, hint)
    if result is _MISFIT:
        near = ""
        if get_origin(hint) is Literal and isinstance(value, str):
            near = did_you_mean(value, get_args(hint))
        shown = list(value) if isinstance(value, tuple) else value
        raise ReszooError(f"{key} is {shown!r}, but must be {wanted(hint)}{near}")
    return result


_MISFIT = object()


def _fit(value: Any, hint: Any) -> Any:
    origin, arms = get_origin(hint), get_args(hint)
    if is_union(hint):
        fits = (_fit(value, arm) for arm in arms)
        return next((fit for fit in fits if fit is not _MISFIT), _MISFIT)
    if origin is Literal:
        return value if isinstance(value, str) and value in arms else _MISFIT
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return _MISFIT
        kinds = arms[:1] * len(value) if arms[-1] is Ellipsis else arms
        if len(kinds) != len(value):
            return _MISFIT
        items = tuple(_fit(item, kind) for item, kind in zip(value, kinds, strict=True))
        return _MISFIT if any(item is _MISFIT for item in items) else items
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # An integer beyond the floats (TOML has no limit) is no finite number either.
        return float(value) if number and abs(value) < 1e300 else _MISFIT
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else _MISFIT
    if hint is str and isinstance(value, str):
        return value if value == value.encode(errors="replace").decode() else _MISFIT
    return value if isinstance(value, hint) else _MISFIT


class Checked:
    """A dataclass whose fields are converted and checked where it is made, whoever makes it.

    A subclass names its table in `TABLE` and raises for impossible values in `check`.
    """

    TABLE: str

    def __post_init__(self) -> None:
        for name, hint in hints(type(self)).items():
            object.__setattr__(self, name, convert(getattr(self, name), hint, f"{self.TABLE}.{name}"))
        self.check()

    def check(self) -> None:
        """Raise ReszooError for a value or a pair of values that cannot be meant."""

    def refuse_unless(self, holds: bool, name: str, rule: str) -> None:
        """Raise ReszooError "TABLE.name is VALUE, but must be RULE" unless `holds`."""
        if not holds:
            raise ReszooError(f"{self.TABLE}.{name} is {getattr(self, name)!r}, but must be {rule}")

    def refuse_idle(self, allowed: Mapping[str, tuple[str, ...]], by: str) -> None:
        """Raise ReszooError for a field that is not at its default although field `by` leaves it nothing to do.

        `allowed` maps a field to the values of `by` under which it acts.
        """
        kind = getattr(self, by)
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            kinds = allowed.get(field.name)
            if kinds is not None and kind not in kinds and getattr(self, field.name) != field.default:
                raise ReszooError(
                    f"{self.TABLE}.{field.name} does nothing with {by} = {kind!r}: leave it out, "
                    f"or give {by} = {' or '.join(map(repr, kinds))}"
                )


def read_table(cls: type[Table], table: Any, name: str) -> Table:
    """Return the dataclass `cls` made from a TOML table; `name` is the table's, for messages.

    Raises ReszooError for what is no table, an unknown or missing key, a wrong type or an impossible value.
    """
    if not isinstance(table, Mapping):
        raise ReszooError(f"{name} is {table!r}, but must be a table of keys under [{name}]")
    known = hints(cls)
    for key in table:
        if key not in known:
            hint = did_you_mean(key, known) or f"; [{name}] takes {', '.join(known)}"
            raise ReszooError(f"no key {name}.{key}{hint}")
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in table:
            raise ReszooError(f"{name}.{field.name} is missing: give {wanted(known[field.name])}")
    return cls(**{key: convert(value, known[key], f"{name}.{key}") for key, value in table.items()})
