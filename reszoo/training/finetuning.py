"""Lines that report what fine-tuning freezes and trains."""

from __future__ import annotations

from reszoo.config.recipe import Recipe


def describe_finetuning(recipe: Recipe, steps_per_epoch: int, step: int = 0) -> list[str]:
    """Return the lines for the start of a run; none if all layers are trained alike.

    Args:
        recipe: The recipe.
        steps_per_epoch: Updates per epoch.
        step: The step at which the run starts or resumes.
    """
    settings, frozen, lines = recipe.finetune, recipe.frozen_groups, []
    if frozen:
        norms = " except batch normalization" if settings.batch_norm == "train" else ""
        lines.append(f"frozen: {', '.join(frozen)}{norms}")
    if (probe := recipe.probe_steps(steps_per_epoch)) > step:
        lines.append(f"linear probe: only the classifier is trained for {probe} steps")
    if settings.stage_decay != 1:
        first = 0 if settings.batch_norm == "train" else len(frozen)
        trained = enumerate(reversed(recipe.layer_groups[first:]))
        factors = (f"{group} {settings.stage_decay**below:.3g}" for below, group in trained)
        lines.append(f"factors on the learning rate: {', '.join(factors)}")
    if settings.block_decay != 1:
        lines.append(f"factor on the learning rate from block to block: {settings.block_decay:.3g}")
    return lines


def describe_unfreezing(recipe: Recipe, step: int) -> str:
    """Return the line for the end of a linear probe.

    Args:
        recipe: The recipe.
        step: The first step of full training.
    """
    groups = list(recipe.layer_groups[len(recipe.frozen_groups) :])
    if recipe.frozen_groups and recipe.finetune.batch_norm == "train":
        groups.insert(0, "frozen batch normalization")
    *lower, head = groups
    return f"step {step}: the linear probe ends; now training {', '.join(lower)} and {head}"
