"""Where a run computes and how: the note on a missing GPU, and that `data.on_device` and `train.jit` change no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo import ReszooError, Run
from reszoo.config.recipe import Recipe
from reszoo.data import loading
from reszoo.data.device_pipeline import DevicePipeline
from reszoo.trainer import Trainer, train
from reszoo.training import checkpoint, devices

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
def test_a_missing_gpu_is_told_where_one_was_to_be_expected(
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


def test_training_tells_it_in_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    monkeypatch.setenv("RESZOO_EXPECT_GPU", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    small = ["train.steps=1", "train.export=false", "data.examples=64", "model.name=resnet8"]
    train("quickstart", overrides=small, run_dir=tmp_path / "run", quiet=True)
    assert IMAGE in (tmp_path / "run" / "train.log").read_text()


# data.on_device and train.jit

TABLES: dict[str, Any] = {
    "name": "small",
    "model": {"name": "resnet8", "depths": [1], "widths": [8], "stem_width": 8},
    "data": {"name": "digits", "examples": 70, "validation": 30},
    "augment": {"crop": "pad", "pad": 1, "flip": True},
    "train": {
        "steps": 5,
        "batch_size": 32,
        "export": False,
        "deterministic": True,
        "checkpoint_every": 2,
    },
    "optimizer": {"weight_decay": 1e-4},
    "schedule": {"kind": "constant", "rate": 0.01},
}


def recipe(**tables: dict[str, Any]) -> Recipe:
    return Recipe(
        **(
            {
                key: {**value, **tables.get(key, {})} if isinstance(value, dict) else value
                for key, value in TABLES.items()
            }
        )
    )


def leaves(
    folder: Path, on: str, **tables: dict[str, Any]
) -> tuple[dict[str, np.ndarray], Any, Any]:
    """Train; return the last checkpoint's arrays, the history and the test scores."""
    keras.backend.clear_session()
    result = train(recipe(**tables), run_dir=folder, devices=on, quiet=True)
    found = checkpoint.load(checkpoint.steps(result.run.checkpoints)[-1])
    assert result.test is not None
    return found.arrays, result.run.history, result.test.to_dict()


@pytest.mark.parametrize("on", ["cpu", "cpu:2"])
def test_a_run_whose_images_stay_on_the_device_is_the_same_to_the_bit(
    on: str, tmp_path: Path, two_devices: None
) -> None:
    """Training over a short batch and an epoch's end, validation and test."""
    plain, resident = (
        leaves(tmp_path / str(stored), on, data={"on_device": stored}) for stored in (False, True)
    )
    assert plain[0].keys() == resident[0].keys()
    for name, array in plain[0].items():
        np.testing.assert_array_equal(array, resident[0][name], err_msg=name)
    assert plain[1:] == resident[1:]


def test_a_run_whose_images_stay_on_the_device_resumes_exactly(
    tmp_path: Path, two_devices: None
) -> None:
    whole, _, _ = leaves(tmp_path / "whole", "cpu", data={"on_device": True})
    keras.backend.clear_session()
    session = Trainer.prepare(
        recipe(data={"on_device": True}), run_dir=tmp_path / "parts", devices="cpu", quiet=True
    )
    assert isinstance(session.pipeline, DevicePipeline)
    assert not session.fit(until=2)
    keras.backend.clear_session()
    train(
        recipe(data={"on_device": True}),
        run_dir=tmp_path / "parts",
        resume=True,
        devices="cpu",
        quiet=True,
    )
    parts = checkpoint.load(checkpoint.steps(Run(tmp_path / "parts").checkpoints)[-1]).arrays
    for name, array in whole.items():
        if name != "totals":
            np.testing.assert_array_equal(array, parts[name], err_msg=name)


def test_images_that_do_not_fit_in_memory_are_rejected_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(5):
            png = tf.io.encode_png(np.full((12, 12, 3), 20 * index, np.uint8)).numpy()
            (tmp_path / "images" / name / f"{index}.png").write_bytes(png)
    monkeypatch.setattr(loading, "fits_memory", lambda counts, shape: False)
    data = {
        "name": f"folder:{tmp_path / 'images'}",
        "image_size": [8, 8],
        "normalize": "unit",
        "on_device": True,
    }
    data |= {"examples": 0, "validation": 0}
    with pytest.raises(
        ReszooError,
        match=r"^data\.on_device: true is invalid .*Example: --set data\.on_device=false$",
    ):
        train(recipe(data=data), run_dir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("on", ["cpu", pytest.param("cpu:2", marks=pytest.mark.slow)])
def test_a_compiled_run_leaves_the_numbers_of_a_plain_one(
    on: str, tmp_path: Path, two_devices: None
) -> None:
    plain, compiled = (leaves(tmp_path / str(jit), on, train={"jit": jit}) for jit in (False, True))
    for name, array in plain[0].items():
        np.testing.assert_allclose(compiled[0][name], array, rtol=1e-5, atol=1e-6, err_msg=name)
    for row, other in zip(plain[1], compiled[1], strict=True):
        assert compiled_row(row) == pytest.approx(compiled_row(other), rel=1e-5)


def compiled_row(row: dict[str, Any]) -> dict[str, float]:
    return {
        key: row[key] for key in ("step", "rate", "loss", "accuracy", "val_loss", "val_accuracy")
    }
