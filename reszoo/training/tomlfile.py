"""TOML as recipes use it: reading with one-line errors, writing flat tables that read back to the same values."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reszoo.errors import ReszooError


def read(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file. Raises ReszooError, naming the file, when it is missing, a folder or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReszooError(f"no file {path}") from None
    except OSError as error:
        raise ReszooError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ReszooError(f"{path} is not text in UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ReszooError(f"{path} is not TOML: {error}") from None


def parse_value(text: str) -> Any:
    """Return the TOML value that `text` spells, or `text` itself when it spells none (a bare word is a string)."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    # More than the one key means that the text brought lines of its own.
    return document["value"] if len(document) == 1 else text


def write(tables: Mapping[str, Any]) -> str:
    """Return TOML text for top-level values and tables of values; a table within a table is written inline."""
    lines = [f"{_key(key)} = {spell(value)}" for key, value in tables.items() if not isinstance(value, Mapping)]
    for key, table in tables.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{_key(key)}]", *(f"{_key(name)} = {spell(value)}" for name, value in table.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else _text(key)


def spell(value: Any) -> str:
    """Return `value` as TOML spells it; a float that is whole goes without its point, as people write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))  # a field for floats reads it back as one
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(spell, value))}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {spell(item)}" for key, item in value.items()) + " }"
    raise ReszooError(f"a recipe cannot hold {value!r}: text, numbers, true or false, and lists of these only")


def _text(text: str) -> str:
    escaped = "".join(_ESCAPES.get(char, char) if char.isprintable() else _escape(char) for char in text)
    return f'"{escaped}"'


_ESCAPES = {'"': '\\"', "\\": "\\\\"}


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
