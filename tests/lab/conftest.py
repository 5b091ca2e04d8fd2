"""One small experiment of trained runs, which several files look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reszoo.lab.degradation import degradation

OPTIONS: dict[str, Any] = {
    "depths": (8, 14),
    "seeds": 1,
    "budget": 4,
    "quiet": True,
    "overrides": [
        "data.examples=60",
        "train.batch_size=20",
        "data.validation=40",
        "train.export=false",
    ],
}


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished `lab degradation`: four runs and a report."""
    folder = tmp_path_factory.mktemp("lab") / "degradation"
    degradation(folder, **OPTIONS)
    return folder
