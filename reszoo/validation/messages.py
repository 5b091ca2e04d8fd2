"""One format for every error of a configuration: key, value, what was expected, and an example."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from reszoo.errors import ReszooError, did_you_mean
from reszoo.references import EXPECTED, NAME_PATTERN, PATTERN
from reszoo.types import JsonMapping, JsonObject

if TYPE_CHECKING:
    from reszoo.validation.table import Table

EXAMPLES = {"integer": 128, "number": 0.1, "boolean": True, "string": "name"}
TABLE_EXPECTED = "a table of keys"
TYPES = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
}
BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def explain(error: ValidationError, table: type[Table], values: JsonMapping) -> ReszooError:
    """Return the first problem of a validation as an error in one line.

    Args:
        error: What pydantic reports.
        table: The class that was to be made.
        values: The values that it was given.
    """
    # An unknown key first: it may be a misspelled one that is missing too.
    first = min(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ReszooError):
        return cause
    name = str(first["loc"][0])
    key = full_key(table, name)
    if first["type"] == "extra_forbidden":
        return unknown_key(table, name, values)
    field = table.model_fields[name]
    missing = first["type"] == "missing" and len(first["loc"]) == 1
    problem = "missing" if missing else f"{show(values[name])} is invalid"
    if first["type"].startswith(("union_tag", "model_")) or describe(field) == TABLE_EXPECTED:
        return ReszooError(f"{key}: {problem}; expected {TABLE_EXPECTED} under [{key}]")
    if missing:
        expected = f"{describe(field)}. Example: {key} = {show(example(field))}"
        return ReszooError(f"{key}: missing; expected {expected}")
    return invalid(key, values[name], field)


def invalid(key: str, value: Any, field: FieldInfo) -> ReszooError:
    """Return the error for a value that a field does not accept."""
    near = did_you_mean(value, choices(field)) if isinstance(value, str) else ""
    override = f"{'--set ' if '.' in key else ''}{key}={show(example(field))}"
    return ReszooError(
        f"{key}: {show(value)} is invalid; expected {describe(field)}{near or '.'} Example: "
        f"{override}"
    )


def contradiction(key: str, value: Any, expected: str, example: str = "") -> ReszooError:
    """Return the error for a value that contradicts another one.

    Args:
        key: The key at fault, such as "train.jit".
        value: Its value.
        expected: What was expected, and why.
        example: An override that resolves it, such as "train.jit=false".
    """
    hint = f". Example: --set {example}" if example else ""
    return ReszooError(f"{key}: {show(value)} is invalid; expected {expected}{hint}")


def unknown_key(table: type[Table], name: str, values: JsonMapping) -> ReszooError:
    """Return the error for a key that a table, or the chosen alternative of it, does not have."""
    key = full_key(table, name)
    owners = [each for each in table.alternatives() if name in each.model_fields]
    if owners:
        choice = full_key(table, table.CHOICE)
        chosen = values.get(table.CHOICE, table.model_fields[table.CHOICE].default)
        kinds = " or ".join(
            show(kind) for each in owners for kind in choices(each.model_fields[table.CHOICE])
        )
        return ReszooError(
            f"{key}: not used with {choice} = {show(chosen)}; expected only with {kinds}. "
            f"Remove {key}, or change {choice}"
        )
    known = table.fields_of_alternatives()
    near = did_you_mean(name, known) or f"; expected one of {', '.join(known)}"
    return ReszooError(f"{key}: unknown key{near}")


def full_key(table: type[Table], name: str) -> str:
    """Return a key as it is written in an override, such as "train.epochs"."""
    return f"{table.TABLE}.{name}" if table.TABLE else name


def unknown_choice(table: type[Table], given: Any, allowed: Iterable[Any]) -> ReszooError:
    """Return the error for a missing or unknown value of the deciding field."""
    allowed = list(allowed)
    own = f" or {EXPECTED}" if len(allowed) < len(list(table.alternatives())) else ""
    key, expected = full_key(table, table.CHOICE), f"one of {', '.join(map(show, allowed))}{own}"
    if given is None:
        return ReszooError(f"{key}: missing; expected {expected}")
    near = did_you_mean(given, allowed) if isinstance(given, str) else ""
    return ReszooError(f"{key}: {show(given)} is invalid; expected {expected}{near}")


def describe(field: FieldInfo) -> str:
    """Return in words what a field accepts, from its JSON Schema."""
    return _describe(_schema(field))


def choices(field: FieldInfo) -> tuple[Any, ...]:
    """Return the values between which a field chooses, () for any other field."""
    schema = _schema(field)
    arms = schema.get("anyOf", [schema])
    return tuple(
        value for arm in arms for value in arm.get("enum", [arm["const"]] if "const" in arm else [])
    )


def example(field: FieldInfo) -> Any:
    """Return a value that a field accepts: a stated example, its default, or one of its type."""
    if field.examples:
        return field.examples[0]
    if field.default not in (PydanticUndefined, None, ""):
        return field.default
    return _example(_schema(field))


def show(value: Any) -> str:
    """Return a value as TOML, or as Python if TOML cannot hold it; at most 200 characters."""
    if isinstance(value, tuple):
        value = list(value)
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError):
        text = ascii(value)
    if not text.isprintable():
        text = ascii(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _schema(field: FieldInfo) -> JsonObject:
    return TypeAdapter(with_constraints(field)).json_schema()


def with_constraints(field: FieldInfo) -> Any:
    """Return a field's type with its constraints, for a TypeAdapter."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _describe(schema: JsonMapping) -> str:
    if "anyOf" in schema:
        arms = [arm for arm in schema["anyOf"] if arm.get("type") != "null"]
        return " or ".join(map(_describe, arms))
    if "enum" in schema:
        return "one of " + ", ".join(map(show, schema["enum"]))
    if "const" in schema:
        return show(schema["const"])
    kind = schema.get("type")
    if kind == "array":
        if items := schema.get("prefixItems"):
            each = dict.fromkeys(map(_describe, items))
            if len(each) > 1:
                return f"a list of {', then '.join(each)}"
            return f"a list of {len(items)}, each {', '.join(each)}"
        least = f" of at least {schema['minItems']}" if schema.get("minItems") else ""
        return f"a list{least}, each {_describe(schema['items'])}"
    if schema.get("pattern") == PATTERN:
        return EXPECTED
    if schema.get("pattern") == NAME_PATTERN:
        return "your own"
    if kind == "string" and schema.get("minLength"):
        return "text that is not empty"
    bounds = [f"{sign} {schema[name]!r}" for name, sign in BOUNDS.items() if name in schema]
    return " ".join([TYPES.get(str(kind), TABLE_EXPECTED), " and ".join(bounds)]).strip()


def _example(schema: JsonMapping) -> Any:
    if "anyOf" in schema:
        return _example(next(arm for arm in schema["anyOf"] if arm.get("type") != "null"))
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    if schema.get("type") == "array":
        items = schema.get("prefixItems") or [schema["items"]] * 2
        return [_example(item) for item in items]
    return EXAMPLES.get(str(schema.get("type")), "...")
