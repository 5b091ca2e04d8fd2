"""The start of a grown run: weights, averages and optimizer slots of the run it is grown from."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import keras
import numpy as np

from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.models.equivalence import check_equivalence
from reszoo.models.grow import transfer_weights
from reszoo.training import checkpoint
from reszoo.training.optimizers import make_optimizer
from reszoo.training.protocols import Pipeline, Stepper
from reszoo.training.run import Run
from reszoo.types import JsonObject, Variable

IMAGES = 1024  # training images that set the statistics of new batch normalization on the shortcut


@dataclass(frozen=True)
class Growth:
    """How a run was grown.

    Attributes:
        run: The folder of the run that it was grown from.
        model: The name of that run's model.
        step: The step at which that run ended.
        added: The names of the new blocks.
        difference: The largest difference between the logits of the two models.
        slots: Optimizer slots that were copied.
    """

    run: str
    model: str
    step: int
    added: tuple[str, ...]
    difference: float
    slots: int

    def to_dict(self) -> JsonObject:
        """Return the fields as run.json keeps them."""
        return asdict(self)


def start_grown(stepper: Stepper, recipe: Recipe, pipeline: Pipeline) -> Growth:
    """Copy the state at which the run `train.grow_from` ended; new blocks compute the identity.

    Optimizer slots of the old weights are copied if both runs use the same optimizer; those of new
    weights are zero.

    Args:
        stepper: Holds the new model, its averages and its optimizer.
        recipe: The recipe of the new run.
        pipeline: Its data.

    Raises:
        ReszooError: If the folder is not a finished run, or the recipe's model is not a deeper
            member of the same family.
    """
    source = Run.open(recipe.train.grow_from)
    old, new = source.load_model(), stepper.model
    if old.input_shape != new.input_shape or old.output_shape != new.output_shape:
        raise ReszooError(
            f"train.grow_from: {source.path} maps {old.input_shape[1:]} to {old.output_shape[1:]}; "
            f"expected {new.input_shape[1:]} to {new.output_shape[1:]}, as this recipe's data"
        )
    batches = pipeline.train().take(-(-IMAGES // recipe.train.batch_size))
    images = np.concatenate([batch for batch, _ in batches.as_numpy_iterator()])[:IMAGES]
    added = transfer_weights(old, new, recipe.model.spec, images)
    difference = check_equivalence(old, new, added, images[:64]).difference
    for weight, average in zip(stepper.averaged, stepper.averages, strict=True):
        average.assign(weight.numpy())
    return Growth(
        run=str(source.path),
        model=old.name,
        step=source.history[-1]["step"],
        added=tuple(added),
        difference=difference,
        slots=_copy_slots(source, old, stepper, recipe),
    )


def _copy_slots(source: Run, old: keras.Model, stepper: Stepper, recipe: Recipe) -> int:
    """Copy the slots in the source's newest checkpoint by their weight's name; return how many."""
    before = source.recipe.optimizer
    found = checkpoint.newest(source.checkpoints, lambda _: None)
    if found is None or before.name != recipe.optimizer.name:
        return 0
    optimizer = make_optimizer(before)
    optimizer.build(old.trainable_variables)  # weights that were frozen had no slots
    known = enumerate(optimizer.variables)
    arrays = {_slot(each): found.arrays.get(f"optimizer/{index}") for index, each in known}
    copied = 0
    for variable in stepper.optimizer.variables:
        name = _slot(variable)
        array = arrays.get(name)
        if name == "learning_rate" or array is None or array.shape != tuple(variable.shape):
            continue
        variable.assign(array)
        copied += name != "iteration"  # the count of updates, which Adam's slots are corrected by
    return copied


def _slot(variable: Variable) -> str:
    """Return a slot's name without the optimizer's, which Keras numbers within a process."""
    return str(variable.path.split("/", 1)[-1])
