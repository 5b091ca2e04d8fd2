"""The logits of a model in a step, for training images of any size."""

from __future__ import annotations

import keras

from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.models.graph import nodes
from reszoo.training.block_functions import BlockByBlock, run
from reszoo.types import Tensor


class Forward:
    """Computes the logits of a functional model of one input and one output.

    Keras calls a model with images of its own size only. Images of other sizes go through its
    layers one by one, which gives the same numbers.

    Args:
        model: The model.
        shared: Whether equal blocks share one traced function in training, on one replica.
        checkpoint: Whether the backward pass of training computes each block again.
    """

    def __init__(self, model: keras.Model, *, shared: bool, checkpoint: bool = False) -> None:
        self._model = model
        self._blocks: BlockByBlock | None = None
        if shared or checkpoint:
            self._blocks = BlockByBlock(model, traced=shared, checkpoint=checkpoint)

    def __call__(self, images: Tensor, *, training: bool) -> Tensor:
        """Return the logits of images [n, h, w, c].

        Raises:
            ReszooError: If the model takes images of one size only, and these have another.
        """
        model, call = self._model, self._blocks if training else None
        if images.shape[1:].is_compatible_with(model.input_shape[1:]):
            return call(images) if call else model(images, training=training)
        try:
            return call(images) if call else self._by_layer(images, training)
        except ValueError as error:
            raise ReszooError(
                f"data.train_sizes: {tuple(images.shape[1:3])} is invalid for {model.name}, which "
                f"takes images of {model.input_shape[1:3]} only. Example: --set data.train_sizes=[]"
            ) from error

    def _by_layer(self, images: Tensor, training: bool) -> Tensor:
        model = self._model
        tensors = {id(model.inputs[0]): tf.cast(images, model.inputs[0].dtype)}
        run([each for each in nodes(model) if not each.is_input], tensors, training=training)
        return tensors[id(model.outputs[0])]

    def values(self, *, training: bool) -> dict[int, Tensor]:
        """Return values that the last call read from variables, by the variable's id."""
        return self._blocks.values if self._blocks and training else {}
