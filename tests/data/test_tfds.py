"""TensorFlow Datasets sets: in memory, streamed from TFRecord files, prepared from archives. No network."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from reszoo.config.data import AugmentConfig, DataConfig, InceptionCrop, NoCrop
from reszoo.data import prepare as preparing
from reszoo.data import tfds as sets
from reszoo.data.parts import Arrays, Records
from reszoo.data.pipeline import Pipeline, open_dataset
from reszoo.errors import ReszooError

INCEPTION = InceptionCrop(flip=True)
Photo = Callable[..., np.ndarray]


class Tiny(tfds.core.GeneratorBasedBuilder):
    """Photographs of many sizes, each with its number, in several TFRecord files; an unlabelled test split as ImageNet's."""

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


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, photo: Photo) -> Path:
    """A folder that holds the prepared set `tiny`, its training part in five files, and `small`, of one size."""
    path = tmp_path_factory.mktemp("tfds")
    Tiny.photo = staticmethod(photo)  # type: ignore[assignment]
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(num_shards=5)
    Tiny(data_dir=str(path)).download_and_prepare(download_config=config)
    for name, shape, parts in (
        ("small", (6, 7, 1), ["train"]),
        ("cifar10", (32, 32, 3), ["train", "test"]),
    ):
        split = {
            "image": np.random.default_rng(0).integers(0, 256, (30, *shape), dtype=np.uint8),
            "label": np.arange(30) % 3,
            "id": [f"train_{(i * 7) % 30:05d}" for i in range(30)],
        }
        features = {
            "image": tfds.features.Image(shape=shape),
            "label": tfds.features.ClassLabel(num_classes=3),
            "id": tfds.features.Text(),
        }
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="3.0.2",
            features=tfds.features.FeaturesDict(features),
            split_datasets={part: tf.data.Dataset.from_tensor_slices(split) for part in parts},
            data_dir=str(path),
        )
    return path


def open_set(
    home: Path,
    name: str = "tiny",
    augment: AugmentConfig = INCEPTION,
    batch_size: int = 8,
    **fields: Any,
) -> Pipeline:
    fields = {"normalize": "channel", "image_size": (16, 16), **fields}
    return open_dataset(
        DataConfig(name=name, dir=str(home), **fields), augment, batch_size=batch_size, seed=1
    )


def numbers(pipeline: Pipeline, split: str, key: Any = None) -> list[int]:
    """The numbers of a streamed part's examples, in the order they come."""
    part = pipeline._images.parts[split]
    assert isinstance(part, Records)
    builder = sets.find_builder("tiny", Path(pipeline_home(part)))
    parse = builder.info.features.deserialize_example
    decoders = {"image": tfds.decode.SkipDecoding()}
    return [int(parse(record, decoders=decoders)["number"]) for record in part.elements(key)]


def pipeline_home(part: Records) -> Path:
    return Path(part.files[0]).parents[2]


def test_streamed_parts_hold_every_example_once(home: Path) -> None:
    pipeline = open_set(home, validation=13)
    # The unlabelled test split is left alone; the set's validation split is the test part.
    assert pipeline.info.examples == {"train": 37, "validation": 13, "test": 9}
    assert pipeline.info.class_names == ("cat", "ant")
    assert len(pipeline._images.parts["train"].files) < 5  # type: ignore[attr-defined]
    train, held = numbers(pipeline, "train"), numbers(pipeline, "validation")
    assert sorted(train + held) == list(range(50))
    # The held-out part is the end of the set in its files' order.
    assert train + held == numbers(open_set(home), "train")
    assert sorted(numbers(pipeline, "test")) == list(range(9))
    assert sum(len(y) for _, y in pipeline.evaluation("test")) == 9
    assert sum(len(y) for _, y in pipeline.evaluation("validation")) == 13


def test_a_few_training_examples_are_the_first(home: Path) -> None:
    pipeline = open_set(home, validation=13, examples=12)
    assert numbers(pipeline, "train") == numbers(open_set(home), "train")[:12]


