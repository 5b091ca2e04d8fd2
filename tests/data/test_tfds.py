"""Datasets of TensorFlow Datasets: in memory, and streamed from TFRecord files. No network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from reszoo.config.data import AugmentConfig, DataConfig, InceptionCrop, NoCrop
from reszoo.data.dataset import ArraySplit, RecordSplit
from reszoo.data.pipeline import Pipeline, open_dataset
from reszoo.data.preparation import prepare_dataset
from reszoo.data.random_keys import make_key
from reszoo.data.tfds import find_builder
from reszoo.errors import ReszooError

INCEPTION = InceptionCrop(flip=True)
Photo = Callable[..., np.ndarray]


class Tiny(tfds.core.GeneratorBasedBuilder):
    """Photos of many sizes, each with its number; an unlabeled test split as ImageNet's."""

    VERSION = tfds.core.Version("1.0.0")
    sizes = {"train": 50, "validation": 9, "test": 5}
    photo: Photo
    skip_registration = True

    def _info(self) -> Any:
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=["cat", "ant"]),
            "number": tfds.features.Scalar(np.int64),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager: Any) -> Any:
        return {split: self._examples(split) for split in self.sizes}

    def _generate_examples(self) -> Any:
        raise NotImplementedError

    def _examples(self, split: str) -> Any:
        for i in range(self.sizes[split]):
            image = self.photo(24 + i % 5, 30 - i % 7, seed=i)
            yield i, {"image": image, "label": -1 if split == "test" else i % 2, "number": i}


def store(name: str, features: dict[str, Any], examples: Any, home: Path, splits: str) -> None:
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="3.0.2",
        features=tfds.features.FeaturesDict(features),
        split_datasets={
            split: tf.data.Dataset.from_tensor_slices(examples) for split in splits.split()
        },
        data_dir=str(home),
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, photo: Photo) -> Path:
    """Prepared datasets: `tiny`, its training split in five files; `small` and `cifar10`, of one size."""
    path = tmp_path_factory.mktemp("tfds")
    Tiny.photo = staticmethod(photo)  # type: ignore[assignment]
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(num_shards=5)
    Tiny(data_dir=str(path)).download_and_prepare(download_config=config)
    for name, shape, splits in (
        ("small", (6, 7, 1), "train"),
        ("cifar10", (32, 32, 3), "train test"),
    ):
        examples = {
            "image": np.random.default_rng(0).integers(0, 256, (30, *shape), dtype=np.uint8),
            "label": np.arange(30) % 3,
            "id": [f"train_{(i * 7) % 30:05d}" for i in range(30)],
        }
        features = {
            "image": tfds.features.Image(shape=shape),
            "label": tfds.features.ClassLabel(num_classes=3),
            "id": tfds.features.Text(),
        }
        store(name, features, examples, path, splits)
    store("words", {"text": tfds.features.Text()}, {"text": ["a", "b"]}, path, "train")
    return path


def open_set(
    home: Path, name: str = "tiny", augment: AugmentConfig = INCEPTION, **fields: Any
) -> Pipeline:
    fields = {"normalize": "channel", "image_size": (16, 16), **fields}
    data = DataConfig(name=name, dir=str(home), **fields)
    return open_dataset(data, augment, batch_size=8, seed=1)


def numbers(pipeline: Pipeline, name: str, key: Any = None) -> list[int]:
    """The numbers of a streamed split's examples, in the order they come."""
    split = pipeline.dataset.splits[name]
    assert isinstance(split, RecordSplit)
    builder = find_builder("tiny", Path(split.files[0]).parents[2])
    parse = builder.info.features.deserialize_example
    decoders = {"image": tfds.decode.SkipDecoding()}
    records = split.elements() if key is None else split.shuffled(key)
    return [int(parse(record, decoders=decoders)["number"]) for record in records]


