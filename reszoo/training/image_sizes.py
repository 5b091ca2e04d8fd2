"""The sizes of the training images, as a run reports them."""

from __future__ import annotations

from reszoo.config.recipe import Recipe
from reszoo.training.protocols import Pipeline
from reszoo.zoo.count import count


def mean_macs(recipe: Recipe, pipeline: Pipeline) -> int:
    """Return the MACs of a training image, as a mean over the steps."""
    info, sizes = pipeline.info, pipeline.train_sizes
    total = recipe.total_steps(pipeline.steps_per_epoch)
    macs = [
        (end - first) * count(recipe.model.spec, (*size, info.input_shape[2]), info.classes).macs
        for (first, size), end in zip(sizes.items(), [*list(sizes)[1:], total], strict=True)
    ]
    return round(sum(macs) / total)


def describe_sizes(recipe: Recipe, pipeline: Pipeline) -> list[str]:
    """Return the line for the sizes of the training images; none if they are the evaluation's."""
    if not recipe.data.train_sizes:
        return []
    info, sizes = pipeline.info, pipeline.train_sizes.values()
    least, greatest, test = (
        "x".join(map(str, size)) for size in (min(sizes), max(sizes), info.input_shape[:2])
    )
    trained = least if least == greatest else f"{least} to {greatest}"
    if not recipe.model.is_own:
        macs = count(recipe.model.spec, info.input_shape, info.classes).macs
        trained += f", on average {mean_macs(recipe, pipeline) / 1e6:,.4g} million MACs"
        test += f", {macs / 1e6:,.4g} million MACs"
    return [f"training images: {trained}; evaluation: {test}"]
