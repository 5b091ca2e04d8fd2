"""The note on a GPU that should be there; what strategies compute is tested with the step and the workflow."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from reszoo.training import devices
from reszoo.workflow import train

IMAGE = "no GPU found by TensorFlow; computing on the CPU (docker run needs --gpus all)"
DRIVER = "no GPU found by TensorFlow; computing on the CPU (pip install 'reszoo[gpu]' brings CUDA)"


@pytest.mark.parametrize(
    "image, driver, hidden, gpus, asked, expected",
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
