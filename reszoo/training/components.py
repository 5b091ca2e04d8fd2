"""Objects that take the place of a recipe's references, and what a run records of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from reszoo.config.overrides import apply_overrides
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import ResolvedRecipe, resolve_recipe
from reszoo.errors import ReszooError
from reszoo.references import ARGUMENTS, call_function, invalid_reference, reference_to
from reszoo.training.run import Run
from reszoo.types import JsonObject

KEYS = {argument: key for key, argument in ARGUMENTS.items()} | {"model": "model.name"}


def give_components(recipe: Recipe, components: Mapping[str, Any]) -> ResolvedRecipe:
    """Return a recipe whose references stand for objects.

    Keys that do not depend on the object stay, such as `optimizer.weight_decay`. `augment` replaces
    the whole table.

    Args:
        recipe: The recipe.
        components: The objects by argument of `reszoo.train`; None is left out, and so is a model.
    """
    for name, each in components.items():
        if isinstance(each, str):  # what the recipe key takes
            example = f"overrides={json.dumps([f'{KEYS[name]}={each}'])}"
            raise ReszooError(
                f"{name}: {each!r} is invalid; expected an object. For a name: {example}"
            )
    held = {name: each for name, each in components.items() if name != "model"}
    given = {KEYS[name]: each for name, each in held.items() if each is not None}
    tables, changes = recipe.to_dict(), dict[str, Any]()
    for key, found in given.items():
        if key == "augment.extra":
            given[key] = found = list(found) if isinstance(found, list | tuple) else [found]
            tables["augment"] = {"crop": "none"}
            changes[key] = [reference_to(each) for each in found]
        else:
            changes[key] = reference_to(found)
    if "data.name" in given:
        changes |= {"data.dir": "", "data.lanes": 1, "data.on_corrupt": "error"}
    if not given:
        return resolve_recipe(recipe)
    resolved = resolve_recipe(Recipe(**apply_overrides(tables, changes)))
    for key, found in given.items():
        table, name = key.split(".")
        own = getattr(resolved, table).give_objects(**{name: found})
        resolved = resolved.replace(**{table: own})
    return resolved


def describe_components(recipe: Recipe, metrics: Sequence[keras.metrics.Metric] = ()) -> JsonObject:
    """Return what run.json records of the objects that were passed, by argument."""
    found: JsonObject = {"metrics": [_describe(each) for each in metrics]} if metrics else {}
    for key, argument in ARGUMENTS.items():
        table, name = key.split(".")
        given = getattr(recipe, table).given
        if name in given:
            own = given[name]
            found[argument] = [*map(_describe, own)] if isinstance(own, list) else _describe(own)
    return found


def check_components(run: Run, found: JsonObject) -> None:
    """Raise ReszooError unless the objects that were passed are those that the run started with."""
    before = run.meta.get("given", {}) if (run.path / "run.json").is_file() else found
    if missing := [argument for argument in before if argument not in found]:
        shown = ", ".join(f"{argument}=..." for argument in missing)
        raise ReszooError(
            f"{run.path} was started with objects of Python that it cannot hold; pass them again: "
            f"reszoo.train(..., {shown})"
        )
    for argument, own in found.items():
        if before.get(argument) != own:
            raise ReszooError(
                f"{argument}: this is not the object that {run.path} was started with (given."
                f"{argument} in run.json); pass an equal one"
            )


def make_callbacks(recipe: Recipe, run: Run) -> list[keras.callbacks.Callback]:
    """Return what the functions of `train.callbacks` return."""
    made, key, functions = [], "train.callbacks", recipe.train.load_object("callbacks")
    for reference, function in zip(recipe.train.callbacks, functions, strict=True):
        callback = call_function(key, reference, function, {"run_dir": str(run.path)})
        if not isinstance(callback, keras.callbacks.Callback):
            why = f"expected a Keras callback, not {type(callback).__name__}"
            raise invalid_reference(key, reference, why)
        made.append(callback)
    return made


def check_metrics(metrics: Sequence[keras.metrics.Metric], recipe: Recipe) -> None:
    """Raise ReszooError for metrics that are not of Keras, share a name, or do not fit the data."""
    for each in metrics:
        if not isinstance(each, keras.metrics.Metric):
            raise ReszooError(
                f"metrics: {each!r} is invalid; expected instances of keras.metrics.Metric. "
                "Example: metrics=[keras.metrics.F1Score(average='macro')]"
            )
        if recipe.data.multi_label and type(each).__name__.startswith("Sparse"):
            raise ReszooError(
                f"metrics: {type(each).__name__} is invalid with data.multi_label = true, whose "
                "targets are [n, classes]. Example: metrics=[keras.metrics.AUC(multi_label=True)]"
            )
    names = [each.name for each in metrics]
    if len({*names, "loss", "accuracy"}) < len(names) + 2:
        raise ReszooError(f"metrics: the names {names} are invalid; expected different ones")


def _describe(given: Any) -> Any:
    """Return the configuration of an object of Keras as JSON, else the name of a function."""
    if hasattr(given, "__qualname__"):
        return f"{given.__module__}:{given.__qualname__}"
    name = f"{type(given).__module__}:{type(given).__qualname__}"
    try:
        config = keras.saving.serialize_keras_object(given)["config"]
        for key in ("name", "learning_rate"):  # which Keras counts, and which the schedule sets
            config.pop(key, None)
        return {"class": name, "config": json.loads(json.dumps(config))}
    except Exception:  # not of Keras, or without a configuration
        return {"class": name}
