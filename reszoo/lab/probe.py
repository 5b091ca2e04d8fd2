"""How far each residual block of a net is from the identity, measured on images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from reszoo.errors import ReszooError
from reszoo.models.graph import producer


@dataclass(frozen=True)
class Block:
    """A residual block in a graph: its shortcut x, its branch F and its output, as symbolic tensors.

    identity: x is what enters the block; else it is what the shortcut makes of that (a projection, padding, a gate).
    """

    name: str
    identity: bool
    x: Any
    branch: Any
    output: Any


class Probe:
    """Measures the residual blocks of one model, with the weights of the moment of each call.

    A block is an Add layer called NAME_add of two tensors, and its output that of the last layer called NAME_...: the
    ReLU after the addition where there is one. Of the two tensors the one made outside the block is the shortcut, else the first.
    Raises ReszooError for a model without a graph or without such layers.
    """

    def __init__(self, model: keras.Model) -> None:
        self.blocks = _blocks(model)
        # In one row: Keras would unpack a single block's.
        maps = [tensor for block in self.blocks for tensor in (block.x, block.branch, block.output)]
        self._maps = keras.Model(model.inputs[0], maps)

    def __call__(self, images: Any, batch_size: int = 64) -> list[dict[str, Any]]:
        """Return {"block", "identity", "ratio", "cosine"} of each block, in order, on images [n, h, w, c].

        ratio: |F(x)| / |x|, cosine: of the block's output to x, norms and products over an image's whole map, in inference,
        float64; means over the images. An image with a norm of 0 in the denominator is left out; NaN where none is left.
        """
        if not len(images):
            raise ReszooError("no images to measure the blocks on")
        parts = []
        for start in range(0, len(images), batch_size):
            maps = [
                _rows(value)
                for value in self._maps(images[start : start + batch_size], training=False)
            ]
            parts.append([_compare(*maps[first : first + 3]) for first in range(0, len(maps), 3)])
        rows = np.concatenate(parts, axis=2)  # [blocks, 2, images]
        return [
            {
                "block": block.name,
                "identity": block.identity,
                "ratio": _mean(ratio),
                "cosine": _mean(cosine),
            }
            for block, (ratio, cosine) in zip(self.blocks, rows, strict=True)
        ]


def measure(model: keras.Model, images: Any, batch_size: int = 64) -> list[dict[str, Any]]:
    """Return what `Probe(model)(images)` does: how far each residual block is from the identity on images [n, h, w, c]."""
    return Probe(model)(images, batch_size)


class DriftCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Measures a net's residual blocks before training and after every `every`-th epoch, on images [n, h, w, c] as it takes them.

    For `reszoo.train(..., callbacks=[...])` and `model.fit`. `history` has a row {"epoch": epochs done, "blocks": as `measure`
    returns them} for each.
    """

    def __init__(self, images: Any, every: int = 1) -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ReszooError(
                f"every is {every!r}, but must be a whole number of epochs, at least 1"
            )
        self.images, self.every = images, every
        self.history: list[dict[str, Any]] = []
        self._probe: Probe | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Start the probe."""
        self._probe = Probe(self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Record the state before the first epoch."""
        if not self.history:
            self._record(epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Record the state, every so many epochs."""
        if (epoch + 1) % self.every == 0:
            self._record(epoch + 1)

    def _record(self, epoch: int) -> None:
        assert self._probe is not None
        self.history.append({"epoch": epoch, "blocks": self._probe(self.images)})


def _blocks(model: keras.Model) -> list[Block]:
    if not isinstance(model, keras.Function | keras.Sequential):
        raise ReszooError(
            f"{type(model).__name__} has no graph to find residual blocks in; give a functional model"
        )
    found = []
    for add in model.layers:
        if (
            not isinstance(add, keras.layers.Add)
            or not add.name.endswith("_add")
            or len(add.input) != 2
        ):
            continue
        place = add.name.removesuffix("add")
        x, branch = add.input
        inside = [producer(tensor)[0].name.startswith(place) for tensor in (x, branch)]
        if inside == [True, False]:  # Keras' EfficientNets name the branch first
            x, branch, inside = branch, x, inside[::-1]
        # Layers stand in the order of the graph.
        last = [layer for layer in model.layers if layer.name.startswith(place)][-1]
        found.append(Block(place[:-1], not inside[0], x, branch, last.output))
    if not found:
        raise ReszooError(
            f"{model.name} has no residual blocks: no Add layer called ..._add with two inputs"
        )
    return found


def _rows(value: Any) -> np.ndarray[Any, Any]:
    values = np.asarray(keras.ops.convert_to_numpy(value), np.float64)
    return values.reshape(len(values), -1)


def _compare(x: Any, branch: Any, output: Any) -> tuple[Any, Any]:
    """Return |F| / |x| and the cosine of output to x for each row, NaN where a denominator is 0."""
    size, length = np.linalg.norm(x, axis=1), np.linalg.norm(output, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(size > 0, np.linalg.norm(branch, axis=1) / size, np.nan)
        cosine = np.einsum("ij,ij->i", x, output) / (size * length)
    return ratio, cosine


def _mean(values: Any) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else float("nan")
