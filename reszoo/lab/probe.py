"""How far each residual block of a model is from the identity, measured on images."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from reszoo.errors import ReszooError
from reszoo.lab.record import check_count
from reszoo.models.graph import producer
from reszoo.types import Array, JsonObject, Tensor


@dataclass(frozen=True)
class Block:
    """A residual block in a graph: its shortcut x, its branch F and its output, symbolic tensors.

    identity: x is what enters the block; else the shortcut changes it (projection, padding, gate).
    total: x + F, before a ReLU or normalization that follows the addition.
    """

    name: str
    identity: bool
    x: Tensor
    branch: Tensor
    total: Tensor
    output: Tensor


class Probe:
    """Measures the residual blocks of one model with its present weights.

    A block is an Add layer named NAME_add with two inputs. Its output is that of the last layer
    named NAME_..., such as the ReLU after the addition. Of the two inputs the shortcut is the one
    made outside the block, else the first.

    Raises:
        ReszooError: For a model without a graph or without such layers.
    """

    def __init__(self, model: keras.Model) -> None:
        self.blocks = find_blocks(model)
        # In one row: Keras would unpack a single block's.
        maps = [tensor for block in self.blocks for tensor in (block.x, block.branch, block.output)]
        self._maps = keras.Model(model.inputs[0], maps)

    def __call__(self, images: Tensor | Array, batch_size: int = 64) -> list[JsonObject]:
        """Return {"block", "identity", "ratio", "cosine"} per block on images [n, h, w, c].

        ratio is |F(x)| / |x|, cosine that of the block's output to x. Norms and products are over
        the whole map of an image, in inference, in float64; both are means over images. Images with
        a norm of 0 in the denominator are excluded; NaN if all are.
        """
        if not len(images):
            raise ReszooError("no images to measure the blocks on")
        parts: list[list[tuple[Array, Array]]] = []
        for start in range(0, len(images), batch_size):
            maps = [
                _rows(value)
                for value in self._maps(images[start : start + batch_size], training=False)
            ]
            parts.append([_compare(*maps[first : first + 3]) for first in range(0, len(maps), 3)])
        rows: Array = np.concatenate(parts, axis=2)  # [blocks, 2, images]
        return [
            {
                "block": block.name,
                "identity": block.identity,
                "ratio": _mean(ratio),
                "cosine": _mean(cosine),
            }
            for block, (ratio, cosine) in zip(self.blocks, rows, strict=True)
        ]


def measure_drift(
    model: keras.Model, images: Tensor | Array, batch_size: int = 64
) -> list[JsonObject]:
    """Return what `Probe` measures on images [n, h, w, c]: how far blocks are from the identity."""
    return Probe(model)(images, batch_size)


class DriftCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Measures residual blocks before training and after every `every`-th epoch.

    For `reszoo.train(..., callbacks=[...])` and `model.fit`. `history` holds one row per
    measurement: {"epoch": epochs done, "blocks": what `measure_drift` returns}.

    Args:
        images: Images [n, h, w, c] as the model takes them.
        every: Epochs between measurements.
    """

    def __init__(self, images: Tensor | Array, every: int = 1) -> None:
        super().__init__()
        check_count("every", every, 1)
        self.images, self.every = images, every
        self.history: list[JsonObject] = []

    def on_epoch_begin(self, epoch: int, logs: JsonObject | None = None) -> None:
        """Measure before the first epoch."""
        if not self.history:
            self._measure(epoch)

    def on_epoch_end(self, epoch: int, logs: JsonObject | None = None) -> None:
        """Measure after every `every`-th epoch."""
        if (epoch + 1) % self.every == 0:
            self._measure(epoch + 1)

    def _measure(self, epoch: int) -> None:
        self.history.append({"epoch": epoch, "blocks": measure_drift(self.model, self.images)})


def find_blocks(model: keras.Model) -> list[Block]:
    """Return the residual blocks of a model, in order; see `Probe`."""
    if not isinstance(model, keras.Function | keras.Sequential):
        raise ReszooError(
            f"{type(model).__name__} has no graph; expected a functional model with residual blocks"
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
        found.append(Block(place[:-1], not inside[0], x, branch, add.output, last.output))
    if not found:
        raise ReszooError(
            f"{model.name} has no residual blocks: no Add layer called ..._add with two inputs"
        )
    return found


def _rows(value: Tensor) -> Array:
    values = np.asarray(keras.ops.convert_to_numpy(value), np.float64)
    return values.reshape(len(values), -1)


def _compare(x: Array, branch: Array, output: Array) -> tuple[Array, Array]:
    """Return |F| / |x| and the cosine of output to x for each row, NaN where a denominator is 0."""
    size, length = np.linalg.norm(x, axis=1), np.linalg.norm(output, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(size > 0, np.linalg.norm(branch, axis=1) / size, np.nan)
        cosine = np.einsum("ij,ij->i", x, output) / (size * length)
    return ratio, cosine


def _mean(values: Array) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else float("nan")
