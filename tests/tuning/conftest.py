"""A space small enough to be searched for real: nets of eight layers and a few channels on some digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from reszoo.reporting.reporter import Reporter

SPACE = """
description = "tiny"
recipe = "quickstart"
set = ["train.epochs=9", "train.export=false", "data.examples=60", "data.validation=60", "train.batch_size=30",
       "train.deterministic=true", "model.name=resnet8", "model.stem_width=4", "schedule.warmup=0"]

[search]
trials = 4

[space]
model.shortcut = ["none", "A", "B"]
model.zero_gamma = { choices = [false, true], when = { model.shortcut = ["A", "B"] } }
schedule.rate = { low = 0.01, high = 0.2, log = true, step = 2.0 }

[space.width.options]
4 = { model.widths = [4, 4, 8] }
8 = { model.widths = [8, 8, 16] }
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The file of a tiny space."""
    path = tmp_path / "tiny.toml"
    path.write_text(SPACE)
    return path


class Lines(Reporter):
    """A reporter that keeps its lines."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def line(self, text: str = "") -> None:
        """Keep one line."""
        self.lines.append(text)


@pytest.fixture
def reporter() -> Lines:
    """What a search reports to."""
    return Lines()
