"""A run to score."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def finished(two_devices: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on the digits: 8x8 grey images, ten classes, a mean image, 150 validation images."""
    from reszoo.trainer import train

    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = ["model.name=resnet8", "train.epochs=2", "schedule.warmup=0", "train.export=false"]
    train("quickstart", overrides=settings, run_dir=folder, devices="cpu", quiet=True)
    return folder
