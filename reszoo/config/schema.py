"""The JSON Schema of a recipe, by which editors complete and check recipe files."""

from __future__ import annotations

from reszoo.config.recipe import TABLES, Recipe
from reszoo.types import JsonObject
from reszoo.zoo.spec import Spec

FILE = "recipe.schema.json"
"""The packaged file, in the folder of the recipes."""


def recipe_schema() -> JsonObject:
    """Return the JSON Schema (draft 2020-12) of a recipe, with all fields of [model]."""
    schema = Recipe.model_json_schema()
    fields = Spec.model_json_schema()["properties"]
    optional = {
        name: {key: value for key, value in field.items() if key != "default"}
        for name, field in fields.items()
    }
    model = schema["$defs"]["ModelConfig"]
    model["properties"] = {**optional, **model["properties"]}
    model["additionalProperties"] = False
    arms = schema["properties"]["augment"]  # the deciding key may be left out
    arms["anyOf"] = arms.pop("oneOf")
    arms.pop("discriminator")
    whole = {key: schema.pop(key) for key in ("properties", "required")}
    description = "A recipe by name or file. This file states only what differs from it."
    extends = {"type": "string", "minLength": 1, "description": description}
    named = {name: whole["properties"][name] for name in ("name", "description")}
    keys = named | {name: _without_required(name, schema["$defs"]) for name in TABLES}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "reszoo recipe",
        "properties": {"extends": extends, **dict.fromkeys(whole["properties"], {})},
        "if": {"required": ["extends"]},
        "then": {"properties": keys},
        "else": whole,
    }


def _without_required(name: str, definitions: JsonObject) -> JsonObject:
    """Return the schema of a table of which any keys may be missing."""
    properties: dict[str, list[JsonObject]] = {}
    for owner in TABLES[name].alternatives():
        for key in definitions[owner.__name__]["properties"]:
            arm = {"$ref": f"#/$defs/{owner.__name__}/properties/{key}"}
            properties.setdefault(key, []).append(arm)
    arms = {
        key: found[0] if len(found) == 1 else {"anyOf": found} for key, found in properties.items()
    }
    return {"type": "object", "additionalProperties": False, "properties": arms}
