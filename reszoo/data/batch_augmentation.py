"""Random changes to a whole batch: drawn for all its rows, applied to those a worker reads.

A further change is added here: `draw` draws its numbers for every row of the batch from (seed,
step), and `apply` applies those of the rows that were read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from reszoo.config.data import AugmentConfig
from reszoo.data.augmentation import apply_crop_flip, draw_crop_flip, draw_pca_noise
from reszoo.data.random_keys import BATCH, make_key
from reszoo.errors import ReszooError
from reszoo.images.preprocessing import Preprocessing
from reszoo.lazy import tf
from reszoo.types import Tensor

Plan: TypeAlias = dict[str, Tensor]
"""What is drawn for a batch, by name; the first axis of every tensor counts rows."""


@dataclass(frozen=True)
class BatchAugmentation:
    """Normalizes and augments batches of uint8 images of the input's size.

    Attributes:
        augment: The recipe's random changes. Crops that need larger images are not made here.
        preprocessing: How an image becomes the model's input.
        seed: Of the random numbers.

    Raises:
        ReszooError: If color noise is drawn for inputs in BGR.
    """

    augment: AugmentConfig
    preprocessing: Preprocessing
    seed: int

    def __post_init__(self) -> None:
        if self.augment.color == "pca" and self.preprocessing.channel_order == "BGR":
            raise ReszooError(
                "augment.color: pca is invalid; this noise is in RGB, but the model's input is in "
                "BGR. Example: --set augment.color=none"
            )

    def draw(self, step: Tensor, total: Tensor, rows: Tensor) -> Plan:
        """Draw the changes to a batch of `total` rows, and return those to `rows` (int32 [k])."""
        augment, plan = self.augment, {}
        if augment.color == "pca":
            channels, std = self.preprocessing.channels, self.preprocessing.std
            noise = draw_pca_noise(total, channels, std, make_key(self.seed, BATCH, step, 0))
            plan["noise"] = noise
        if augment.crop == "pad" or (augment.flip and augment.crop == "none"):
            key = make_key(self.seed, BATCH, step, 1)
            top, left, mirrored = draw_crop_flip(total, self._pad, augment.flip, key)
            plan |= {"top": top, "left": left}
            plan |= {} if mirrored is None else {"mirrored": mirrored}
        return {name: tf.gather(values, rows) for name, values in plan.items()}

    def apply(self, images: Tensor, plan: Plan) -> Tensor:
        """Normalize images, uint8 [k, h, w, c], and change them as drawn; nothing without draws."""
        images = self.preprocessing.apply(images)
        if "noise" in plan:
            images += plan["noise"]
        if "top" in plan:
            mirrored = plan.get("mirrored")
            images = apply_crop_flip(images, self._pad, plan["top"], plan["left"], mirrored)
        return images

    @property
    def _pad(self) -> int:
        return self.augment.pad if self.augment.crop == "pad" else 0
