"""Sets of TensorFlow Datasets: small ones read into memory, large ones streamed from their TFRecord files."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from reszoo.data.decode import decode_file
from reszoo.data.folder import TEST_SHARE
from reszoo.data.parts import Arrays, ImageSet, Part, Records, fits_memory
from reszoo.data.preprocessing import Preprocessing
from reszoo.data.splits import rest
from reszoo.data.statistics import plain
from reszoo.errors import ReszooError, did_you_mean

# A name, and one with a configuration: `mnist`, `imagenette/320px-v2`.
NAME = r"\w+(/[\w.-]+)?"

VALIDATION_NAMES = ("validation", "val", "valid", "dev")


@dataclass(frozen=True)
class Source:
    """A prepared builder and the two features that matter."""

    builder: Any
    image: str
    label: str

    @property
    def decoders(self) -> dict[str, Any]:
        """Leave images as the bytes of their files."""
        return {self.image: tfds.decode.SkipDecoding()}

    def count(self, split: str) -> int:
        """The number of examples of a split."""
        return int(self.builder.info.splits[split].num_examples)

    def stored(self, split: str) -> Any:
        """The examples of a split as dicts, images undecoded, in the order of the files."""
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        return self.builder.as_dataset(split=split, decoders=self.decoders, read_config=config)


def find_builder(name: str, home: Path) -> Any:
    """Return TensorFlow Datasets' builder of set `name` over the folder `home`; raise `ReszooError` where it knows none."""
    if ":" in name:
        kind = name.split(":")[0]
        raise ReszooError(
            f"data.name = {name!r}: no kind of set {kind!r}{did_you_mean(kind, ['folder'])}; give 'folder:PATH'"
        )
    if not re.fullmatch(NAME, name):
        raise ReszooError(f"data.name: no dataset {name!r}{_suggest_name(name)}")
    with quiet():
        try:
            return tfds.builder(name, data_dir=str(home))
        except tfds.core.DatasetNotFoundError:
            raise ReszooError(f"data.name: no dataset {name!r}{_suggest_name(name)}") from None
        except (ValueError, AssertionError, ImportError, OSError) as error:
            hint = _suggest_name(name) if os.path.isdir(name) else ""
            raise ReszooError(f"data.name = {name!r}: {first_line(error)}{hint}") from error


def _suggest_name(name: str) -> str:
    """Return how to end a message about a dataset that is not known: the folder or the dataset that was probably meant."""
    if os.path.isdir(os.path.expanduser(name)):
        return f"; there is a folder of that name. Example: folder:{name}"

    def plain_form(text: str) -> str:
        return re.sub("[^a-z0-9]", "", text.lower())

    options = [
        *KNOWN,
        *(one for one in tfds.list_builders(with_community_datasets=False) if one not in KNOWN),
    ]
    alike = [option for option in options if plain_form(option) == plain_form(name)]
    return (
        f"; did you mean {alike[0]!r}?"
        if alike
        else did_you_mean(name, options) or "; give 'folder:PATH' for a folder"
    )


def open_source(name: str, home: Path) -> Source:
    """Return set `name` as prepared in `home`; raise `ReszooError` if it is not, or holds no labelled images."""
    builder = find_builder(name, home)
    with quiet():
        if not builder.is_prepared():
            place = () if home == data_home() else ("--dir", home)
            raise ReszooError(
                f"{name} is not in {home}; prepare it with: {format_command('data', 'prepare', name, *place)}"
            )
        features = builder.info.features
    images = [key for key, kind in features.items() if isinstance(kind, tfds.features.Image)]
    labels = [key for key, kind in features.items() if isinstance(kind, tfds.features.ClassLabel)]
    pair: tuple[Any, ...] = builder.info.supervised_keys or ()
    if len(pair) == 2 and pair[0] in images and pair[1] in labels:
        return Source(builder, pair[0], pair[1])
    if len(images) == 1 and len(labels) == 1:
        return Source(builder, images[0], labels[0])
    raise ReszooError(
        f"{name} is no image-classification set: its features are {', '.join(features)}"
    )


