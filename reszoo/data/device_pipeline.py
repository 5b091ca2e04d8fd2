"""Batches of a dataset whose images stay on a device, where they are gathered and augmented."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from reszoo.config.data import AugmentConfig
from reszoo.config.recipe import Recipe
from reszoo.data.batch_augmentation import Plan
from reszoo.data.batches import Batch, keep_order
from reszoo.data.dataset import ArraySplit, ImageDataset
from reszoo.data.micro_batches import Part
from reszoo.data.pipeline import Pipeline, load_normalized
from reszoo.data.stream_batches import FOREVER
from reszoo.errors import ReszooError
from reszoo.images.preprocessing import Preprocessing
from reszoo.lazy import tf
from reszoo.types import Array, Tensor


def open_device_pipeline(recipe: Recipe, *, device: str = "CPU:0") -> DevicePipeline:
    """Open a recipe's dataset, as `open_pipeline` does, with its images on a device.

    Args:
        recipe: The recipe.
        device: TensorFlow's name of the device.

    Raises:
        ReszooError: If the images do not fit in memory, or the crop needs larger images.
    """
    settings = recipe.batches()
    dataset, preprocessing = load_normalized(
        recipe.data, recipe.augment, settings.pop("transforms"), settings.pop("largest")
    )
    for split in dataset.splits.values():
        shape = preprocessing.input_shape
        if not isinstance(split, ArraySplit) or split.images.shape[1:] != shape:
            raise ReszooError(
                f"data.on_device: true is invalid for {dataset.name}; expected images that fit in "
                "memory at the input's size, but these are streamed. "
                "Example: --set data.on_device=false"
            )
    settings["sampler"] = recipe.data.sampler
    return DevicePipeline(dataset, preprocessing, recipe.augment, device=device, **settings)


@dataclass(frozen=True)
class DeviceBatches:
    """Batches that are made on the device as they are read.

    Attributes:
        plans: The plan and labels (int32 [b]) of each batch. "indices" are its images; the rest is
            drawn by `BatchAugmentation`.
        make: Makes the images of a batch, float32 [b, h, w, c] on the device, from its plan.
    """

    plans: tf.data.Dataset
    make: Callable[[Plan], Tensor]

    def take(self, count: int) -> DeviceBatches:
        """Return the first `count` batches."""
        return DeviceBatches(self.plans.take(count), self.make)

    def __iter__(self) -> Iterator[Batch]:
        for plan, labels in self.plans:
            yield self.make(plan), labels

    def as_numpy_iterator(self) -> Iterator[tuple[Array, Array]]:
        """Iterate over the batches as NumPy arrays."""
        return ((images.numpy(), labels.numpy()) for images, labels in self)


class DevicePipeline(Pipeline):
    """A `Pipeline` of the same batches to the bit, whose images lie on `device` as uint8.

    The CPU makes the plan of a batch: its images, and every random number, which another kind of
    device would draw otherwise. Only the plan (about 20 bytes per image) and the labels are copied
    per batch. Integers of a plan are int64, because TensorFlow computes with int32 on the CPU even
    where the device is a GPU.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        preprocessing: Preprocessing,
        augment: AugmentConfig,
        *,
        batch_size: int,
        seed: int,
        device: str,
        sampler: str = "shuffle",
    ) -> None:
        super().__init__(
            dataset, preprocessing, augment, batch_size=batch_size, seed=seed, sampler=sampler
        )
        self._device = device
        self._stored: dict[str, tf.Variable] = {}
        self._make = tf.function(self._make_batch, autograph=False, reduce_retracing=True)

    def train(self, start_step: int = 0, part: Part | None = None) -> DeviceBatches:
        """Return what `Pipeline.train` returns, with the images on the device."""
        augmentation, order, whole = self._augmentation(), self._order, part or Part()
        self._augment.reject_mix_of(whole.workers)
        _, labels = self._arrays("train").tensors()

        def plan(step: Tensor) -> tuple[Plan, Tensor]:
            total = order.rows(step)
            rows = whole.rows(total)
            indices = order.indices(step, rows)
            drawn = augmentation.draw(step, total, rows)
            plan = {
                name: tf.cast(x, tf.int64) if x.dtype == tf.int32 else x
                for name, x in drawn.items()
            }
            targets = augmentation.make_targets(tf.gather(labels, indices), drawn)
            return {"indices": indices, **plan}, targets

        steps = tf.data.Dataset.range(start_step, FOREVER)
        return self._batches("train", steps.map(plan, num_parallel_calls=tf.data.AUTOTUNE))

    def evaluation(self, split: str, part: Part | None = None) -> DeviceBatches:
        """Return what `Pipeline.evaluation` returns, with the images on the device."""
        source = self._arrays(split)
        _, labels = source.tensors()
        whole = part or Part()
        batches = source.elements().batch(self._batch_size).shard(whole.workers, whole.worker)
        plans = batches.map(lambda indices: ({"indices": indices}, tf.gather(labels, indices)))
        return self._batches(split, plans)

    def _arrays(self, name: str) -> ArraySplit:
        split = self.dataset.split(name)
        assert isinstance(split, ArraySplit)
        return split

    def _batches(self, split: str, plans: tf.data.Dataset) -> DeviceBatches:
        images = self._store(split)

        def make(plan: Plan) -> Tensor:
            with tf.device(self._device):
                return self._make(images, plan)

        return DeviceBatches(keep_order(plans.prefetch(tf.data.AUTOTUNE)), make)

    def _store(self, split: str) -> tf.Variable:
        """Return the images of a split on the device."""
        if split not in self._stored:
            images = self._arrays(split).images
            # A variable, because TensorFlow gathers bytes on a GPU from variables only.
            with tf.init_scope(), tf.device(self._device):
                self._stored[split] = tf.Variable(images, trainable=False, name=f"images_{split}")
        return self._stored[split]

    def _make_batch(self, images: Any, plan: Plan) -> Tensor:
        with tf.device(self._device):
            return self._augmentation().apply(tf.gather(images, plan["indices"]), plan)
