"""What is said of a run: the facts in run.json, the lines it opens with, and the table it closes with."""

from __future__ import annotations

import math
from typing import Any

import keras

from reszoo.config.recipe import Recipe
from reszoo.data.pipeline import Pipeline
from reszoo.data.summary import describe_classes, describe_ignored, is_imbalanced, warn_of_imbalance
from reszoo.evaluation.scores import Scores, one_class_line
from reszoo.training.run import Run, environment
from reszoo.zoo.count import count


def facts(recipe: Recipe, pipeline: Pipeline, given: keras.Model | None = None) -> dict[str, Any]:
    """Return what run.json says of a run before its first step.

    Args:
        recipe: The recipe.
        pipeline: Its data.
        given: The model, if it was made elsewhere than by the recipe; it has no spec then.
    """
    if given is None:
        spec = recipe.model.spec
        counts = count(spec, pipeline.info.input_shape, pipeline.info.classes)
        model = {
            "spec": spec.to_dict(),
            "depth": counts.depth,
            "parameters": counts.parameters,
            "multiply_adds": counts.multiply_adds,
        }
    else:
        sizes = [v.shape for v in given.weights if not v.name.startswith("moving_")]
        model = {"given_model": given.name, "parameters": sum(map(math.prod, sizes))}
    return {
        "recipe": recipe.name,
        **model,
        **({"weights": told} if (told := starting(recipe)) else {}),
        "data": pipeline.info.to_dict(),
        "preprocessing": pipeline.preprocessing.to_dict(),
        "seed": recipe.train.seed,
        "steps": recipe.total_steps(pipeline.steps_per_epoch),
        **environment(),
    }


def opening(
    recipe: Recipe, pipeline: Pipeline, run: Run, devices: list[str], step: int, model: str
) -> list[str]:
    """Return the lines that begin a run, or resume it from `step`."""
    info = pipeline.info
    sizes = ", ".join(f"{images} {split}" for split, images in info.examples.items() if images)
    shape = "x".join(str(side) for side in info.input_shape)
    total = recipe.total_steps(pipeline.steps_per_epoch)
    return [
        f"{recipe.name}: {model} on {info.name} ({sizes}; {shape}; {info.classes} classes)",
        *describe_classes(
            info.class_names,
            {"train": info.class_counts["train"]} if "train" in info.class_counts else {},
        ),
        *(f"left out, cannot be decoded: {path}" for path in info.skipped),
        *describe_ignored(info.ignored),
        *warn_of_imbalance(info.class_names, info.class_counts),
        f"{total} steps of {recipe.train.batch_size} images on {', '.join(devices)}; run folder {run.path}",
        *([] if step else beginning(recipe, pipeline)),
        *finetuning(recipe, pipeline.steps_per_epoch, step),
        *([f"going on from step {step}"] if step else []),
    ]


def starting(recipe: Recipe) -> Any:
    """Return what run.json says of the weights that a run starts from; None for fresh ones."""
    published = recipe.model.published
    return published.to_dict() if published else recipe.model.weights or None


def beginning(recipe: Recipe, pipeline: Pipeline) -> list[str]:
    """Return the line that tells of the weights a run starts from, none for fresh ones."""
    if not recipe.model.weights:
        return []
    published = recipe.model.published
    if published is None:
        return [f"weights: {recipe.model.weights}"]
    head = (
        "their classifier"
        if published.classifies(pipeline.info.class_names)
        else "a new classifier"
    )
    return [
        f"weights: {published.tag} ({published.data}, top-1 {published.top1:g} %; {published.licence}), {head}"
    ]


def finetuning(recipe: Recipe, steps_per_epoch: int, step: int = 0) -> list[str]:
    """Return the lines that tell what is frozen, what learns alone at first, and at which rates; none where all learn alike."""
    settings, frozen, lines = recipe.finetune, recipe.frozen_groups, []
    if frozen:
        norms = ", but not their normalisations" if settings.batch_norm == "train" else ""
        lines.append(f"frozen: {', '.join(frozen)}{norms}")
    if (probe := recipe.probe_steps(steps_per_epoch)) > step:
        lines.append(f"the classifier learns alone for {probe} steps")
    if settings.stage_decay != 1:
        learning = (
            recipe.layer_groups
            if settings.batch_norm == "train"
            else recipe.layer_groups[len(frozen) :]
        )
        rates = (
            f"{place} {settings.stage_decay**below:.3g}"
            for below, place in enumerate(reversed(learning))
        )
        lines.append(f"shares of the schedule's rate: {', '.join(rates)}")
    return lines


def closing(run: Run, test: Scores) -> list[str]:
    """Return the lines that end a run: what was measured beside what was published."""
    meta, published = run.meta, run.recipe.published
    rows = [
        (
            "test error",
            f"{test.error:.2f} %",
            f"{published.value:g} % ({published.metric}; {published.source})" if published else "",
        )
    ]
    rows.append(("test balanced accuracy", f"{100 * test.balanced_accuracy:.2f} %", ""))
    sizes = [sum(row) for row in test.confusion]
    if min(sizes) and is_imbalanced(sizes):
        largest = sizes.index(max(sizes))
        error = f"{100 * (1 - sizes[largest] / sum(sizes)):.2f} %"
        rows.append((f"test error, always {run.class_names[largest]!r}", error, ""))
    if test.top5 is not None:
        rows.append(("test error, top 5", f"{100 * (1 - test.top5):.2f} %", ""))
    rows.append(("test loss", f"{test.loss:.4f}", ""))
    last = run.history[-1]
    if "val_accuracy" in last:
        rows.append(("validation error, last", f"{100 * (1 - last['val_accuracy']):.2f} %", ""))
    rows.append(("training error, last", f"{100 * (1 - last['accuracy']):.2f} %", ""))
    rows.append(("parameters", f"{meta['parameters']:,}", ""))
    rows.append(("training time", f"{meta['seconds']:.0f} s", ""))
    head = [("", "measured", "published" if published else "")]
    widths = [max(len(row[column]) for row in head + rows) for column in range(3)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in head + rows
    ]
    return [
        "",
        *lines,
        "",
        *(
            [one_class_line(run.class_names[test.single_class])]
            if test.single_class is not None
            else []
        ),
        f"run folder: {run.path}  (curves.png, confusion.png, model.keras{', export/' if (run.path / 'export').exists() else ''})",
    ]
