"""Check that a deepened model computes what the model before it computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from reszoo.errors import ReszooError
from reszoo.types import Array, Tensor

# Of the largest output, by what layers compute in: what rounding changes, with room.
TOLERANCES = {"float32": 1e-5, "float64": 1e-5, "float16": 2**-11, "bfloat16": 2**-8}
BATCH = 64
# Random inputs. 96 is a multiple of 32 that every model of keras.applications takes.
IMAGES, SIDE = 4, 96


@dataclass(frozen=True)
class Growth:
    """What was added to a model, and how much its outputs changed.

    Attributes:
        added: The new blocks, such as "stage1_block4".
        difference: The largest absolute difference of an output.
        exact: Whether that difference is 0.
    """

    added: tuple[str, ...]
    difference: float
    exact: bool


def check_equivalence(
    before: keras.Model,
    after: keras.Model,
    added: Sequence[str],
    images: Tensor | Array | None = None,
) -> Growth:
    """Compare the outputs of two models in inference.

    Args:
        before: The model before.
        after: The model with new blocks.
        added: The new blocks, for the result.
        images: Inputs of both, [n, height, width, channels]. By default random normal numbers, or
            random bytes for integer inputs.

    Raises:
        ReszooError: If outputs differ by more than `TOLERANCES` of the largest, or are not finite.
    """
    images = random_inputs(before) if images is None else images
    difference, largest = 0.0, 0.0
    for start in range(0, len(keras.tree.flatten(images)[0]), BATCH):
        batch = keras.tree.map_structure(lambda array, at=start: array[at : at + BATCH], images)
        for one, other in zip(_outputs(before, batch), _outputs(after, batch), strict=True):
            # Unlike max, np.maximum keeps NaN.
            difference = float(np.maximum(difference, np.abs(one - other).max()))
            largest = float(np.maximum(largest, np.abs(one).max()))
    tolerance = max(TOLERANCES[layer.compute_dtype] for layer in after.layers)
    if not difference <= tolerance * largest:
        raise ReszooError(
            f"{after.name} does not compute what {before.name} computes: outputs differ by up to "
            f"{difference:.3g}, and the largest output is {largest:.3g}"
        )
    return Growth(tuple(added), difference, difference == 0)


def random_inputs(model: keras.Model, seed: int = 0) -> Tensor:
    """Return a few random inputs in the structure that a model takes; free sizes become 96."""
    random = np.random.default_rng(seed)

    def draw(tensor: keras.KerasTensor) -> Array:
        batch, *sides = tensor.shape
        shape = (batch or IMAGES, *(side or SIDE for side in sides))
        if "int" in tensor.dtype:
            return random.integers(0, 256, shape).astype(tensor.dtype)
        return random.normal(size=shape).astype("float32")

    # A Sequential model has no `input` before it is called.
    is_sequential = isinstance(model, keras.Sequential)
    return keras.tree.map_structure(draw, model.inputs[0] if is_sequential else model.input)


def _outputs(model: keras.Model, images: Tensor | Array) -> list[Array]:
    values = keras.tree.flatten(model(images, training=False))
    return [np.asarray(keras.ops.convert_to_numpy(value), np.float64) for value in values]
