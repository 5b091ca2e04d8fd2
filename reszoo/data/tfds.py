"""TensorFlow Datasets: small datasets in memory, large ones streamed from TFRecord files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from reszoo.commands import format_command
from reszoo.config.data import DataConfig
from reszoo.data import fingerprint
from reszoo.data.catalog import KNOWN, data_home
from reszoo.data.dataset import ArraySplit, ImageDataset, RecordSplit, Split, fits_memory
from reszoo.data.folder import TEST_SHARE
from reszoo.data.holdout import complement
from reszoo.data.normalization import unnormalized
from reszoo.errors import ReszooError, did_you_mean
from reszoo.images.decoding import decode_file
from reszoo.images.preprocessing import Preprocessing
from reszoo.loading import quiet_logger
from reszoo.types import JsonObject, Tensor

NAME = r"\w+(/[\w.-]+)?"  # a dataset, perhaps with a configuration: `imagenette/320px-v2`
VALIDATION_NAMES = ("validation", "val", "valid", "dev")


@dataclass(frozen=True)
class Source:
    """A prepared builder, and the names of its image and label features."""

    builder: tfds.core.DatasetBuilder
    image: str
    label: str

    @property
    def decoders(self) -> JsonObject:
        """Decoders that leave images as the bytes of their files."""
        return {self.image: tfds.decode.SkipDecoding()}

    def count(self, split: str) -> int:
        """Return the number of examples of a split."""
        return int(self.builder.info.splits[split].num_examples)

    def read(self, split: str) -> tf.data.Dataset:
        """Return the examples of a split as dicts, images undecoded, in the order of the files."""
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        return self.builder.as_dataset(split=split, decoders=self.decoders, read_config=config)


def find_builder(name: str, home: Path) -> tfds.core.DatasetBuilder:
    """Return TensorFlow Datasets' builder of a dataset. Raises ReszooError for unknown names."""
    if ":" in name:
        kind = name.split(":")[0]
        raise ReszooError(
            f"data.name: {name!r} is invalid{did_you_mean(kind, ['folder'])}; "
            "expected a dataset, or folder:PATH"
        )
    unknown = f"data.name: no dataset {name!r}"
    if not re.fullmatch(NAME, name):
        raise ReszooError(unknown + _suggest_name(name))
    with quiet_logger("absl"):
        try:
            return tfds.builder(name, data_dir=str(home))
        except tfds.core.DatasetNotFoundError:
            raise ReszooError(unknown + _suggest_name(name)) from None
        except (ValueError, AssertionError, ImportError, OSError) as error:
            hint = _suggest_name(name) if os.path.isdir(name) else ""
            raise ReszooError(f"data.name: {name!r}: {first_line(error)}{hint}") from error


def _suggest_name(name: str) -> str:
    """Return the end of a message about an unknown dataset: what was probably meant."""
    if os.path.isdir(os.path.expanduser(name)):
        return f"; there is a folder of that name. Example: folder:{name}"

    def simplify(text: str) -> str:
        return re.sub("[^a-z0-9]", "", text.lower())

    options = list(dict.fromkeys([*KNOWN, *tfds.list_builders(with_community_datasets=False)]))
    for option in options:
        if simplify(option) == simplify(name):
            return f"; did you mean {option!r}?"
    path = os.path.abspath(os.path.expanduser(name))
    return f"{did_you_mean(name, options)}; no folder {path!r} either; expected one of them"


def open_source(name: str, home: Path) -> Source:
    """Return a prepared dataset.

    Raises:
        ReszooError: If it is not prepared or has no labeled images.
    """
    builder = find_builder(name, home)
    with quiet_logger("absl"):
        if not builder.is_prepared():
            place = () if home == data_home() else ("--dir", home)
            command = format_command("data", "prepare", name, *place)
            raise ReszooError(f"{name} is not in {home}; prepare it with: {command}")
        features = builder.info.features
    images = [key for key, kind in features.items() if isinstance(kind, tfds.features.Image)]
    labels = [key for key, kind in features.items() if isinstance(kind, tfds.features.ClassLabel)]
    pair: tuple[Any, ...] = builder.info.supervised_keys or ()
    if len(pair) == 2 and pair[0] in images and pair[1] in labels:
        return Source(builder, pair[0], pair[1])
    if len(images) == 1 and len(labels) == 1:
        return Source(builder, images[0], labels[0])
    raise ReszooError(
        f"{name} is not a dataset for image classification; its features are {', '.join(features)}"
    )


