"""The base of every table of a recipe: immutable, strictly typed, with one-line errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic.fields import FieldInfo

from reszoo.errors import ReszooError
from reszoo.references import NAME_PATTERN, PATTERN, is_reference, load_reference
from reszoo.types import JsonMapping, JsonObject
from reszoo.validation.messages import (
    choices,
    contradiction,
    explain,
    full_key,
    show,
    unknown_choice,
)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


AS_TUPLE = BeforeValidator(_as_tuple)
"""Accepts a list, which TOML and JSON have, where a field is a tuple."""

Floats = Annotated[tuple[float, ...], AS_TUPLE]
OwnName = Annotated[str, Field(pattern=NAME_PATTERN)]
Reference = Annotated[str, Field(pattern=PATTERN)]
References = Annotated[tuple[Reference, ...], AS_TUPLE]


class Table(BaseModel):
    """A table of a recipe.

    A subclass declares its fields and checks pairs of them in `check`. Alternatives of one table,
    such as the kinds of schedule, are subclasses of a class that names the deciding field in
    `CHOICE`.

    Raises:
        ReszooError: For an unknown or missing key, a wrong type, a value out of range, or values
            that contradict each other. The message names the key, the value, what was expected and
            an example.
    """

    TABLE: ClassVar[str] = ""
    """The name of the table in a recipe, the prefix of its keys in messages."""
    CHOICE: ClassVar[str] = ""
    """The field that decides between alternatives of this table, such as "kind", or ""."""
    DEFAULT: ClassVar[str | None] = None
    """The value of that field where it is missing."""

    _given: dict[str, Any] = PrivateAttr(default_factory=dict)

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        values = self._without_unused_defaults(values)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise explain(error, type(self), values) from None
        for name, value in values.items():
            if isinstance(value, str):
                check_utf8(full_key(type(self), name), value)
        self.check()

    def check(self) -> None:
        """Raise ReszooError where values contradict each other."""

    def contradiction(self, name: str, expected: str, example: object = "") -> ReszooError:
        """Return the error for the value of a field that contradicts another value.

        Args:
            name: The field at fault.
            expected: What was expected, and why.
            example: A value that resolves it, or an override of another key such as
                "train.jit=false".
        """
        key = full_key(type(self), name)
        if example != "" and "=" not in str(example):
            example = f"{key}={show(example) if not isinstance(example, str) else example}"
        return contradiction(key, getattr(self, name), expected, str(example))

    def reject_unused(self, name: str, decider: str) -> None:
        """Raise ReszooError if a field that another one leaves unused differs from its default."""
        if getattr(self, name) != type(self).model_fields[name].default:
            key, other = (full_key(type(self), each) for each in (name, decider))
            raise ReszooError(
                f"{key}: not used with {other} = {show(getattr(self, decider))}. "
                f"Remove {key}, or change {other}"
            )

    def replace(self, **changes: Any) -> Self:
        """Return a checked copy with some fields changed.

        Raises:
            ReszooError: For an unknown field or an invalid value.
        """
        values = {name: getattr(self, name) for name in self.model_fields_set}
        kept = {name: each for name, each in self._given.items() if name not in changes}
        new = type(self)(**{**values, **(self.model_extra or {}), **changes})
        return new.give_objects(**kept) if kept else new

    def give_objects(self, **objects: Any) -> Self:
        """Return a copy that holds objects in place of what references in its fields name."""
        copy = self.model_copy()
        copy._given = {**self._given, **objects}
        return copy

    @property
    def given(self) -> dict[str, Any]:
        """The objects by field."""
        return self._given

    def load_object(self, name: str) -> Any:
        """Return what the reference in a field names, or the object that was given in its place.

        For a field of several references, a list.

        Raises:
            ReszooError: If it cannot be imported, or was passed to `reszoo.train` and is needed
                again.
        """
        if name in self._given:
            return self._given[name]
        key, found = full_key(type(self), name), getattr(self, name)
        if isinstance(found, str):
            return load_reference(key, found)
        return [load_reference(key, each) for each in found]

    def to_dict(self) -> JsonObject:
        """Return plain values for TOML and JSON, without fields that are None."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {self.CHOICE: values.pop(self.CHOICE), **values} if self.CHOICE else values

    @classmethod
    def of(cls, **values: Any) -> Any:
        """Return the alternative of this table that the deciding field chooses.

        Raises:
            ReszooError: If the deciding field is missing without a default, or unknown; and as the
                class does.
        """
        given = values.get(cls.CHOICE, cls.DEFAULT)
        if chosen := cls.find_alternative(given):
            return chosen(**values)
        raise unknown_choice(cls, given, cls.alternatives_by_choice())

    @classmethod
    def alternatives_by_choice(cls) -> dict[str, type[Table]]:
        """Return the alternatives of this table by their value of the deciding field."""
        return {
            choice: each
            for each in cls.alternatives()
            for choice in choices(each.model_fields[cls.CHOICE])
        }

    @classmethod
    def find_alternative(cls, given: object) -> type[Table] | None:
        """Return the alternative for a value of the deciding field; None for an unknown value."""
        if is_reference(given):
            own = (
                each for each in cls.alternatives() if not choices(each.model_fields[cls.CHOICE])
            )
            return next(own, None)
        return cls.alternatives_by_choice().get(given) if isinstance(given, str) else None

    @classmethod
    def alternatives(cls) -> Iterator[type[Table]]:
        """Yield the classes between which `CHOICE` decides; only this class without a choice."""
        family: type[Table] = next(
            (each for each in reversed(cls.__mro__) if getattr(each, "CHOICE", "")), cls
        )
        pending = [family]
        while pending:
            each = pending.pop(0)
            pending += each.__subclasses__()
            if not each.CHOICE or each.CHOICE in each.model_fields:
                yield each

    @classmethod
    def fields_of_alternatives(cls) -> dict[str, FieldInfo]:
        """Return the fields of all alternatives by name."""
        return {
            name: field for each in cls.alternatives() for name, field in each.model_fields.items()
        }

    @classmethod
    def _without_unused_defaults(cls, values: JsonMapping) -> JsonObject:
        """Omit keys that only other alternatives have, if they hold the default there.

        Recipes of version 0.1 state every key of every alternative, and 0 or [] for those that are
        required now.
        """
        kept = dict(values)
        for name, field in cls.fields_of_alternatives().items():
            if name in values and name not in cls.model_fields:
                value = values[name]
                if not value if field.is_required() else _as_tuple(value) == field.default:
                    del kept[name]
        return kept


def check_utf8(key: str, text: str) -> None:
    """Raise ReszooError unless a text can be written in UTF-8, as a recipe's file is."""
    if text == text.encode(errors="replace").decode():
        return
    what, shown = "text", ascii(text)
    if "/" in text:
        what, shown = "a path", os.fsencode(text).decode(errors="backslashreplace")
    raise ReszooError(
        f"{key}: {shown} is invalid; expected {what} in UTF-8, which a recipe's file can hold. "
        "Rename the file or folder, or give a symbolic link to it"
    )
