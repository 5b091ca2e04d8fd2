"""What the JAX backend trains on: NumPy's draws beside TensorFlow's, Pillow's pictures beside TensorFlow's, batches beside batches."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import reszoo
from reszoo.data import draws, folder, keys, pictures, sets
from reszoo.data.config import AugmentConfig, DataConfig
from reszoo.data.decode import decode_file
from reszoo.data.pipeline import open_pipeline
from reszoo.data.resident import open_resident
from reszoo.data.statistics import plain

Photo = Callable[..., np.ndarray]


@given(
    seed=st.integers(0, 2**63 - 1),
    numbers=st.lists(st.integers(0, 2**62), max_size=3),
    count=st.integers(1, 3000),
)
@example(seed=0, numbers=[], count=1)
@example(seed=2**63 - 1, numbers=[2**62], count=2)
@example(seed=1, numbers=[3], count=65_537)
@example(seed=1, numbers=[3], count=70_000)
@settings(max_examples=50, deadline=None)
def test_draws_are_tensorflows_number_for_number(seed: int, numbers: list[int], count: int) -> None:
    theirs, ours = keys.make_key(seed, *numbers), draws.make_key(seed, *numbers)
    assert tuple(theirs.numpy()) == ours
    np.testing.assert_array_equal(tf.random.stateless_uniform([7, 3], theirs), draws.uniform((7, 3), ours))
    order = keys.shuffled(tf.range(count, dtype=tf.int64), count, theirs)
    np.testing.assert_array_equal(order, draws.permutation(count, ours))


@pytest.mark.parametrize("crop", ["none", "pad"])
@pytest.mark.parametrize("normalize", ["pixel_mean", "channel"])
def test_batches_are_the_pipelines(crop: str, normalize: str) -> None:
    """The same pictures, crops and mirror images, over an epoch's end with its short batch; only rounding differs."""
    pytest.importorskip("jax")
    data = DataConfig(name="synthetic", image_size=(12, 10), validation=30, examples=70, normalize=normalize)
    augment = AugmentConfig(crop=crop, flip=True, **({"pad": 3} if crop == "pad" else {}))
    theirs, ours = (make(data, augment, batch_size=32, seed=5) for make in (open_pipeline, open_resident))
    assert theirs.info == ours.info and theirs.steps_per_epoch == ours.steps_per_epoch == 3
    assert theirs.preprocessing == ours.preprocessing
    seen = 0
    for step, (images, labels) in enumerate(theirs.train(1).take(6), 1):
        batch, classes = ours.batch(step)
        assert batch.dtype == np.float32 and classes.dtype == np.int32
        np.testing.assert_array_equal(labels, classes)
        np.testing.assert_allclose(images, batch, rtol=0, atol=1e-6)
        seen += len(labels)
    assert seen == 2 * 70  # an epoch's end lies between
    for split in ("validation", "test"):
        pairs = zip(theirs.evaluation(split), ours.evaluation(split), strict=True)
        for (images, labels), (batch, classes) in pairs:
            np.testing.assert_array_equal(labels, classes)
            np.testing.assert_allclose(images, batch[: len(classes)], rtol=0, atol=1e-6)


def test_a_dataset_is_freed_with_its_object() -> None:
    pytest.importorskip("jax")
    ours = open_resident(DataConfig(name="synthetic", examples=64), AugmentConfig(), batch_size=32, seed=5)
    ours.batch(0)
    images, _ = ours._on_device("train")
    assert ours._on_device("train")[0] is images  # copied once
    left = [weakref.ref(images), weakref.ref(ours)]
    del images, ours
    gc.collect()
    assert [each() for each in left] == [None, None]


