"""Read TOML with one-line errors, and write TOML that reads back to the same values."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from reszoo.errors import ReszooError
from reszoo.types import JsonMapping, JsonObject


def read(path: Path) -> JsonObject:
    """Return the tables of a TOML file.

    Raises:
        ReszooError: If the file is missing, a folder or not TOML.
    """
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
    """Return the TOML value of `text`, or `text` itself if it is not a TOML value."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    # More than the one key means that the text brought lines of its own.
    return document["value"] if len(document) == 1 else text


def write(tables: JsonMapping) -> str:
    """Return the TOML text of top-level values and tables, with each list on one line.

    Raises:
        ReszooError: a value cannot be written in TOML.
    """
    try:
        text = tomli_w.dumps(tables, indent=0)
    except (TypeError, ValueError) as error:
        raise ReszooError(
            f"a recipe holds text, numbers, true or false, and lists and tables of these: {error}"
        ) from None
    # tomli-w writes each item of a list on a line of its own. Text has no line breaks of its own:
    # it escapes them.
    return text.replace("[\n", "[").replace(",\n]", "]").replace(",\n", ", ")


def spell(value: Any) -> str:
    """Return the TOML text of one value. A whole float is written as an integer."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return write({"": [[value]]}).strip()[len('"" = [[') : -len("]]")]
