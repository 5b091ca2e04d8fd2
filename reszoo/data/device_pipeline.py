"""Batches of a dataset whose images stay on a device: they are gathered, normalized and augmented there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from reszoo.config.data import AugmentConfig
from reszoo.config.recipe import Recipe
from reszoo.data.augment import apply_crop_flip, draw_crop_flip, draw_pca_noise
from reszoo.data.keys import make_key
from reszoo.data.parts import Arrays, ImageSet
from reszoo.data.pipeline import BATCH, FOREVER, Pipeline, keep_order, prepare
from reszoo.data.preprocessing import Preprocessing
from reszoo.errors import ReszooError
from reszoo.lazy import tf


def open_device_pipeline(recipe: Recipe, *, device: str = "CPU:0") -> DevicePipeline:
    """Open a recipe's dataset, as `open_pipeline` does, with its images on a device.

    Args:
        recipe: The recipe.
        device: TensorFlow's name of the device.

    Raises:
        ReszooError: If the images do not fit in memory, or the crop needs larger images.
    """
    images, preprocessing = prepare(recipe.data, recipe.augment, **recipe.batches())
    for part in images.parts.values():
        if not isinstance(part, Arrays) or part.images.shape[1:] != preprocessing.input_shape:
            raise ReszooError(
                f"data.on_device: true is invalid for {images.name}; expected images that fit in memory at the input's size, "
                "but these are streamed. Example: --set data.on_device=false"
            )
    train = recipe.train
    return DevicePipeline(
        images,
        preprocessing,
        recipe.augment,
        batch_size=train.batch_size,
        seed=train.seed,
        device=device,
    )


@dataclass(frozen=True)
class DeviceBatches:
    """Batches that are made on the device as they are read.

    Attributes:
        plans: For each batch what it is made of (see `DevicePipeline`), and its labels, int32 [b].
        make: Makes the images of a batch, float32 [b, h, w, c] on the device, from its plan.
    """

    plans: tf.data.Dataset
    make: Callable[[Any], Any]

    def take(self, count: int) -> DeviceBatches:
        """Return the first `count` batches."""
        return DeviceBatches(self.plans.take(count), self.make)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for plan, labels in self.plans:
            yield self.make(plan), labels


class DevicePipeline(Pipeline):
    """A `Pipeline` of the same batches to the bit, whose images lie on `device`, as uint8, from the first batch on.

    The CPU plans a batch: its rows, and every random number, which another kind of device would draw otherwise. Only this plan
    (about 20 bytes per image) and the labels are copied per batch. Integers of a plan are int64, because TensorFlow computes
    with int32 on the CPU even where the device is a GPU.
    """

    def __init__(
        self,
        images: ImageSet,
        preprocessing: Preprocessing,
        augment: AugmentConfig,
        *,
        batch_size: int,
        seed: int,
        device: str,
    ) -> None:
        super().__init__(images, preprocessing, augment, batch_size=batch_size, seed=seed)
        self._device = device
        self._stored: dict[str, Any] = {}
        self._make = tf.function(self._make_batch, autograph=False, reduce_retracing=True)

    def train(self, start_step: int = 0) -> Any:
        """Return what `Pipeline.train` returns, the images on the device."""
        self._check_color()
        part = self._images.parts["train"]
        assert isinstance(part, Arrays)
        _, labels = part.tensors()

        def plan(step: Any) -> tuple[Any, Any]:
            rows = self._rows(step)
            return {"rows": rows, **self._draw(step, tf.size(rows))}, tf.gather(labels, rows)

        plans = tf.data.Dataset.range(start_step, FOREVER).map(
            plan, num_parallel_calls=tf.data.AUTOTUNE
        )
        return self._batches("train", plans)

    def evaluation(self, split: str) -> Any:
        """Return what `Pipeline.evaluation` returns, the images on the device."""
        part = self._images.part(split)
        assert isinstance(part, Arrays)
        _, labels = part.tensors()
        plans = part.elements(None).batch(self._batch_size)
        return self._batches(
            split, plans.map(lambda rows: ({"rows": rows}, tf.gather(labels, rows)))
        )

    def _draw(self, step: Any, count: Any) -> dict[str, Any]:
        """Return the random part of the plan of a training batch of `count` images: what `Pipeline` draws for it."""
        augment, plan = self._augment, {}
        if augment.color == "pca":
            key = make_key(self._seed, BATCH, step, 0)
            plan["noise"] = draw_pca_noise(
                count, self.preprocessing.channels, self.preprocessing.std, key
            )
        if self._moves:
            key = make_key(self._seed, BATCH, step, 1)
            top, left, mirrored = draw_crop_flip(count, self._pad, augment.flip, key)
            plan |= {"top": tf.cast(top, tf.int64), "left": tf.cast(left, tf.int64)}
            plan |= {} if mirrored is None else {"mirrored": mirrored}
        return plan

    def _batches(self, split: str, plans: tf.data.Dataset) -> DeviceBatches:
        images = self._store(split)

        def make(plan: dict[str, Any]) -> Any:
            with tf.device(self._device):
                return self._make(images, plan)

        return DeviceBatches(keep_order(plans.prefetch(tf.data.AUTOTUNE)), make)

    def _store(self, split: str) -> Any:
        """Return the images of a split on the device."""
        if split not in self._stored:
            part = self._images.part(split)
            assert isinstance(part, Arrays)
            # A variable, because TensorFlow gathers bytes on a GPU from a variable alone.
            with tf.init_scope(), tf.device(self._device):
                self._stored[split] = tf.Variable(
                    part.images, trainable=False, name=f"images_{split}"
                )
        return self._stored[split]

    def _make_batch(self, images: Any, plan: dict[str, Any]) -> Any:
        with tf.device(self._device):
            batch = self.preprocessing.apply(tf.gather(images, plan["rows"]))
            if "noise" in plan:
                batch += plan["noise"]
            if "top" in plan:
                batch = apply_crop_flip(
                    batch, self._pad, plan["top"], plan["left"], plan.get("mirrored")
                )
            return batch
