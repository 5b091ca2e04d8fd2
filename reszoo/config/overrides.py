"""Overrides of recipe keys: `table.key=value` on the command line, a mapping in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from reszoo.config import tomlfile
from reszoo.config.recipe import TABLES
from reszoo.config.training import unused_with_freeze
from reszoo.errors import ReszooError, did_you_mean
from reszoo.types import JsonMapping, JsonObject
from reszoo.validation.messages import invalid, show, with_constraints
from reszoo.validation.table import Table
from reszoo.zoo.spec import Spec

Overrides: TypeAlias = JsonMapping | Sequence[str]
"""Values by recipe key, such as {"train.epochs": 2}, or texts such as "train.epochs=2"."""


def parse_overrides(overrides: Overrides) -> JsonObject:
    """Return values by recipe key; of two overrides of a key, the last.

    Args:
        overrides: A mapping, whose keys are checked, or texts `table.key=value` with the value in
            TOML syntax. A bare word is text.

    Raises:
        ReszooError: For an unknown key or a text of another form, with the nearest key.
    """
    if isinstance(overrides, Mapping):
        for key in overrides:
            check_key(key)
        return dict(overrides)
    return dict(map(_parse, overrides))


def format_overrides(overrides: Overrides) -> list[str]:
    """Return overrides as texts `table.key=value`, for records and commands."""
    return [
        f"{key}={value if isinstance(value, str) else show(value)}"
        for key, value in parse_overrides(overrides).items()
    ]


def check_key(key: str) -> None:
    """Raise ReszooError unless a recipe has this key. The model checks its own fields."""
    table, _, name = key.partition(".")
    if table == "model" and name:
        return
    keys = [
        f"{table}.{name}" for table, cls in TABLES.items() for name in cls.fields_of_alternatives()
    ]
    if key not in keys:
        same = " or ".join(repr(known) for known in keys if known.split(".")[1] == key)
        near = f"; did you mean {same}?" if same else did_you_mean(key, keys)
        tables = ", ".join(f"{table}.KEY" for table in TABLES)
        raise ReszooError(f"{show(key)}: unknown recipe key{near or f'; expected {tables}'}")


def check_value(key: str, value: Any) -> None:
    """Raise ReszooError unless the key can hold the value in some recipe.

    Args:
        key: A recipe key, such as "schedule.rate".
        value: Its value, as TOML or JSON give it.
    """
    check_key(key)
    table, _, name = key.partition(".")
    is_field = table == "model" and name not in TABLES["model"].model_fields
    owner: type[Table] = Spec if is_field else TABLES[table]
    if name not in owner.fields_of_alternatives():
        near = did_you_mean(name, owner.fields_of_alternatives())
        raise ReszooError(f"{key}: unknown key{near}")
    fields = [each.model_fields[name] for each in owner.alternatives() if name in each.model_fields]
    for field in fields:
        try:
            TypeAdapter(with_constraints(field)).validate_python(value, strict=True)
            return
        except ValidationError:
            continue
    raise invalid(key, value, fields[0])


def apply_overrides(tables: JsonMapping, overrides: JsonMapping) -> JsonObject:
    """Return the tables of a recipe with overrides applied, not yet validated.

    A key that loses its meaning is dropped: train.steps where train.epochs is given and the
    reverse, and keys of another schedule.kind, optimizer.name, augment.crop or finetune.freeze than
    the one given.
    """
    result, given = dict(tables), dict[str, JsonObject]()
    for key, value in overrides.items():
        table, _, name = key.partition(".")
        given.setdefault(table, {})[name] = value
    for table, values in given.items():
        before = result.get(table, {})
        if isinstance(before, Mapping):  # else the validation reports it
            unused = _unused_keys(table, values)
            kept = {key: value for key, value in before.items() if key not in unused}
            result[table] = kept | values
    return result


def _unused_keys(table: str, values: JsonMapping) -> set[str]:
    """Return the keys of a table that lose their meaning with overrides of it."""
    if table == "train":
        lengths = {"steps", "epochs"}
        return lengths if values.keys() & lengths else set()
    if table == "finetune":
        return set(unused_with_freeze(str(values.get("freeze"))))
    family = TABLES[table]
    chosen = family.find_alternative(values.get(family.CHOICE)) if family.CHOICE else None
    return set(family.fields_of_alternatives()) - set(chosen.model_fields) if chosen else set()


def _parse(text: str) -> tuple[str, Any]:
    shown = text if text.isprintable() else ascii(text)
    key, equals, spelled = text.partition("=")
    if not equals:
        raise ReszooError(f"--set {shown}: expected table.key=value. Example: --set train.epochs=2")
    key, spelled = key.strip(), spelled.strip()
    try:
        check_key(key)
    except ReszooError as error:
        raise ReszooError(f"--set {shown}: {error}") from None
    value = tomlfile.parse_value(spelled)
    table, _, name = key.partition(".")
    field = TABLES[table].fields_of_alternatives().get(name)
    # Digits and the like are TOML, but where text is expected they are meant as they were typed.
    as_typed = field is not None and field.annotation is str and not isinstance(value, str)
    return key, spelled if as_typed else value
