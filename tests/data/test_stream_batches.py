"""Every worker reads its own rows; joined they are the batch, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
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
from reszoo.data.device_pipeline import DevicePipeline
from reszoo.data.micro_batches import Part
from reszoo.data.normalization import unnormalized
from reszoo.data.pipeline import Pipeline

COUNT, SIZE = 23, 9  # batches of 9, 9 and 5 rows
CROPS: list[AugmentConfig] = [
    NoCrop(flip=True),
    PadCrop(pad=1, color="pca"),
    ScaleCrop(scale=(8, 12), flip=True, color="pca"),
    InceptionCrop(flip=True),
]
# Workers, replicas of each, micro-batches. The last have more shares than the last batch has rows.
CASES = {"memory": [(1, 2, 2), (2, 2, 1), (5, 1, 3)], "files": [(3, 1, 2), (4, 2, 1)]}

Batches = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    """Random images whose labels number them: in memory at the input's size or larger, in files."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    labels, paths = np.arange(COUNT, dtype=np.int32), []
    large = rng.integers(0, 256, (COUNT, 14, 11, 3), dtype=np.uint8)
    for number, image in enumerate(large):
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(image[: 10 + number % 5]).save(paths[-1])
    return {
        "memory": ArraySplit(large[:, :8, :8], labels),
        "large": ArraySplit(large, labels),
        "files": FileSplit(np.array(paths, dtype=object), labels),
    }


def open_split(split: Split, augment: AugmentConfig, kind: Any = Pipeline, **options: Any) -> Any:
    dataset = ImageDataset("numbered", tuple(map(str, range(COUNT))), {"train": split})
    preprocessing = unnormalized((8, 8), 3, DataConfig(name="digits"))
    return kind(dataset, preprocessing, augment, **{"batch_size": SIZE, "seed": 3, **options})


def read(pipeline: Pipeline, count: int = 4, start: int = 0, part: Part | None = None) -> Batches:
    return list(pipeline.train(start, part).take(count).as_numpy_iterator())


def join(pipeline: Pipeline, case: tuple[int, int, int], count: int = 4, start: int = 0) -> Batches:
    """Return what the replicas of all workers count, in the order of the rows."""
    workers, replicas, micro_batches = case
    parts = [Part(worker, *case) for worker in range(workers)]
    streams = [read(pipeline, count, start, part) for part in parts]
    batches = []
    for step in range(count):
        pieces = []
        for number in range(micro_batches):
            for replica in range(workers * replicas):
                worker = replica // replicas
                share = parts[worker].local_share(pipeline.rows(start + step), replica, number)
                first, last, weight = map(int, share)
                images, labels = streams[worker][step]
                assert last <= len(labels) == len(images)
                if weight:
                    pieces.append((images[first:last], labels[first:last]))
        batches.append(tuple(np.concatenate(each) for each in zip(*pieces, strict=True)))
    return batches  # type: ignore[return-value]


def assert_same(ours: Batches, theirs: Batches) -> None:
    for (images, labels), (expected, classes) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(labels, classes)
        assert images.tobytes() == expected.tobytes()


@pytest.mark.parametrize("augment", CROPS, ids=lambda a: a.crop)
@pytest.mark.parametrize("kind", CASES)
def test_joined_rows_are_the_batch(
    splits: dict[str, Split], kind: str, augment: AugmentConfig
) -> None:
    pipeline = open_split(splits[kind], augment)
    whole = read(pipeline)
    assert [len(labels) for _, labels in whole] == [pipeline.rows(t) for t in range(4)]
    assert [len(labels) for _, labels in whole] == [9, 9, 5, 9]
    for case in CASES[kind]:
        assert_same(join(pipeline, case), whole)
    assert_same(join(pipeline, CASES[kind][1], 2, 2), whole[2:])


def test_joined_rows_are_the_batch_of_a_device_and_of_one_row(splits: dict[str, Split]) -> None:
    device = open_split(splits["memory"], CROPS[1], DevicePipeline, device="CPU:0")
    assert_same(join(device, (3, 1, 2)), read(device))
    for kind, augment in (("memory", CROPS[0]), ("large", CROPS[3])):
        pipeline = open_split(splits[kind], augment, batch_size=1)
        assert_same(join(pipeline, (2, 1, 1), 3), read(pipeline, 3))
