"""Where a grown run starts: the weights, averages and optimizer slots of the run it is grown from."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from reszoo.config.recipe import Recipe
from reszoo.data.pipeline import Pipeline
from reszoo.errors import ReszooError
from reszoo.models.grow import transplant
from reszoo.models.growth import check
from reszoo.training import checkpoint
from reszoo.training.optimizers import make_optimizer
from reszoo.training.run import Run
from reszoo.training.step import Stepper

IMAGES = 1024  # training images over which new normalisations of the main path are made neutral


def inherit(stepper: Stepper, recipe: Recipe, pipeline: Pipeline) -> dict[str, Any]:
    """Start `stepper` where the run `train.grow_from` ended, its new blocks the identity; return what run.json says of it.

    Slots of the old weights are carried over where both runs use the same optimizer; those of new weights are zero.
    Raises ReszooError for a folder that is no finished run, or a net that the recipe's is no deeper member of.
    """
    source = Run.open(recipe.train.grow_from)
    old, new = source.load_model(), stepper.model
    if old.input_shape != new.input_shape or old.output_shape != new.output_shape:
        raise ReszooError(
            f"train.grow_from: {source.path} maps {old.input_shape[1:]} to {old.output_shape[1:]}, but this recipe's data "
            f"asks for {new.input_shape[1:]} to {new.output_shape[1:]}"
        )
    batches = pipeline.train().take(-(-IMAGES // recipe.train.batch_size))
    images = np.concatenate([batch for batch, _ in batches.as_numpy_iterator()])[:IMAGES]
    added = transplant(old, new, recipe.model.spec, images)
    growth = check(old, new, added, images[:64])
    for weight, average in zip(stepper.weights, stepper.averages, strict=False):
        average.assign(weight.numpy())
    return {
        "run": str(source.path),
        "net": old.name,
        "step": source.history[-1]["step"],
        "added": list(added),
        "difference": growth.difference,
        "slots": _carry_slots(source, old, stepper, recipe),
    }


def _carry_slots(source: Run, old: keras.Model, stepper: Stepper, recipe: Recipe) -> int:
    """Give the optimizer the slots that the source's newest checkpoint holds, by their weight's name; return how many."""
    before = source.recipe.optimizer
    found = checkpoint.newest(source.checkpoints, lambda _: None)
    if found is None or before.name != recipe.optimizer.name:
        return 0
    optimizer = make_optimizer(before)
    optimizer.build(
        old.trainable_variables
    )  # what was frozen there is so in its file, and had no slots
    held = {
        _slot(v): found.arrays.get(f"optimizer/{index}")
        for index, v in enumerate(optimizer.variables)
    }
    # The count of updates too, by which Adam and its kin weigh what their slots hold; the rate is the schedule's.
    own = {
        _slot(variable): variable
        for variable in stepper.optimizer.variables
        if _slot(variable) != "learning_rate"
    }
    carried = 0
    for name, variable in own.items():
        array = held.get(name)
        if array is not None and array.shape == tuple(variable.shape):
            variable.assign(array)
            carried += name != "iteration"
    return carried


def _slot(variable: Any) -> str:
    """Return a slot's name without the optimizer's own, which Keras numbers within a process."""
    return variable.path.split("/", 1)[-1]
