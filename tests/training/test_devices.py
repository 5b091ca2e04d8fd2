"""The note on a missing GPU; `data.on_device` and `train.jit` do not change numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo import ReszooError
from reszoo.config.recipe import Recipe
from reszoo.data import loading
from reszoo.data.device_pipeline import DevicePipeline
from reszoo.trainer import Trainer, train
from reszoo.training import checkpoint, devices
from reszoo.training.cluster import Hosts

IMAGE = "no GPU found by TensorFlow; computing on the CPU (docker run needs --gpus all)"
DRIVER = "no GPU found by TensorFlow; computing on the CPU (pip install 'reszoo[gpu]' brings CUDA)"


@pytest.mark.parametrize(
    ("image", "driver", "hidden", "gpus", "asked", "expected"),
    [
        ("1", False, None, 0, "auto", IMAGE),
        ("1", True, None, 0, "auto", IMAGE),
        ("0", True, None, 0, "auto", DRIVER),
        (None, True, None, 0, "auto", DRIVER),
        (None, True, "0", 0, "auto", DRIVER),
        ("0", False, None, 0, "auto", ""),
        (None, False, None, 0, "auto", ""),
        ("1", True, None, 1, "auto", ""),
        ("1", True, None, 0, "cpu", ""),
        ("1", True, None, 0, "cpu:2", ""),
        ("1", True, "", 0, "auto", ""),
        (None, True, "-1", 0, "auto", ""),
    ],
)
def test_a_missing_gpu_is_reported_where_one_was_expected(
    image: str | None,
    driver: bool,
    hidden: str | None,
    gpus: int,
    asked: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("RESZOO_EXPECT_GPU", image), ("CUDA_VISIBLE_DEVICES", hidden)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(devices, "DRIVER", tmp_path if driver else tmp_path / "none")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [object()] * gpus)
    assert devices.missing_gpu(asked) == expected


@pytest.mark.parametrize(
    ("gpus", "asked", "expected"),
    [
        (0, "auto", "1 CPU"),
        (0, "cpu:2", "2 CPU"),
        (2, "cpu", "1 CPU"),
        (2, "auto", "2 GPU"),
        (2, "gpu", "2 GPU"),
        (2, "gpu:1", "1 GPU"),
        (2, "gpu:0,0", "1 GPU"),
    ],
)
def test_the_devices_of_a_host_are_counted(
    gpus: int, asked: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [object()] * gpus)
    assert devices.count_devices(asked) == expected


def test_several_hosts_need_one_replica_per_cpu_and_a_new_process(two_devices: None) -> None:
    hosts = Hosts(("127.0.0.1:1", "127.0.0.1:2"), 0)
    tf.constant(0)
    with pytest.raises(ReszooError, match="^devices: cpu:2 is invalid on several hosts; expected"):
        devices.open_strategy("cpu:2", hosts)
    with pytest.raises(ReszooError, match="^hosts: TensorFlow has started without them; expected"):
        devices.open_strategy("cpu", hosts)


def test_training_reports_it_in_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    monkeypatch.setenv("RESZOO_EXPECT_GPU", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    Trainer.prepare(recipe(), run_dir=tmp_path / "run", quiet=True)
    assert IMAGE in (tmp_path / "run" / "train.log").read_text()


# data.on_device and train.jit


def recipe(**tables: dict[str, Any]) -> Recipe:
    base: dict[str, dict[str, Any]] = {
        "model": {"name": "resnet8", "depths": [1], "widths": [8], "stem_width": 8},
        "data": {"name": "digits", "examples": 70, "validation": 30},
        "augment": {"crop": "pad", "pad": 1, "flip": True},
        "train": {"steps": 5, "batch_size": 32, "export": False, "deterministic": True},
        "optimizer": {"weight_decay": 1e-4},
        "schedule": {"kind": "constant", "rate": 0.01},
    }
    return Recipe(name="small", **{key: base[key] | tables.get(key, {}) for key in base})


@dataclass(frozen=True)
class Outcome:
    """The last checkpoint's arrays, the last row of the history and the test scores of a run."""

    arrays: dict[str, np.ndarray]
    row: dict[str, float]
    test: dict[str, Any]


def outcome(
    folder: Path, on: str, parts: tuple[int, ...] = (), **tables: dict[str, Any]
) -> Outcome:
    """Train, stopping at each step of `parts` and resuming in a process of its own."""
    for until in (*parts, 0):
        keras.backend.clear_session()
        trainer = Trainer.prepare(
            recipe(**tables), run_dir=folder, devices=on, resume=folder.exists(), quiet=True
        )
        assert isinstance(trainer.pipeline, DevicePipeline) == trainer.recipe.data.on_device
        assert trainer.fit(until) == (not until)
    found = checkpoint.load(checkpoint.steps(trainer.run.checkpoints)[-1])
    del found.arrays["totals"]
    names = ("step", "rate", "val_loss", "val_accuracy")  # the loss is since the last row
    row = {name: trainer.run.history[-1][name] for name in names}
    return Outcome(found.arrays, row, trainer.finish().to_dict())


@pytest.fixture(scope="module")
def plain(two_devices: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome]:
    """Returns the outcome of the plain run on some devices."""
    return cache(lambda on: outcome(tmp_path_factory.mktemp("plain") / "run", on))


ON = pytest.mark.parametrize("on", ["cpu", pytest.param("cpu:2", marks=pytest.mark.slow)])


@ON
def test_a_run_with_images_on_the_device_is_the_same_to_the_bit_also_resumed(
    on: str, plain: Callable[[str], Outcome], tmp_path: Path
) -> None:
    """Training over a short batch and an epoch's end, validation and test."""
    one, other = plain(on), outcome(tmp_path / "run", on, (2,), data={"on_device": True})
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)
    assert (one.row, one.test) == (other.row, other.test)


@ON
def test_a_compiled_run_has_the_numbers_of_a_plain_one(
    on: str, plain: Callable[[str], Outcome], tmp_path: Path
) -> None:
    one, other = plain(on), outcome(tmp_path / "run", on, train={"jit": True})
    for name, array in one.arrays.items():
        np.testing.assert_allclose(other.arrays[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
    assert one.row == pytest.approx(other.row, rel=1e-5)


def test_images_that_do_not_fit_in_memory_are_rejected_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, index in itertools.product("ab", range(5)):
        path = tmp_path / "images" / name / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = tf.io.encode_png(np.full((12, 12, 3), 20 * index, np.uint8))
        path.write_bytes(image.numpy())
    monkeypatch.setattr(loading, "fits_memory", lambda counts, shape: False)
    data = {"name": f"folder:{tmp_path / 'images'}", "image_size": [8, 8], "normalize": "unit"}
    data |= {"on_device": True, "examples": 0, "validation": 0}
    line = r"^data\.on_device: true is invalid .*Example: --set data\.on_device=false$"
    with pytest.raises(ReszooError, match=line):
        train(recipe(data=data), run_dir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
