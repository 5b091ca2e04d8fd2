"""Random changes to a whole batch: drawn for all its rows, applied to those a worker reads.

A further change is added here: `draw` draws its numbers for every row of the batch from (seed,
step), and `apply` applies those of the rows that were read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from reszoo.config.data import AugmentConfig
from reszoo.data.augmentation import (
    apply_crop_flip,
    draw_crop_flip,
    draw_mirrored,
    draw_pca_noise,
)
from reszoo.data.batch_order import BatchOrder
from reszoo.data.erasing import draw_boxes, draw_noise, erase
from reszoo.data.mixing import Mix, draw_mix, mix_images, mix_labels
from reszoo.data.own_augmentation import Change, change_images, load_changes
from reszoo.data.policies import Drawn, apply_policy, draw_jitter, draw_policy
from reszoo.data.random_keys import BATCH, MIRROR, make_key, shuffle_indices
from reszoo.errors import ReszooError
from reszoo.images.preprocessing import Preprocessing
from reszoo.lazy import tf
from reszoo.types import Tensor

Plan: TypeAlias = dict[str, Tensor]
"""What is drawn for a batch, by name. The first axis counts rows, except of "share" and "box"."""


@dataclass(frozen=True)
class BatchAugmentation:
    """Normalizes and augments batches of uint8 images of the input's size.

    Attributes:
        augment: The recipe's random changes. Crops that need larger images are not made here.
        preprocessing: How an image becomes the model's input.
        order: Which examples a batch holds; its seed is that of the random numbers too.
        classes: The number of classes, of soft targets.

    Raises:
        ReszooError: If color noise is drawn for inputs in BGR.
    """

    augment: AugmentConfig
    preprocessing: Preprocessing
    order: BatchOrder
    classes: int

    def __post_init__(self) -> None:
        if self.augment.color == "pca" and self.preprocessing.channel_order == "BGR":
            raise ReszooError(
                "augment.color: pca is invalid; this noise is in RGB, but the model's input is in "
                "BGR. Example: --set augment.color=none"
            )
        _ = self._changes

    def draw(self, step: Tensor, total: Tensor, rows: Tensor) -> Plan:
        """Draw the changes to a batch of `total` rows, and return those to `rows` (int32 [k])."""
        augment, size = self.augment, self.preprocessing.image_size
        plan: Plan = {}

        def key(number: int) -> Tensor:
            return make_key(self.order.seed, BATCH, step, number)

        if augment.policy != "none":
            drawn = draw_policy(augment, total, size, key(2))
            plan |= {"policy_kinds": drawn.kinds, "policy_arguments": drawn.arguments}
        if any(augment.color_jitter):
            drawn = draw_jitter(augment.color_jitter, total, key(3))
            plan |= {"jitter_kinds": drawn.kinds, "jitter_arguments": drawn.arguments}
        if augment.extra:
            integers = {"minval": None, "maxval": None, "dtype": tf.int64}
            plan["keys"] = tf.random.stateless_uniform([total, 2], key(6), **integers)
        if augment.color == "pca":
            channels, std = self.preprocessing.channels, self.preprocessing.std
            plan["noise"] = draw_pca_noise(total, channels, std, key(0))
        moved = augment.crop == "pad" or (augment.flip and augment.crop == "none")
        if moved:
            top, left, _ = draw_crop_flip(total, self._pad, False, key(1))
            plan |= {"top": top, "left": left}
        if augment.erase:
            plan["boxes"] = draw_boxes(augment.erase, augment.erase_area, total, size, key(4))
            if augment.erase_mode == "pixel":
                plan["erased"] = draw_noise((total, *self.preprocessing.input_shape), key(4))
        plan = {name: tf.gather(values, rows) for name, values in plan.items()}
        if moved and augment.flip:
            plan["mirrored"] = self.draw_mirrored(step, total, rows)
        if augment.mixes:
            plan["share"], plan["box"] = draw_mix(augment, size, key(5))
        return plan

    def draw_mirrored(self, step: Tensor, total: Tensor, rows: Tensor) -> Tensor:
        """Return which images in `rows` of a batch are mirrored: bool [k]."""
        if self.augment.flip_mode == "random":
            return tf.gather(draw_mirrored(total, make_key(self.order.seed, BATCH, step, 1)), rows)
        indices, epoch = self.order.indices(step, rows), step // self.order.steps_per_epoch
        # A permutation, so that half of the images start mirrored.
        places = shuffle_indices(indices, self.order.count, make_key(self.order.seed, MIRROR))
        return (places + epoch) % 2 == 1

    def apply(self, images: Tensor, plan: Plan) -> Tensor:
        """Normalize images, uint8 [k, h, w, c], and change them as drawn; nothing without draws."""
        for name, fill in (("policy", self._fill), ("jitter", [0])):
            if f"{name}_kinds" in plan:
                drawn = Drawn(plan[f"{name}_kinds"], plan[f"{name}_arguments"])
                images = apply_policy(images, drawn, fill, self.preprocessing.interpolation)
        if "keys" in plan:
            images = change_images(images, plan["keys"], self._changes)
        images = self.preprocessing.apply(images)
        if "noise" in plan:
            images += plan["noise"]
        if "top" in plan:
            mirrored = plan.get("mirrored")
            images = apply_crop_flip(images, self._pad, plan["top"], plan["left"], mirrored)
        if "boxes" in plan:
            images = erase(images, plan["boxes"], plan.get("erased"))
        if "share" in plan:
            images = mix_images(images, Mix(plan["share"], plan["box"]))
        return images

    def make_targets(self, labels: Tensor, plan: Plan) -> Tensor:
        """Return labels as they are, or as soft targets if the batch is mixed."""
        if "share" not in plan:
            return labels
        return mix_labels(labels, Mix(plan["share"], plan["box"]), self.classes)

    @cached_property
    def _changes(self) -> list[Change]:
        """The user's own changes."""
        return load_changes(self.augment, self.preprocessing.input_shape)

    @cached_property
    def _fill(self) -> list[int]:
        """What a policy shows outside the image: the mean pixel with timm's policy, else black."""
        if self.augment.policy != "rand":
            return [0] * self.preprocessing.channels
        mean = self.preprocessing.mean.reshape(-1, self.preprocessing.channels).mean(axis=0)
        ordered = mean[::-1] if self.preprocessing.channel_order == "BGR" else mean
        return [min(255, round(255 * float(each))) for each in ordered]

    @property
    def _pad(self) -> int:
        return self.augment.pad if self.augment.crop == "pad" else 0
