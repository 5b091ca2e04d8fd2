"""A set that lies whole on the device: batches are gathered, normalised and augmented there. For Keras' JAX backend.

The same images in the same order with the same crops as `Pipeline` gives: a function of (seed, epoch, step) alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from reszoo.data.config import AugmentConfig, DataConfig
from reszoo.data.draws import make_key, permutation, uniform
from reszoo.data.parts import Arrays, ImageSet
from reszoo.data.pipeline import BATCH, ORDER, DataInfo, prepare
from reszoo.data.preprocessing import Preprocessing
from reszoo.errors import ReszooError
from reszoo.weights.transforms import Transforms


def open_resident(
    data: DataConfig,
    augment: AugmentConfig,
    *,
    batch_size: int,
    seed: int,
    transforms: Transforms | None = None,
    shardings: tuple[Any, Any] | None = None,
) -> Resident:
    """Open the set that `data` names, as `open_pipeline` does.

    shardings: JAX's for what every device has whole, and for a batch dealt out to them; None for one device.
    Raises ReszooError besides for a set or an augmentation that does not work on images in memory of the input's size.
    """
    if augment.crop not in ("none", "pad") or augment.color != "none":
        asked = f"crop = '{augment.crop}'" if augment.crop not in ("none", "pad") else f"color = '{augment.color}'"
        raise ReszooError(
            f"augment.{asked} needs Keras' TensorFlow backend; under JAX images are padded, cropped, mirrored"
        )
    images, preprocessing = prepare(data, augment, batch_size=batch_size, seed=seed, transforms=transforms)
    if not all(isinstance(part, Arrays) for part in images.parts.values()):
        raise ReszooError(
            f"{images.name} does not fit in memory at this size, and only Keras' TensorFlow backend streams a set"
        )
    return Resident(images, preprocessing, augment, batch_size=batch_size, seed=seed, shardings=shardings)


class Resident:
    """The batches of one set in memory; `info`, `preprocessing` and `steps_per_epoch` are those of `Pipeline`."""

    def __init__(
        self,
        images: ImageSet,
        preprocessing: Preprocessing,
        augment: AugmentConfig,
        *,
        batch_size: int,
        seed: int,
        shardings: tuple[Any, Any] | None = None,
    ) -> None:
        self._images, self._augment, self._batch_size, self._seed = images, augment, batch_size, seed
        self.preprocessing = preprocessing
        self.info = DataInfo.of(images, preprocessing)
        self.steps_per_epoch = -(-self.info.examples["train"] // batch_size)
        self._shardings = shardings
        self._orders = functools.lru_cache(maxsize=2)(self._order)
        self._stored: dict[str, tuple[Any, Any]] = {}  # in the object itself, so that a dataset is freed with it

    def batch(self, step: int) -> tuple[Any, Any]:
        """Return training batch `step`, on the device: float32 [b, h, w, c] and int32 [b]."""
        epoch, place = divmod(step, self.steps_per_epoch)
        rows = self._orders(epoch)[place * self._batch_size : (place + 1) * self._batch_size]
        pad = self._augment.pad if self._augment.crop == "pad" else 0
        draws = uniform((len(rows), 3), make_key(self._seed, BATCH, step, 1))
        slack = np.float32(2 * pad + 1)
        top, left = (np.minimum((draws[:, axis] * slack).astype(np.int32), 2 * pad) for axis in (0, 1))
        mirrored = (draws[:, 2] >= 0.5) & self._augment.flip
        images, labels = self._on_device("train")
        return self._gather(images, labels, rows.astype(np.int32), top, left, mirrored)

    def evaluation(self, split: str) -> Iterator[tuple[Any, np.ndarray]]:
        """Give the batches of a part, un-augmented, each example once in stored order: float32 [b, h, w, c] on the device, int32 [b].

        The last batch repeats its last image to be as long as the others; its labels are only those of the examples.
        Raises `ReszooError` for a part that the set lacks.
        """
        part = self._images.part(split)
        assert isinstance(part, Arrays)
        images, labels = self._on_device(split)
        size = min(self._batch_size, part.count)
        if self._shardings:
            devices = len(self._shardings[1].device_set)
            size = -(-size // devices) * devices
        still = np.full(size, self._augment.pad if self._augment.crop == "pad" else 0, np.int32)
        for first in range(0, part.count, size):
            rows = np.minimum(np.arange(first, first + size, dtype=np.int32), part.count - 1)
            batch, _ = self._gather(images, labels, rows, still, still, np.zeros(size, bool))
            yield batch, part.labels[first : first + size]

    def explain(self, error: BaseException) -> ReszooError | None:
        """None: every image was read before the first step."""
        return None

    def _order(self, epoch: int) -> np.ndarray:
        return permutation(self.info.examples["train"], make_key(self._seed, ORDER, epoch))

    def _on_device(self, split: str) -> tuple[Any, Any]:
        """Return images and labels of a split in the devices' memory."""
        import jax

        if split not in self._stored:
            part = self._images.part(split)
            assert isinstance(part, Arrays)
            whole = self._shardings[0] if self._shardings else None
            self._stored[split] = jax.device_put(part.images, whole), jax.device_put(part.labels, whole)
        return self._stored[split]

    @functools.cached_property
    def _gather(self) -> Callable[..., tuple[Any, Any]]:
        """One compiled function (images, labels, rows, top, left, mirrored) -> batch."""
        import jax
        from jax import numpy as jnp

        scale, shift = self.preprocessing.scale_and_shift
        reverse = self.preprocessing.channel_order == "BGR"
        pad = self._augment.pad if self._augment.crop == "pad" else 0
        height, width, channels = self.preprocessing.input_shape

        def window(image: Any, top: Any, left: Any, mirrored: Any) -> Any:
            cut = jax.lax.dynamic_slice(image, (top, left, 0), (height, width, channels))
            return jnp.where(mirrored, cut[:, ::-1], cut)

        def gather(images: Any, labels: Any, rows: Any, top: Any, left: Any, mirrored: Any) -> tuple[Any, Any]:
            batch = images[rows]
            batch = batch[..., ::-1] if reverse else batch
            batch = batch.astype(jnp.float32) * scale - shift
            padded = jnp.pad(batch, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
            return jax.vmap(window)(padded, top, left, mirrored), labels[rows]

        dealt = self._shardings[1] if self._shardings else None
        return jax.jit(gather, out_shardings=dealt)
