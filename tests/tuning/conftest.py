"""Fixtures of the tuner's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuning.helpers import SPACE, Lines


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The file of a tiny space."""
    path = tmp_path / "tiny.toml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def reporter() -> Lines:
    """What a search reports to."""
    return Lines()