def test_streamed_splits_hold_every_example_once(home: Path) -> None:
    pipeline = open_set(home, validation=13)
    # The unlabeled test split is not used; the validation split is for testing.
    assert pipeline.info.examples == {"train": 37, "validation": 13, "test": 9}
    assert pipeline.info.class_names == ("cat", "ant")
    assert len(pipeline.dataset.splits["train"].files) < 5  # type: ignore[attr-defined]
    train, held = numbers(pipeline, "train"), numbers(pipeline, "validation")
    assert sorted(train + held) == list(range(50))
    # The end of the dataset in its files' order is held out, and the first examples are kept.
    assert train + held == numbers(open_set(home), "train")
    assert numbers(open_set(home, validation=13, examples=12), "train") == train[:12]
    assert sorted(numbers(pipeline, "test")) == list(range(9))
    assert sum(len(y) for _, y in pipeline.evaluation("test")) == 9
    assert sum(len(y) for _, y in pipeline.evaluation("validation")) == 13


@pytest.mark.parametrize(("examples", "files"), [(0, 5), (9, 1)])
def test_streamed_epochs_are_permutations_named_by_their_key(
    home: Path, examples: int, files: int
) -> None:
    pipeline = open_set(home, examples=examples)
    assert len(pipeline.dataset.splits["train"].files) == files  # type: ignore[attr-defined]
    stored = numbers(pipeline, "train")
    keys = ((1, 0), (1, 1), (2, 0), (1, 0))
    orders = [numbers(pipeline, "train", make_key(*key)) for key in keys]
    assert all(sorted(order) == sorted(stored) for order in orders)
    assert orders[0] == orders[3]
    assert len({tuple(order) for order in [stored, *orders]}) == 4


def test_streams_resume_and_ignore_tensorflows_global_seed(home: Path) -> None:
    """Training sets the global seed to the recipe's, which may be 0."""
    streams = []
    for seed in (0, 1):
        tf.random.set_seed(seed)
        streams.append(list(open_set(home).train().take(14).as_numpy_iterator()))
    whole = streams[0]
    assert [len(y) for _, y in whole[:7]] == [8, 8, 8, 8, 8, 8, 2]
    assert not np.array_equal(whole[0][0], whole[7][0])
    again = open_set(home)
    streams += [list(again.train(k).take(14 - k).as_numpy_iterator()) for k in (2, 7)]
    for start, rest in zip((0, 2, 7), streams[1:], strict=True):
        for (x, y), (u, v) in zip(whole[start:], rest, strict=True):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)


