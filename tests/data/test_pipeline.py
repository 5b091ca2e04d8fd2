"""Batch t is a function of (seed, epoch, step), and evaluation shows every example once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from reszoo.config.data import (
    AugmentConfig,
    DataConfig,
    InceptionCrop,
    NoCrop,
    PadCrop,
    ScaleCrop,
)
from reszoo.data.dataset import ArraySplit, FileSplit, ImageDataset, Split
from reszoo.data.micro_batches import Part
from reszoo.data.normalization import unnormalized
from reszoo.data.pipeline import Pipeline, open_dataset
from reszoo.data.random_keys import make_key, shuffle_indices
from reszoo.errors import ReszooError

PAD = PadCrop(flip=True)
CROPS = [NoCrop(), PAD, ScaleCrop(scale=(8, 12), flip=True), InceptionCrop(color="pca")]
DIGITS = DataConfig(name="digits")
KINDS = ("PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF")

Batches = list[tuple[np.ndarray, np.ndarray]]


def open_split(split: Split, shape: tuple[int, int, int], augment: AugmentConfig, size: int = 10,
               seed: int = 3) -> Pipeline:  # fmt: skip
    names = tuple(str(i) for i in range(split.count))
    dataset = ImageDataset("numbered", names, {"train": split})
    preprocessing = unnormalized(shape[:2], shape[2], DIGITS)
    return Pipeline(dataset, preprocessing, augment, batch_size=size, seed=seed)


def numbered(count: int, augment: AugmentConfig, size: int = 10, seed: int = 3) -> Pipeline:
    """A dataset whose labels number its images."""
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    split = ArraySplit(images, np.arange(count, dtype=np.int32))
    return open_split(split, (8, 8, 3), augment, size, seed)


def batches(pipeline: Pipeline, count: int, start: int = 0) -> Batches:
    return list(pipeline.train(start).take(count).as_numpy_iterator())


def joined(run: Batches) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.concatenate(part) for part in zip(*run, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("augment", CROPS, ids=lambda a: a.crop)
def test_batches_depend_on_seed_epoch_and_step_alone(augment: AugmentConfig) -> None:
    pipeline = numbered(37, augment)
    assert pipeline.steps_per_epoch == 4
    whole, again = batches(pipeline, 12), numbered(37, augment)
    # Within the first epoch, at its end, within the second.
    for start in (1, 4, 7):
        for (x, y), (u, v) in zip(whole[start:], batches(again, 12 - start, start), strict=True):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)
    epochs = [joined(whole[e : e + 4])[1] for e in (0, 4, 8)]
    assert all(sorted(epoch) == list(range(37)) for epoch in epochs)
    assert [len(y) for _, y in whole[:4]] == [10, 10, 10, 7]
    assert len({tuple(epoch) for epoch in [*epochs, range(37)]}) == 4, "each a new permutation"
    assert tuple(joined(batches(numbered(37, augment, seed=4), 4))[1]) != tuple(epochs[0])


def with_sizes(split: Split, augment: AugmentConfig, size: int, **options: Any) -> Pipeline:
    """A pipeline for images of 8 x 8, or of `size` from the first step on, with a mean image."""
    mean = np.linspace(0, 1, size * size * 3).reshape(size, size, 3)
    preprocessing = replace(unnormalized((size, size), 3, DIGITS), mean=mean)
    dataset = ImageDataset("numbered", tuple(map(str, range(37))), {"train": split})
    return Pipeline(dataset, preprocessing, augment, batch_size=10, seed=3, **options)


@pytest.mark.parametrize("augment", [PAD, CROPS[3]], ids=lambda a: a.crop)
def test_batches_of_another_size_are_those_of_a_pipeline_of_that_size(
    augment: AugmentConfig,
) -> None:
    """From any step on, for rows of one host, and the mean image is resized too."""
    split: Any = numbered(37, augment).dataset.splits["train"]
    ours = with_sizes(split, augment, 8, train_sizes=lambda steps, size: {0: (6, 6), 4: (8, 8)})
    whole, part = batches(ours, 6), Part(1, 2)
    assert [x.shape[1] for x, _ in whole] == [6] * 4 + [8] * 2
    run = list(ours.train(3, part).take(2).as_numpy_iterator())
    for (x, y), (u, v) in zip(run, whole[3:5], strict=True):
        np.testing.assert_array_equal(x, u[part.rows(len(v)).numpy()])
        np.testing.assert_array_equal(y, v[part.rows(len(v)).numpy()])
    small = with_sizes(split, augment, 6)
    # A mean image is linear: the resized mean is the mean of resized images.
    mean = tf.image.resize(ours.preprocessing.mean, (6, 6), antialias=True).numpy()
    small.preprocessing = replace(small.preprocessing, mean=mean)
    for (x, y), (u, v) in zip(whole, batches(small, 4), strict=False):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


def test_a_crop_is_no_smaller_than_any_size() -> None:
    split, augment = numbered(37, PAD).dataset.splits["train"], ScaleCrop(scale=(8, 12))
    with pytest.raises(ReszooError, match=r"at least the crop, 9 pixels by data.train_sizes"):
        with_sizes(split, augment, 8, train_sizes=lambda steps, size: {0: (8, 8), 4: (9, 9)})


@pytest.mark.parametrize("augment", CROPS[1:], ids=lambda a: a.crop)
def test_every_position_is_augmented_again_in_every_epoch(augment: AugmentConfig) -> None:
    # All images are the same, so that a place differs by its augmentation alone.
    pipelines = [numbered(37, augment, seed=seed) for seed in (3, 4)]
    for pipeline in pipelines:
        split: Any = pipeline.dataset.splits["train"]
        split.images[:] = split.images[0]
    run, other = batches(pipelines[0], 8), batches(pipelines[1], 4)
    first = joined(run[:4])[0]
    for images in (joined(run[4:])[0], joined(other)[0]):
        assert np.mean((first != images).any(axis=(1, 2, 3))) > 0.8


def test_images_keep_their_labels() -> None:
    pipeline = numbered(37, NoCrop())
    stored = pipeline.dataset.splits["train"].images  # type: ignore[attr-defined]
    for x, y in batches(pipeline, 8):
        np.testing.assert_allclose(x, stored[y] / 255.0, atol=1e-6)


@pytest.mark.parametrize(("sizes", "batch"), [([30, 5, 4], 8), ([3, 40], 64), ([1, 1], 1)])
def test_the_balanced_sampler_shows_as_many_images_of_each_class(
    sizes: list[int], batch: int
) -> None:
    """In turn through all images of a class; a function of seed and step; hosts share the rows."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    np.random.default_rng(0).shuffle(labels)
    count = len(labels)
    images = np.broadcast_to(
        np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 1)
    )
    dataset = ImageDataset("numbered", tuple("abc"), {"train": ArraySplit(images, labels)})
    to_input = unnormalized((2, 2), 1, DIGITS)
    settings: dict[str, Any] = {"batch_size": batch, "sampler": "balanced"}
    pipeline = Pipeline(dataset, to_input, NoCrop(), seed=3, **settings)
    steps = 6 * pipeline.steps_per_epoch
    whole = batches(pipeline, steps)
    shown = [np.rint(255 * x[:, 0, 0, 0]).astype(int) for x, _ in whole]
    assert all((labels[i] == y).all() for i, (_, y) in zip(shown, whole, strict=True))
    for start in (1, steps // 2):
        again = Pipeline(dataset, to_input, NoCrop(), seed=3, **settings)
        for (x, y), (u, v) in zip(whole[start:], batches(again, steps - start, start), strict=True):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)
    epochs = np.concatenate(shown).reshape(6, count)
    for epoch in epochs:
        taken = np.bincount(labels[epoch], minlength=len(sizes))
        assert taken.max() - taken.min() <= 1 and taken.sum() == count
    omitted = 6 if count % len(sizes) else 0  # at most one turn of each epoch
    for label, size in enumerate(sizes):
        of_class = np.bincount(epochs.ravel(), minlength=count)[labels == label]
        assert len(of_class) == size and of_class.max() - of_class.min() <= 1 + omitted
    own = [list(pipeline.train(0, Part(w, 2)).take(2).as_numpy_iterator()) for w in (0, 1)]
    for step in range(2 if batch > 1 else 0):
        rows = np.concatenate([host[step][0] for host in own])
        np.testing.assert_array_equal(np.sort(rows.ravel()), np.sort(whole[step][0].ravel()))
    other = Pipeline(dataset, to_input, NoCrop(), seed=4, **settings)
    if count > 2:
        assert any((a[0] != b[0]).any() for a, b in zip(whole, batches(other, steps), strict=True))


