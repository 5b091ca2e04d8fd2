"""Every worker reads its own rows of every batch, to the bit, and nothing else."""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from reszoo.config.data import (
    AugmentConfig,
    DataConfig,
    InceptionCrop,
    NoCrop,
    PadCrop,
    ScaleCrop,
)
from reszoo.data import stream_batches
from reszoo.data.dataset import ArraySplit, FileSplit, ImageDataset, RecordSplit, Split
from reszoo.data.device_pipeline import DevicePipeline
from reszoo.data.micro_batches import Part
from reszoo.data.normalization import unnormalized
from reszoo.data.pipeline import Pipeline, open_dataset
from reszoo.data.random_keys import ORDER, make_key, shuffle_indices
from reszoo.errors import ReszooError

COUNT, SEED = 23, 3
SHARDS = (3, 8, 1, 6, 5)  # records of each TFRecord file
CROPS: list[AugmentConfig] = [
    NoCrop(flip=True, repeats=2, erase=0.5, erase_mode="pixel"),
    PadCrop(pad=1, color="pca"),
    ScaleCrop(scale=(8, 12), flip=True, flip_mode="alternating", color="pca"),
    InceptionCrop(flip=True),
]
Batches = list[tuple[np.ndarray, np.ndarray]]


def parse(record: Any) -> tuple[Any, Any]:
    label = tf.io.decode_raw(tf.strings.substr(record, 0, 4), tf.int32)[0]
    return tf.strings.substr(record, 4, -1), label


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    """Random images whose labels number them: in memory, in files of images and of records."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    labels, paths = np.arange(COUNT, dtype=np.int32), []
    large = rng.integers(0, 256, (COUNT, 14, 11, 3), dtype=np.uint8)
    for number, image in enumerate(large):
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(image[: 10 + number % 5]).save(paths[-1])
    records = [
        label.tobytes() + Path(path).read_bytes() for label, path in zip(labels, paths, strict=True)
    ]
    shards = [str(folder / f"{number}.tfrecord") for number in range(len(SHARDS))]
    for shard, end, size in zip(shards, np.cumsum(SHARDS), SHARDS, strict=True):
        with tf.io.TFRecordWriter(shard) as writer:
            for record in records[end - size : end]:
                writer.write(record)
    return {
        "memory": ArraySplit(large[:, :8, :8], labels),
        "large": ArraySplit(large, labels),
        "files": FileSplit(np.array(paths, dtype=object), labels),
        "records": RecordSplit(tuple(shards), (0,) * len(SHARDS), SHARDS, parse),
    }


def open_split(split: Split, augment: AugmentConfig, kind: Any = Pipeline, **options: Any) -> Any:
    dataset = ImageDataset("numbered", tuple(map(str, range(COUNT))), {"train": split})
    preprocessing = unnormalized((8, 8), 3, DataConfig(name="digits"))
    return kind(dataset, preprocessing, augment, **{"batch_size": 9, "seed": SEED, **options})


def read(pipeline: Pipeline, count: int, start: int = 0, part: Part | None = None) -> Batches:
    return list(pipeline.train(start, part).take(count).as_numpy_iterator())


def assert_same(ours: Batches, theirs: Batches) -> None:
    for (images, labels), (expected, classes) in zip(ours, theirs, strict=True):
        assert images.tobytes() == expected.tobytes() and labels.tolist() == classes.tolist()


def check(pipeline: Pipeline, whole: Batches, case: tuple[int, int, int], start: int = 0) -> None:
    """Compare what all workers read from a step on with the batches, to the bit."""
    seen: list[set[int]] = [set() for _ in whole]
    for worker in range(case[0]):
        part = Part(worker, *case)
        own = read(pipeline, len(whole) - start, start, part)
        for step, (images, labels) in enumerate(own, start):
            rows = part.rows(pipeline.rows(step)).numpy()
            assert images.tobytes() == whole[step][0][rows].tobytes(), (case, worker, step)
            np.testing.assert_array_equal(labels, whole[step][1][rows])
            seen[step] |= {*labels}
    assert seen[start:] == [{*labels} for _, labels in whole[start:]]


# Workers, replicas of each, micro-batches. Some have more shares than the last batch has rows.
CASES = [(1, 2, 2), (2, 2, 1), (3, 1, 2), (4, 2, 1), (5, 1, 3)]
FAST = [
    ("memory", CROPS[0], CASES[2]),
    ("memory", CROPS[1], CASES[4]),
    ("large", CROPS[2], (2, 1, 3)),
    ("files", CROPS[1], CASES[1]),
    ("files", CROPS[2], CASES[1]),
    ("files", CROPS[3], CASES[3]),
]
ALL = [
    pytest.param(*each, marks=pytest.mark.slow)
    for each in itertools.product(("memory", "large", "files"), CROPS, CASES)
    if each not in FAST
]


@pytest.mark.parametrize(
    ("kind", "augment", "case"), FAST + ALL, ids=lambda each: getattr(each, "crop", str(each))
)
def test_workers_read_their_rows_of_the_batch(
    splits: dict[str, Split], kind: str, augment: AugmentConfig, case: tuple[int, int, int]
) -> None:
    pipeline = open_split(splits[kind], augment)
    whole = read(pipeline, 4)
    assert [len(labels) for _, labels in whole] == [pipeline.rows(t) for t in range(4)]
    assert [len(labels) for _, labels in whole] == [9, 9, 5, 9]
    check(pipeline, whole, case, start=1)


def test_workers_read_their_rows_on_a_device_and_of_one_image(splits: dict[str, Split]) -> None:
    device = open_split(splits["memory"], CROPS[1], DevicePipeline, device="CPU:0")
    check(device, read(device, 3), (2, 1, 2))
    pipeline = open_split(splits["memory"], CROPS[0], batch_size=1)
    check(pipeline, read(pipeline, 2), (2, 1, 1))


@pytest.mark.parametrize("kind", ["files", "records"])
def test_only_a_workers_own_files_are_read(
    splits: dict[str, Split], kind: str, tmp_path: Path
) -> None:
    """The files of the others are removed."""
    part, split = Part(1, 2), splits[kind]
    paths = [tmp_path / str(i) for i in range(len(getattr(split, "paths", SHARDS)))]
    if isinstance(split, FileSplit):
        whole = read(open_split(split, CROPS[3], lanes=1), 2)
        own = {int(i) for x, y in whole for i in y[part.rows(len(y)).numpy()]}
        sources, copy = split.paths, FileSplit(np.array([*map(str, paths)], object), split.labels)
    else:
        assert isinstance(split, RecordSplit)
        order = shuffle_indices(np.arange(5), 5, make_key(SEED, ORDER, 0)).numpy()
        ends = np.cumsum(np.array(SHARDS)[order])  # the second lane begins at record 23 // 2
        own = {int(file) for file, end in zip(order, ends, strict=True) if end > COUNT // 2}
        sources, copy = split.files, RecordSplit((*map(str, paths),), (0,) * 5, SHARDS, parse)
    assert 0 < len(own) < len(paths)
    for number in own:
        paths[number].write_bytes(Path(sources[number]).read_bytes())
    lanes, size = (1, 9) if kind == "files" else (2, 10)
    ours, theirs = (
        read(open_split(each, CROPS[3], lanes=lanes, batch_size=size), 2, 0, part)
        for each in (copy, split)
    )
    assert_same(ours, theirs)


def test_lanes_give_the_same_batches_for_every_number_of_workers(splits: dict[str, Split]) -> None:
    augment = InceptionCrop(flip=True, color="pca")
    pipeline = open_split(splits["records"], augment, batch_size=8, lanes=4)
    whole = read(pipeline, 6)
    assert [len(labels) for _, labels in whole] == [8, 8, 7] * 2
    epochs = [np.concatenate([y for _, y in whole[i : i + 3]]) for i in (0, 3)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
    # The lanes: records in the order of the shuffled files, cut into equal parts.
    order = shuffle_indices(np.arange(5), 5, make_key(SEED, ORDER, 0)).numpy()
    records = np.concatenate([np.arange(COUNT)[sum(SHARDS[:i]) :][: SHARDS[i]] for i in order])
    for lane in range(4):
        cuts = [slice(lane * n // 4, (lane + 1) * n // 4) for n in (8, 8, 7, COUNT)]
        rows = np.concatenate([whole[t][1][cuts[t]] for t in range(3)])
        assert sorted(rows) == sorted(records[cuts[3]])
    check(pipeline, whole, (4, 1, 1))
    check(pipeline, whole, (2, 2, 1), start=4)
    assert_same(read(pipeline, 2, 4), whole[4:])


def test_a_replica_without_a_row_of_the_last_batch_repeats_one(splits: dict[str, Split]) -> None:
    pipeline = open_split(splits["records"], CROPS[0], batch_size=4, lanes=2)
    whole = read(pipeline, 6)
    assert len(whole[-1][1]) == 3
    check(pipeline, whole, (2, 2, 1), start=4)


@pytest.mark.parametrize(
    ("kind", "size", "lanes", "part", "message"),
    [
        ("records", 9, 2, Part(), "data.lanes: 2 is invalid; expected a divisor of .* = 9"),
        ("records", 8, 1, Part(0, 2), "data.lanes: 1 is invalid; expected a multiple .*lanes=2"),
        (
            "records",
            8,
            4,
            Part(2, 3),
            "data.lanes: 4 is invalid; expected a multiple .* workers, 3",
        ),
        ("records", 8, 2, Part(0, 2, 1, 3), "train.accumulate: 3 is invalid; expected 1"),
        ("records", 22, 2, Part(0, 2), "train.batch_size: 22 is invalid; .* has 1 images for 2"),
        ("files", 8, 2, Part(), "data.lanes: 2 is invalid for numbered; expected 1, because"),
    ],
)
def test_lanes_that_do_not_fit_are_rejected_in_one_line(
    splits: dict[str, Split], kind: str, size: int, lanes: int, part: Part, message: str
) -> None:
    pipeline = open_split(splits[kind], NoCrop(), batch_size=size, lanes=lanes)
    with pytest.raises(ReszooError, match=message) as caught:
        pipeline.train(0, part)
    assert "\n" not in str(caught.value)


class Photos(tfds.core.GeneratorBasedBuilder):
    """Each photo ten times, in 100 TFRecord files, as ImageNet is prepared; a label of its own."""

    VERSION = tfds.core.Version("1.0.0")
    contents: list[bytes]
    skip_registration = True

    def _info(self) -> Any:
        label = tfds.features.ClassLabel(num_classes=10 * len(self.contents))
        features = {"image": tfds.features.Image(encoding_format="jpeg"), "label": label}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager: Any) -> Any:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Any:
        for i in range(10 * len(self.contents)):
            yield i, {"image": io.BytesIO(self.contents[i // 10]), "label": i}


@pytest.mark.slow
@pytest.mark.shared
def test_a_stream_of_100_shards_is_read_once_per_epoch_over_all_workers(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(shared_data / "photos-100.tar") as archive:
        files = [archive.extractfile(each) for each in archive if each.isfile()]
        Photos.contents = [file.read() for file in files if file]
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(num_shards=100)
    Photos(data_dir=str(tmp_path)).download_and_prepare(download_config=config)
    shards = [path.stat().st_size for path in tmp_path.glob("photos/*/*train.tfrecord*")]
    assert len(shards) == 100
    data = DataConfig(
        name="photos", dir=str(tmp_path), image_size=(32, 32), normalize="unit", lanes=8
    )
    pipeline = open_dataset(data, InceptionCrop(flip=True), batch_size=64, seed=0)
    steps, count = pipeline.steps_per_epoch, pipeline.info.examples["train"]
    assert count == 8 * len(Photos.contents), "a fifth is the test split"
    monkeypatch.setattr(stream_batches, "FOREVER", 1)  # the stream ends with the first epoch
    size = sum(shards) * 4 / 5

    def measure(part: Part, start: int = 0) -> tuple[Batches, int]:
        """Return the rest of the epoch and how many bytes this process read for it."""
        counter = Path("/proc/self/io")
        before = int(counter.read_text().split()[1])  # rchar
        own = list(pipeline.train(start, part).as_numpy_iterator())
        return own, int(counter.read_text().split()[1]) - before

    whole, read_alone = measure(Part())
    seen = [int(label) for _, labels in whole for label in labels]
    assert len(seen) == len({*seen}) == count
    for workers in (2, 4):
        parts = [measure(Part(worker, workers)) for worker in range(workers)]
        for step in range(steps):
            rows = [own[step] for own, _ in parts]
            joined = tuple(np.concatenate(each) for each in zip(*rows, strict=True))
            assert_same([joined], [whole[step]])
        assert all(bytes_read < 1.1 * size / workers for _, bytes_read in parts)
        assert 0.95 * size < sum(bytes_read for _, bytes_read in parts) < 1.05 * size
    resumed, bytes_read = measure(Part(1, 4), steps - 2)
    assert_same(resumed, parts[1][0][steps - 2 :])
    assert bytes_read < 1.1 * size / 4, "only the worker's own records are skipped"
    assert read_alone < 1.05 * size