def test_memory_and_stream_agree_in_evaluation(home: Path) -> None:
    held, streamed = (open_set(home, augment=a, normalize="unit") for a in (NoCrop(), INCEPTION))
    assert isinstance(held.dataset.splits["test"], ArraySplit)
    for (x, y), (u, v) in zip(held.evaluation("test"), streamed.evaluation("test"), strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


def test_a_dataset_with_only_a_training_split_tests_on_a_fifth(home: Path) -> None:
    pipeline = open_set(home, "small", NoCrop(), image_size=None, validation=4)
    assert pipeline.info.examples == {"train": 20, "validation": 4, "test": 6}
    assert pipeline.info.input_shape == (6, 7, 1)
    assert pipeline.info.class_names == ("0", "1", "2")
    # Whole images in memory are cropped one by one.
    pipeline = open_set(home, "small", INCEPTION, channels=3)
    assert pipeline.dataset.splits["train"].images.shape == (24, 6, 7, 3)  # type: ignore[attr-defined]
    images, _ = next(iter(pipeline.train()))
    assert images.shape == (8, 16, 16, 3)


def test_cifar_is_read_in_the_archives_order(home: Path) -> None:
    pipeline = open_set(home, "cifar10", NoCrop(), image_size=None, normalize="unit", validation=5)
    assert pipeline.info.examples == {"train": 25, "validation": 5, "test": 30}
    source = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    order = np.argsort([(i * 7) % 30 for i in range(30)])
    splits: dict[str, Any] = pipeline.dataset.splits
    np.testing.assert_array_equal(splits["train"].images, source[order][:25])
    np.testing.assert_array_equal(splits["validation"].images, source[order][25:])
    np.testing.assert_array_equal(splits["validation"].labels, order[25:] % 3)


def test_a_damaged_record_is_reported_in_one_line(home: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(home / "tiny", tmp_path / "tiny")).parent
    file = sorted(copy.glob("tiny/1.0.0/*train*"))[2]
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    file.write_bytes(damaged)
    pipeline = open_set(copy)
    with pytest.raises(Exception) as caught:
        list(pipeline.train().take(pipeline.steps_per_epoch))
    expected = "tiny: a record is damaged; remove the prepared dataset and prepare it again"
    assert str(pipeline.explain(caught.value)) == expected


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("cifr10", {}, "data.name: no dataset 'cifr10'; did you mean 'cifar10'"),
        ("digit", {}, "did you mean 'digits'"),
        ("fodler:/x", {}, "'fodler:/x' is invalid; did you mean 'folder'?"),
        ("mnist", {}, "; prepare it with: reszoo data prepare mnist --dir "),
        ("words", {}, "not a dataset for image classification; its features are text"),
        ("tiny", {"image_size": None}, "data.image_size: required for tiny"),
        ("tiny", {"normalize": "pixel_mean"}, "data.normalize=channel"),
        ("tiny", {"validation": 50}, "fewer than tiny's 50 training examples"),
        ("tiny", {"examples": 51}, "at most tiny's 50 training examples"),
    ],
)
def test_unreadable_inputs_are_reported_in_one_line(
    home: Path, name: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ReszooError) as caught:
        open_set(home, name, **fields)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar-10", "data.name: no dataset 'cifar-10'; did you mean 'cifar10'?"),
        ("CIFAR_10", "did you mean 'cifar10'?"),
        ("Fashion-MNIST", "did you mean 'fashion_mnist'?"),
        ("ImageNet-2012", "did you mean 'imagenet2012'?"),
        ("pets", "no dataset 'pets'; there is a folder of that name. Example: folder:pets"),
        ("./pets", "Example: folder:./pets"),
        ("pets/cats", "Example: folder:pets/cats"),
        ("/tmp", "Example: folder:/tmp"),
        ("/nowhere", "no dataset '/nowhere'; no folder '/nowhere' either; expected one of them"),
        ("a b?", "no dataset 'a b?'; no folder '"),
    ],
)
def test_a_misspelled_name_leads_to_the_dataset_or_the_folder(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets" / "cats").mkdir(parents=True)
    with pytest.raises(ReszooError) as caught:
        prepare_dataset(name, data_dir=tmp_path / "none")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ReszooError) as again:
        open_set(tmp_path, name)
    assert str(again.value) == str(caught.value)


def test_a_streamed_dataset_trains_evaluates_and_reports(home: Path, tmp_path: Path) -> None:
    """An ImageNet recipe in small, with its augmentation and the default seed."""
    from reszoo import Recipe, evaluate
    from reszoo.trainer import train

    tables = {
        "name": "streamed",
        "model": {"name": "resnet8"},
        "data": {
            "name": "tiny",
            "dir": str(home),
            "validation": 10,
            "image_size": [16, 16],
            "resize": 18,
            "normalize": "channel",
        },
        "augment": {"crop": "scale", "scale": [18, 20], "flip": True, "color": "pca"},
        "train": {"steps": 8, "batch_size": 8, "checkpoint_every": 3, "export": False},
        "optimizer": {"name": "sgd", "weight_decay": 1e-4},
        "schedule": {"kind": "plateau", "rate": 0.1, "patience": 2},
    }
    result = train(Recipe(**tables), run_dir=tmp_path / "run", quiet=True)
    examples = {"train": 40, "validation": 10, "test": 9}
    assert result.finished and result.run.meta["data"]["examples"] == examples
    assert [row["step"] for row in result.run.history] == [5, 8]
    assert evaluate(result.run, out=tmp_path).top1 == result.test.top1  # type: ignore[union-attr]