@pytest.mark.parametrize(("count", "size"), [(1, 1), (1, 5), (7, 7), (8, 3), (5, 100)])
def test_odd_sizes(count: int, size: int) -> None:
    pipeline = numbered(count, PAD, size)
    steps = pipeline.steps_per_epoch
    assert steps == int(np.ceil(count / size))
    run = batches(pipeline, 2 * steps)
    for epoch in (run[:steps], run[steps:]):
        assert sorted(joined(epoch)[1]) == list(range(count))


def test_shuffle_of_a_sorted_dataset_is_as_even_as_chance() -> None:
    # 1,437 examples sorted by class. The counts of a class per batch vary as draws without
    # replacement do. A cipher of too few rounds gave 1.44 times that variance.
    count, size, classes = 1437, 128, 10
    counts = []
    for epoch in range(30):
        order = shuffle_indices(np.arange(count), count, make_key(0, 0, epoch)).numpy()
        assert len(set(order)) == count
        labels = (order * classes // count)[: count // size * size].reshape(-1, size)
        counts += [np.bincount(row, minlength=classes) for row in labels]
    expected = size * 0.1 * 0.9 * (count - size) / (count - 1)
    assert 0.9 < np.var(counts, axis=0).mean() / expected < 1.1


@pytest.mark.parametrize("size", [7, 1000])
def test_evaluation_shows_each_example_once_in_order(size: int) -> None:
    data = DataConfig(name="digits", validation=137)
    pipeline = open_dataset(data, PAD, batch_size=size, seed=0)
    assert pipeline.info.examples == {"train": 1300, "validation": 137, "test": 360}
    for name, count in pipeline.info.examples.items():
        x, y = joined(list(pipeline.evaluation(name).as_numpy_iterator()))
        split: Any = pipeline.dataset.splits[name]
        assert len(y) == count
        np.testing.assert_array_equal(y, split.labels)
        np.testing.assert_allclose(x, split.images / 255.0 - pipeline.preprocessing.mean, atol=2e-7)


@pytest.mark.parametrize("side", [8, 12], ids=["gathered", "resized"])
def test_hosts_take_turns_with_the_batches_of_an_evaluation(side: int) -> None:
    data = DataConfig(name="digits", image_size=(side, side), normalize="unit")
    pipeline = open_dataset(data, NoCrop(), batch_size=100, seed=0)
    whole = list(pipeline.evaluation("test").as_numpy_iterator())
    for workers in (2, 5):  # one of five has no batch
        for worker in range(workers):
            own = pipeline.evaluation("test", Part(worker, workers)).as_numpy_iterator()
            for one, other in zip(whole[worker::workers], own, strict=True):
                for mine, theirs in zip(one, other, strict=True):
                    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("augment", [NoCrop(), ScaleCrop(scale=(12, 16))], ids=lambda a: a.crop)
def test_evaluation_and_prediction_see_the_same_image(augment: AugmentConfig) -> None:
    # In memory at the input's size, or resized one image at a time.
    data = DataConfig(name="digits", image_size=(12, 12), channels=3, normalize="channel")
    pipeline = open_dataset(data, augment, batch_size=50, seed=0)
    stored: Any = open_dataset(DIGITS, NoCrop(), batch_size=1, seed=0).dataset.splits["test"]
    images, _ = next(pipeline.evaluation("test").as_numpy_iterator())
    assert images.shape == (50, 12, 12, 3)
    for got, image in zip(images[:5], stored.images[:5], strict=True):
        np.testing.assert_allclose(got, pipeline.preprocessing.from_image(image), atol=1e-6)


def test_info_is_json_able_and_exact() -> None:
    data = DataConfig(name="synthetic", image_size=(16, 24), channels=1)
    info = open_dataset(data, PAD, batch_size=8, seed=0).info.to_dict()
    assert set(info.pop("fingerprint")["splits"]) == {"train", "test"}
    assert info == {
        "name": "synthetic",
        "classes": 10,
        "class_names": [f"stripes_{18 * i:03d}" for i in range(10)],
        "input_shape": [16, 24, 1],
        "examples": {"train": 1024, "validation": 0, "test": 256},
        "class_counts": {"train": [103] * 4 + [102] * 6, "test": [26] * 6 + [25] * 4},
        "skipped": [],
        "ignored": {},
        "found_size": "",
    }


@pytest.mark.parametrize(
    ("data", "augment", "settings", "message"),
    [
        (DIGITS, ScaleCrop(scale=(6, 9)), {}, "augment.scale: [6, 9] is invalid"),
        (DIGITS.replace(image_size=(12, 12)), InceptionCrop(), {}, "data.normalize=channel"),
        (DataConfig(name="synthetic", image_size=(9999, 9999)), PAD, {}, "do not fit in memory"),
        (DIGITS, PAD, {"batch_size": 0}, "batch_size: 0 is invalid"),
        (DIGITS, PAD, {"seed": -1}, "seed: -1 is invalid"),
        (DIGITS, PAD, {"seed": 2**63}, "is invalid"),
    ],
)
def test_contradictions_are_reported_in_one_line(
    data: DataConfig, augment: AugmentConfig, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ReszooError) as caught:
        open_dataset(data, augment, **{"batch_size": 8, "seed": 0, **settings})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_color_noise_is_for_rgb_alone() -> None:
    pipeline = numbered(8, NoCrop(color="pca"))
    pipeline.train()
    pipeline.preprocessing = replace(pipeline.preprocessing, channel_order="BGR")
    with pytest.raises(ReszooError, match=r"augment.color: pca is invalid.* BGR"):
        pipeline.train()


@pytest.mark.parametrize("count", [1, 3, 5, 6, 7, 20, 100])
def test_a_sample_is_spread_evenly(count: int) -> None:
    pipeline = numbered(20, PAD)
    images, labels = pipeline.sample("train", count)
    assert labels.tolist() == list(range(0, 20, -(-20 // count))) and len(labels) <= count
    stored = pipeline.dataset.splits["train"].images  # type: ignore[attr-defined]
    np.testing.assert_array_equal(images, stored[labels])
    for read in (lambda: pipeline.sample("test", count), lambda: pipeline.evaluation("test")):
        with pytest.raises(ReszooError, match="no 'test' split"):
            read()
    with pytest.raises(ReszooError, match=r"no 'validation' split.*data.validation=500"):
        pipeline.evaluation("validation")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> FileSplit:
    """One-color files of each format, twice."""
    folder = tmp_path_factory.mktemp("files")
    paths = []
    for number, kind in enumerate(2 * KINDS):
        paths.append(str(folder / str(number)))
        Image.fromarray(np.full((6, 5, 3), 20 * number, np.uint8)).save(paths[-1], kind)
    return FileSplit(np.array(paths, dtype=object), np.arange(12, dtype=np.int32))


def test_a_sample_of_files_is_what_an_export_takes(files: FileSplit) -> None:
    pipeline = open_split(files, (6, 5, 3), PAD)
    images, labels = pipeline.sample("train", 12)
    assert labels.tolist() == list(range(12))
    assert pipeline.sample("train", 6)[1].tolist() == list(range(0, 12, 2))
    for image, label, path in zip(images, labels, files.paths, strict=True):
        if KINDS[label % 6] in ("PNG", "JPEG"):
            assert image == Path(path).read_bytes()
        else:
            assert isinstance(image, np.ndarray)
        pixels = np.asarray(pipeline.preprocessing.pixels(image))
        assert pixels.shape == (6, 5, 3) and np.abs(pixels - 20.0 * label).max() <= 2


def test_batches_go_to_replicas(files: FileSplit, strategy: Any) -> None:
    for pipeline in (numbered(37, PAD), open_split(files, (6, 5, 3), NoCrop(), size=6)):
        whole = batches(pipeline, 8)
        shared = iter(strategy.experimental_distribute_dataset(pipeline.train()))
        for expected in whole:
            for got, values in zip(next(shared), expected, strict=True):
                pieces = strategy.experimental_local_results(got)
                np.testing.assert_array_equal(np.concatenate(pieces), values)
    for images, labels in whole:
        np.testing.assert_allclose(images[:, 0, 0, 0] * 255, 20 * labels, atol=2)