def test_streamed_epochs_are_permutations_named_by_their_key(home: Path) -> None:
    from reszoo.data.keys import make_key

    pipeline = open_set(home)
    orders = [
        numbers(pipeline, "train", make_key(*key)) for key in ((1, 0), (1, 1), (2, 0), (1, 0))
    ]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] == orders[3]
    assert (
        orders[0] != orders[1]
        and orders[0] != orders[2]
        and orders[0] != numbers(pipeline, "train")
    )


def test_one_file_is_shuffled_too(home: Path) -> None:
    from reszoo.data.keys import make_key

    pipeline = open_set(home, examples=9)
    assert len(pipeline._images.parts["train"].files) == 1  # type: ignore[attr-defined]
    orders = [numbers(pipeline, "train", make_key(1, epoch)) for epoch in range(3)]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(numbers(pipeline, "train"))
    assert len({tuple(order) for order in orders}) == 3


def test_streaming_goes_on_where_it_stopped(home: Path) -> None:
    pipeline, again = open_set(home), open_set(home)
    assert pipeline.steps_per_epoch == 7
    whole = [(x.numpy(), y.numpy()) for x, y in pipeline.train().take(16)]
    assert [len(y) for _, y in whole[:7]] == [8, 8, 8, 8, 8, 8, 2]
    assert not np.array_equal(whole[0][0], whole[7][0])
    for start in (2, 7, 15):
        for (x, y), (u, v) in zip(whole[start:], again.train(start).take(16 - start), strict=True):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)


def test_a_stream_does_not_depend_on_tensorflows_global_seed(home: Path) -> None:
    """Training sets the global seed to the recipe's, which may be 0; the order is the pipeline's own affair."""
    streams = []
    for seed in (0, 1, 0):
        tf.random.set_seed(seed)
        streams.append(
            np.concatenate([labels.numpy() for _, labels in open_set(home).train().take(14)])
        )
    np.testing.assert_array_equal(streams[0], streams[1])
    np.testing.assert_array_equal(streams[0], streams[2])


