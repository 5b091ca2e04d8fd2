"""A small exported net, and a server of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reszoo.serving.server import Server

CLASSES = ("cat", "dog", "<b>猫</b>", "a b", "ship", "truck", "x")


@pytest.fixture(scope="session")
def export(two_devices: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from reszoo.data.preprocessing import Preprocessing
    from reszoo.exporting.export import export_model
    from reszoo.models.build import build

    out = tmp_path_factory.mktemp("exported") / "small net"
    half = np.full(3, 0.5, np.float32)
    prepared = Preprocessing(image_size=(16, 16), channels=3, resize=16, mean=half, std=half)
    net = build("resnet8", classes=len(CLASSES), input_shape=(16, 16, 3))
    export_model(net, out, preprocessing=prepared, class_names=CLASSES)
    return out


@pytest.fixture(scope="session")
def server(export: Path) -> Iterator[Server]:
    with Server(export, timeout=0.75) as server:
        yield server


@pytest.fixture
def picture() -> bytes:
    file = io.BytesIO()
    coarse = Image.fromarray(np.random.default_rng(3).integers(0, 256, (4, 4, 3), np.uint8))
    coarse.resize((30, 20), Image.Resampling.BILINEAR).save(file, "PNG")
    return file.getvalue()
