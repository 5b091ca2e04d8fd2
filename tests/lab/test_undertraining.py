"""Deep models on first layers that were trained for a part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reszoo.errors import ReszooError
from reszoo.lab.undertraining import compute_measures, grow_front, undertraining
from reszoo.training.run import Run
from reszoo.zoo.catalog import spec
from tests.models.helpers import images


@pytest.mark.parametrize("name", ["plain", "resnet"])
def test_frozen_fronts_keep_their_layers_and_learn_in_new_ones(done: Path, name: str) -> None:
    front = done / "runs" / f"{name}8-seed0"
    run = Run(front)
    deep = grow_front(run.open_pipeline(), front=front, spec=spec(f"{name}14"), frozen=True)
    learns = {layer.name.rsplit("_", 1)[0] for layer in deep.layers if layer.trainable_weights}
    assert learns == {"head", *(f"stage{stage}_block2" for stage in (1, 2, 3))}
    batch = images((4, 8, 8, 1))
    expected = run.load_model()(batch, training=False)
    np.testing.assert_allclose(deep(batch, training=False), expected, rtol=1e-3, atol=1e-4)
    free = grow_front(run.open_pipeline(), front=front, spec=spec(f"{name}14"), frozen=False)
    assert all(layer.trainable for layer in free.layers)


def test_losses_and_gains_are_differences_of_test_errors() -> None:
    rows = [
        {part: {"test_error": error} for part, error in zip(parts, errors, strict=True)}
        for parts, errors in (
            (("front", "frozen", "trained"), (40.0, 30.0, 12.0)),
            (("front", "frozen", "trained"), (5.0, 4.0, 3.0)),
        )
    ]
    assert compute_measures(rows) == {
        "frozen_loss": 26, "frozen_gain": 1, "frozen_undertrained_gain": -25,
        "trained_loss": 9, "trained_gain": 2, "trained_undertrained_gain": -7,
    }  # fmt: skip


def test_shares_are_checked(tmp_path: Path) -> None:
    for shares in ((1.0,), (0.0, 1.0), (0.5, 2.0)):
        with pytest.raises(ReszooError, match="shares: .* is invalid; expected two or more"):
            undertraining(tmp_path / "out", shares=shares, quiet=True)


@pytest.mark.slow  # twelve runs
def test_undertraining_leaves_a_record_and_a_report(tmp_path: Path) -> None:
    record = undertraining(
        tmp_path / "out", depths=(8, 14), shares=(0.5, 1.0), budget=8, steps=4, quiet=True
    )
    rows = record["results"]["rows"]["residual"]
    assert [row["share"] for row in rows] == [0.5, 1.0]
    assert record["results"]["measures"]["residual_kept_cka"] > 0.9
    assert (tmp_path / "out" / "undertraining.png").is_file()
