"""The sizes that claims are about are those of built models."""

from __future__ import annotations

from pathlib import Path

import pytest

import reszoo
from reszoo.lab.sizes import sizes


def test_sizes_are_counts_in_millions_and_billions(tmp_path: Path) -> None:
    measures = sizes(tmp_path / "out")["results"]["measures"]
    model = reszoo.build("resnet20")
    trained = sum(int(weight.value.shape.num_elements()) for weight in model.trainable_weights)
    assert measures["resnet20_millions"] == trained / 1e6
    # arXiv 1603.09382, section 3: (3 L - 1) / 4 of L = 54 blocks.
    assert measures["resnet110_sd_expected_blocks"] == pytest.approx((3 * 54 - 1) / 4)
    assert (tmp_path / "out/report.html").is_file()
