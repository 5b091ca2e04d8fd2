"""The promise of the pipeline: batch t is a function of (seed, epoch, step), and evaluation sees every example once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reszoo.config.data import (
    Augmentation,
    AugmentConfig,
    DataConfig,
    InceptionCrop,
    NoCrop,
    PadCrop,
    ScaleCrop,
)
from reszoo.data.keys import make_key, shuffled
from reszoo.data.parts import Arrays, Files, ImageSet
from reszoo.data.pipeline import Pipeline, open_dataset
from reszoo.data.statistics import plain
from reszoo.errors import ReszooError

PAD = PadCrop(flip=True)
CROPS = [NoCrop(), PAD, ScaleCrop(scale=(8, 12), flip=True), InceptionCrop(color="pca")]

Batches = list[tuple[np.ndarray, np.ndarray]]


def numbered(count: int, augment: AugmentConfig, batch_size: int = 10, seed: int = 3) -> Pipeline:
    """A set whose labels number its images."""
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    part = Arrays(images, np.arange(count, dtype=np.int32))
    names = tuple(str(i) for i in range(count))
    preprocessing = plain((8, 8), 3, DataConfig(name="digits"))
    return Pipeline(
        ImageSet("numbered", names, {"train": part}),
        preprocessing,
        augment,
        batch_size=batch_size,
        seed=seed,
    )


def batches(pipeline: Pipeline, count: int, start: int = 0) -> Batches:
    return [(x.numpy(), y.numpy()) for x, y in pipeline.train(start).take(count)]


def same(some: Batches, others: Batches) -> bool:
    return len(some) == len(others) and all(
        np.array_equal(x, u) and np.array_equal(y, v)
        for (x, y), (u, v) in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("augment", CROPS, ids=lambda a: a.crop)
def test_a_stream_from_step_k_is_the_stream_without_its_first_k(augment: AugmentConfig) -> None:
    pipeline = numbered(37, augment)
    assert pipeline.steps_per_epoch == 4
    whole, again = batches(pipeline, 12), numbered(37, augment)
    for start in (1, 4, 7):  # within the first epoch, at its end, within the second
        assert same(whole[start:], batches(again, 12 - start, start))


@pytest.mark.parametrize("augment", CROPS, ids=lambda a: a.crop)
def test_each_epoch_is_a_new_permutation(augment: AugmentConfig) -> None:
    run = batches(numbered(37, augment), 12)
    epochs = [np.concatenate([y for _, y in run[e : e + 4]]) for e in (0, 4, 8)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(37))
    assert [len(y) for _, y in run[:4]] == [10, 10, 10, 7]
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])
    assert not np.array_equal(epochs[0], range(37))


@pytest.mark.parametrize("augment", CROPS[1:], ids=lambda a: a.crop)
def test_seed_and_epoch_change_the_augmentation(augment: AugmentConfig) -> None:
    def images(run: Batches) -> np.ndarray:
        x, y = (np.concatenate(part) for part in zip(*run, strict=True))
        return x[np.argsort(y)]

    run = batches(numbered(37, augment), 8)
    other_seed = images(batches(numbered(37, augment, seed=4), 4))
    assert np.mean((images(run[:4]) != images(run[4:])).any(axis=(1, 2, 3))) > 0.8
    assert np.mean((images(run[:4]) != other_seed).any(axis=(1, 2, 3))) > 0.8


@pytest.mark.parametrize("augment", CROPS[1:], ids=lambda a: a.crop)
def test_a_place_in_the_next_epoch_is_augmented_anew(augment: AugmentConfig) -> None:
    # Images all alike, so that what differs at a place is the augmentation and not the image.
    pipeline = numbered(37, augment)
    part: Any = pipeline._images.parts["train"]
    part.images[:] = part.images[0]
    run = batches(pipeline, 8)
    places = [np.concatenate([x for x, _ in run[e : e + 4]]) for e in (0, 4)]
    assert np.mean((places[0] != places[1]).any(axis=(1, 2, 3))) > 0.8


def test_images_keep_their_labels() -> None:
    pipeline = numbered(37, NoCrop())
    stored = pipeline._images.parts["train"].images  # type: ignore[attr-defined]
    for x, y in batches(pipeline, 8):
        np.testing.assert_allclose(x, stored[y] / 255.0, atol=1e-6)


@pytest.mark.parametrize(("count", "size"), [(1, 1), (1, 5), (7, 7), (8, 3), (5, 100)])
def test_odd_sizes(count: int, size: int) -> None:
    pipeline = numbered(count, PAD, batch_size=size)
    steps = pipeline.steps_per_epoch
    assert steps == int(np.ceil(count / size))
    run = batches(pipeline, 2 * steps)
    for epoch in (run[:steps], run[steps:]):
        assert sorted(np.concatenate([y for _, y in epoch])) == list(range(count))


def test_shuffle_of_a_sorted_set_is_as_even_as_chance() -> None:
    # 1,437 examples sorted by class. The counts of a class per batch vary as draws without replacement do; a cipher of too few
    # rounds gave 1.44 times that variance.
    count, size, classes = 1437, 128, 10
    counts = []
    for epoch in range(30):
        order = shuffled(np.arange(count), count, make_key(0, 0, epoch)).numpy()
        assert len(set(order)) == count
        labels = (order * classes // count)[: count // size * size].reshape(-1, size)
        counts += [np.bincount(row, minlength=classes) for row in labels]
    expected = size * 0.1 * 0.9 * (count - size) / (count - 1)
    assert 0.9 < np.var(counts, axis=0).mean() / expected < 1.1


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_evaluation_sees_each_example_once_in_order(size: int) -> None:
    data = DataConfig(name="digits", validation=137)
    pipeline = open_dataset(data, PAD, batch_size=size, seed=0)
    assert pipeline.info.examples == {"train": 1300, "validation": 137, "test": 360}
    for split, count in pipeline.info.examples.items():
        if size == 1 and split == "train":
            continue  # thirteen hundred batches of one tell no more than the other parts' do
        x, y = (
            np.concatenate(p)
            for p in zip(*pipeline.evaluation(split).as_numpy_iterator(), strict=True)
        )
        part: Any = pipeline._images.parts[split]
        assert len(y) == count
        np.testing.assert_array_equal(y, part.labels)
        np.testing.assert_allclose(x, part.images / 255.0 - pipeline.preprocessing.mean, atol=2e-7)


@pytest.mark.parametrize("crop", ["none", "scale"])
def test_training_evaluation_and_prediction_see_the_same_image(crop: str) -> None:
    # In memory at the input's size, or resized an image at a time: to the bit the same.
    augment = Augmentation.of(crop=crop, scale=(12, 16)) if crop == "scale" else NoCrop()
    data = DataConfig(name="digits", image_size=(12, 12), channels=3, normalize="channel")
    pipeline = open_dataset(data, augment, batch_size=50, seed=0)
    raw: Any = open_dataset(
        DataConfig(name="digits"), NoCrop(), batch_size=1, seed=0
    )._images.parts["test"]
    images, _ = next(pipeline.evaluation("test").as_numpy_iterator())
    assert images.shape == (50, 12, 12, 3)
    for got, image in zip(images[:5], raw.images[:5], strict=True):
        np.testing.assert_allclose(got, pipeline.preprocessing.from_image(image), atol=1e-6)


def test_info_is_json_able_and_exact() -> None:
    info = open_dataset(
        DataConfig(name="synthetic", image_size=(16, 24), channels=1), PAD, batch_size=8, seed=0
    ).info
    told = info.to_dict()
    assert set(told.pop("fingerprint")["splits"]) == {"train", "test"}
    assert told == {
        "name": "synthetic",
        "classes": 10,
        "class_names": [f"stripes_{18 * i:03d}" for i in range(10)],
        "input_shape": [16, 24, 1],
        "examples": {"train": 1024, "validation": 0, "test": 256},
        "class_counts": {"train": [103] * 4 + [102] * 6, "test": [26] * 6 + [25] * 4},
        "skipped": [],
        "ignored": {},
    }


@pytest.mark.parametrize(
    ("data", "augment", "said"),
    [
        (
            DataConfig(name="digits", validation=1437),
            PAD,
            "data.validation = 1437 leaves none of digits's 1437",
        ),
        (
            DataConfig(name="digits", validation=37, examples=1401),
            PAD,
            "data.examples = 1401 is more than digits's 1400",
        ),
        (
            DataConfig(name="digits"),
            ScaleCrop(scale=(6, 9)),
            "augment.scale = [6, 9] goes below the crop",
        ),
        (
            DataConfig(name="digits", image_size=(12, 12)),
            InceptionCrop(),
            "data.normalize='channel'",
        ),
        (DataConfig(name="synthetic", image_size=(9999, 9999)), PAD, "too large for memory"),
    ],
)
def test_what_cannot_go_together_is_one_line(
    data: DataConfig, augment: AugmentConfig, said: str
) -> None:
    with pytest.raises(ReszooError) as caught:
        open_dataset(data, augment, batch_size=8, seed=0)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "numbers",
    [{"batch_size": 0, "seed": 0}, {"batch_size": 8, "seed": -1}, {"batch_size": 8, "seed": 2**63}],
)
def test_impossible_batch_size_or_seed(numbers: dict[str, int]) -> None:
    with pytest.raises(ReszooError, match="must be"):
        open_dataset(DataConfig(name="digits"), PAD, **numbers)


def test_colour_noise_is_for_rgb_alone() -> None:
    pipeline = numbered(8, NoCrop(color="pca"))
    pipeline.train()
    pipeline.preprocessing = replace(pipeline.preprocessing, channel_order="BGR")
    with pytest.raises(ReszooError, match=r"augment.color = 'pca' .* BGR"):
        pipeline.train()


def test_a_missing_part_is_one_line() -> None:
    pipeline = open_dataset(DataConfig(name="digits"), PAD, batch_size=8, seed=0)
    with pytest.raises(
        ReszooError, match=r"digits has no 'validation' part .* set data.validation"
    ):
        pipeline.evaluation("validation")


@pytest.mark.parametrize("count", [1, 3, 5, 6, 7, 20, 100])
def test_a_sample_is_spread_evenly(count: int) -> None:
    pipeline = numbered(20, PAD)
    images, labels = pipeline.sample("train", count)
    step = -(-20 // count)
    assert labels.tolist() == list(range(0, 20, step)) and len(labels) <= count
    stored = pipeline._images.parts["train"].images  # type: ignore[attr-defined]
    for image, label in zip(images, labels, strict=True):
        np.testing.assert_array_equal(image, stored[label])
    with pytest.raises(ReszooError, match="no 'test' part"):
        pipeline.sample("test", count)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "GIF"])
def test_a_sample_of_files_is_what_an_export_takes(tmp_path: Path, kind: str) -> None:
    paths = []
    for number in range(7):
        paths.append(str(tmp_path / str(number)))
        Image.fromarray(np.full((6, 5, 3), 30 * number, np.uint8)).save(paths[-1], kind)
    part = Files(np.array(paths, dtype=object), np.arange(7, dtype=np.int32))
    names = tuple("abcdefg")
    preprocessing = plain((6, 5), 3, DataConfig(name="digits"))
    pipeline = Pipeline(
        ImageSet("files", names, {"train": part}), preprocessing, PAD, batch_size=2, seed=0
    )
    images, labels = pipeline.sample("train", 4)
    assert labels.tolist() == [0, 2, 4, 6]
    for image, label in zip(images, labels, strict=True):
        if kind in ("PNG", "JPEG"):
            assert image == Path(paths[label]).read_bytes()
        else:
            assert isinstance(image, np.ndarray)
        pixels = np.asarray(pipeline.preprocessing.pixels(image))
        assert pixels.shape == (6, 5, 3) and np.abs(pixels - 30.0 * label).max() <= 2


def test_files_of_every_format_go_to_replicas(tmp_path: Path, strategy: Any) -> None:
    paths = []
    for number, kind in enumerate(["PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF"]):
        paths.append(str(tmp_path / str(number)))
        Image.fromarray(np.full((6, 5, 3), 40 * number, np.uint8)).save(paths[-1], kind)
    part = Files(np.array(paths, dtype=object), np.arange(6, dtype=np.int32))
    preprocessing = plain((6, 5), 3, DataConfig(name="digits"))
    dataset = ImageSet("files", tuple("abcdef"), {"train": part})
    pipeline = Pipeline(dataset, preprocessing, NoCrop(), batch_size=6, seed=0)
    images, labels = next(iter(strategy.experimental_distribute_dataset(pipeline.train())))
    for image, label in zip(
        *(np.concatenate(strategy.experimental_local_results(one)) for one in (images, labels)),
        strict=True,
    ):
        np.testing.assert_allclose(image * 255, 40 * label, atol=2)


def test_batches_go_to_replicas(strategy: Any) -> None:
    pipeline = numbered(37, PAD)
    whole = batches(pipeline, 8)
    shared = iter(strategy.experimental_distribute_dataset(pipeline.train()))
    for images, labels in whole:
        values = next(shared)
        for got, expected in zip(values, (images, labels), strict=True):
            pieces = strategy.experimental_local_results(got)
            np.testing.assert_array_equal(np.concatenate([p.numpy() for p in pieces]), expected)
