"""The JSON Schema of a recipe, by which editors complete and check recipe files."""

from __future__ import annotations

from reszoo.config.recipe import Recipe
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
    for table in ("augment", "optimizer"):  # the deciding key may be left out
        arms = schema["properties"][table]
        arms["anyOf"] = arms.pop("oneOf")
        arms.pop("discriminator")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "reszoo recipe",
    }
