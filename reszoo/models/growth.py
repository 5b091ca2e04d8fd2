"""What a deepened net is held to: the same outputs as before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from reszoo.errors import ReszooError

TOLERANCE = 1e-5  # of the largest output: what float32 loses to rounding, with room; a wrong net is far above it
BATCH = 64
IMAGES, SIDE = (
    4,
    96,
)  # of random inputs; 96 is a multiple of 32 that every net of keras.applications takes


@dataclass(frozen=True)
class Growth:
    """What was added to a net, and how far its outputs moved by it.

    added: the new blocks, such as "stage1_block4". difference: the largest absolute difference of an output on the images
    it was checked on, in the unit of the outputs; exact: it is 0.
    """

    added: tuple[str, ...]
    difference: float
    exact: bool


def check(
    before: keras.Model, after: keras.Model, added: Sequence[str], images: Any = None
) -> Growth:
    """Return how far `after` is from `before` on the same images, in inference.

    images: what the model takes, [n, height, width, channels]; random normal numbers when left out (random bytes for
    integer inputs). Raises ReszooError beyond 1e-5 of the largest output, or for outputs that are no numbers.
    """
    images = random_inputs(before) if images is None else images
    rows = len(keras.tree.flatten(images)[0])
    difference, largest = 0.0, 0.0
    for start in range(0, rows, BATCH):
        batch = keras.tree.map_structure(lambda array, at=start: array[at : at + BATCH], images)
        for one, other in zip(_outputs(before, batch), _outputs(after, batch), strict=True):
            difference = float(
                np.maximum(difference, np.abs(one - other).max())
            )  # unlike max, it keeps NaN
            largest = float(np.maximum(largest, np.abs(one).max()))
    if not difference <= TOLERANCE * largest:
        raise ReszooError(
            f"{after.name} does not compute what {before.name} does: outputs differ by up to {difference:.3g}, "
            f"the largest output being {largest:.3g}"
        )
    return Growth(tuple(added), difference, difference == 0)


def random_inputs(model: keras.Model, seed: int = 0) -> Any:
    """Return a few random inputs in the structure that `model` takes; sizes that are free become 96."""
    random = np.random.default_rng(seed)

    def draw(tensor: Any) -> Any:
        batch, *sides = tensor.shape
        shape = (batch or IMAGES, *(side or SIDE for side in sides))
        if "int" in tensor.dtype:
            return random.integers(0, 256, shape).astype(tensor.dtype)
        return random.normal(size=shape).astype("float32")

    # A Sequential model has no `input` before it is called.
    return keras.tree.map_structure(
        draw, model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    )


def _outputs(model: keras.Model, images: Any) -> list[Any]:
    values = keras.tree.flatten(model(images, training=False))
    return [np.asarray(keras.ops.convert_to_numpy(value), np.float64) for value in values]
