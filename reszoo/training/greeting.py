"""What the workers of a run exchange before training, and compare. Standard library only."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields

from reszoo.errors import shorten
from reszoo.types import JsonObject

PLACE = re.compile(r"(folder:)?/.*", re.DOTALL)  # a value that is the location of a file or folder


@dataclass(frozen=True)
class Greeting:
    """What a worker says of itself.

    Attributes:
        versions: The version of each library on which the numbers depend.
        devices: The devices of the host, such as "1 CPU" or "2 GPU".
        recipe: The recipe as TOML, overrides applied; "" if a follower was given none.
        resume: Whether the run resumes.
        error: Why the worker cannot train, in one line; "" if it can.
    """

    versions: dict[str, str]
    devices: str
    recipe: str = ""
    resume: bool = False
    error: str = ""

    @classmethod
    def from_json(cls, content: object) -> Greeting:
        """Return the greeting that a message holds.

        Raises:
            ConnectionError: If it holds none.
        """
        if isinstance(content, dict) and set(content) == {field.name for field in fields(cls)}:
            greeting = cls(**content)
            texts = (greeting.devices, greeting.recipe, greeting.error)
            if (
                all(isinstance(text, str) for text in texts)
                and isinstance(greeting.versions, dict)
                and isinstance(greeting.resume, bool)
            ):
                return greeting
        raise ConnectionError("not a greeting")

    def difference(self, other: Greeting) -> str:
        """Return why a worker with the greeting `other` cannot train with this worker, or ""."""
        if other.error:
            return other.error
        for name, version in self.versions.items():
            if other.versions.get(name) != version:
                return (
                    f"{name}: {shorten(other.versions.get(name))} is invalid; expected "
                    f"{version!r}, as on worker 0. Install the same versions on all hosts"
                )
        if other.devices != self.devices:
            return (
                f"devices: {shorten(other.devices)} is invalid; expected {self.devices!r}, as on "
                "worker 0. Example: --devices gpu:0,1 on all hosts"
            )
        return _recipe_difference(self.recipe, other.recipe) if other.recipe else ""


def _recipe_difference(ours: str, theirs: str) -> str:
    """Compare recipes, except for name, description and the locations of files."""
    try:
        before, after = _flatten(tomllib.loads(ours)), _flatten(tomllib.loads(theirs))
    except (ValueError, RecursionError):
        return "recipe: its text is invalid; expected TOML. Use the same reszoo on all hosts"
    for key in sorted({*before, *after} - {"name", "description", "data.dir"}):
        old, new = before.get(key), after.get(key)
        if old != new and not (PLACE.fullmatch(str(old)) and PLACE.fullmatch(str(new))):
            return (
                f"{key}: {shorten(new)} is invalid; expected {shorten(old)}, as on worker 0. Give "
                "all workers the same recipe, or worker 0 alone"
            )
    return ""


def _flatten(table: Mapping[str, object], prefix: str = "") -> JsonObject:
    found: JsonObject = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= _flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
