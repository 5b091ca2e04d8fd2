"""What a run records in run.json, and the lines that it prints, when it starts or resumes."""

from __future__ import annotations

import math

import keras

from reszoo.config.recipe import Recipe
from reszoo.data.info import DataInfo
from reszoo.data.summary import (
    LISTED,
    describe_classes,
    describe_ignored,
    describe_size,
    warn_of_imbalance,
)
from reszoo.training.environment import environment
from reszoo.training.finetuning import describe_finetuning
from reszoo.training.growing import Growth
from reszoo.training.image_sizes import describe_sizes, mean_macs
from reszoo.training.protocols import Pipeline
from reszoo.training.run import Run
from reszoo.training.setup import class_weights
from reszoo.types import JsonObject
from reszoo.zoo.count import count


def summarize_start(
    recipe: Recipe, pipeline: Pipeline, given: keras.Model | None = None
) -> JsonObject:
    """Return what run.json records before the first step.

    Args:
        recipe: The recipe.
        pipeline: Its data.
        given: The model if it is not of the zoo; it has no spec.
    """
    info, published = pipeline.info, recipe.model.published
    weights = published.to_dict() if published else recipe.model.weights
    if given is None:
        spec = recipe.model.spec
        size = count(spec, info.input_shape, info.classes)
        model = {
            "spec": spec.to_dict(),
            "depth": size.depth,
            "parameters": size.parameters,
            "macs": size.macs,
            **({"train_macs": mean_macs(recipe, pipeline)} if recipe.data.train_sizes else {}),
        }
    else:
        shapes = [each.shape for each in given.weights if not each.name.startswith("moving_")]
        kind = "own_model" if recipe.model.is_own else "given_model"
        model = {kind: given.name, "parameters": sum(map(math.prod, shapes))}
    return {
        "recipe": recipe.name,
        **model,
        **({"weights": weights} if weights else {}),
        "data": info.to_dict(),
        "preprocessing": pipeline.preprocessing.to_dict(),
        "seed": recipe.train.seed,
        "steps": recipe.total_steps(pipeline.steps_per_epoch),
        **environment(),
    }


def record_start(
    run: Run,
    recipe: Recipe,
    pipeline: Pipeline,
    devices: list[str],
    grown: Growth | None,
    given: keras.Model | None,
    passed: JsonObject,
    resume: bool,
) -> None:
    """Record in run.json what a run starts with, or on what it resumes.

    Args:
        run: The run folder.
        recipe: The recipe.
        pipeline: Its data.
        devices: A description of each device.
        grown: How the run was grown, if it was.
        given: The model if it is not of the zoo.
        passed: What `describe_components` returns.
        resume: Whether the run resumes.
    """
    if resume and (run.path / "run.json").is_file():
        process = {"devices": devices, **environment()}
        run.write_meta(resumed=[*run.meta.get("resumed", []), process])
    else:
        known = {"given": passed} if passed else {}
        run.write_meta(**summarize_start(recipe, pipeline, given), devices=devices, **known)
    if resume:
        run.relocate(pipeline.info, recipe.data)
    if grown:
        run.write_meta(grown_from=grown.to_dict())
    run.write_meta(status="running")


def describe_start(
    recipe: Recipe,
    pipeline: Pipeline,
    run: Run,
    devices: list[str],
    step: int,
    model: str,
    grown: Growth | None = None,
) -> list[str]:
    """Return the lines that a run starts with.

    Args:
        recipe: The recipe.
        pipeline: Its data.
        run: The run folder.
        devices: A description of each device.
        step: The step from which the run resumes; 0 for a new run.
        model: The name of the model.
        grown: How the run was grown, if it was.
    """
    info, size = pipeline.info, recipe.train.batch_size
    sizes = ", ".join(f"{images} {split}" for split, images in info.examples.items() if images)
    shape = "x".join(str(side) for side in info.input_shape)
    total = recipe.total_steps(pipeline.steps_per_epoch)
    training = {
        split: info.class_counts[split] for split in ("train",) if split in info.class_counts
    }
    remedies, several = _describe_remedies(recipe, info), recipe.data.multi_label
    return [
        f"{recipe.name}: {model} on {info.name} ({sizes}; {shape}; {info.classes} classes)",
        *describe_size(info.found_size),
        *describe_classes(info.class_names, training),
        *(f"skipped, cannot be decoded: {path}" for path in info.skipped),
        *describe_ignored(info.ignored),
        *warn_of_imbalance(
            info.class_names, info.class_counts, advise=not remedies, multi_label=several
        ),
        *remedies,
        f"{total} steps of {size} images on {', '.join(devices)}; run folder {run.path}",
        *describe_sizes(recipe, pipeline),
        *([] if step else _describe_weights(recipe, pipeline)),
        *describe_finetuning(recipe, pipeline.steps_per_epoch, step),
        *([f"resuming from step {step}"] if step else []),
        *_describe_growth(grown),
    ]


def _describe_remedies(recipe: Recipe, info: DataInfo) -> list[str]:
    """Return lines for what the recipe does about imbalanced classes."""
    weights = class_weights(recipe, info)
    named = sorted(zip(weights, info.class_names, strict=bool(weights)))
    if len(named) > LISTED:
        named = [named[0], named[-1]]
    shown = ", ".join(f"{name} {weight:.3g}" for weight, name in named)
    return [
        *([f"class weights in the loss: {shown}"] if weights else []),
        *(["an epoch shows as many images of each class"] * (recipe.data.sampler == "balanced")),
    ]


def _describe_growth(grown: Growth | None) -> list[str]:
    if grown is None:
        return []
    new, by = f"{len(grown.added)} new blocks", f"differ by at most {grown.difference:.2g}"
    return [f"grown from {grown.model} of {grown.run}: {new}, logits {by}"]


def _describe_weights(recipe: Recipe, pipeline: Pipeline) -> list[str]:
    """Return the line for the weights that a run starts from; none for random weights."""
    row, name = recipe.model.published, recipe.model.weights
    if row is None:
        return [f"weights: {name}"] if name else []
    kept = "their" if row.classifies(pipeline.info.class_names) else "a new"
    return [
        f"weights: {row.tag} ({row.data}, top-1 {row.top1:g} %; {row.license}), {kept} classifier"
    ]
