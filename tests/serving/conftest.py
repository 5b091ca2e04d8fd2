"""A server of the shared export."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reszoo.serving.server import Server


@pytest.fixture(scope="session")
def export(exported: Any) -> Path:
    return exported.out


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