def load_tfds(data: DataConfig, whole: bool) -> tuple[ImageDataset, Preprocessing]:
    """Load a prepared dataset: into memory if it fits, else as records to stream.

    Without a labeled test split, the validation split is for testing; without either, the last
    fifth.

    Args:
        data: Which dataset, and its size.
        whole: Crops are taken of whole images: images in memory keep their own size.

    Returns:
        The dataset, and preprocessing that resizes but does not normalize.

    Raises:
        ReszooError: If the dataset cannot be read.
    """
    source = open_source(data.name, data_home(data.dir))
    names = _find_splits(source, data.name)
    feature = source.builder.info.features[source.image]
    height, width, channels = feature.shape
    if feature.np_dtype != np.uint8:
        raise ReszooError(
            f"{data.name}: images of type {np.dtype(feature.np_dtype).name} are not supported; "
            "expected 8-bit images"
        )
    size = data.image_size or ((height, width) if height and width else None)
    if size is None:
        raise ReszooError(
            f"data.image_size: required for {data.name}, whose images vary in size. "
            "Example: --set data.image_size=[224,224]"
        )
    preprocessing = unnormalized(size, data.channels or (1 if channels == 1 else 3), data)
    kept = (height, width, preprocessing.channels) if whole else preprocessing.input_shape

    def decode(contents: Tensor) -> Tensor:
        image = decode_file(contents, preprocessing.channels)
        return image if whole else preprocessing.to_input(image)

    splits: dict[str, Split] = {}
    identity = _identify(source.builder, names)
    if None not in kept and fits_memory((source.count(name) for name in names.values()), kept):
        order = KNOWN[data.name].order if data.name in KNOWN else ""
        for split, name in names.items():
            splits[split] = _read_arrays(source, name, kept, decode, order)
        if order and kept == feature.shape:  # CIFAR, which is found in other forms too
            arrays = {k: (s.images, s.labels) for k, s in splits.items()}  # type: ignore[attr-defined]
            identity = fingerprint.of_images(arrays)
    else:
        splits = {split: _list_records(source, name, data.name) for split, name in names.items()}
    if "test" not in splits:
        train = splits["train"]
        last = np.arange(train.count - train.count // TEST_SHARE, train.count)
        splits = {
            **splits,
            "train": train.take(complement(train.count, last)),
            "test": train.take(last),
        }
    classes = tuple(source.builder.info.features[source.label].names)
    return ImageDataset(data.name, classes, splits, fingerprint=identity), preprocessing


def _identify(builder: tfds.core.DatasetBuilder, names: dict[str, str]) -> fingerprint.Fingerprint:
    config = builder.builder_config.name if builder.builder_config else ""
    about = (builder.name, config, str(builder.version))
    return fingerprint.of_versions(
        {
            split: (*about, name, *map(int, builder.info.splits[name].shard_lengths))
            for split, name in names.items()
        }
    )


def _find_splits(source: Source, name: str) -> dict[str, str]:
    """Return which stored split is the training, validation and test split.

    A split without labels (-1, as ImageNet's test) is none of them.
    """
    have = list(source.builder.info.splits)
    if "train" not in have:
        raise ReszooError(f"{name} has no 'train' split; it has {', '.join(have)}")
    found = {"train": "train"}
    for split, options in (("validation", VALIDATION_NAMES), ("test", ("test",))):
        for option in options:
            if option in have and all(
                int(example[source.label]) >= 0 for example in source.read(option).take(1)
            ):
                found.setdefault(split, option)
    if "validation" in found and "test" not in found:
        found["test"] = found.pop("validation")
    return found


def _read_arrays(
    source: Source,
    split: str,
    shape: tuple[int, int, int],
    decode: Callable[[Tensor], Tensor],
    order: str,
) -> ArraySplit:
    """Read a split into memory, in the order of its files or of the text feature `order`."""
    images = np.empty((source.count(split), *shape), np.uint8)
    labels = np.empty(len(images), np.int32)
    places: list[bytes] = []

    def load(record: dict[str, Tensor]) -> tuple[Tensor, Tensor, Any]:
        return decode(record[source.image]), record[source.label], record[order] if order else ""

    batches = source.read(split).map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(256)
    for image, label, place in batches.prefetch(2).as_numpy_iterator():
        part = slice(len(places), len(places) + len(label))
        images[part], labels[part] = image, label
        places += list(place)
    if not order:
        return ArraySplit(images, labels)
    return ArraySplit(images, labels).take(np.argsort(np.array(places), kind="stable"))


def _list_records(source: Source, split: str, name: str) -> RecordSplit:
    info = source.builder.info
    if info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ReszooError(
            f"{name} is stored as {info.file_format.value}; only TFRecord files can be streamed"
        )
    files = info.splits[split].file_instructions

    def parse(record: Tensor) -> tuple[Tensor, Tensor]:
        example = info.features.deserialize_example(record, decoders=source.decoders)
        return example[source.image], tf.cast(example[source.label], tf.int32)

    return RecordSplit(
        files=tuple(str(file.filename) for file in files),
        skips=tuple(int(file.skip) for file in files),
        takes=tuple(int(file.examples_in_shard) for file in files),
        parse=parse,
    )


def first_line(error: BaseException) -> str:
    """Return an error of another library as one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
