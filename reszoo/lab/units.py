"""A trained model cut into units to delete, reorder and read: blocks or plain layers."""

from __future__ import annotations

import re
from dataclasses import dataclass

import keras

from reszoo.errors import ReszooError
from reszoo.lab.probe import Block, find_blocks
from reszoo.models.graph import producer
from reszoo.types import Tensor

LAYER = re.compile(r"stage\d+_block\d+_relu\d+")


class Unit:
    """A residual block, or one layer of a plain model with its batch norm and ReLU, in inference.

    Args:
        name: Such as "stage1_block2", or "stage1_block2_relu1" of a plain layer.
        before: The symbolic tensor that enters it.
        after: The symbolic tensor that leaves it.
        block: Its parts, of a residual block.
    """

    def __init__(self, name: str, before: Tensor, after: Tensor, block: Block | None) -> None:
        self.name, self.is_block = name, block is not None
        self.shapes = tuple(before.shape[1:]), tuple(after.shape[1:])
        self._whole = keras.Model(before, after)
        self._shortcut = self._branch = self._end = None
        if block:
            self._branch = keras.Model(before, block.branch)
            if block.x is not before:
                self._shortcut = keras.Model(before, block.x)
            if block.total is not after:
                self._end = keras.Model(block.total, after)

    @property
    def stage(self) -> str:
        """The stage, such as "stage1"."""
        return self.name.split("_")[0]

    @property
    def keeps_shape(self) -> bool:
        """Whether the output has the shape of the input."""
        return self.shapes[0] == self.shapes[1]

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the unit to a map."""
        return self._whole(x, training=False)

    def delete(self, x: Tensor) -> Tensor:
        """Return what is left without the branch: the shortcut. Of a plain layer, the input."""
        return self.join(self.split(x)[0]) if self.is_block else x

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return shortcut and branch of a block, before the addition."""
        shortcut = self._shortcut(x, training=False) if self._shortcut else x
        assert self._branch, f"{self.name} is not a block"
        return shortcut, self._branch(x, training=False)

    def join(self, total: Tensor) -> Tensor:
        """Return a block's output for the sum of shortcut and branch."""
        return self._end(total, training=False) if self._end else total


@dataclass(frozen=True)
class CutModel:
    """A model as stem, units and head, applied one after another.

    Attributes:
        stem: From images to the first unit's input.
        units: The units, in order.
        head: From the last unit's output to logits.
    """

    stem: keras.Model
    units: tuple[Unit, ...]
    head: keras.Model

    @property
    def is_residual(self) -> bool:
        """Whether the units are residual blocks."""
        return self.units[0].is_block


def cut_model(model: keras.Model) -> CutModel:
    """Cut a residual model into its blocks, or a plain one into the layers of its blocks.

    Raises:
        ReszooError: For a model that is not a chain of such units.
    """
    ends: list[tuple[str, Tensor, Block | None]]
    if any(layer.name.endswith("_add") for layer in model.layers):
        ends = [(block.name, block.output, block) for block in find_blocks(model)]
    else:
        layers = [layer for layer in model.layers if LAYER.fullmatch(layer.name)]
        ends = [(layer.name, layer.output, None) for layer in layers]
    if not ends:
        raise ReszooError(
            f"{model.name} has no blocks that can be cut; expected a model of the zoo"
        )
    before = _entry(model, f"{ends[0][0].split('_relu')[0]}_")
    stem, units = keras.Model(model.input, before), []
    try:
        for name, after, block in ends:
            units.append(Unit(name, before, after, block))
            before = after
        return CutModel(stem, tuple(units), keras.Model(before, model.output))
    except ValueError:  # from Keras: a tensor cannot be computed from the one before it
        raise ReszooError(f"{model.name} is not a chain of blocks") from None


def _entry(model: keras.Model, place: str) -> Tensor:
    """Return the tensor that the layers named `place`... read but do not make."""
    read = (
        tensor
        for layer in model.layers
        if layer.name.startswith(place)
        for tensor in keras.tree.flatten(layer.input)
    )
    return next(tensor for tensor in read if not producer(tensor)[0].name.startswith(place))