def test_memory_and_stream_agree_in_evaluation(home: Path) -> None:
    crop = open_set(home, augment=NoCrop(), normalize="unit")
    assert isinstance(crop._images.parts["test"], Arrays)
    streamed = open_set(home, normalize="unit")
    for (x, y), (u, v) in zip(crop.evaluation("test"), streamed.evaluation("test"), strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


def test_a_set_with_a_training_split_alone_gives_a_fifth_to_testing(home: Path) -> None:
    pipeline = open_set(home, "small", NoCrop(), image_size=None, validation=4)
    assert pipeline.info.examples == {"train": 20, "validation": 4, "test": 6}
    assert pipeline.info.input_shape == (6, 7, 1)
    assert pipeline.info.class_names == ("0", "1", "2")


def test_cifar_is_read_in_the_archives_order(home: Path) -> None:
    pipeline = open_set(home, "cifar10", NoCrop(), image_size=None, normalize="unit", validation=5)
    assert pipeline.info.examples == {"train": 25, "validation": 5, "test": 30}
    source = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    order = np.argsort([(i * 7) % 30 for i in range(30)])
    parts: dict[str, Any] = pipeline._images.parts
    np.testing.assert_array_equal(parts["train"].images, source[order][:25])
    np.testing.assert_array_equal(parts["validation"].images, source[order][25:])
    np.testing.assert_array_equal(parts["validation"].labels, order[25:] % 3)


def test_whole_images_in_memory_are_cropped_one_by_one(home: Path) -> None:
    pipeline = open_set(home, "small", INCEPTION, channels=3)
    assert pipeline._images.parts["train"].images.shape == (24, 6, 7, 3)  # type: ignore[attr-defined]
    images, _ = next(iter(pipeline.train()))
    assert images.shape == (8, 16, 16, 3)


def test_a_damaged_record_is_one_line(home: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(home, tmp_path / "copy")
    file = sorted(copy.glob("tiny/1.0.0/*train*"))[2]
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    file.write_bytes(damaged)
    pipeline = open_set(copy)
    with pytest.raises(Exception) as caught:
        list(pipeline.train().take(pipeline.steps_per_epoch))
    told = pipeline.explain(caught.value)
    assert (
        str(told) == "a record of tiny is damaged; remove the prepared dataset and prepare it again"
    )


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("cifr10", {}, "data.name: no dataset 'cifr10'; did you mean 'cifar10'"),
        ("digit", {}, "did you mean 'digits'"),
        ("fodler:/x", {}, "no kind of set 'fodler'; did you mean 'folder'?"),
        ("mnist", {}, "; prepare it with: reszoo data prepare mnist --dir "),
        ("tiny", {"image_size": None}, "tiny's images vary in size; set data.image_size"),
        ("tiny", {"normalize": "pixel_mean"}, "use data.normalize='channel'"),
        ("tiny", {"validation": 50}, "leaves none of tiny's 50 training examples"),
        ("tiny", {"examples": 51}, "data.examples = 51 is more than tiny's 50"),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    home: Path, name: str, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ReszooError) as caught:
        open_set(home, name, **fields)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_name_leads_to_the_dataset_or_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets" / "cats").mkdir(parents=True)
    for name, said in (
        ("cifar-10", "data.name: no dataset 'cifar-10'; did you mean 'cifar10'?"),
        ("CIFAR_10", "did you mean 'cifar10'?"),
        ("Fashion-MNIST", "did you mean 'fashion_mnist'?"),
        ("ImageNet-2012", "did you mean 'imagenet2012'?"),
        ("cifar1", "did you mean 'cifar10'"),
        (
            "pets",
            "data.name: no dataset 'pets'; there is a folder of that name. Example: folder:pets",
        ),
        ("./pets", "Example: folder:./pets"),
        ("pets/cats", "Example: folder:pets/cats"),
        (str(tmp_path), f"Example: folder:{tmp_path}"),
        ("/nowhere", "give 'folder:PATH' for a folder"),
        ("a b?", "give 'folder:PATH' for a folder"),
    ):
        with pytest.raises(ReszooError) as caught:
            preparing.prepare(name, data_dir=tmp_path / "none")
        assert said in str(caught.value) and "\n" not in str(caught.value)
        with pytest.raises(ReszooError) as again:
            open_set(tmp_path, name)
        assert str(again.value) == str(caught.value)


def test_no_image_set(tmp_path: Path) -> None:
    import tensorflow as tf

    tfds.dataset_builders.store_as_tfds_dataset(
        name="words",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
        split_datasets={"train": tf.data.Dataset.from_tensor_slices({"text": ["a", "b"]})},
        data_dir=str(tmp_path),
    )
    with pytest.raises(
        ReszooError, match="words is no image-classification set: its features are text"
    ):
        open_set(tmp_path, "words")


def test_absent_and_offline_names_the_file_its_size_and_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(preparing.urllib.request, "urlopen", offline)
    with pytest.raises(ReszooError) as caught:
        preparing.prepare("cifar10", data_dir=tmp_path)
    assert str(caught.value) == (
        "cifar10 is absent and cannot be downloaded (no route to host); put cifar-10-binary.tar.gz "
        f"(170,052,171 bytes, 162.2 MiB) in a folder DIR and run: reszoo data prepare cifar10 --from DIR --dir {tmp_path}"
    )
    assert list(tmp_path.iterdir()) == []


def test_sets_that_need_an_account_name_their_archives(tmp_path: Path) -> None:
    with pytest.raises(ReszooError) as caught:
        preparing.prepare("imagenet2012", data_dir=tmp_path)
    assert (
        "ILSVRC2012_img_train.tar (147,897,477,120 bytes, 137.7 GiB), ILSVRC2012_img_val.tar"
        in str(caught.value)
    )
    assert "\n" not in str(caught.value)


def test_archives_missing_cut_or_foreign(tmp_path: Path) -> None:
    home, archives = tmp_path / "home", tmp_path / "archives"
    with pytest.raises(ReszooError, match=r"--from: no folder .*; put cifar-10-binary.tar.gz"):
        preparing.prepare("cifar10", from_dir=archives, data_dir=home)
    archives.mkdir()
    with pytest.raises(ReszooError, match=r"archives lacks cifar-10-binary.tar.gz; put"):
        preparing.prepare("cifar10", from_dir=archives, data_dir=home)
    (archives / "cifar-10-binary.tar.gz").write_bytes(b"cut")
    with pytest.raises(ReszooError, match=r"has 3 bytes where 170,052,171 are expected"):
        preparing.prepare("cifar10", from_dir=archives, data_dir=home)
    infos = sets.find_builder("mnist", home).url_infos
    for url, info in infos.items():
        with open(archives / url.rsplit("/", 1)[-1], "wb") as file:
            file.truncate(int(info.size))
    with pytest.raises(
        ReszooError, match=r"mnist: a file is not the one expected, its sha256 differs"
    ) as caught:
        preparing.prepare("mnist", from_dir=archives, data_dir=home)
    assert "\n" not in str(caught.value)
    with pytest.raises(ReszooError, match="mnist is not in"):
        sets.open_source("mnist", home)


def test_embedded_sets_and_folders_need_no_preparing(tmp_path: Path, photo: Photo) -> None:
    from PIL import Image

    assert "always there" in preparing.prepare("digits")
    for i in range(12):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(photo(8, 8, seed=i)).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    assert preparing.prepare(f"folder:{tmp_path}").splitlines() == [
        f"folder:{tmp_path} is sound: 2 classes, 10 train, 2 test".removeprefix("folder:"),
        "height x width: 8x8",
        "train images per class: a 5, b 5",
        "test images per class: a 1, b 1",
    ]
    bad = bytearray((tmp_path / "a" / "4.png").read_bytes())
    bad[45:80] = bytes(35)
    (tmp_path / "a" / "4.png").write_bytes(bad)
    with pytest.raises(ReszooError, match=r"1 of 12 images cannot be decoded: .*4\.png"):
        preparing.prepare(f"folder:{tmp_path}")


@pytest.mark.shared
@pytest.mark.slow
def test_fashion_mnist_from_its_archives(shared_data: Path, tmp_path: Path) -> None:
    # The copies at hand lack the original gzip header (name and time); with it they are the original files to the bit.
    for file in (shared_data / "fashion-mnist").glob("*.gz"):
        time = 1504176606 if file.name.startswith("train") else 1504176627
        header = (
            b"\x1f\x8b\x08\x08" + struct.pack("<I", time) + b"\x00\x03" + file.stem.encode() + b"\0"
        )
        (tmp_path / file.name).write_bytes(header + file.read_bytes()[10:])
    said = preparing.prepare("fashion_mnist", from_dir=tmp_path, data_dir=tmp_path / "home")
    assert said.endswith(": 60,000 train, 10,000 test")
    assert "is already in" in preparing.prepare("fashion_mnist", data_dir=tmp_path / "home")
    pipeline = open_dataset(
        DataConfig(name="fashion_mnist", dir=str(tmp_path / "home"), validation=5000),
        NoCrop(),
        batch_size=100,
        seed=0,
    )
    assert pipeline.info.examples == {"train": 55000, "validation": 5000, "test": 10000}
    parts: dict[str, Any] = pipeline._images.parts
    assert sum(np.bincount(part.labels) for part in parts.values()).tolist() == [7000] * 10
    assert np.bincount(parts["validation"].labels).min() > 400


def test_a_streamed_set_trains_evaluates_and_goes_on(home: Path, tmp_path: Path) -> None:
    """The whole way an ImageNet recipe goes, with its augmentation and the default seed, in small."""
    from reszoo import Recipe, evaluate
    from reszoo.trainer import train

    data = {
        "name": "tiny",
        "dir": str(home),
        "validation": 10,
        "image_size": [32, 32],
        "resize": 36,
        "normalize": "channel",
    }
    tables = {
        "name": "streamed",
        "model": {"name": "resnet18", "widths": [8, 8, 8, 8], "stem_width": 8},
        "data": data,
        "augment": {"crop": "scale", "scale": [36, 40], "flip": True, "color": "pca"},
        "train": {"steps": 8, "batch_size": 8, "checkpoint_every": 3, "export": False},
        "optimizer": {"name": "sgd", "weight_decay": 1e-4},
        "schedule": {"kind": "plateau", "rate": 0.1, "patience": 2},
    }
    result = train(Recipe(**tables), run_dir=tmp_path / "run", quiet=True)
    assert result.finished and result.run.meta["data"]["examples"] == {
        "train": 40,
        "validation": 10,
        "test": 9,
    }
    assert [row["step"] for row in result.run.history] == [5, 8]
    assert evaluate(result.run, out=tmp_path).top1 == result.test.top1  # type: ignore[union-attr]
