"""The changes to a batch, composed in their order, and what ties them to examples and epochs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from reszoo.config.data import Augmentation, AugmentConfig, DataConfig, NoCrop, ScaleCrop
from reszoo.config.recipe import Recipe
from reszoo.data.augmentation import apply_crop_flip
from reszoo.data.batch_augmentation import BatchAugmentation
from reszoo.data.batch_order import BatchOrder
from reszoo.data.dataset import ArraySplit, ImageDataset, RecordSplit
from reszoo.data.erasing import erase
from reszoo.data.micro_batches import Part
from reszoo.data.mixing import Mix, mix_images, mix_labels
from reszoo.data.normalization import unnormalized
from reszoo.data.pipeline import Pipeline
from reszoo.data.policies import Drawn, apply_policy
from reszoo.errors import ReszooError

COUNT, SIZE = 20, 8
EVERYTHING: dict[str, Any] = {
    "flip": True,
    "policy": "rand",
    "color_jitter": (0.4, 0.4, 0.4, 0.1),
    "color": "pca",
    "erase": 0.5,
    "erase_mode": "pixel",
    "mixup": 0.8,
}


def make(augment: AugmentConfig, **order: int) -> BatchAugmentation:
    preprocessing = unnormalized((8, 8), 3, DataConfig(name="digits"))
    return BatchAugmentation(augment, preprocessing, BatchOrder(COUNT, SIZE, 0, **order), COUNT)


def open_numbered(augment: AugmentConfig, shape: tuple[int, int] = (8, 8)) -> Pipeline:
    """Open images whose left half is black, and whose labels number them."""
    images = np.full((COUNT, *shape, 3), 200, np.uint8)
    images[:, :, : shape[1] // 2] = 0
    split = ArraySplit(images, np.arange(COUNT, dtype=np.int32))
    dataset = ImageDataset("numbered", tuple(map(str, range(COUNT))), {"train": split})
    preprocessing = unnormalized((8, 8), 3, DataConfig(name="digits"))
    return Pipeline(dataset, preprocessing, augment, batch_size=SIZE, seed=3)


def test_changes_are_made_in_their_order() -> None:
    augmentation = make(Augmentation.of(crop="pad", pad=2, **EVERYTHING))
    step, rows = tf.constant(7, tf.int64), tf.range(SIZE)
    plan = augmentation.draw(step, SIZE, rows)
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, 8, 8, 3), np.uint8)
    images = tf.constant(pixels)
    for name in ("policy", "jitter"):
        drawn = Drawn(plan[f"{name}_kinds"], plan[f"{name}_arguments"])
        images = apply_policy(images, drawn, (0, 0, 0), "bilinear")
        assert (images.numpy() != pixels).any()
    images = tf.cast(images, tf.float32) / 255 + plan["noise"]
    images = apply_crop_flip(images, 2, plan["top"], plan["left"], plan["mirrored"])
    images = erase(images, plan["boxes"], plan["erased"])
    mix = Mix(plan["share"], plan["box"])
    got = augmentation.apply(tf.constant(pixels), plan)
    np.testing.assert_allclose(got, mix_images(images, mix), atol=1e-6)
    labels = tf.range(SIZE)
    targets = augmentation.make_targets(labels, plan)
    np.testing.assert_array_equal(targets, mix_labels(labels, mix, COUNT))
    assert np.allclose(tf.reduce_sum(targets, axis=-1), 1) and 0 < mix.share < 1
    # Only some rows, the same numbers; another step, other numbers.
    some = augmentation.draw(step, SIZE, tf.constant([5, 2]))
    other = augmentation.draw(step + 1, SIZE, rows)
    for name, values in plan.items():
        own = values if name in ("share", "box") else tf.gather(values, [5, 2])
        np.testing.assert_array_equal(some[name], own)
        assert name == "box" or (other[name].numpy() != values.numpy()).any(), name


def test_the_mean_pixel_surrounds_images_that_rand_augment_moves() -> None:
    augmentation = make(NoCrop(policy="rand"))
    mean = np.array([0.1, 0.5, 0.999], np.float32)
    preprocessing = replace(augmentation.preprocessing, mean=mean, channel_order="BGR")
    moved = replace(augmentation, preprocessing=preprocessing)
    assert moved._fill == [255, 128, 26]
    assert replace(moved, augment=NoCrop(policy="trivial"))._fill == [0, 0, 0]


@pytest.mark.parametrize(
    ("augment", "shape"),
    [
        (NoCrop(flip=True, flip_mode="alternating"), (8, 8)),  # in memory
        (ScaleCrop(scale=(8, 8), flip=True, flip_mode="alternating"), (16, 16)),  # cropped
    ],
    ids=["memory", "stream"],
)
def test_alternating_flips_mirror_each_image_in_every_second_epoch(
    augment: AugmentConfig, shape: tuple[int, int]
) -> None:
    pipeline = open_numbered(augment, shape)
    mirrored = np.zeros((4, COUNT), bool)
    for step, (images, labels) in enumerate(pipeline.train().take(12).as_numpy_iterator()):
        mirrored[step // 3, labels] = images[:, 4, 0, 0] > images[:, 4, -1, 0]
    assert (mirrored[0] != mirrored[1]).all() and (mirrored[0] == mirrored[2]).all()
    assert mirrored[0].sum() == COUNT // 2 and mirrored[0].any()
    assert (mirrored[3] == mirrored[1]).all()


@pytest.mark.parametrize(
    ("augment", "shape"),
    [(NoCrop(repeats=3), (8, 8)), (NoCrop(repeats=3), (9, 9))],
    ids=["memory", "stream"],
)
def test_repeated_images_stand_in_a_row(augment: AugmentConfig, shape: tuple[int, int]) -> None:
    pipeline = open_numbered(augment, shape)
    assert pipeline.steps_per_epoch == 3  # as without repeats
    labels = np.concatenate([y for _, y in pipeline.train().take(6).as_numpy_iterator()])
    for epoch in labels.reshape(2, COUNT):
        assert (epoch[0:18:3] == epoch[1:18:3]).all() and (epoch[0:18:3] == epoch[2:18:3]).all()
        assert epoch[18] == epoch[19] and len(set(epoch)) == 7
    assert set(labels[:COUNT]) != set(labels[COUNT:])


def test_repeated_records_stand_in_a_row(tmp_path: Any) -> None:
    file = str(tmp_path / "records")
    with tf.io.TFRecordWriter(file) as writer:
        for number in range(COUNT):
            writer.write(bytes([number]))

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        number = tf.io.decode_raw(record, tf.uint8)[0]
        return tf.fill([9, 9, 3], number), tf.cast(number, tf.int32)

    split = RecordSplit((file,), (0,), (COUNT,), parse)
    dataset = ImageDataset("records", tuple(map(str, range(COUNT))), {"train": split})
    preprocessing = unnormalized((8, 8), 3, DataConfig(name="digits"))
    pipeline = Pipeline(dataset, preprocessing, NoCrop(repeats=3), batch_size=SIZE, seed=3)
    whole = [y.tolist() for _, y in pipeline.train().take(4).as_numpy_iterator()]
    epoch = np.concatenate(whole[:3])
    assert len(epoch) == COUNT and (epoch[0:18:3] == epoch[2:18:3]).all()
    assert len(set(epoch)) == 7
    assert [y.tolist() for _, y in pipeline.train(2).take(2).as_numpy_iterator()] == whole[2:]
    alternating = NoCrop(flip=True, flip_mode="alternating")
    pipeline = Pipeline(dataset, preprocessing, alternating, batch_size=SIZE, seed=3)
    with pytest.raises(ReszooError, match=r"augment\.flip_mode: .* streamed dataset.*Example: "):
        pipeline.train()


def test_mixing_on_several_hosts_is_rejected() -> None:
    pipeline = open_numbered(NoCrop(cutmix=1.0))
    with pytest.raises(ReszooError, match=r"augment\.cutmix: 1\.0 is invalid; expected 0 on 2"):
        pipeline.train(0, Part(0, 2))


@pytest.mark.parametrize("changes", [{"policy": "trivial"}, {"color_jitter": [0.4, 0, 0, 0]}])
def test_changes_by_pillows_operations_stay_on_the_cpu(changes: dict[str, Any]) -> None:
    with pytest.raises(ReszooError, match=r"data\.on_device: true is invalid; .* on the CPU"):
        Recipe(
            model={"name": "resnet8"},
            data={"name": "digits", "on_device": True},
            augment=changes,
            train={"batch_size": 32, "steps": 1},
            schedule={"kind": "constant", "rate": 0.1},
        )