def load_tfds(data: DataConfig, whole: bool) -> tuple[ImageSet, Preprocessing]:
    """Load a prepared set: into memory where it fits, else as records to stream; with preprocessing that only sizes.

    whole: crops are to be taken of whole images, so images in memory keep their own size.
    A set without a labelled test split gives its validation split to testing, or if it has none its last fifth.
    """
    source = open_source(data.name, data_home(data.dir))
    splits = _roles(source, data.name)
    kind = source.builder.info.features[source.image]
    height, width, channels = kind.shape
    if kind.np_dtype != np.uint8:
        raise ReszooError(
            f"{data.name}: its images are {np.dtype(kind.np_dtype).name}; only 8-bit images can be read"
        )
    size = data.image_size or ((height, width) if height and width else None)
    if size is None:
        raise ReszooError(
            f"{data.name}'s images vary in size; set data.image_size, e.g. data.image_size=[224, 224]"
        )
    preprocessing = plain(size, data.channels or (1 if channels == 1 else 3), data)
    kept = (height, width, preprocessing.channels) if whole else preprocessing.input_shape
    parts: dict[str, Part] = {}
    if None not in kept and fits_memory((source.count(split) for split in splits.values()), kept):
        order = KNOWN[data.name].order if data.name in KNOWN else ""
        for role, split in splits.items():
            parts[role] = _read(source, split, kept, _decoder(preprocessing, whole), order)
    else:
        parts = {role: _records(source, split, data.name) for role, split in splits.items()}
    if "test" not in parts:
        train = parts["train"]
        last = np.arange(train.count - train.count // TEST_SHARE, train.count)
        parts["train"], parts["test"] = train.take(rest(train.count, last)), train.take(last)
    names = source.builder.info.features[source.label].names
    return ImageSet(
        data.name, tuple(names), parts, fingerprint=_fingerprint(source.builder, splits)
    ), preprocessing


def _fingerprint(builder: Any, splits: dict[str, str]) -> fingerprint.Fingerprint:
    """Return what identifies a prepared set: name, configuration, version, and the examples of each file."""
    config = builder.builder_config.name if builder.builder_config else ""
    about = (builder.name, config, str(builder.version))
    lengths = {role: builder.info.splits[split].shard_lengths for role, split in splits.items()}
    return fingerprint.of_versions(
        {role: (*about, splits[role], *map(int, lengths[role])) for role in splits}
    )


def _roles(source: Source, name: str) -> dict[str, str]:
    """Which split is the training, validation and test part; a split without labels (-1, as ImageNet's test) is none."""
    have = list(source.builder.info.splits)
    if "train" not in have:
        raise ReszooError(f"{name} has no 'train' split; it has {', '.join(have)}")
    roles = {"train": "train"}
    for role, options in (("validation", VALIDATION_NAMES), ("test", ("test",))):
        for split in options:
            if split in have and all(
                int(e[source.label]) >= 0 for e in source.stored(split).take(1)
            ):
                roles.setdefault(role, split)
    if "validation" in roles and "test" not in roles:
        roles["test"] = roles.pop("validation")
    return roles


def _decoder(preprocessing: Preprocessing, whole: bool) -> Callable[[Any], Any]:
    if whole:
        return lambda contents: decode_file(contents, preprocessing.channels)
    return lambda contents: preprocessing.to_input(decode_file(contents, preprocessing.channels))


def _read(
    source: Source,
    split: str,
    shape: tuple[int, int, int],
    decoder: Callable[[Any], Any],
    order: str,
) -> Arrays:
    """Read a split into memory, in the order of its files, or of the original archive where a feature tells it."""
    images = np.empty((source.count(split), *shape), np.uint8)
    labels = np.empty(len(images), np.int32)
    places: list[bytes] = []
    done = 0

    def example(record: Any) -> tuple[Any, Any, Any]:
        return decoder(record[source.image]), record[source.label], record[order] if order else ""

    batches = (
        source.stored(split)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(256)
        .prefetch(2)
    )
    for image, label, place in batches.as_numpy_iterator():
        images[done : done + len(label)], labels[done : done + len(label)] = image, label
        places += list(place)
        done += len(label)
    if not order:
        return Arrays(images, labels)
    by_place = np.argsort(np.array(places), kind="stable")
    return Arrays(images[by_place], labels[by_place])


def _records(source: Source, split: str, name: str) -> Records:
    info = source.builder.info
    if info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ReszooError(
            f"{name} is stored as {info.file_format.value}; only TFRecord files can be streamed"
        )
    files = info.splits[split].file_instructions

    def parse(record: Any) -> tuple[Any, Any]:
        example = info.features.deserialize_example(record, decoders=source.decoders)
        return example[source.image], tf.cast(example[source.label], tf.int32)

    return Records(
        files=tuple(str(file.filename) for file in files),
        skips=tuple(int(file.skip) for file in files),
        takes=tuple(int(file.examples_in_shard) for file in files),
        parse=parse,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep TensorFlow Datasets' remarks about its own folders off the terminal."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """An error of another library as one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