def test_no_method_is_cached_for_the_life_of_the_process() -> None:
    """`functools.cache` on a method keeps every object that the method was called on."""
    root = Path(reszoo.__file__).parent
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.py")))
    cached = re.findall(r"@functools\.(?:lru_)?cache\b.*\n *def (\w+)\((.*?)[,:)]", text)
    assert cached and not [name for name, first in cached if first in ("self", "cls")]


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_pillow_reads_what_tensorflow_reads(tmp_path: Path, photo: Photo) -> None:
    """To the pixel: JPEG and PNG, grey, palette, alpha, 16 bits; neither reads a broken file. Turned ones stay as stored."""
    colour = Image.fromarray(photo(21, 34))
    alpha = colour.copy()
    alpha.putalpha(Image.fromarray(photo(21, 34, seed=1)[..., 0]))
    deep = Image.fromarray((photo(21, 34)[..., 0].astype(np.uint16) << 8) + 77)
    turned = Image.Exif()
    turned[0x0112] = 6
    paths = [
        saved(colour, tmp_path / "colour.jpg", quality=90),
        saved(colour, tmp_path / "turned.jpg", quality=90, exif=turned),
        saved(colour.convert("L"), tmp_path / "grey.jpg"),
        saved(colour, tmp_path / "colour.png"),
        saved(colour.convert("L"), tmp_path / "grey.png"),
        saved(colour.convert("P"), tmp_path / "palette.png"),
        saved(alpha, tmp_path / "alpha.png"),
        saved(alpha.convert("LA"), tmp_path / "grey_alpha.png"),
        saved(deep, tmp_path / "deep.png"),
    ]
    for path in paths:
        theirs = tf.io.read_file(str(path))
        pixels = pictures.read_picture(str(path))
        assert pixels is not None, path.name
        np.testing.assert_array_equal(pixels, decode_file(theirs, 3), err_msg=path.name)
        np.testing.assert_array_equal(pictures.to_channels(pixels, 1), decode_file(theirs, 1), err_msg=path.name)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(paths[0].read_bytes()[:200])
    (tmp_path / "text.png").write_text("no picture")
    assert pictures.read_picture(str(broken)) is None
    assert pictures.read_picture(str(tmp_path / "text.png")) is None
    assert pictures.read_picture(str(tmp_path / "nothing.png")) is None


@pytest.mark.parametrize(
    ("size", "resize", "interpolation", "channels"),
    [
        ((16, 16), 0, "bilinear", 3),
        ((16, 12), 20, "bicubic", 3),
        ((30, 40), 0, "bicubic", 1),
        ((9, 9), 11, "bilinear", 1),
    ],
)
def test_pillow_sizes_as_tensorflow_does(
    size: tuple[int, int], resize: int, interpolation: str, channels: int, photo: Photo
) -> None:
    data = DataConfig(name="digits", image_size=size, resize=resize, interpolation=interpolation, channels=channels)
    preprocessing = plain(size, channels, data)
    for shape in ((21, 34), (34, 21), (16, 16), (50, 50)):
        image = photo(*shape)
        theirs, ours = preprocessing.to_input(image).numpy().astype(int), pictures.to_input(image, preprocessing)
        assert ours.dtype == np.uint8 and ours.shape == preprocessing.input_shape
        # By a level where a half may go either way, which on so few pixels is often.
        assert np.abs(theirs - ours).max() <= 1 and (theirs != ours).mean() < 0.2


def test_a_folder_is_read_alike(tmp_path: Path, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for index in range(6):
            Image.fromarray(photo(14, 15, seed=10 * number + index)).save(tmp_path / name / f"{index}.jpg")
    (tmp_path / "a" / "9.jpg").write_bytes(b"no picture")
    data = DataConfig(name=f"folder:{tmp_path}", on_corrupt="skip", validation=2)
    theirs, _ = sets.load_set(data, AugmentConfig())
    for module in (folder, sets):
        monkeypatch.setattr(module, "on_tensorflow", lambda: False)
    ours, _ = sets.load_set(data, AugmentConfig())
    assert ours.class_names == theirs.class_names and ours.skipped == theirs.skipped != ()
    for role in ("train", "validation", "test"):
        for kind in ("images", "labels"):
            np.testing.assert_array_equal(getattr(ours.parts[role], kind), getattr(theirs.parts[role], kind))
