"""Logical CPU devices stand in for GPUs; one strategy over two of them serves nearly the whole session."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import reszoo  # noqa: F401  (sets what TensorFlow reads when it loads)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# The same examples on every machine, so that a change fails or passes everywhere alike. The nightly
# workflow sets RESZOO_FUZZ=1 to try new ones.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.register_profile("fuzz", deadline=None)
settings.load_profile("fuzz" if os.environ.get("RESZOO_FUZZ") else "repeatable")


@pytest.fixture(scope="session", autouse=True)
def two_devices() -> None:
    """Divide the CPU into three devices, of which all tests but those of three replicas use two."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)


@pytest.fixture(scope="session")
def strategy(two_devices: None) -> object:
    """A MirroredStrategy over both devices: the one the command line opens for `--devices cpu:2`."""
    from reszoo.training.devices import open_strategy

    return open_strategy("cpu:2")


@pytest.fixture(autouse=True)
def default_policy() -> Iterator[None]:
    """Put Keras' dtype policy back after each test that used Keras."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside a developer's checkout, or a skip."""
    root = Path(os.environ.get("RESZOO_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root} (set RESZOO_TEST_DATA)")
    return root


@pytest.fixture(scope="session")
def digits_run(two_devices: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a linear model on the digits; tests must not write to it.

    Inputs are [8, 8, 1] with a mean image; there are 10 classes, 150 validation and 360 test images.
    """
    import keras

    from reszoo.config.load import load_recipe
    from reszoo.trainer import Trainer

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten(data_format="channels_last")(inputs)
    logits = keras.layers.Dense(10, name="head_dense")(x)
    overrides = {"train.epochs": 2, "train.export": False, "schedule.warmup": 0}
    folder = tmp_path_factory.mktemp("runs") / "digits"
    trainer = Trainer.prepare(
        load_recipe("quickstart", overrides),
        run_dir=folder,
        devices="cpu",
        quiet=True,
        model=keras.Model(inputs, logits, name="linear"),
    )
    assert trainer.fit()
    trainer.finish()
    return folder


@dataclass(frozen=True)
class Exported:
    """An exported SavedModel, the Keras model that it comes from, and the images that it was compared on."""

    out: Path
    model: Any
    preprocessing: Any
    class_names: tuple[str, ...]
    sample: Any
    report: Any


@pytest.fixture(scope="session")
def exported(two_devices: None, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export a model of 12 x 10 inputs once, for all tests that need a SavedModel.

    Its logits depend on the mean color of each quadrant, so that a turned, mirrored or recolored image
    has other probabilities. It has a batch norm that can be folded, and class names of all kinds.
    """
    import keras
    import numpy as np
    from PIL import Image

    from reszoo.exporting.export import export_model
    from reszoo.exporting.samples import Sample
    from reszoo.images.preprocessing import Preprocessing

    inputs = keras.Input((12, 10, 3))
    x = keras.layers.Conv2D(3, 1, use_bias=False, data_format="channels_last")(inputs)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    x = keras.layers.AveragePooling2D((6, 5), data_format="channels_last")(x)
    model = keras.Model(inputs, keras.layers.Dense(12, dtype="float32")(keras.layers.Flatten()(x)))
    statistics = [[0.9, 1.1, 1.2], [0.1, 0.2, -0.1], [0.2, -0.3, 0.1], [0.8, 1.5, 1.1]]
    weights = [np.eye(3)[None, None], *statistics, 2 * np.eye(12), np.linspace(-0.3, 0.3, 12)]
    model.set_weights([np.array(value, np.float32) for value in weights])
    names = ("cat", "dog", "<b>猫</b>", "a b", "ship", "truck", *"uvwxyz")
    mean, std = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.2, 0.3, 0.25], np.float32)
    preprocessing = Preprocessing((12, 10), 3, 16, mean, std)
    random = np.random.default_rng(4)
    images: list[Any] = [random.integers(0, 256, (30, 31 + n, 3), np.uint8) for n in range(2)]
    file = io.BytesIO()
    Image.fromarray(images[0][:9]).save(file, "PNG")
    sample = Sample([*images, file.getvalue()], np.array([0, 1, 2]), "mine")
    out = tmp_path_factory.mktemp("exported") / "deep" / "small net"
    details = {"name": "small"}
    report = export_model(
        model, out, preprocessing=preprocessing, class_names=names, details=details, check=sample
    )
    return Exported(out, model, preprocessing, names, sample, report)


@pytest.fixture(scope="session")
def photo() -> Callable[..., Any]:
    """A maker of smooth images, uint8 [height, width, 3], which survive resizing and JPEG."""
    import numpy as np
    from PIL import Image

    def make(height: int, width: int, seed: int = 0) -> Any:
        noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))

    return make
